//! The two engines against each other: random sequences of operations from several nodes are applied
//! to both, and every outcome and every event has to be the same. Ids differ, for the clocks do; they
//! are compared by which entry of the shop they name.

mod op;

use std::fmt::Debug;
use std::time::Duration;

use rand::Rng;
use shoprelay::ids::{ConnId, DeviceId, MessageId, NodeId, ShopId};
use shoprelay::message::{Audience, Broadcast, Entry, Signal};
use shoprelay::store::embedded::EmbeddedStore;
use shoprelay::store::redis::RedisStore;
use shoprelay::store::{
    Admission, Connect, Device, FeedEvent, LegacyText, Mark, Marked, MembershipChanged, NodeReport, Published, Receipt,
    SetStatus, StatusSet, Store, StoreSettings, Stored,
};
use tempfile::TempDir;
use tokio::sync::mpsc;

use self::op::{ATTRS_BYTES_MAX, At, GROUPS_MAX, Op};
use super::suite::{device, message, message_of_api, settings, signal};
use crate::harness::Seed;
use crate::redis_server::RedisServer;

const ROUNDS: usize = 12;
const STEPS: usize = 300;
const NODES: usize = 3;
const SHOPS: [&str; 3] = ["s", "s 2", "店"];
/// Nobody publishes to it.
const FENCE: &str = "fence";
/// What [`At::Beyond`] is.
const BEYOND: MessageId = MessageId { ms: u64::MAX / 2, n: 7 };

/// One of the engines, with what is needed to tell ids in a way that both share.
struct Side {
    /// One for each node, or one for all of them.
    stores: Vec<Box<dyn Store>>,
    feed: mpsc::Receiver<FeedEvent>,
    shops: Vec<ShopId>,
    /// Every id of each shop so far.
    ids: Vec<Vec<MessageId>>,
    /// Every number so far, in the order in which they were told.
    numbers: Vec<u64>,
    _others: Vec<mpsc::Receiver<FeedEvent>>,
    _dir: Option<TempDir>,
}

impl Side {
    fn new(mut engines: Vec<(Box<dyn Store>, mpsc::Receiver<FeedEvent>)>, dir: Option<TempDir>) -> Side {
        let rest = engines.split_off(1);
        let (first, feed) = engines.remove(0);
        let (others, other_feeds): (Vec<_>, Vec<_>) = rest.into_iter().unzip();
        let stores = std::iter::once(first).chain(others).collect();
        let shops = SHOPS.map(|shop| shop.parse().unwrap()).to_vec();
        Side {
            stores,
            feed,
            shops,
            ids: vec![Vec::new(); SHOPS.len()],
            numbers: Vec::new(),
            _others: other_feeds,
            _dir: dir,
        }
    }

    async fn on_redis(nodes: &[NodeId], settings: &StoreSettings) -> Side {
        let mut engines: Vec<(Box<dyn Store>, _)> = Vec::new();
        for node in nodes {
            let url = RedisServer::shared().url();
            let (store, feed) = RedisStore::start(&url, None, node.clone(), settings.clone()).await.unwrap();
            engines.push((Box::new(store), feed));
        }
        Side::new(engines, None)
    }

    async fn on_embedded(nodes: &[NodeId], settings: &StoreSettings) -> Side {
        let dir = TempDir::with_prefix("shoprelay-store-").unwrap();
        let started = EmbeddedStore::start(dir.path().to_owned(), nodes[0].clone(), settings.clone()).await;
        let (store, feed) = started.unwrap();
        Side::new(vec![(Box::new(store), feed)], Some(dir))
    }

    fn id(&self, shop: usize, at: At) -> MessageId {
        let ids = &self.ids[shop];
        match at {
            At::Zero => MessageId::ZERO,
            At::Nth(back) => ids.iter().rev().nth(back).copied().unwrap_or_default(),
            At::Beyond => BEYOND,
        }
    }

    fn name(&self, shop: usize, id: MessageId) -> String {
        if id == MessageId::ZERO || id == BEYOND {
            return format!("{id}");
        }
        let nth = self.ids[shop].iter().position(|known| *known == id);
        nth.map_or_else(|| "an unknown id".to_owned(), |nth| format!("#{nth}"))
    }

    /// A new id, which has to be above all others of the shop.
    fn learn(&mut self, shop: usize, id: MessageId) -> String {
        let ids = &mut self.ids[shop];
        assert!(ids.last().is_none_or(|last| *last < id), "{id} is not above {:?}", ids.last());
        ids.push(id);
        self.name(shop, id)
    }

