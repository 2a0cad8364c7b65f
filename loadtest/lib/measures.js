// What every scenario counts, and the promises it holds the relay to.

import { Counter, Trend } from 'k6/metrics';

export const counts = {
  accepted: new Counter('accepted'),
  received: new Counter('received'),
  lost: new Counter('lost'),
  unexpected: new Counter('unexpected'),
  unaccepted: new Counter('unaccepted'),
  repeated: new Counter('repeated'),
  outOfOrder: new Counter('out_of_order'),
  refused: new Counter('refused'),
  retried: new Counter('retried'),
  redelivered: new Counter('redelivered'),
  connections: new Counter('connections'),
  closes: new Counter('closes'),
  checked: new Counter('shops_checked'),
};

// Milliseconds from the first attempt to send to the first receipt, by one clock: that of this process.
export const delivery = new Trend('delivery', true);

// Together: what was accepted is what was received, by every main, once and in order.
const NONE = ['lost', 'unexpected', 'unaccepted', 'repeated', 'out_of_order', 'refused'];

// A threshold on a counter that nothing was added to would not be looked at.
export function zero() {
  for (const counter of Object.values(counts)) {
    counter.add(0);
  }
}

// The shops that this process plays, of all that the processes play together.
export function shopsOf(config) {
  const numbers = [];
  for (let number = config.instance; number < config.shops; number += config.instances) {
    numbers.push(number);
  }
  return numbers;
}

// k6's options: one iteration a VU, in which its shops live; and the promises.
export function options(config, question, promises = {}) {
  const shops = shopsOf(config).length;
  if (shops === 0) {
    throw new Error(`INSTANCE ${config.instance} has no shop to play; give more SHOPS or fewer INSTANCES`);
  }
  const thresholds = {};
  for (const name of NONE) {
    thresholds[name] = ['count==0'];
  }
  return {
    scenarios: {
      [question]: {
        executor: 'per-vu-iterations',
        vus: Math.ceil(shops / config.shopsPerVu),
        iterations: 1,
        maxDuration: `${Math.ceil((config.durationMs + config.settleMs) / 1000) + 120}s`,
      },
    },
    thresholds: {
      ...thresholds,
      delivery: [`p(99)<${config.p99Ms}`],
      // Nothing above is worth anything if a shop never got to its check.
      shops_checked: [`count==${shops}`],
      accepted: ['count>0'],
      ...promises,
    },
    summaryTrendStats: ['count', 'min', 'avg', 'med', 'p(95)', 'p(99)', 'max'],
    discardResponseBodies: false,
  };
}
