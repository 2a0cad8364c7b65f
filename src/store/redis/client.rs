//! Connections to one Redis server: how they are made, kept and given up.
//!
//! Owns deadlines and the policy of reconnecting; what goes over the connections is its callers' business,
//! and so is which server it is: a cluster's are told apart by [`super::fleet`]. Called by [`super`].

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use fred::clients::{Client, SubscriberClient};
use fred::error::{Error, ErrorKind};
use fred::interfaces::ClientLike;
use fred::types::config::{
    Config, ConnectionConfig, PerformanceConfig, ReconnectPolicy, Server, ServerConfig, UnresponsiveConfig,
};
use fred::types::{Builder, InfoKind};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::store::redis::address::{Address, AddressError};
use crate::store::redis::batches::Batches;
use crate::store::redis::commits::Commits;

/// How long the first connection may take, all in all.
pub const START_MAX: Duration = Duration::from_secs(5);
/// How long one attempt to connect may take.
const CONNECT_MAX: Duration = Duration::from_secs(2);
/// How long a polite end of the connections may take.
const CLOSE_MAX: Duration = Duration::from_millis(500);
/// A connection that owes an answer for so long is dropped.
const SILENCE_MAX: Duration = Duration::from_secs(5);
/// Reconnect attempts come this far apart: doubling from the first to the last, in milliseconds.
const RECONNECT_MS: (u32, u32) = (50, 1000);
/// Events of the feed that may wait to be read; fred's default is 32, and what is beyond is lost.
const FEED_WAITING_MAX: usize = 16384;
/// The oldest Redis that has sharded channels and script flags.
const VERSION_MIN: u32 = 7;

/// Why the engine cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Address(#[from] AddressError),
    #[error("Redis cannot be reached; see that it runs and that the address is right")]
    Unreachable(#[source] Error),
    #[error("Redis did not answer within {waited:?}; see that it runs and that the address is right")]
    Silent { waited: Duration },
    #[error("Redis is version {seen}, and {VERSION_MIN}.0 or newer is needed")]
    TooOld { seen: String },
    #[error("this Redis is part of a cluster; use redis-cluster:// or rediss-cluster:// in the store's address")]
    IsCluster,
    #[error("this Redis is no cluster; use redis:// or rediss:// in the store's address")]
    NoCluster,
    #[error("the cluster has slots that no server holds; see CLUSTER INFO")]
    NotWhole,
}

/// How connections are made.
#[derive(Debug, Clone)]
pub struct Maker {
    address: Address,
    /// The deadline of every call.
    pub deadline: Duration,
    /// Replicas that have to have what was written before it is answered.
    pub wait_replicas: u32,
}

impl Maker {
    /// Reads the store's address.
    ///
    /// # Errors
    /// [`StartError::Address`]
    pub fn read(url: &str, ca: Option<&Path>, deadline: Duration, wait_replicas: u32) -> Result<Maker, StartError> {
        Ok(Maker { address: Address::read(url, ca)?, deadline, wait_replicas })
    }

    /// Servers of the cluster that the address names; none where it is no cluster's.
    pub fn seeds(&self) -> &[Server] {
        &self.address.seeds
    }

    /// The sentinels that the address names; None where it is not theirs.
    pub fn sentinels(&self) -> Option<&[Server]> {
        match &self.address.config.server {
            ServerConfig::Sentinel { hosts, .. } => Some(hosts),
            _ => None,
        }
    }

    /// What the sentinels call the primary with its replicas; empty where there are none.
    pub fn service(&self) -> &str {
        match &self.address.config.server {
            ServerConfig::Sentinel { service_name, .. } => service_name,
            _ => "",
        }
    }

    /// One connection to a sentinel.
    ///
    /// # Errors
    /// Where it cannot be reached.
    pub async fn visit_sentinel(&self, place: &Server) -> Result<Visit, Error> {
        let config = self.address.of_sentinel(place);
        let config = config.ok_or_else(|| Error::new(ErrorKind::Config, "the address names no sentinels"))?;
        let client = self.builder(config).build()?;
        let driver = client.init().await?;
        Ok(Visit { client, driver })
    }

