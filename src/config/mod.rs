//! Every setting: its name, default and bounds, and where it may come from.
//!
//! Owns the table [`SETTINGS`], from which the command line, the environment and the file are read
//! alike. Never opens a socket; the one file it reads is the settings file. Called by `main`, `check`
//! and `demo`.

mod layers;
#[cfg(test)]
mod tests;

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;

pub use layers::{Effective, Layers};

/// One setting. The environment variable is `SHOPRELAY_` and the key in capitals, with an underscore
/// for a point; the flag, where it has one, is the key with hyphens.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// As in the settings file; `table.key` for one in a table.
    pub key: &'static str,
    pub default: &'static str,
    pub kind: Kind,
    pub help: &'static str,
}

/// How a setting may be given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// By flag, environment and file.
    Flag,
    /// By flag without a value, environment and file.
    Switch,
    /// By environment and file only.
    File,
    /// Reserved for a later version: giving it stops the start.
    Later,
}

impl Setting {
    /// The name of its flag, without the hyphens in front.
    pub fn flag(&self) -> String {
        self.key.replace('_', "-")
    }

    /// The name of its environment variable.
    pub fn variable(&self) -> String {
        format!("SHOPRELAY_{}", self.key.replace('.', "_").to_uppercase())
    }
}

const fn setting(key: &'static str, default: &'static str, kind: Kind, help: &'static str) -> Setting {
    Setting { key, default, kind, help }
}

/// Every setting there is.
pub const SETTINGS: &[Setting] = &[
    setting("config", "", Kind::Flag, "TOML file with further settings"),
    setting("listen", "127.0.0.1:8080", Kind::Flag, "where devices connect; none for nowhere"),
    setting("api_listen", "127.0.0.1:8081", Kind::Flag, "where back ends connect; none for nowhere"),
    setting("metrics_listen", "127.0.0.1:9090", Kind::Flag, "health and metrics; none for nowhere"),
    setting(
        "store",
        "embedded:./shoprelay-data",
        Kind::Flag,
        "where messages live: embedded:<directory>, redis://, rediss://, redis+unix://",
    ),
    setting("store_ca", "", Kind::Flag, "PEM file of the authority to trust for rediss://, instead of the system's"),
    setting("store_prefix", "sr:", Kind::Flag, "what every key and channel in Redis begins with"),
    setting("auth", "none", Kind::Flag, "who may log in: none (loopback only, unless insecure)"),
    setting("insecure", "false", Kind::Switch, "let anyone log in from anywhere"),
    setting("drain_window", "30s", Kind::Flag, "how long a node that stops gives its connections at most"),
    setting(
        "log",
        "info",
        Kind::Flag,
        "what to log: error, warn, info, debug, or a filter such as shoprelay::feed=debug",
    ),
    setting("limits.frame_bytes", "65536", Kind::File, "largest frame of a client, and largest message of fragments"),
    setting("limits.window", "256", Kind::File, "messages a connection may have outstanding without an ack"),
    setting("limits.session_ops_per_s", "200", Kind::File, "ops a connection may send, five times as many at once"),
    setting(
        "limits.shop_publishes_per_s",
        "1000",
        Kind::File,
        "notifies a shop may send over all nodes, five times as many at once",
    ),
    setting("limits.connections", "100000", Kind::File, "connections of this node; then it answers 503"),
    setting("limits.log_entries", "100000", Kind::File, "entries a shop's log holds; then backlog_full"),
    setting("timeouts.login", "10s", Kind::File, "from the TCP connection to the login"),
    setting("timeouts.ack", "30s", Kind::File, "how long a device may take to acknowledge, and to read"),
    setting("timeouts.store", "2s", Kind::File, "deadline of every call of the store"),
    setting("retention.messages", "7d", Kind::File, "how long messages are kept"),
    setting("retention.keys", "24h", Kind::File, "how long idempotency keys are kept"),
    setting("retention.devices", "30d", Kind::File, "how long a device that is away stays registered"),
    setting("heartbeat", "25s", Kind::File, "time between Pings; a connection silent for two is closed"),
    setting("audit", "30s", Kind::File, "within this time every room's position is compared with its log"),
    setting("tls_listen", "", Kind::Later, ""),
    setting("tls_cert", "", Kind::Later, ""),
    setting("tls_key", "", Kind::Later, ""),
    setting("tls_client_ca", "", Kind::Later, ""),
    setting("tls_client_crl", "", Kind::Later, ""),
    setting("jwt_secret_file", "", Kind::Later, ""),
    setting("jwt_public_key_file", "", Kind::Later, ""),
    setting("api_keys_file", "", Kind::Later, ""),
    setting("legacy", "false", Kind::Later, ""),
    setting("events", "false", Kind::Later, ""),
];

