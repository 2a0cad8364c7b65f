//! A Redis Cluster on this machine.

use std::net::TcpListener;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use super::{RedisServer, SERVER_MAX};

/// After how long, in milliseconds, the others take a silent server for dead.
const NODE_TIMEOUT_MS: &str = "1000";
/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Servers of one cluster, ended when dropped: first the primaries, each with its share of the slots, then as
/// many replicas, in the same order, where there are any.
pub struct RedisCluster {
    pub servers: Vec<RedisServer>,
    primaries: usize,
}

impl RedisCluster {
    /// Three primaries, which most tests share; each test takes a prefix of its own.
    pub fn shared() -> &'static RedisCluster {
        static SHARED: LazyLock<RedisCluster> = LazyLock::new(|| RedisCluster::start(3, 0, &[]));
        &SHARED
    }

    /// So many primaries, with so many replicas each, 0 or 1.
    pub fn start(primaries: usize, replicas: usize, options: &[&str]) -> RedisCluster {
        let mut servers = Vec::new();
        let mut bus_ports = Vec::new();
        for _ in 0..primaries * (1 + replicas) {
            let bus_port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
            let cluster = ["--cluster-enabled", "yes", "--cluster-node-timeout", NODE_TIMEOUT_MS, "--cluster-port"];
            let soon = ["--repl-diskless-sync-delay", "0", "--cluster-replica-validity-factor", "0"];
            servers.push(RedisServer::launch(&[&cluster[..], &[&bus_port], &soon, options].concat()));
            bus_ports.push(bus_port);
        }
        let cluster = RedisCluster { servers, primaries };
        cluster.join(&bus_ports);
        for n in primaries..cluster.servers.len() {
            let primary = cluster.servers[n - primaries].cli(&["CLUSTER", "MYID"]);
            assert_eq!(cluster.servers[n].cli(&["CLUSTER", "REPLICATE", &primary]), "OK");
        }
        for server in &cluster.servers {
            cluster.wait("a whole cluster", || {
                let info = server.cli(&["CLUSTER", "INFO"]);
                let is_linked = server.cli(&["INFO", "replication"]).contains("master_link_status:up");
                let is_replica = server.cli(&["ROLE"]).starts_with("slave");
                info.contains("cluster_state:ok") && info.contains("cluster_slots_ok:16384") && is_linked == is_replica
            });
        }
        for n in primaries..cluster.servers.len() {
            cluster.wait("each primary to have its replica", || {
                cluster.servers[n - primaries].cli(&["INFO", "replication"]).contains("state=online")
            });
        }
        cluster
    }

    fn join(&self, bus_ports: &[String]) {
        let share = 16384 / self.primaries;
        for (n, server) in self.servers.iter().enumerate() {
            if n < self.primaries {
                let (first, last) = (n * share, if n + 1 == self.primaries { 16383 } else { (n + 1) * share - 1 });
                let range = [first.to_string(), last.to_string()];
                assert_eq!(server.cli(&["CLUSTER", "ADDSLOTSRANGE", &range[0], &range[1]]), "OK");
            }
            assert_eq!(server.cli(&["CLUSTER", "SET-CONFIG-EPOCH", &(n + 1).to_string()]), "OK");
            if n > 0 {
                let port = self.servers[0].port().to_string();
                assert_eq!(server.cli(&["CLUSTER", "MEET", "127.0.0.1", &port, &bus_ports[0]]), "OK");
            }
        }
        for server in &self.servers {
            self.wait("every server to know every other", || {
                let nodes = server.cli(&["CLUSTER", "NODES"]);
                nodes.lines().count() == self.servers.len() && !nodes.contains("handshake")
            });
        }
    }

    fn wait(&self, what: &str, is_so: impl Fn() -> bool) {
        let began = Instant::now();
        while !is_so() {
            assert!(began.elapsed() < SERVER_MAX, "not within {SERVER_MAX:?}: {what}");
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// The address of the cluster, which names two of its servers.
    pub fn url(&self) -> String {
        let last = self.servers.last().expect("a cluster has servers").port();
        format!("redis-cluster://127.0.0.1:{}?node=127.0.0.1:{last}", self.servers[0].port())
    }

    /// The slot of a key.
    pub fn slot(&self, key: &str) -> u16 {
        self.servers[0].cli(&["CLUSTER", "KEYSLOT", key]).parse().unwrap()
    }

    /// The place of the primary that has a slot, as `teller` knows it.
    pub fn owner(&self, slot: u16, teller: usize) -> usize {
        let nodes = self.servers[teller].cli(&["CLUSTER", "NODES"]);
        let has_slot = |range: &str| {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            (first.parse().unwrap_or(u16::MAX)..=last.parse().unwrap_or(0)).contains(&slot)
        };
        let line = nodes.lines().find(|line| line.contains("master") && line.split(' ').skip(8).any(has_slot));
        let address = line.expect("the slot is somebody's").split(' ').nth(1).unwrap();
        let is_there = |server: &RedisServer| address.contains(&format!(":{}@", server.port()));
        self.servers.iter().position(is_there).unwrap()
    }

    /// What `redis-cli` prints of a command, asked of the primary that has its key.
    pub fn cli(&self, key: &str, args: &[&str]) -> String {
        self.servers[self.owner(self.slot(key), 0)].cli(args)
    }

    /// Takes a slot with all its keys to another primary, as `redis-cli --cluster reshard` does; it is given
    /// time between the steps, so that what comes meanwhile is refused for being on its way.
    pub async fn move_slot(&self, slot: u16, to: usize) {
        let (from, text) = (self.owner(slot, to), slot.to_string());
        let (source, target) = (&self.servers[from], &self.servers[to]);
        let (source_id, target_id) = (source.cli(&["CLUSTER", "MYID"]), target.cli(&["CLUSTER", "MYID"]));
        assert_eq!(target.cli(&["CLUSTER", "SETSLOT", &text, "IMPORTING", &source_id]), "OK");
        assert_eq!(source.cli(&["CLUSTER", "SETSLOT", &text, "MIGRATING", &target_id]), "OK");
        let port = target.port().to_string();
        loop {
            let keys = source.cli(&["CLUSTER", "GETKEYSINSLOT", &text, "100"]);
            if keys.is_empty() {
                break;
            }
            let keys: Vec<&str> = keys.lines().collect();
            let migrated = source.cli(&[&["MIGRATE", "127.0.0.1", &port, "", "0", "5000", "KEYS"], &keys[..]].concat());
            assert!(["OK", "NOKEY"].contains(&&*migrated), "{migrated}");
        }
        for server in [target, source].into_iter().chain(self.servers.iter().take(self.primaries)) {
            assert_eq!(server.cli(&["CLUSTER", "SETSLOT", &text, "NODE", &target_id]), "OK");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}