    /// The connections to the one server there is, or to the one that the sentinels name; there when this
    /// returns.
    ///
    /// # Errors
    /// Where it cannot be reached.
    pub async fn only(&self) -> Result<Arc<Shard>, Error> {
        let shard = Arc::new(Shard::build(self, self.address.config.clone(), None)?);
        for client in [&shard.commands, &shard.reads].into_iter().chain(shard.commits.as_ref().map(Commits::client)) {
            shard.keep(client.init().await?);
        }
        shard.keep(shard.subscriber.init().await?);
        Ok(shard)
    }

    /// The connections to a server of the cluster; they are on their way when this returns, and go on trying.
    ///
    /// # Errors
    /// Where fred takes no such configuration.
    pub fn member(&self, server: &Server) -> Result<Arc<Shard>, Error> {
        let mut config = self.address.of_server(server);
        config.fail_fast = false;
        let shard = Arc::new(Shard::build(self, config, Some(server.clone()))?);
        for client in [&shard.commands, &shard.reads].into_iter().chain(shard.commits.as_ref().map(Commits::client)) {
            shard.keep(client.connect());
        }
        shard.keep(shard.subscriber.connect());
        Ok(shard)
    }

    /// One connection to a server of the cluster, for a question.
    ///
    /// # Errors
    /// Where it cannot be reached.
    pub async fn visit(&self, server: &Server) -> Result<Visit, Error> {
        let client = self.builder(self.address.of_server(server)).build()?;
        let driver = client.init().await?;
        Ok(Visit { client, driver })
    }

    fn builder(&self, config: Config) -> Builder {
        let deadline = self.deadline;
        let mut builder = Builder::from_config(config);
        builder
            .with_connection_config(|config: &mut ConnectionConfig| {
                config.connection_timeout = CONNECT_MAX;
                config.internal_command_timeout = CONNECT_MAX;
                // With more, a publish whose answer was lost is stored twice.
                config.max_command_attempts = 1;
                config.tcp.nodelay = Some(true);
                config.unresponsive =
                    UnresponsiveConfig { max_timeout: Some(SILENCE_MAX), interval: Duration::from_secs(1) };
            })
            .with_performance_config(|config: &mut PerformanceConfig| config.default_command_timeout = deadline)
            .set_policy(ReconnectPolicy::new_exponential(0, RECONNECT_MS.0, RECONNECT_MS.1, 2));
        builder
    }
}

/// A connection that is given up when this is dropped.
pub struct Visit {
    pub client: Client,
    driver: JoinHandle<Result<(), Error>>,
}

impl Drop for Visit {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// The connections to one primary: all there is, or one of a cluster's.
pub struct Shard {
    /// No other in this process has it.
    pub id: u64,
    /// Where it is; None where it is no cluster's.
    pub server: Option<Server>,
    /// For all but reading the log, so that pages do not hold up publishes.
    pub commands: Client,
    /// For reading the log.
    pub reads: Client,
    /// For the channels.
    pub subscriber: SubscriberClient,
    /// Calls over `commands` that go together.
    pub batches: Batches,
    /// For what has to be on replicas before it is answered.
    pub commits: Option<Commits>,
    /// The server said that it is a primary no more: all connections have to be made anew.
    pub demoted: Notify,
    /// Whether what is published arrives here.
    is_hearing: AtomicBool,
    /// Whether commands are answered.
    is_answering: AtomicBool,
    /// The tasks of fred that drive the connections.
    drivers: Mutex<Vec<JoinHandle<Result<(), Error>>>>,
}

impl Shard {
    fn build(maker: &Maker, config: Config, server: Option<Server>) -> Result<Shard, Error> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let mut builder = maker.builder(config);
        let (commands, reads) = (builder.build()?, builder.build()?);
        let commits = match maker.wait_replicas {
            0 => None,
            replicas => Some(Commits::new(builder.build()?, replicas, maker.deadline)),
        };
        builder.with_performance_config(|config| config.broadcast_channel_capacity = FEED_WAITING_MAX);
        let subscriber = builder.build_subscriber_client()?;
        let batches = Batches::new(commands.clone(), server.is_some());
        Ok(Shard {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            server,
            commands,
            reads,
            subscriber,
            batches,
            commits,
            demoted: Notify::new(),
            is_hearing: AtomicBool::new(false),
            is_answering: AtomicBool::new(true),
            drivers: Mutex::default(),
        })
    }