    /// The same for a number: which it is of all that were told.
    fn learn_number(&mut self, number: u64) -> String {
        assert_ne!(number, 0);
        let nth = self.numbers.iter().position(|known| *known == number).unwrap_or_else(|| {
            self.numbers.push(number);
            self.numbers.len() - 1
        });
        format!("No. {nth} ")
    }

    fn name_in(&self, shop: &ShopId, id: MessageId) -> String {
        let shop = self.shops.iter().position(|known| known == shop).unwrap();
        format!("{shop} {}", self.name(shop, id))
    }

    fn stored(&self, shop: usize, stored: &Stored) -> String {
        let entry = match &stored.entry {
            Entry::Message(message) => format!("{message:?}"),
            Entry::Status(change) => {
                format!("{} {} {:?} {:?}", self.name(shop, change.message), change.status, change.by, change.sender)
            }
            Entry::Membership(change) => format!("{change:?}"),
        };
        format!("{} {entry} {:?} {:?}", self.name(shop, stored.id), stored.dealt, stored.unseen_by)
    }

    /// Does it as this node, and tells the outcome in a way that both engines share.
    async fn apply(&mut self, node: usize, nodes: &[NodeId], shop: usize, op: &Op) -> String {
        let of = self.shops[shop].clone();
        match op {
            Op::Publish(publish) => match self.store(node).publish(&of, publish).await.unwrap() {
                Published::Stored(id) => format!("stored {}", self.learn(shop, id)),
                Published::Duplicate(id) => format!("duplicate {}", self.name(shop, id)),
                other => format!("{other:?}"),
            },
            Op::SetStatus { message, status, expect, by } => {
                let change = SetStatus {
                    message: self.id(shop, *message),
                    status: status.parse().unwrap(),
                    expect: expect.map(|expect| expect.parse().unwrap()),
                    by: by.clone(),
                    initial: "open".parse().unwrap(),
                    sender: Some(device("hand")),
                };
                match self.store(node).set_status(&of, &change).await.unwrap() {
                    StatusSet::Set(id) => format!("set {}", self.learn(shop, id)),
                    other => format!("{other:?}"),
                }
            }
            Op::Connect(login) => {
                let connect = Connect {
                    device: login.device.clone(),
                    role: login.role,
                    conn: conn(nodes, login.conn),
                    node: nodes[node].clone(),
                    meta: login.meta.clone(),
                    groups: login.groups.clone(),
                    user: login.user.clone(),
                };
                match self.store(node).connect(&of, &connect).await.unwrap() {
                    Admission::Admitted(found) => {
                        let (cursor, head) = (self.name(shop, found.cursor), self.name(shop, found.head));
                        format!("{cursor} {head} {:?} {:?}", found.replaced, found.membership)
                    }
                    Admission::Barred => "barred".to_owned(),
                }
            }
            Op::Mark(marks) => self.mark(node, shop, marks).await,
            Op::Signal(signal) => said(self.store(node).signal(&of, signal).await),
            Op::Receipt(device, at) => {
                let message = self.id(shop, *at);
                let receipt = Receipt { sender: device.clone(), message, device: device.clone(), at_ms: 1 };
                said(self.store(node).send_receipts(&of, &[receipt]).await)
            }
            Op::Disconnect(device, nth, settled) => {
                let conn = conn(nodes, *nth);
                let settled = settled.map(|at| self.id(shop, at));
                said(self.store(node).disconnect(&of, device, &conn, settled).await)
            }
            Op::Trim(at, max) => said(self.store(node).trim(&of, self.id(shop, *at), *max).await),
            Op::Forget(device, which) => said(self.store(node).forget(&of, device, *which).await),
            Op::Membership(change) => match self.store(node).change_membership(&of, change).await.unwrap() {
                MembershipChanged::Changed(id) => format!("changed {}", self.learn(shop, id)),
                other => format!("{other:?}"),
            },
            Op::ChangeAttrs(device, change) => said(self.store(node).change_attrs(&of, device, change).await),
            Op::Evict(device, nth, last) => {
                let conn = nth.map(|nth| conn(nodes, nth));
                said(self.store(node).evict(&of, device, conn.as_ref(), last.as_ref()).await)
            }
            Op::Bar(device, last) => {
                let by = "pos".parse().unwrap();
                said(self.store(node).bar(&of, device, &by, last.as_ref()).await)
            }
            Op::Unbar(device) => said(self.store(node).unbar(&of, device).await),
            Op::Barred => {
                let mut barred = self.store(node).barred(&of).await;
                barred.iter_mut().flatten().for_each(|barred| barred.since_ms = 0);
                said(barred)
            }
            Op::Broadcast => {
                let signal = signal(message_of_api(Audience::All));
                let broadcast = Broadcast { signal, except: vec![conn(nodes, 1)].into() };
                said(self.store(node).broadcast(&broadcast).await)
            }
            Op::Numbers(messages) => {
                let messages: Vec<MessageId> = messages.iter().map(|at| self.id(shop, *at)).collect();
                let told = self.store(node).numbers(&of, &messages).await.unwrap();
                told.into_iter().map(|number| self.learn_number(number)).collect()
            }
            Op::Numbered(back) => {
                let number = self.numbers.iter().rev().nth(*back).copied().unwrap_or_default();
                let found = self.store(node).numbered(number).await.unwrap();
                format!("{:?}", found.map(|(of, id)| self.name_in(&of, id)))
            }
            Op::Legacy(nth, is_there) => said(self.store(node).note_legacy(&conn(nodes, *nth), *is_there).await),
            Op::LegacyConns => {
                // Those of a node that was not heard of are not looked for, where there is more than one.
                self.beat(0, nodes).await;
                let mut conns = self.store(node).legacy_conns().await.unwrap();
                conns.sort_by(|a, b| a.as_str().cmp(b.as_str()));
                format!("{conns:?}")
            }
            Op::Text => {
                let text = LegacyText { conns: vec![conn(nodes, 1), conn(nodes, 2)], text: "a\nb".into() };
                said(self.store(node).send_text(&text).await)
            }
            Op::Claim(task) => said(self.store(node).claim(task, &nodes[node], Duration::from_secs(60)).await),
            Op::Beat => self.beat(node, nodes).await,
            Op::Leave => said(self.store(node).leave(&nodes[node]).await),
            // The feed that is compared is the first node's.
            Op::Subscribe => said(self.store(0).subscribe(&of).await),
            Op::Unsubscribe => {
                self.store(0).unsubscribe(&of).await.unwrap();
                // Events that are on their way may still come. What is asked for next is answered only when
                // the server has dropped the channel.
                said(self.store(0).subscribe(&FENCE.parse().unwrap()).await)
            }
            Op::LogLen => said(self.store(node).log_len(&of).await),
            Op::Shops => said(self.store(node).shops().await),
            Op::Attrs(device) => said(self.store(node).attrs(&of, device).await),
            Op::Locate(nth) => {
                let mut found = self.store(node).locate(&conn(nodes, *nth)).await;
                found.iter_mut().flatten().for_each(|(_, online)| online.since_ms = 0);
                said(found)
            }
            Op::Read(..) | Op::Heads | Op::Devices | Op::Device(_) | Op::Online => self.ask(node, shop, op).await,
        }
    }

