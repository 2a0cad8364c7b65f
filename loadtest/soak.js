// Does it stay as it is for hours? Steady orders, and one device after the other of each shop comes anew each CHURN.
// The delivery of the first and of the last quarter stand side by side in the result.

import { setInterval, clearInterval, setTimeout } from 'k6/timers';
import { options as plan } from './lib/measures.js';
import { common, time } from './lib/settings.js';
import { play, Shop } from './lib/shop.js';
import { summary } from './lib/summary.js';

const config = common({ EVERY: '2s', DURATION: '2h' });
const churnMs = time('CHURN', '30s');

export const options = plan(config, 'soak', {
  'delivery{part:first}': ['max>=0'],
  'delivery{part:last}': [`p(99)<${config.p99Ms}`],
});
export const handleSummary = summary('Does it stay as it is for hours?');

class Lasting extends Shop {
  tags(tags) {
    const quarter = Math.floor((4 * this.elapsedMs()) / config.durationMs);
    return { ...tags, part: { 0: 'first', 3: 'last' }[quarter] || 'between' };
  }

  working() {
    let turn = 0;
    const churning = setInterval(() => {
      this.devices[turn % this.devices.length].cut();
      turn += 1;
    }, churnMs);
    setTimeout(() => clearInterval(churning), config.durationMs);
  }
}

export default function () {
  play(config, (number) => new Lasting(number, config));
}