    fn keep(&self, driver: JoinHandle<Result<(), Error>>) {
        self.drivers.lock().push(driver);
    }

    /// Whether all of its connections are there.
    pub fn is_connected(&self) -> bool {
        let commits = self.commits.as_ref().is_none_or(|commits| commits.client().is_connected());
        commits && self.commands.is_connected() && self.reads.is_connected() && self.subscriber.is_connected()
    }

    /// Whether what is published arrives here.
    pub fn is_hearing(&self) -> bool {
        self.is_hearing.load(Ordering::Acquire) && self.subscriber.is_connected()
    }

    /// Notes whether what is published arrives here.
    pub fn set_hearing(&self, is_hearing: bool) {
        self.is_hearing.store(is_hearing, Ordering::Release);
    }

    /// Whether commands were answered when they were last tried.
    pub fn is_answering(&self) -> bool {
        self.is_answering.load(Ordering::Acquire)
    }

    /// Notes whether commands are answered.
    pub fn set_answering(&self, is_answering: bool) {
        self.is_answering.store(is_answering, Ordering::Release);
    }

    /// Whether this is a server to work with, and in the way that the address says.
    ///
    /// # Errors
    /// [`StartError`]
    pub async fn check(&self) -> Result<(), StartError> {
        let ask = async |kind| self.commands.info(Some(kind)).await.map_err(StartError::Unreachable);
        let (server, memory, cluster): (String, String, String) =
            (ask(InfoKind::Server).await?, ask(InfoKind::Memory).await?, ask(InfoKind::Cluster).await?);
        check_version(&server)?;
        match (field(&cluster, "cluster_enabled") == Some("1"), self.server.is_some()) {
            (true, false) => return Err(StartError::IsCluster),
            (false, true) => return Err(StartError::NoCluster),
            _ => {}
        }
        warn_of_eviction(&memory);
        Ok(())
    }

    /// Drops all connections but the subscriber's and makes new ones; a sentinel is asked to where.
    pub async fn renew(&self) {
        let commits = self.commits.as_ref().map(Commits::client);
        for client in [Some(&self.commands), Some(&self.reads), commits].into_iter().flatten() {
            if let Err(error) = client.force_reconnection().await {
                tracing::warn!(%error, "a connection cannot be made anew yet");
            }
        }
    }

    /// Closes the connections; one that is down or does not answer is given up soon.
    pub async fn close(&self) {
        self.set_hearing(false);
        let commits = async {
            if let Some(commits) = &self.commits {
                commits.close().await;
            }
        };
        let quitting = async { tokio::join!(self.subscriber.quit(), self.commands.quit(), self.reads.quit(), commits) };
        // A polite end matters to nobody: the drivers are ended all the same.
        let _ = tokio::time::timeout(CLOSE_MAX, quitting).await;
        for driver in self.drivers.lock().drain(..) {
            driver.abort();
        }
    }
}

/// The value of a field of INFO.
fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
}

fn check_version(info: &str) -> Result<(), StartError> {
    // Valkey gives the Redis version that it is compatible with here, 7.2.4, whatever its own is.
    let seen = field(info, "redis_version").unwrap_or("unknown");
    let major = seen.split('.').next().and_then(|major| major.parse::<u32>().ok());
    if major.is_some_and(|major| major >= VERSION_MIN) {
        return Ok(());
    }
    Err(StartError::TooOld { seen: seen.to_owned() })
}

fn warn_of_eviction(memory: &str) {
    let policy = field(memory, "maxmemory_policy").unwrap_or("noeviction");
    if policy != "noeviction" && field(memory, "maxmemory") != Some("0") {
        tracing::warn!(
            policy,
            "Redis evicts keys when it is full, so messages can be lost; set maxmemory-policy noeviction"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redis_before_7_is_refused_by_its_version() {
        assert!(check_version("# Server\r\nredis_version:7.0.15\r\n").is_ok());
        assert!(check_version("redis_version:10.0.0\r\n").is_ok());
        assert!(
            matches!(check_version("redis_version:6.2.14\r\n"), Err(StartError::TooOld { seen }) if seen == "6.2.14")
        );
        assert!(check_version("").is_err());
    }
}