    fn store(&self, node: usize) -> &dyn Store {
        &*self.stores[node % self.stores.len()]
    }

    async fn mark(&self, node: usize, shop: usize, marks: &[(DeviceId, At, Vec<At>)]) -> String {
        let mark = |(device, through, expired): &(DeviceId, At, Vec<At>)| Mark {
            device: device.clone(),
            through: self.id(shop, *through),
            expired: expired.iter().map(|at| self.id(shop, *at)).collect(),
        };
        let marks: Vec<Mark> = marks.iter().map(mark).collect();
        let outcomes = self.store(node).mark_delivered(&self.shops[shop], &marks).await.unwrap();
        let told = outcomes.iter().map(|outcome| match outcome {
            Marked::Advanced { from } => self.name(shop, *from),
            Marked::Before => "before".to_owned(),
        });
        told.collect::<Vec<_>>().join(" ")
    }

    async fn beat(&self, node: usize, nodes: &[NodeId]) -> String {
        let beats = self.store(node).beat(&nodes[node], &NodeReport::default()).await.unwrap();
        let mut heard: Vec<usize> =
            beats.iter().map(|beat| nodes.iter().position(|node| *node == beat.node).unwrap()).collect();
        heard.sort();
        format!("{heard:?}")
    }

    async fn ask(&self, node: usize, shop: usize, op: &Op) -> String {
        let (store, of) = (self.store(node), &self.shops[shop]);
        match op {
            Op::Read(after, limit) => {
                let page = store.read(of, self.id(shop, *after), *limit).await.unwrap();
                let entries: Vec<String> = page.entries.iter().map(|entry| self.stored(shop, entry)).collect();
                format!("{entries:#?} {} {}", self.name(shop, page.last), page.is_end)
            }
            Op::Heads => {
                let heads = store.heads(&self.shops).await.unwrap();
                let names = heads.iter().enumerate().map(|(shop, head)| self.name(shop, head.unwrap()));
                names.collect::<Vec<_>>().join(" ")
            }
            Op::Devices => {
                let devices = store.devices(of).await.unwrap();
                devices.into_iter().map(|device| self.device(shop, device)).collect()
            }
            Op::Device(device) => {
                let found = store.device(of, device).await.unwrap();
                format!("{:?}", found.map(|device| self.device(shop, device)))
            }
            _ => {
                let mut online = store.online(of).await.unwrap();
                online.iter_mut().for_each(|entry| entry.since_ms = 0);
                format!("{online:?}")
            }
        }
    }

