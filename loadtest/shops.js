// Shops at work: every sub sends a message a second, every main acknowledges what it gets, everyone
// comes back on another node when a connection goes. At the end each shop compares what was accepted
// with what its mains received, and the run fails unless the two are the same.
//
// A shop lives in one VU, because VUs share nothing. Settings and outcome: see README.md.

import { WebSocket } from 'k6/experimental/websockets';
import { setInterval, clearInterval, setTimeout, clearTimeout } from 'k6/timers';
import { Counter, Trend } from 'k6/metrics';
import exec from 'k6/execution';

const NODES = (__ENV.NODES || 'ws://127.0.0.1:8080/ws').split(',');
const SHOPS = Number(__ENV.SHOPS || 100);
const DEVICES = Number(__ENV.DEVICES || 400);
const MAINS = Number(__ENV.MAINS || 1);
const SHOPS_PER_VU = Number(__ENV.SHOPS_PER_VU || 5);
const EVERY_MS = Number(__ENV.EVERY_MS || 1000);
const DURATION_MS = milliseconds(__ENV.DURATION || '2m');
const SETTLE_MS = milliseconds(__ENV.SETTLE || '60s');
const RUN = __ENV.RUN || Date.now().toString(36);

const SUBS = Math.floor(DEVICES / SHOPS) - MAINS;
const VUS = Math.ceil(SHOPS / SHOPS_PER_VU);
const ANSWER_WITHIN_MS = 5000;
const LOGIN_WITHIN_MS = 10000;
const BACKOFF_MAX_MS = 2000;
const RETRIABLE = ['unavailable', 'rate_limited', 'backlog_full'];

if (SUBS < 1) {
  throw new Error(`DEVICES=${DEVICES} in SHOPS=${SHOPS} leaves no sub beside ${MAINS} mains in each`);
}

const accepted = new Counter('accepted');
const received = new Counter('received');
const missing = new Counter('missing');
const unexpected = new Counter('unexpected');
const unaccepted = new Counter('unaccepted');
const repeated = new Counter('repeated');
const outOfOrder = new Counter('out_of_order');
const refused = new Counter('refused');
const retried = new Counter('retried');
const redelivered = new Counter('redelivered');
const connections = new Counter('connections');
const closes = new Counter('closes');
const shopsChecked = new Counter('shops_checked');
const latency = new Trend('notify_to_message', true);

export const options = {
  scenarios: {
    shops: {
      executor: 'per-vu-iterations',
      vus: VUS,
      iterations: 1,
      maxDuration: `${Math.ceil((DURATION_MS + SETTLE_MS) / 1000) + 60}s`,
    },
  },
  thresholds: {
    // Together: received is accepted, for every main.
    missing: ['count==0'],
    unexpected: ['count==0'],
    unaccepted: ['count==0'],
    repeated: ['count==0'],
    out_of_order: ['count==0'],
    refused: ['count==0'],
    // Nothing above is worth anything if a shop never got to its check.
    shops_checked: [`count==${SHOPS}`],
    accepted: ['count>0'],
  },
  summaryTrendStats: ['min', 'avg', 'med', 'p(95)', 'p(99)', 'max'],
};

export default function () {
  for (const counter of [missing, unexpected, unaccepted, repeated, outOfOrder, refused, retried, redelivered]) {
    counter.add(0);
  }
  const first = (exec.vu.idInTest - 1) * SHOPS_PER_VU;
  for (let n = first; n < Math.min(first + SHOPS_PER_VU, SHOPS); n++) {
    new Shop(n).open();
  }
}

class Shop {
  constructor(number) {
    this.name = `load-${RUN}-${number}`;
    this.accepted = new Map();
    this.mains = [];
    this.subs = [];
    for (let n = 0; n < MAINS; n++) {
      this.mains.push(new Main(this, `main-${n}`, number + n));
    }
    for (let n = 0; n < SUBS; n++) {
      this.subs.push(new Sub(this, `sub-${n}`, number + MAINS + n));
    }
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
    for (const sub of this.subs) {
      sub.connect(() => sub.start());
    }
    setTimeout(() => {
      this.subs.forEach((sub) => sub.stop());
      this.settle(Date.now() + SETTLE_MS);
    }, DURATION_MS);
  }

