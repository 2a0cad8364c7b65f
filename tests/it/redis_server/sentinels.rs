//! A primary with replicas, and sentinels that put one of these in its place when it dies.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use super::{RedisServer, SERVER_MAX};

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// The name of the service.
const SERVICE: &str = "shop";

/// Servers and sentinels, ended when dropped.
pub struct RedisSentinels {
    /// At first the primary and its two replicas.
    pub servers: Vec<RedisServer>,
    pub sentinels: Vec<RedisServer>,
}

impl RedisSentinels {
    /// Those that tests share which break nothing.
    pub fn shared() -> &'static RedisSentinels {
        static SHARED: LazyLock<RedisSentinels> = LazyLock::new(|| RedisSentinels::start(&[]));
        &SHARED
    }

    /// A primary, two replicas and three sentinels, which take a server for dead that is silent for a second.
    pub fn start(options: &[&str]) -> RedisSentinels {
        let soon = ["--repl-diskless-sync-delay", "0"];
        let servers: Vec<RedisServer> = (0..3).map(|_| RedisServer::launch(&[&soon, options].concat())).collect();
        let port = servers[0].port().to_string();
        for replica in &servers[1..] {
            assert_eq!(replica.cli(&["REPLICAOF", "127.0.0.1", &port]), "OK");
        }
        wait("both replicas", || servers[0].cli(&["INFO", "replication"]).matches("state=online").count() == 2);
        let settings = format!(
            "sentinel monitor {SERVICE} 127.0.0.1 {port} 2\n\
             sentinel down-after-milliseconds {SERVICE} 1000\n\
             sentinel failover-timeout {SERVICE} 6000\n"
        );
        let sentinels: Vec<RedisServer> = (0..3).map(|_| RedisServer::sentinel(&settings)).collect();
        for sentinel in &sentinels {
            wait("the sentinels to know each other and the replicas", || {
                let master = sentinel.cli(&["SENTINEL", "MASTER", SERVICE]);
                let value = |name: &str| master.lines().skip_while(|line| *line != name).nth(1).map(str::to_owned);
                value("num-other-sentinels").as_deref() == Some("2") && value("num-slaves").as_deref() == Some("2")
            });
        }
        RedisSentinels { servers, sentinels }
    }

    /// The address of the service, which names all sentinels.
    pub fn url(&self) -> String {
        let ports: Vec<u16> = self.sentinels.iter().map(RedisServer::port).collect();
        let others: String = ports[1..].iter().map(|port| format!("&node=127.0.0.1:{port}")).collect();
        format!("redis-sentinel://127.0.0.1:{}/0?sentinelServiceName={SERVICE}{others}", ports[0])
    }

    /// The place of the server that the sentinels call the primary.
    pub fn primary(&self) -> usize {
        let told = self.sentinels[0].cli(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE]);
        let port = told.lines().nth(1).expect("a port").to_owned();
        self.servers.iter().position(|server| server.port().to_string() == port).expect("it is one of ours")
    }
}

fn wait(what: &str, is_so: impl Fn() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < SERVER_MAX, "not within {SERVER_MAX:?}: {what}");
        std::thread::sleep(LOOK_EVERY);
    }
}
