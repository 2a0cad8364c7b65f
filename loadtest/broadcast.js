// Does what a till shows its handhelds reach all of them, and how fast? One main of each shop sends a signal each EVERY;
// signals are not stored, so a handheld that misses one has missed it, and the numbers in them tell.

import { Counter } from 'k6/metrics';
import { setInterval, clearInterval, setTimeout } from 'k6/timers';
import { Device } from './lib/device.js';
import { counts, delivery, options as plan } from './lib/measures.js';
import { common } from './lib/settings.js';
import { play, Shop } from './lib/shop.js';
import { summary } from './lib/summary.js';

const config = common({ SHOPS: 2, SUBS: 100, EVERY: '500ms', SETTLE: '5s' });
const missed = new Counter('missed');

export const options = plan(config, 'broadcast', { missed: ['count==0'], received: ['count>0'] });
export const handleSummary = summary("Does one till's signal reach all of many, and how fast?");

class Till extends Device {
  constructor(shop, name, node) {
    super(shop, name, 'main', node);
    this.sent = 0;
  }

  start() {
    this.sending = setInterval(() => {
      if (this.current !== null) {
        const data = { n: this.sent, sent: Date.now() };
        this.send(this.current, { op: 'notify', type: 'menu', data, ref: this.sent });
        this.sent += 1;
      }
    }, config.everyMs);
  }

  pushed(connection, op) {
    counts.accepted.add(op.op === 'accepted' ? 1 : 0);
  }
}

class Handheld extends Device {
  constructor(shop, name, node) {
    super(shop, name, 'sub', node);
    this.seen = new Set();
  }

  pushed(connection, op) {
    if (op.op === 'signal') {
      counts.repeated.add(this.seen.has(op.data.n) ? 1 : 0);
      this.seen.add(op.data.n);
      counts.received.add(1);
      delivery.add(Date.now() - op.data.sent);
    }
  }
}

// Handhelds first: a signal is for who is there.
class House extends Shop {
  main(name, node) {
    return new Till(this, name, node);
  }

  sender(name, node) {
    return new Handheld(this, name, node);
  }

  open() {
    let waiting = this.devices.length;
    this.devices.forEach((device) => {
      device.connect(() => {
        waiting -= 1;
        if (waiting === 0) {
          this.work();
        }
      });
    });
  }

  work() {
    this.mains[0].start();
    setTimeout(() => {
      clearInterval(this.mains[0].sending);
      // A signal is on its way for no longer than this.
      setTimeout(() => this.compareAll(), config.settleMs);
    }, config.durationMs);
  }

  compareAll() {
    for (const handheld of this.senders) {
      missed.add(this.mains[0].sent - handheld.seen.size);
    }
    counts.checked.add(1);
    this.devices.forEach((device) => device.leave());
  }
}

export default function () {
  missed.add(0);
  play(config, (number) => new House(number, config));
}