  settle(end) {
    const open = this.subs.reduce((sum, sub) => sum + sub.unanswered.size, 0);
    const behind = this.mains.some((main) => main.lacks(this.accepted) > 0);
    if ((open > 0 || behind) && Date.now() < end) {
      setTimeout(() => this.settle(end), 250);
      return;
    }
    unaccepted.add(open);
    for (const main of this.mains) {
      const lacks = main.lacks(this.accepted);
      missing.add(lacks);
      unexpected.add(main.received.size + lacks - this.accepted.size);
      if (lacks > 0) {
        const ids = [...this.accepted.keys()].filter((id) => !main.received.has(id)).slice(0, 5);
        console.error(`${this.name}/${main.name} lacks ${lacks}, the first: ${ids.join(' ')}`);
      }
    }
    shopsChecked.add(1);
    [...this.mains, ...this.subs].forEach((device) => device.leave());
  }
}

// A device that stays logged in: `current` is the connection whose welcome came last.
class Device {
  constructor(shop, name, role, node) {
    this.shop = shop;
    this.name = name;
    this.role = role;
    this.node = node;
    this.failures = 0;
    this.current = null;
    this.left = false;
  }

  connect(onFirstWelcome) {
    this.onFirstWelcome = onFirstWelcome;
    this.dial();
  }

  dial() {
    if (this.left) {
      return;
    }
    const socket = new WebSocket(NODES[this.node % NODES.length], 'shoprelay.v1.json');
    this.node += 1;
    const connection = { socket, gone: false, welcome: null, last: null, seen: new Set() };
    connection.tooLate = setTimeout(() => this.lost(connection, 'login'), LOGIN_WITHIN_MS);
    socket.onopen = () => this.send(connection, { op: 'login', shop: this.shop.name, device: this.name, role: this.role });
    socket.onmessage = (event) => this.take(connection, JSON.parse(event.data));
    socket.onerror = () => this.lost(connection, 'error');
    socket.onclose = (event) => this.lost(connection, String(event.code || 'lost'));
  }

  // An error is followed by a close; only the first of the two counts.
  lost(connection, why) {
    if (connection.gone) {
      return;
    }
    connection.gone = true;
    clearTimeout(connection.tooLate);
    closes.add(1, { why });
    connection.socket.close();
    const isReplaced = this.current !== null && this.current !== connection && connection.welcome !== null;
    if (this.left || isReplaced) {
      return;
    }
    this.current = null;
    const backoff = Math.min(100 * 2 ** this.failures, BACKOFF_MAX_MS);
    this.failures += 1;
    setTimeout(() => this.dial(), backoff * (0.5 + Math.random()));
  }

  send(connection, op) {
    if (!connection.gone && connection.socket.readyState === 1) {
      connection.socket.send(JSON.stringify(op));
    }
  }

  take(connection, op) {
    switch (op.op) {
      case 'welcome':
        this.welcomed(connection, op);
        break;
      case 'goaway':
        // The old connection serves until the new one is there.
        setTimeout(() => this.dial(), op.reconnect_in_ms);
        break;
      case 'error':
        if (connection.welcome === null) {
          this.lost(connection, op.code);
        } else {
          this.refused(op);
        }
        break;
      default:
        this.pushed(connection, op);
    }
  }

  welcomed(connection, op) {
    clearTimeout(connection.tooLate);
    connection.welcome = op;
    this.current = connection;
    this.failures = 0;
    connections.add(1);
    if (this.onFirstWelcome) {
      const ready = this.onFirstWelcome;
      this.onFirstWelcome = null;
      ready();
    }
    this.online();
  }

  online() {}

  refused(op) {
    console.error(`${this.shop.name}/${this.name}: ${JSON.stringify(op)}`);
    refused.add(1, { code: op.code });
  }

  leave() {
    this.left = true;
    if (this.current !== null) {
      this.send(this.current, { op: 'logout' });
      const socket = this.current.socket;
      setTimeout(() => socket.close(), 1000);
    }
  }
}