/// The settings of a node, checked.
#[derive(Debug, Clone)]
pub struct Config {
    pub listen: Option<SocketAddr>,
    pub api_listen: Option<SocketAddr>,
    pub metrics_listen: Option<SocketAddr>,
    pub store: StoreUrl,
    pub store_ca: Option<PathBuf>,
    pub store_prefix: String,
    pub drain_window: Duration,
    /// Directives of `tracing`'s filter.
    pub log: String,
    pub limits: Limits,
    pub timeouts: Timeouts,
    pub retention: Retention,
    pub heartbeat: Duration,
    pub audit: Duration,
}

/// Bounds; see [`SETTINGS`].
#[derive(Debug, Clone)]
pub struct Limits {
    pub frame_bytes: usize,
    pub window: usize,
    pub session_ops_per_s: u32,
    pub shop_publishes_per_s: u32,
    pub connections: usize,
    pub log_entries: u64,
}

/// Deadlines; see [`SETTINGS`].
#[derive(Debug, Clone)]
pub struct Timeouts {
    pub login: Duration,
    pub ack: Duration,
    pub store: Duration,
}

/// How long things are kept; see [`SETTINGS`].
#[derive(Debug, Clone)]
pub struct Retention {
    pub messages: Duration,
    pub keys: Duration,
    pub devices: Duration,
}

/// Where messages live. Its `Debug` form leaves out everything that may be a password.
#[derive(Clone, PartialEq, Eq)]
pub struct StoreUrl(String);

impl StoreUrl {
    /// The address with its password: never to be printed.
    pub fn secret(&self) -> &str {
        &self.0
    }

    /// The address without user name and password.
    pub fn redacted(&self) -> String {
        redacted_url(&self.0)
    }
}

impl std::fmt::Debug for StoreUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.redacted())
    }
}

/// An address without what may be a user name or a password: what stands before the last `@`, and
/// parameters that are named after either. A directory is shown as it is.
fn redacted_url(url: &str) -> String {
    if url.starts_with("embedded:") {
        return url.to_owned();
    }
    // A mistyped address may hold a password as well as a right one.
    let (scheme, rest) = match url.split_once("://") {
        Some((scheme, rest)) => (format!("{scheme}://"), rest),
        None => (String::new(), url),
    };
    let place = rest.rsplit_once('@').map_or_else(|| rest.to_owned(), |(_, place)| format!("***@{place}"));
    let Some((place, parameters)) = place.split_once('?') else {
        return format!("{scheme}{place}");
    };
    let parameters = parameters.split('&').map(|parameter| match parameter.split_once('=') {
        Some((name, _)) if ["password", "username"].iter().any(|secret| name.to_lowercase().contains(secret)) => {
            format!("{name}=***")
        }
        _ => parameter.to_owned(),
    });
    format!("{scheme}{place}?{}", parameters.collect::<Vec<_>>().join("&"))
}

/// A setting that cannot be taken; the start stops.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ConfigError {
    #[error("{source_name}: {value:?} is no value for {key}: {problem}")]
    Value { key: &'static str, value: String, source_name: String, problem: String },
    #[error(
        "the settings file {path} has an unknown key {key:?}; `shoprelay serve --help` and the README list what there is"
    )]
    UnknownKey { path: String, key: String },
    #[error("the settings file {path} cannot be read: {problem}")]
    File { path: String, problem: String },
    #[error("{source_name}: {key} is not in this version yet; leave it out")]
    Later { key: &'static str, source_name: String },
    #[error(
        "auth is none and {listen} is no loopback address, so anyone could log in; listen on 127.0.0.1 or say --insecure"
    )]
    Open { listen: SocketAddr },
}

/// The values of [`Layers`] on their way into a [`Config`]. One that cannot be taken is noted, and its
/// default goes on in its place, so that what is wrong with the rest is found too.
struct Values<'a> {
    layers: &'a Layers,
    problems: &'a mut Vec<ConfigError>,
}

