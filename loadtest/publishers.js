// Does every main get what back ends send over HTTP, and how long do their requests take? No handhelds: each shop has
// SUBS publishers, which send a message each EVERY and repeat it under its key until it is taken.

import http from 'k6/http';
import { setTimeout } from 'k6/timers';
import { counts, options as plan } from './lib/measures.js';
import { common, list, text } from './lib/settings.js';
import { play, Shop } from './lib/shop.js';
import { summary } from './lib/summary.js';

const config = common();
const apis = list('API', 'where back ends connect, such as API=http://127.0.0.1:8081');
const key = text('API_KEY', '', '');

export const options = plan(config, 'publishers', { http_req_duration: [`p(99)<${config.p99Ms}`] });
export const handleSummary = summary('Does every main get what back ends send, and how long do they wait?');

class Publisher {
  constructor(shop, name, api) {
    this.shop = shop;
    this.name = name;
    this.url = `${apis[api % apis.length]}/v1/shops/${encodeURIComponent(shop.name)}/messages`;
    this.count = 0;
    this.unanswered = new Set();
  }

  connect(ready) {
    ready();
  }

  start() {
    setTimeout(() => this.next(), Math.random() * this.shop.everyMs());
  }

  next() {
    if (!this.stopped) {
      this.unanswered.add(this.count);
      this.publish(this.count, Date.now());
      this.count += 1;
      setTimeout(() => this.next(), this.shop.everyMs());
    }
  }

  async publish(number, sent) {
    const headers = { 'Content-Type': 'application/json', 'Idempotency-Key': `${this.shop.name}-${this.name}-${number}` };
    if (key !== '') {
      headers.Authorization = `Bearer ${key}`;
    }
    const body = JSON.stringify({ type: 'add', table: '12', data: { n: number, sent } });
    const answer = await http.asyncRequest('POST', this.url, body, { headers, tags: { name: 'messages' } });
    if (answer.status === 201 || answer.status === 200) {
      this.unanswered.delete(number);
      this.shop.accept(answer.json('id'), number);
    } else if ([0, 429, 503].includes(answer.status)) {
      counts.retried.add(1);
      const wait = Number(answer.headers['Retry-After'] || 1) * 1000;
      setTimeout(() => this.publish(number, sent), wait);
    } else {
      console.error(`${this.url}: ${answer.status} ${answer.body}`);
      counts.refused.add(1, { code: String(answer.status) });
    }
  }

  stop() {
    this.stopped = true;
  }

  leave() {}
}

class Served extends Shop {
  sender(name, node) {
    return new Publisher(this, name, node);
  }
}

export default function () {
  play(config, (number) => new Served(number, config));
}
