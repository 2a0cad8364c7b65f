// Does a till that is slow hold up the others? The last main of each shop acknowledges only each SLOW, by
// when more has come than the relay sends it without; the others acknowledge at once.

import { Main } from './lib/device.js';
import { options as plan } from './lib/measures.js';
import { common, time } from './lib/settings.js';
import { play, Shop } from './lib/shop.js';
import { summary } from './lib/summary.js';

const config = common({ SHOPS: 5, MAINS: 2, SUBS: 10, EVERY: '100ms' });
const slowMs = time('SLOW', '5s');
if (config.mains < 2) {
  throw new Error('MAINS is 1; give 2 or more, of which the last is slow');
}

export const options = plan(config, 'slow', {
  delivery: ['max>=0'],
  'delivery{till:quick}': [`p(99)<${config.p99Ms}`],
  'delivery{till:slow}': ['max>=0'],
});
export const handleSummary = summary('Does a till that is slow hold up the others?');

class Mixed extends Shop {
  main(name, node, n) {
    const isSlow = n === config.mains - 1;
    return new Main(this, name, node, { ackEveryMs: isSlow ? slowMs : 0, tags: { till: isSlow ? 'slow' : 'quick' } });
  }
}

export default function () {
  play(config, (number) => new Mixed(number, config));
}
