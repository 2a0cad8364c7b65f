// A shop at work, and the comparison at its end: what was accepted against what each main received. A shop lives in
// one VU, because VUs share nothing; with several processes it lives in one of them.

import exec from 'k6/execution';
import { setTimeout } from 'k6/timers';
import { Main, Sub } from './device.js';
import { counts, shopsOf, zero } from './measures.js';

export class Shop {
  constructor(number, config) {
    this.config = config;
    this.number = number;
    this.name = `load-${config.run}-${number}`;
    this.accepted = new Map();
    this.mains = [];
    this.senders = [];
    for (let n = 0; n < config.mains; n++) {
      this.mains.push(this.main(`main-${n}`, number + n, n));
    }
    for (let n = 0; n < config.subs; n++) {
      this.senders.push(this.sender(`sub-${n}`, number + config.mains + n, n));
    }
  }

  // What a scenario may have otherwise.
  main(name, node) {
    return new Main(this, name, node);
  }

  sender(name, node) {
    return new Sub(this, name, node);
  }

  everyMs() {
    return this.config.everyMs;
  }

  tags(tags) {
    return tags;
  }

  // While it works; called once, when all mains are there.
  working() {}

  // How long ago work began.
  elapsedMs() {
    return Date.now() - this.began;
  }

  get devices() {
    return [...this.mains, ...this.senders];
  }

  accept(id, ref) {
    // One id for two keys: one of the two messages is lost.
    counts.unexpected.add(this.accepted.has(id) ? 1 : 0);
    this.accepted.set(id, ref);
    counts.accepted.add(1);
  }

  // Mains first: a message to nobody is refused, and a new device starts at the head.
  open() {
    let waiting = this.mains.length;
    for (const main of this.mains) {
      main.connect(() => {
        waiting -= 1;
        if (waiting === 0) {
          this.work();
        }
      });
    }
  }

  work() {
    this.began = Date.now();
    for (const sender of this.senders) {
      sender.connect(() => sender.start());
    }
    this.working();
    setTimeout(() => {
      this.senders.forEach((sender) => sender.stop());
      this.settle(Date.now() + this.config.settleMs);
    }, this.config.durationMs);
  }

  // Waits until everything is accepted and received, or until it is time to say that it is not.
  settle(end) {
    const open = this.senders.reduce((sum, sender) => sum + sender.unanswered.size, 0);
    const behind = this.mains.some((main) => main.lacks(this.accepted) > 0);
    if ((open > 0 || behind) && Date.now() < end) {
      setTimeout(() => this.settle(end), 250);
      return;
    }
    counts.unaccepted.add(open);
    for (const main of this.mains) {
      this.compare(main);
    }
    counts.checked.add(1);
    this.devices.forEach((device) => device.leave());
  }

  compare(main) {
    const lacks = main.lacks(this.accepted);
    counts.lost.add(lacks);
    counts.unexpected.add(main.received.size + lacks - this.accepted.size);
    if (lacks > 0) {
      const ids = [...this.accepted.keys()].filter((id) => !main.received.has(id)).slice(0, 5);
      console.error(`${this.name}/${main.name} lacks ${lacks}, the first: ${ids.join(' ')}`);
    }
  }
}

// Plays the shops of this VU.
export function play(config, shopOf) {
  zero();
  const first = (exec.vu.idInTest - 1) * config.shopsPerVu;
  for (const number of shopsOf(config).slice(first, first + config.shopsPerVu)) {
    shopOf(number).open();
  }
}
