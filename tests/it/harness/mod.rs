//! What tests of whole nodes are driven with: real processes, fake devices, and a proxy that breaks
//! the way to Redis.
//!
//! Owns nothing of the product and imports none of it: devices, ids and frames are written a second
//! time here, from the contract, so that a mistake in the product is not made twice.

#![allow(dead_code, reason = "each suite uses its own part of the harness")]

pub mod api;
pub mod balancer;
pub mod device;
pub mod http;
pub mod legacy;
pub mod login;
pub mod node;
pub mod proxy;
pub mod publisher;
pub mod raw;
pub mod recorder;
pub mod resp;
pub mod seed;
pub mod summary;
pub mod tls;
pub mod token;
pub mod wire;
pub mod worker;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

pub use api::Api;
pub use balancer::Balancer;
pub use device::{Device, Event};
pub use legacy::LegacyDevice;
pub use login::Login;
pub use node::{NodeOptions, NodeProcess};
pub use proxy::RedisProxy;
pub use publisher::Publisher;
pub use raw::{Frame, RawSocket};
pub use recorder::{Record, Recorder, Urls};
pub use seed::Seed;
pub use summary::{Fault, Summary};
pub use tls::TlsClient;
pub use wire::{Encoding, Id, id_of};
pub use worker::Worker;

use tempfile::TempDir;

use crate::redis_server::RedisServer;
use crate::redis_server::cluster::RedisCluster;
use crate::redis_server::sentinels::RedisSentinels;

/// How long a test waits for what should come at once.
pub const SOON: Duration = Duration::from_secs(10);

/// Asks again and again until the answer is yes.
///
/// # Panics
/// At the deadline, saying what it waited for.
pub async fn eventually(deadline: Duration, what: &str, mut holds: impl AsyncFnMut() -> bool) {
    eventually_get(deadline, what, async || holds().await.then_some(())).await;
}

/// Asks again and again until there is an answer, and gives it.
///
/// # Panics
/// At the deadline, saying what it waited for.
pub async fn eventually_get<T>(deadline: Duration, what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let end = Instant::now() + deadline;
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < end, "waited {deadline:?} for: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A name that no other test and no other run has, of at most 64 bytes.
pub fn unique(what: &str) -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("{what}-{:x}-{count:x}-{:08x}", std::process::id(), rand::random::<u32>())
}

/// The wall clock, in milliseconds since 1970.
pub fn unix_ms() -> u64 {
    let age = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    age.expect("the clock is past 1970").as_millis() as u64
}

/// A node on a directory of its own, which goes when it is dropped.
pub fn embedded_options() -> (NodeOptions, TempDir) {
    let dir = TempDir::with_prefix("shoprelay-node-").expect("a directory can be made");
    (NodeOptions::new(format!("embedded:{}", dir.path().join("data").display())), dir)
}

/// A store prefix of this test's own.
pub fn unique_prefix() -> String {
    format!("{}:", unique("t"))
}

/// Two nodes on one Redis, with one prefix and the default settings.
pub async fn two_nodes(redis: &RedisServer) -> [NodeProcess; 2] {
    let options = NodeOptions::new(redis.url());
    let (first, second) = tokio::join!(NodeProcess::start(&options), NodeProcess::start(&options));
    [first, second]
}

/// A store and some nodes on it, for a test that does not care how many or which.
pub struct World {
    pub nodes: Vec<NodeProcess>,
    pub options: NodeOptions,
    place: Place,
}

