// Does every main get every order, and how fast?

import { options as plan } from './lib/measures.js';
import { common } from './lib/settings.js';
import { play, Shop } from './lib/shop.js';
import { summary } from './lib/summary.js';

const config = common();

export const options = plan(config, 'steady');
export const handleSummary = summary('Does every main get every order, and how fast?');

export default function () {
  play(config, (number) => new Shop(number, config));
}