    fn device(&self, shop: usize, mut device: Device) -> String {
        assert!(device.first_seen_ms <= device.last_seen_ms, "{device:?}");
        let (at, cursor) = (self.name(shop, device.registered_at), self.name(shop, device.cursor));
        (device.registered_at, device.cursor) = (MessageId::ZERO, MessageId::ZERO);
        (device.first_seen_ms, device.last_seen_ms) = (0, 0);
        format!("{device:?} {at} {cursor}\n")
    }

    /// All events so far, up to a last one that is sent now.
    async fn events(&mut self) -> Vec<String> {
        let last = self.shops[0].clone();
        self.store(0).subscribe(&last).await.unwrap();
        let signal = Signal { at_ms: u64::MAX, ..signal(message(Audience::All)) };
        self.store(0).signal(&last, &signal).await.unwrap();
        let mut told = Vec::new();
        loop {
            let event = tokio::time::timeout(Duration::from_secs(10), self.feed.recv()).await;
            let place = |of: &ShopId| self.shops.iter().position(|shop| shop == of).unwrap();
            told.push(match event.expect("an event is due").expect("the feed is open") {
                FeedEvent::Signal { signal, .. } if signal.at_ms == u64::MAX => return told,
                FeedEvent::Signal { shop, signal, .. } => format!("{shop} {signal:?}"),
                FeedEvent::Entry { shop, prev, stored, .. } => {
                    let of = place(&shop);
                    format!("{shop} {} {}", self.name(of, prev), self.stored(of, &stored))
                }
                FeedEvent::Receipt { shop, receipt } => {
                    let message = self.name(place(&shop), receipt.message);
                    format!("{shop} {message} {} {}", receipt.sender, receipt.device)
                }
                other => format!("{other:?}"),
            });
        }
    }

    async fn close(self) {
        for store in self.stores {
            store.close().await;
        }
    }
}

/// One of a few connections, whichever node holds it.
fn conn(nodes: &[NodeId], nth: usize) -> ConnId {
    ConnId::of(&nodes[0], nth as u64)
}

fn said<T: Debug, E: Debug>(outcome: Result<T, E>) -> String {
    format!("{:?}", outcome.unwrap())
}

#[tokio::test]
async fn both_engines_give_the_same_answers_and_tell_the_same_events() {
    let seed = Seed::chosen();
    let mut random = seed.random();
    for _ in 0..ROUNDS {
        let settings = StoreSettings {
            log_entries_max: random.random_range(5..40),
            device_groups_max: GROUPS_MAX,
            attrs_bytes_max: ATTRS_BYTES_MAX,
            ..settings()
        };
        let nodes: Vec<NodeId> = (0..NODES).map(|_| NodeId::fresh()).collect();
        let mut redis = Side::on_redis(&nodes, &settings).await;
        let mut embedded = Side::on_embedded(&nodes, &settings).await;
        for shop in 0..SHOPS.len() {
            for side in [&mut redis, &mut embedded] {
                side.apply(0, &nodes, shop, &Op::Subscribe).await;
            }
        }
        for step in 0..STEPS {
            let (node, shop) = (random.random_range(0..NODES), random.random_range(0..SHOPS.len()));
            let op = Op::random(&mut random);
            let expected = redis.apply(node, &nodes, shop, &op).await;
            let found = embedded.apply(node, &nodes, shop, &op).await;
            assert_eq!(found, expected, "step {step}, node {node}, shop {shop}: {op:?} (Redis is on the right)");
        }
        assert_eq!(embedded.events().await, redis.events().await, "(Redis is on the right)");
        redis.close().await;
        embedded.close().await;
    }
}