/// Where a world's messages live.
enum Place {
    Redis(RedisServer),
    Directory(TempDir),
    /// The one that all such worlds share.
    Cluster(&'static RedisCluster),
    /// Likewise.
    Sentinels(&'static RedisSentinels),
}

impl World {
    /// `count` nodes with the default settings.
    pub async fn start(count: usize) -> World {
        World::with(count, &[]).await
    }

    /// `count` nodes with these settings: `("LIMITS_WINDOW", "4")` is `SHOPRELAY_LIMITS_WINDOW=4`.
    pub async fn with(count: usize, settings: &[(&str, &str)]) -> World {
        let redis = RedisServer::start().await;
        World::on(NodeOptions::new(redis.url()), Place::Redis(redis), count, settings).await
    }

    /// One node that keeps its messages in a directory of its own.
    pub async fn embedded(settings: &[(&str, &str)]) -> World {
        let (options, dir) = embedded_options();
        World::on(options, Place::Directory(dir), 1, settings).await
    }

    /// `count` nodes on a cluster.
    pub async fn on_a_cluster(count: usize) -> World {
        let cluster = RedisCluster::shared();
        World::on(NodeOptions::new(cluster.url()), Place::Cluster(cluster), count, &[]).await
    }

    /// `count` nodes on the primary that sentinels name, each message on a replica before it is accepted.
    pub async fn behind_sentinels(count: usize) -> World {
        let sentinels = RedisSentinels::shared();
        let settings = [("STORE_WAIT_REPLICAS", "1")];
        World::on(NodeOptions::new(sentinels.url()), Place::Sentinels(sentinels), count, &settings).await
    }

    async fn on(mut options: NodeOptions, place: Place, count: usize, settings: &[(&str, &str)]) -> World {
        for (name, value) in settings {
            options = options.set(name, value);
        }
        let mut nodes = Vec::new();
        for _ in 0..count {
            nodes.push(NodeProcess::start(&options).await);
        }
        World { nodes, options, place }
    }

    /// The world's Redis.
    ///
    /// # Panics
    /// Where it has none.
    pub fn redis(&self) -> &RedisServer {
        match &self.place {
            Place::Redis(redis) => redis,
            Place::Sentinels(sentinels) => &sentinels.servers[0],
            Place::Directory(_) | Place::Cluster(_) => panic!("this world has no Redis, or several"),
        }
    }

    /// A store of the same kind that is empty, and what has to be kept as long as it is used.
    pub fn options_of_another(&self) -> (NodeOptions, Option<TempDir>) {
        match &self.place {
            Place::Redis(redis) => (NodeOptions::new(redis.url()), None),
            Place::Cluster(cluster) => (NodeOptions::new(cluster.url()), None),
            Place::Sentinels(sentinels) => (NodeOptions::new(sentinels.url()), None),
            Place::Directory(_) => {
                let (options, dir) = embedded_options();
                (options, Some(dir))
            }
        }
    }

    /// Checks that a message is in the log at this moment. A file is its node's alone while that runs;
    /// what is in it is seen when the node has been killed.
    ///
    /// # Panics
    /// Where it is not.
    pub fn assert_stored(&self, shop: &str, id: &str) {
        let key = self.log_key(shop);
        let stored = match &self.place {
            Place::Redis(redis) => redis.cli(&["XRANGE", &key, id, id]),
            Place::Sentinels(sentinels) => sentinels.servers[0].cli(&["XRANGE", &key, id, id]),
            Place::Cluster(cluster) => cluster.cli(&key, &["XRANGE", &key, id, id]),
            Place::Directory(_) => return,
        };
        assert!(stored.contains(id), "accepted as {id}, but the log has {stored:?}");
    }

    /// Where the `n`th device connects: the nodes take turns.
    pub fn url(&self, n: usize) -> String {
        self.nodes[n % self.nodes.len()].ws_url()
    }

    /// The API of the `n`th node, without a key.
    pub fn api(&self, n: usize) -> Api {
        Api::at(self.nodes[n % self.nodes.len()].api_listen())
    }

    /// All the nodes' addresses.
    pub fn urls(&self) -> Urls {
        Urls::new(self.nodes.iter().map(NodeProcess::ws_url))
    }

    /// The Redis key of a shop's log.
    pub fn log_key(&self, shop: &str) -> String {
        format!("{}{{{shop}}}:log", self.options.prefix)
    }

    /// A counter's sum over all nodes.
    pub async fn metric(&self, name: &str) -> f64 {
        let mut sum = 0.0;
        for node in &self.nodes {
            sum += node.metrics().await.get(name);
        }
        sum
    }

    /// Whether every node still serves a device that has done nothing wrong.
    ///
    /// # Panics
    /// Where one does not.
    pub async fn assert_serves(&self) {
        for node in &self.nodes {
            let shop = unique("well");
            let mut main = Login::main(&shop, "till").on(&node.ws_url()).await;
            let mut sub = Login::sub(&shop, "hand").on(&node.ws_url()).await;
            let id = sub.notify(serde_json::json!({"type": "still-there"})).await;
            let message = main.expect("message").await;
            assert_eq!(message["id"], id.as_str());
        }
    }
}
