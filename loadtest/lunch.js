// Does it keep up when everyone orders at noon? The pace rises through the first third to PEAK times the usual, stays
// there for a third, and falls.

import { options as plan } from './lib/measures.js';
import { common, number } from './lib/settings.js';
import { play, Shop } from './lib/shop.js';
import { summary } from './lib/summary.js';

const config = common({ EVERY: '5s', DURATION: '90s' });
const peak = number('PEAK', 20);

export const options = plan(config, 'lunch', { 'delivery{part:peak}': [`p(99)<${config.p99Ms}`] });
export const handleSummary = summary('Does it keep up when everyone orders at noon?');

class Restaurant extends Shop {
  // 0 at the calm ends, 1 at the peak.
  height() {
    const third = config.durationMs / 3;
    const elapsed = this.elapsedMs();
    return Math.max(0, Math.min(1, elapsed / third, (config.durationMs - elapsed) / third));
  }

  everyMs() {
    return config.everyMs / (1 + (peak - 1) * this.height());
  }

  tags(tags) {
    return { ...tags, part: this.height() === 1 ? 'peak' : 'slope' };
  }
}

export default function () {
  play(config, (number_) => new Restaurant(number_, config));
}
