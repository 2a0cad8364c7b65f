// A device that stays logged in, as a till or a handheld does: whoever loses its connection comes back on the next
// node. How a device logs in and what it does with what it gets is said by its kind, below and in legacy.js.

import { WebSocket } from 'k6/experimental/websockets';
import { setInterval, clearInterval, setTimeout, clearTimeout } from 'k6/timers';
import { counts, delivery } from './measures.js';
import { token } from './token.js';

const ANSWER_WITHIN_MS = 5000;
const LOGIN_WITHIN_MS = 10000;
const BACKOFF_MAX_MS = 2000;
const RETRIABLE = ['unavailable', 'rate_limited', 'backlog_full'];

export class Device {
  constructor(shop, name, role, node) {
    this.shop = shop;
    this.name = name;
    this.role = role;
    this.node = node;
    this.failures = 0;
    // The connection whose welcome came last.
    this.current = null;
    this.left = false;
  }

  connect(onFirstWelcome) {
    this.onFirstWelcome = onFirstWelcome;
    this.dial();
  }

  // A WebSocket to this address.
  open(url) {
    return new WebSocket(url, 'shoprelay.v1.json');
  }

  dial() {
    if (this.left) {
      return;
    }
    const { nodes } = this.shop.config;
    const socket = this.open(nodes[this.node % nodes.length]);
    this.node += 1;
    const connection = { socket, gone: false, welcome: null, last: null, seen: new Set() };
    connection.tooLate = setTimeout(() => this.lost(connection, 'login'), LOGIN_WITHIN_MS);
    socket.onopen = () => this.login(connection);
    socket.onmessage = (event) => this.take(connection, JSON.parse(event.data));
    socket.onerror = () => this.lost(connection, 'error');
    socket.onclose = (event) => this.lost(connection, String(event.code || 'lost'));
  }

  login(connection) {
    const { name: shop, config } = this.shop;
    const login = { op: 'login', shop, device: this.name, role: this.role };
    this.send(connection, { ...login, token: token(config.tokenSecret, shop, this.name, this.role) });
  }

  // An error is followed by a close; only the first of the two counts.
  lost(connection, why) {
    if (connection.gone) {
      return;
    }
    connection.gone = true;
    clearTimeout(connection.tooLate);
    counts.closes.add(1, { why });
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

  // Cuts the connection and comes back at once, without the wait that a good device makes.
  cut() {
    const connection = this.current;
    if (connection === null || this.left) {
      return;
    }
    connection.gone = true;
    this.current = null;
    counts.closes.add(1, { why: 'cut' });
    connection.socket.close();
    this.dial();
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
    counts.connections.add(1);
    if (this.onFirstWelcome) {
      const ready = this.onFirstWelcome;
      this.onFirstWelcome = null;
      ready();
    }
    this.online();
  }

  online() {}

  pushed() {}

  refused(op) {
    console.error(`${this.shop.name}/${this.name}: ${JSON.stringify(op)}`);
    counts.refused.add(1, { code: op.code });
  }

  leave() {
    this.left = true;
    if (this.current !== null) {
      this.send(this.current, { op: 'logout' });
      const { socket } = this.current;
      setTimeout(() => socket.close(), 1000);
    }
  }
}

// Gets orders, notes each once, and acknowledges.
export class Main extends Device {
  // `ackEveryMs` above 0 is a main that lets its acknowledgements wait; `tags` tell its delivery times apart.
  constructor(shop, name, node, { ackEveryMs = 0, tags = {} } = {}) {
    super(shop, name, 'main', node);
    this.received = new Set();
    this.ackEveryMs = ackEveryMs;
    this.tags = tags;
    if (ackEveryMs > 0) {
      this.acking = setInterval(() => this.acknowledge(this.current), ackEveryMs);
    }
  }

  // How many of these it has not got.
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
      counts.repeated.add(1);
    } else if (connection.last !== null && !isAfter(op.id, connection.last)) {
      counts.outOfOrder.add(1);
    }
    connection.seen.add(op.id);
    connection.last = op.id;
    if (this.received.has(op.id)) {
      counts.redelivered.add(1);
    } else {
      this.received.add(op.id);
      counts.received.add(1);
      delivery.add(Date.now() - op.data.sent, this.shop.tags(this.tags));
    }
    if (this.ackEveryMs === 0) {
      this.acknowledge(connection);
    }
  }

  acknowledge(connection) {
    if (connection !== null && connection.last !== null) {
      this.send(connection, { op: 'ack', id: connection.last });
    }
  }

  leave() {
    this.acknowledge(this.current);
    if (this.acking) {
      clearInterval(this.acking);
    }
    super.leave();
  }
}

// Sends orders, each under a key of its own and again under that key until it is accepted.
export class Sub extends Device {
  constructor(shop, name, node) {
    super(shop, name, 'sub', node);
    this.count = 0;
    // By key: what has not been accepted yet, and when it may be tried again.
    this.unanswered = new Map();
  }

  start() {
    const next = () => {
      if (!this.stopped) {
        this.create();
        this.notifying = setTimeout(next, this.shop.everyMs());
      }
    };
    // Spread over the interval, or all devices of the run send in the same millisecond.
    this.notifying = setTimeout(next, Math.random() * this.shop.everyMs());
    this.retrying = setInterval(() => this.trySend(Date.now()), 100);
  }

  stop() {
    this.stopped = true;
    if (this.notifying) {
      clearTimeout(this.notifying);
    }
  }

  create() {
    const key = this.keyOf(this.count);
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
        counts.retried.add(notify.tries > 0 ? 1 : 0);
        notify.tries += 1;
        const data = { n: notify.number, sent: notify.sent };
        this.send(this.current, { op: 'notify', type: 'add', table: '12', data, key, ref: notify.number });
      }
    }
  }

  keyOf(ref) {
    return `${this.shop.name}-${this.name}-${ref}`;
  }

  pushed(connection, op) {
    if (op.op === 'accepted' && this.unanswered.delete(this.keyOf(op.ref))) {
      this.shop.accept(op.id, op.ref);
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