impl Values<'_> {
    fn parse(&mut self) -> Option<Config> {
        let config = Config {
            listen: self.get("listen", address)?,
            api_listen: self.get("api_listen", address)?,
            metrics_listen: self.get("metrics_listen", address)?,
            store: self.get("store", store_url)?,
            store_ca: self.get("store_ca", |text| Ok((!text.is_empty()).then(|| PathBuf::from(text))))?,
            store_prefix: self.get("store_prefix", store_prefix)?,
            drain_window: self.get("drain_window", duration("0s", "1h"))?,
            log: self.get("log", log_filter)?,
            limits: Limits {
                frame_bytes: self.get("limits.frame_bytes", number(1024, 16 << 20))?,
                window: self.get("limits.window", number(1, 10_000))?,
                session_ops_per_s: self.get("limits.session_ops_per_s", number(1, 1_000_000))?,
                shop_publishes_per_s: self.get("limits.shop_publishes_per_s", number(1, 1_000_000))?,
                connections: self.get("limits.connections", number(1, 10_000_000))?,
                log_entries: self.get("limits.log_entries", number(1, 100_000_000))?,
            },
            timeouts: Timeouts {
                login: self.get("timeouts.login", duration("100ms", "10m"))?,
                ack: self.get("timeouts.ack", duration("100ms", "1h"))?,
                store: self.get("timeouts.store", duration("50ms", "60s"))?,
            },
            retention: Retention {
                messages: self.get("retention.messages", duration("1s", "3650d"))?,
                keys: self.get("retention.keys", duration("1s", "3650d"))?,
                devices: self.get("retention.devices", duration("1s", "3650d"))?,
            },
            heartbeat: self.get("heartbeat", duration("1s", "1h"))?,
            audit: self.get("audit", duration("1s", "60s"))?,
        };
        let is_insecure = self.get("insecure", switch)?;
        self.get("auth", auth)?;
        if let Some(listen) = config.listen.filter(|listen| !listen.ip().is_loopback() && !is_insecure) {
            self.problems.push(ConfigError::Open { listen });
        }
        Some(config)
    }

    fn get<T>(&mut self, key: &'static str, parse: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        let (value, source_name) = self.layers.value(key);
        let problem = match parse(value) {
            Ok(parsed) => return Some(parsed),
            Err(problem) => problem,
        };
        let (value, source_name) = (printable(key, value), source_name.to_owned());
        self.problems.push(ConfigError::Value { key, value, source_name, problem });
        parse(default_of(key)).ok()
    }
}

fn default_of(key: &str) -> &'static str {
    SETTINGS.iter().find(|setting| setting.key == key).map_or("", |setting| setting.default)
}

/// A value without what must not be repeated.
fn printable(key: &str, value: &str) -> String {
    if key == "store" { redacted_url(value) } else { value.to_owned() }
}

/// The filter in the form of `tracing`'s directives; a plain level is for the relay's own words only,
/// because libraries would print what passes through them.
fn log_filter(text: &str) -> Result<String, String> {
    let directives = if text.contains('=') { text.to_owned() } else { format!("warn,shoprelay={text}") };
    match tracing_subscriber::EnvFilter::try_new(&directives) {
        Ok(_) => Ok(directives),
        Err(problem) => Err(format!("{problem}; give error, warn, info, debug, or target=level pairs")),
    }
}

fn address(text: &str) -> Result<Option<SocketAddr>, String> {
    if text == "none" {
        return Ok(None);
    }
    let mut found = text.to_socket_addrs().map_err(|cause| format!("give host:port or none ({cause})"))?;
    found.next().map(Some).ok_or_else(|| "the host has no address".into())
}

fn store_url(text: &str) -> Result<StoreUrl, String> {
    let known = ["redis://", "rediss://", "redis+unix://"];
    let is_directory = text.strip_prefix("embedded:").is_some_and(|dir| !dir.is_empty());
    if is_directory || known.iter().any(|scheme| text.starts_with(scheme)) {
        return Ok(StoreUrl(text.to_owned()));
    }
    Err("give embedded:<directory>, redis://host:port, rediss://host:port or redis+unix:///path".into())
}

fn store_prefix(text: &str) -> Result<String, String> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b':' | b'.' | b'_' | b'-' | b'/');
    if text.is_empty() || text.len() > 64 || !text.bytes().all(allowed) {
        return Err("give 1 to 64 of A-Za-z0-9:._-/".into());
    }
    Ok(text.to_owned())
}

fn switch(text: &str) -> Result<bool, String> {
    match text {
        "true" | "1" | "yes" | "on" => Ok(true),
        "false" | "0" | "no" | "off" | "" => Ok(false),
        _ => Err("give true or false".into()),
    }
}

fn auth(text: &str) -> Result<(), String> {
    match text {
        "none" => Ok(()),
        "jwt" | "mtls" => Err("not in this version yet; it is none so far".into()),
        _ => Err("give none, jwt or mtls".into()),
    }
}

fn number<T>(min: T, max: T) -> impl Fn(&str) -> Result<T, String>
where
    T: std::str::FromStr + PartialOrd + std::fmt::Display + Copy,
{
    move |text| match text.parse::<T>() {
        Ok(number) if number >= min && number <= max => Ok(number),
        _ => Err(format!("give a whole number from {min} to {max}")),
    }
}

fn duration(min: &'static str, max: &'static str) -> impl Fn(&str) -> Result<Duration, String> {
    move |text| {
        let bound = |text| humantime::parse_duration(text).unwrap_or_default();
        match humantime::parse_duration(text) {
            Ok(duration) if (bound(min)..=bound(max)).contains(&duration) => Ok(duration),
            _ => Err(format!("give a time from {min} to {max}, such as 500ms, 30s, 5m, 24h or 7d")),
        }
    }
}
