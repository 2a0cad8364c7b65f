//! Connections to Redis: how they are made, kept and given up.
//!
//! Owns the reading of the store's address, TLS, deadlines and the policy of reconnecting; what goes
//! over the connections is its callers' business. Never logs an address, which may hold a password.
//! Called by [`super`].

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use fred::clients::{Client, SubscriberClient};
use fred::interfaces::ClientLike;
use fred::types::config::{
    Config, ConnectionConfig, PerformanceConfig, ReconnectPolicy, TlsConfig, TlsConnector, UnresponsiveConfig,
};
use fred::types::{Builder, InfoKind, RespVersion};
use tokio::task::JoinHandle;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// How long the first connection may take, all in all.
const START_MAX: Duration = Duration::from_secs(5);
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
    #[error("the store's address is not of a form that is supported; use redis://, rediss:// or redis+unix://")]
    Scheme,
    #[error("the store's address cannot be read: {0}")]
    Address(String),
    #[error("a redis+unix address takes no query, as it would not be obeyed; database 0 is used")]
    UnixQuery,
    #[error(
        "the user or password in the store's address holds white space or a control character, which cannot be sent"
    )]
    Credentials,
    #[error("a certificate authority was given for an address that is not rediss://")]
    CaWithoutTls,
    #[error("no certificate authority could be read from {path}")]
    Ca { path: PathBuf },
    #[error("the system has no certificate authorities; name one with --store-ca")]
    NoRoots,
    #[error("TLS for the store cannot be set up")]
    Tls(#[source] tokio_rustls::rustls::Error),
    #[error("Redis cannot be reached; see that it runs and that the address is right")]
    Unreachable(#[source] fred::error::Error),
    #[error("Redis did not answer within {waited:?}; see that it runs and that the address is right")]
    Silent { waited: Duration },
    #[error("Redis is version {seen}, and {VERSION_MIN}.0 or newer is needed")]
    TooOld { seen: String },
}

/// The connections of one engine, and the tasks of fred that drive them.
pub struct Connections {
    /// For all but reading the log, so that pages do not hold up publishes.
    pub commands: Client,
    /// For reading the log.
    pub reads: Client,
    /// For the channels.
    pub subscriber: SubscriberClient,
    drivers: Vec<JoinHandle<Result<(), fred::error::Error>>>,
}

impl Connections {
    /// Connects, and sees that the server is one to work with.
    ///
    /// # Errors
    /// [`StartError`], within a few seconds.
    pub async fn open(url: &str, ca: Option<&Path>, deadline: Duration) -> Result<Connections, StartError> {
        let builder = builder(url, ca, deadline)?;
        let unreadable = |error: fred::error::Error| StartError::Address(error.details().to_owned());
        let commands = builder.build().map_err(unreadable)?;
        let reads = builder.build().map_err(unreadable)?;
        let mut builder = builder;
        builder.with_performance_config(|config| config.broadcast_channel_capacity = FEED_WAITING_MAX);
        let subscriber = builder.build_subscriber_client().map_err(unreadable)?;
        let opening = async {
            let mut drivers = Vec::with_capacity(3);
            drivers.push(commands.init().await?);
            drivers.push(reads.init().await?);
            drivers.push(subscriber.init().await?);
            let info: String = commands.info(Some(InfoKind::Server)).await?;
            let memory: String = commands.info(Some(InfoKind::Memory)).await?;
            Ok((drivers, info, memory))
        };
        let (drivers, info, memory) = tokio::time::timeout(START_MAX, opening)
            .await
            .map_err(|_| StartError::Silent { waited: START_MAX })?
            .map_err(StartError::Unreachable)?;
        let connections = Connections { commands, reads, subscriber, drivers };
        if let Err(error) = check_version(&info) {
            connections.close().await;
            return Err(error);
        }
        warn_of_eviction(&memory);
        Ok(connections)
    }

    /// Closes the connections; one that is down or does not answer is given up soon.
    pub async fn close(&self) {
        let quitting = async { tokio::join!(self.subscriber.quit(), self.commands.quit(), self.reads.quit()) };
        // A polite end matters to nobody: the drivers are ended all the same.
        let _ = tokio::time::timeout(CLOSE_MAX, quitting).await;
        for driver in &self.drivers {
            driver.abort();
        }
    }
}

fn builder(url: &str, ca: Option<&Path>, deadline: Duration) -> Result<Builder, StartError> {
    let config = config(url, ca)?;
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
    Ok(builder)
}

fn config(url: &str, ca: Option<&Path>) -> Result<Config, StartError> {
    let (scheme, rest) = url.split_once("://").ok_or(StartError::Scheme)?;
    if ca.is_some() && scheme != "rediss" {
        return Err(StartError::CaWithoutTls);
    }
    let parsed = match scheme {
        "redis" => Config::from_url(url),
        // Parsed as the plain form: fred would take the system's authorities, and a provider of its choice.
        "rediss" => Config::from_url(&format!("redis://{rest}")),
        // fred takes the path for the socket's and drops the query, where others put the database.
        "redis+unix" if rest.contains('?') => return Err(StartError::UnixQuery),
        "redis+unix" => Config::from_url(url),
        _ => return Err(StartError::Scheme),
    };
    let mut config = parsed.map_err(|error| StartError::Address(error.details().to_owned()))?;
    // fred greets the server in one line of text, unquoted: a blank would end the password, and a
    // line break would begin another command.
    let is_sendable = |text: &String| !text.chars().any(|c| c.is_whitespace() || c.is_control());
    if ![&config.username, &config.password].into_iter().flatten().all(is_sendable) {
        return Err(StartError::Credentials);
    }
    config.version = RespVersion::RESP3;
    config.fail_fast = true;
    if scheme == "rediss" {
        config.tls = Some(tls(ca)?);
    }
    Ok(config)
}

fn tls(ca: Option<&Path>) -> Result<TlsConfig, StartError> {
    let mut roots = RootCertStore::empty();
    match ca {
        Some(path) => {
            let unreadable = || StartError::Ca { path: path.to_owned() };
            for certificate in CertificateDer::pem_file_iter(path).map_err(|_| unreadable())? {
                roots.add(certificate.map_err(|_| unreadable())?).map_err(|_| unreadable())?;
            }
            if roots.is_empty() {
                return Err(unreadable());
            }
        }
        None => {
            // One that cannot be read does not spoil the others.
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if roots.is_empty() {
                return Err(StartError::NoRoots);
            }
        }
    }
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(StartError::Tls)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(config).into())
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
    fn addresses_that_cannot_be_obeyed_are_refused() {
        let refused = |url: &str| config(url, None).unwrap_err();
        assert!(matches!(refused("redis-cluster://h:1"), StartError::Scheme));
        assert!(matches!(refused("redis-sentinel://h:1/0?sentinelServiceName=x"), StartError::Scheme));
        assert!(matches!(refused("localhost:6379"), StartError::Scheme));
        assert!(matches!(refused("redis+unix:///tmp/s?db=1"), StartError::UnixQuery));
        assert!(matches!(refused("redis://h:1/x"), StartError::Address(_)));
        assert!(matches!(refused("redis://:a%0d%0ab@h:1"), StartError::Credentials));
        assert!(matches!(config("redis://h", Some(Path::new("ca.pem"))), Err(StartError::CaWithoutTls)));
        assert!(matches!(config("rediss://h", Some(Path::new("/no/ca.pem"))), Err(StartError::Ca { .. })));
    }

    #[test]
    fn a_refusal_never_repeats_the_password() {
        for url in
            ["redis://u:hunter2@h:1/x", "redis://u:hunter2@", "x://u:hunter2@h", "redis+unix://u:hunter2@h/s?db=1"]
        {
            let error = config(url, None).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
        }
    }

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
