//! What the tests of every engine share: an engine to begin with, and the two on which each is run.

use std::time::Duration;

use shoprelay::ids::{ConnId, DeviceId, MessageId, NodeId, OnceKey, ShopId};
use shoprelay::message::{Audience, Content, Message, Origin, Role, Signal, Value};
use shoprelay::store::embedded::EmbeddedStore;
use shoprelay::store::redis::RedisStore;
use shoprelay::store::{
    Connect, Connected, FeedEvent, Mark, Page, PageLimit, Publish, Published, Store, StoreSettings,
};
use tempfile::TempDir;
use tokio::sync::mpsc;

use crate::redis_server::fresh_prefix;

/// How long an event may take that is due.
pub const SOON: Duration = Duration::from_secs(10);

/// An engine of its own, empty, with its feed.
pub struct Bench {
    pub store: Box<dyn Store>,
    pub feed: mpsc::Receiver<FeedEvent>,
    pub node: NodeId,
    /// Where an engine without a server keeps its file.
    _dir: Option<TempDir>,
}

impl Bench {
    pub async fn on_embedded() -> Bench {
        let node = NodeId::fresh();
        let dir = TempDir::with_prefix("shoprelay-store-").unwrap();
        let (store, feed) = EmbeddedStore::start(dir.path().join("data"), node.clone(), settings()).await.unwrap();
        Bench { store: Box::new(store), feed, node, _dir: Some(dir) }
    }

    pub async fn on_redis(url: &str) -> Bench {
        let node = NodeId::fresh();
        let (store, feed) = RedisStore::start(url, None, node.clone(), settings()).await.unwrap();
        Bench { store: Box::new(store), feed, node, _dir: None }
    }

    /// Two nodes on one Redis.
    pub async fn pair_on_redis(url: &str) -> (Bench, Bench) {
        let settings = settings();
        let start = async || {
            let node = NodeId::fresh();
            let (store, feed) = RedisStore::start(url, None, node.clone(), settings.clone()).await.unwrap();
            Bench { store: Box::new(store), feed, node, _dir: None }
        };
        (start().await, start().await)
    }

    pub async fn next(&mut self) -> FeedEvent {
        tokio::time::timeout(SOON, self.feed.recv()).await.expect("an event is due").expect("the feed is open")
    }
}

pub fn settings() -> StoreSettings {
    StoreSettings {
        log_entries_max: 1000,
        key_retention: Duration::from_secs(60),
        message_retention: Duration::from_secs(7 * 86400),
        deadline: Duration::from_secs(2),
        prefix: fresh_prefix(),
        device_groups_max: 3,
        attrs_bytes_max: 200,
        events_max: 1000,
        wait_replicas: 0,
    }
}

/// Makes three tests of each: on one Redis, on a cluster, and embedded.
macro_rules! conformance {
    ($($name:ident),+ $(,)?) => {
        mod on_redis {
            $(#[tokio::test]
            async fn $name() {
                let url = crate::redis_server::RedisServer::shared().url();
                let mut bench = crate::store::suite::Bench::on_redis(&url).await;
                super::$name(&mut bench).await;
                bench.store.close().await;
            })+
        }
        mod on_a_cluster {
            $(#[tokio::test]
            async fn $name() {
                let url = crate::redis_server::cluster::RedisCluster::shared().url();
                let mut bench = crate::store::suite::Bench::on_redis(&url).await;
                super::$name(&mut bench).await;
                bench.store.close().await;
            })+
        }
        mod on_embedded {
            $(#[tokio::test]
            async fn $name() {
                let mut bench = crate::store::suite::Bench::on_embedded().await;
                super::$name(&mut bench).await;
                bench.store.close().await;
            })+
        }
    };
}

pub(crate) use conformance;

pub fn shop() -> ShopId {
    "shop 1".parse().unwrap()
}

pub fn device(name: &str) -> DeviceId {
    name.parse().unwrap()
}

pub fn conn(name: &str) -> ConnId {
    name.parse().unwrap()
}

pub fn message(to: Audience) -> Publish {
    let content = Content {
        from: Origin::Device { device: device("hand"), role: Role::Sub },
        to,
        except: Vec::new().into(),
        kind: "add".parse().unwrap(),
        table: Some("12".parse().unwrap()),
        data: Some(Value::MsgPack([0x0a, 0xff, 0x00].into())),
        user_info: None,
        legacy: None,
    };
    let message = Message { content, status: "open".parse().unwrap(), ttl: None, receipt: false };
    Publish { message, key: None }
}

/// A message of a back end.
pub fn message_of_api(to: Audience) -> Publish {
    let mut publish = message(to);
    publish.message.content.from = Origin::Api { name: "pos".parse().unwrap() };
    publish
}

/// What a message holds, unstored.
pub fn signal(publish: Publish) -> Signal {
    Signal { at_ms: 7, content: publish.message.content }
}

pub fn with_key(mut publish: Publish, key: &str) -> Publish {
    publish.key = Some(OnceKey::try_from(key.to_owned()).unwrap());
    publish
}

pub async fn stored(store: &dyn Store) -> MessageId {
    match store.publish(&shop(), &message(Audience::All)).await.unwrap() {
        Published::Stored(id) => id,
        other => panic!("{other:?}"),
    }
}

/// A login that tells nothing of itself.
pub fn login(name: &str, role: Role, conn_name: &str) -> Connect {
    let (device, conn, node) = (device(name), conn(conn_name), "node".parse().unwrap());
    Connect { device, role, conn, node, meta: None, groups: None, user: None }
}

pub async fn connect(store: &dyn Store, name: &str, role: Role, conn_name: &str) -> Connected {
    store.connect(&shop(), &login(name, role, conn_name)).await.unwrap().admitted().unwrap()
}

pub async fn read(store: &dyn Store, after: MessageId, entries: usize) -> Page {
    store.read(&shop(), after, PageLimit { entries, bytes: 1 << 20 }).await.unwrap()
}

pub fn mark(name: &str, through: MessageId) -> Mark {
    Mark { device: device(name), through, expired: Vec::new() }
}

pub fn ids(page: &Page) -> Vec<MessageId> {
    page.entries.iter().map(|entry| entry.id).collect()
}

/// A reference for futures that are made in a loop.
pub fn shop_ref() -> &'static ShopId {
    static SHOP: std::sync::LazyLock<ShopId> = std::sync::LazyLock::new(shop);
    &SHOP
}