class Main extends Device {
  constructor(shop, name, node) {
    super(shop, name, 'main', node);
    this.received = new Set();
  }

  lacks(ids) {
    let count = 0;
    for (const id of ids.keys()) {
      count += this.received.has(id) ? 0 : 1;
    }
    return count;
  }

  pushed(connection, op) {
    if (op.op !== 'message') {
      return;
    }
    if (connection.seen.has(op.id)) {
      repeated.add(1);
    } else if (connection.last !== null && !isAfter(op.id, connection.last)) {
      outOfOrder.add(1);
    }
    connection.seen.add(op.id);
    connection.last = op.id;
    if (this.received.has(op.id)) {
      redelivered.add(1);
    } else {
      this.received.add(op.id);
      received.add(1);
      latency.add(Date.now() - op.data.sent);
    }
    this.send(connection, { op: 'ack', id: op.id });
  }
}

class Sub extends Device {
  constructor(shop, name, node) {
    super(shop, name, 'sub', node);
    this.count = 0;
    // By key: what has not been accepted yet, and when it may be tried again.
    this.unanswered = new Map();
  }

  start() {
    // Spread over the interval, or all devices of the run send in the same millisecond.
    setTimeout(() => {
      if (this.stopped) {
        return;
      }
      this.notifying = setInterval(() => this.create(), EVERY_MS);
    }, Math.random() * EVERY_MS);
    this.retrying = setInterval(() => this.trySend(Date.now()), 100);
  }

  stop() {
    this.stopped = true;
    if (this.notifying) {
      clearInterval(this.notifying);
    }
  }

  create() {
    const key = `${RUN}-${this.shop.name}-${this.name}-${this.count}`;
    this.unanswered.set(key, { number: this.count, sent: Date.now(), tryAt: 0, tries: 0 });
    this.count += 1;
    this.trySend(Date.now());
  }

  online() {
    // What an older connection has asked gets no answer on this one.
    this.unanswered.forEach((notify) => {
      notify.tryAt = 0;
    });
    this.trySend(Date.now());
  }

  trySend(now) {
    if (this.current === null) {
      return;
    }
    for (const [key, notify] of this.unanswered) {
      if (notify.tryAt <= now) {
        notify.tryAt = now + ANSWER_WITHIN_MS;
        retried.add(notify.tries > 0 ? 1 : 0);
        notify.tries += 1;
        const data = { n: notify.number, sent: notify.sent };
        this.send(this.current, { op: 'notify', type: 'add', table: '12', data, key, ref: notify.number });
      }
    }
  }

  keyOf(ref) {
    return `${RUN}-${this.shop.name}-${this.name}-${ref}`;
  }

  pushed(connection, op) {
    if (op.op === 'accepted' && this.unanswered.delete(this.keyOf(op.ref))) {
      // One id for two keys: one of the two messages is lost.
      unexpected.add(this.shop.accepted.has(op.id) ? 1 : 0);
      this.shop.accepted.set(op.id, op.ref);
      accepted.add(1);
    } else if (op.op === 'message' || op.op === 'status') {
      this.send(connection, { op: 'ack', id: op.id });
    }
  }

  refused(op) {
    const notify = this.unanswered.get(this.keyOf(op.ref));
    if (notify === undefined || !RETRIABLE.includes(op.code)) {
      super.refused(op);
      return;
    }
    notify.tryAt = Date.now() + (op.retry_after_ms || 1000);
  }

  leave() {
    clearInterval(this.retrying);
    super.leave();
  }
}

// Ids compare by their two numbers.
function isAfter(id, other) {
  const [ms, n] = id.split('-').map(Number);
  const [otherMs, otherN] = other.split('-').map(Number);
  return ms > otherMs || (ms === otherMs && n > otherN);
}

function milliseconds(text) {
  const parts = /^(\d+)(ms|s|m|h)$/.exec(text);
  if (parts === null) {
    throw new Error(`no duration: ${text}; write 500ms, 30s, 2m or 1h`);
  }
  return Number(parts[1]) * { ms: 1, s: 1000, m: 60000, h: 3600000 }[parts[2]];
}
