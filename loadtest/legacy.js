// Do devices of the old server, which prove receipt by Pong alone, get every order? Needs nodes with --legacy. The old
// protocol answers no order, so what was sent counts as accepted: let no fault happen to this run.

import { WebSocket } from 'k6/experimental/websockets';
import { setTimeout } from 'k6/timers';
import { Main, Sub } from './lib/device.js';
import { counts, delivery, options as plan } from './lib/measures.js';
import { common } from './lib/settings.js';
import { token } from './lib/token.js';
import { play, Shop } from './lib/shop.js';
import { summary } from './lib/summary.js';

const config = common();
config.nodes = config.nodes.map((node) => node.replace(/\/ws$/, '/'));

export const options = plan(config, 'legacy');
export const handleSummary = summary('Do devices of the old server get every order?');

// The old login has no answer, and what it sends is no op.
const old = (Kind, type) =>
  class extends Kind {
    open(url) {
      return new WebSocket(url);
    }

    login(connection) {
      const { name: shop } = this.shop;
      const signed = token(config.tokenSecret, shop, this.name, this.role);
      this.send(connection, { op: 'login', shop_id: shop, client_id: this.name, type, token: signed });
      // Orders that come before it is served would be lost with no answer; it is nowhere said when that is.
      setTimeout(() => this.welcomed(connection, {}), 1000);
    }

    take(connection, op) {
      if (op.code === 1) {
        this.refused({ code: op.msg });
      } else {
        this.pushed(connection, op);
      }
    }
  };

class OldMain extends old(Main, '主') {
  // A push has neither the order's data nor its id of the log: the table's number tells which order it is.
  pushed(connection, push) {
    const order = push.table_id;
    if (order === undefined) {
      return;
    }
    counts.repeated.add(connection.seen.has(order) ? 1 : 0);
    connection.seen.add(order);
    if (this.received.has(order)) {
      counts.redelivered.add(1);
      return;
    }
    this.received.add(order);
    counts.received.add(1);
    delivery.add(Date.now() - Number(order.split('-')[0]));
  }

  // The WebSocket answers each Ping by itself, and that is all the proof there is.
  acknowledge() {}
}

class OldSub extends old(Sub, '副') {
  trySend() {
    if (this.current === null) {
      return;
    }
    for (const [key, notify] of this.unanswered) {
      const order = `${notify.sent}-${this.name}-${notify.number}`;
      const { name: shop_id } = this.shop;
      this.send(this.current, { op: 'notify', from_client_type: '副', shop_id, table_id: order, type: '加菜', data: '', user_info: '', from_client_id: this.name, status: '0' });
      this.unanswered.delete(key);
      this.shop.accept(order, notify.number);
    }
  }
}

class OldShop extends Shop {
  main(name, node) {
    return new OldMain(this, name, node);
  }

  sender(name, node) {
    return new OldSub(this, name, node);
  }
}

export default function () {
  play(config, (number) => new OldShop(number, config));
}
