// Is everyone back soon when all devices reconnect at once, and is nothing lost meanwhile? Every device of every shop
// cuts its connection at the same moment and dials again at once, ROUNDS times, while orders go on.

import { Trend } from 'k6/metrics';
import { setTimeout } from 'k6/timers';
import { Main, Sub } from './lib/device.js';
import { options as plan } from './lib/measures.js';
import { common, number } from './lib/settings.js';
import { play, Shop } from './lib/shop.js';
import { summary } from './lib/summary.js';

const config = common({ SHOPS: 100, SUBS: 4, EVERY: '5s', DURATION: '60s', P99_MS: 30000 });
const rounds = number('ROUNDS', 3);
const backMs = number('BACK_MS', 30000);
const back = new Trend('back', true);

export const options = plan(config, 'storm', { back: [`max<${backMs}`] });
export const handleSummary = summary('Is everyone back soon when all reconnect at once, and is nothing lost?');

// The time from the cut to the next welcome.
const timed = (Kind) =>
  class extends Kind {
    cut() {
      if (this.current !== null && !this.left) {
        this.cutAt = Date.now();
      }
      super.cut();
    }

    online() {
      if (this.cutAt !== undefined) {
        back.add(Date.now() - this.cutAt);
        this.cutAt = undefined;
      }
      super.online();
    }
  };
const StormyMain = timed(Main);
const StormySub = timed(Sub);

class Stormy extends Shop {
  main(name, node) {
    return new StormyMain(this, name, node);
  }

  sender(name, node) {
    return new StormySub(this, name, node);
  }

  // At full multiples of the pause by the clock, so that every VU and every process cuts in the same moment.
  working() {
    const pause = Math.floor(config.durationMs / (rounds + 1));
    let cuts = 0;
    const next = () => {
      if (cuts < rounds && this.elapsedMs() < config.durationMs) {
        cuts += 1;
        this.devices.forEach((device) => device.cut());
        setTimeout(next, pause - (Date.now() % pause));
      }
    };
    setTimeout(next, pause - (Date.now() % pause));
  }
}

export default function () {
  play(config, (number_) => new Stormy(number_, config));
}
