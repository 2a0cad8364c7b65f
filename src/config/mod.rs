//! Every setting: its name, default and bounds, and where it may come from.
//!
//! Owns the table [`SETTINGS`], from which the command line, the environment and the file are read
//! alike, and the checked [`Config`] that comes of them. Never opens a socket; the one file it reads is the settings file. Called by `main`, `check`
//! and `demo`.

mod layers;
#[cfg(any(test, fuzzing))]
pub mod properties;
mod table;
#[cfg(test)]
mod tests;
mod values;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

pub use layers::{Effective, Layers};
pub use table::{Kind, SETTINGS, Setting};

/// The settings of a node, checked.
#[derive(Debug, Clone)]
pub struct Config {
    pub listen: Option<SocketAddr>,
    pub api_listen: Option<SocketAddr>,
    pub metrics_listen: Option<SocketAddr>,
    /// How devices are served by TLS.
    pub tls: Option<Tls>,
    pub store: StoreUrl,
    pub store_ca: Option<PathBuf>,
    pub store_prefix: String,
    /// Replicas of Redis that have to have a message before it is accepted.
    pub store_wait_replicas: u32,
    pub auth: Auth,
    /// The file with the API's keys; None where whoever reaches the API may use it.
    pub api_keys_file: Option<PathBuf>,
    pub cors_origins: Origins,
    /// Whose pages may open a WebSocket, beside those that come from where it goes.
    pub origins: Origins,
    /// Whether a connection of a device begins with a header of the PROXY protocol.
    pub proxy_protocol: bool,
    pub trusted_proxies: Vec<IpNet>,
    /// Whether the hand-made server's clients are served too.
    pub legacy: bool,
    /// Where `auth` is none: which of these need a token all the same.
    pub legacy_tokens: Option<LegacyTokens>,
    /// Whether the event stream is written.
    pub events: bool,
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
    pub shop_connections: usize,
    /// None for no limit.
    pub address_connections: Option<usize>,
    pub handshakes_per_s: u32,
    pub handshake_queue: usize,
    pub logins_per_s: u32,
    pub login_queue: usize,
    pub logins_at_once: usize,
    pub login_delay: Duration,
    pub session_bytes_per_s: u32,
    pub memory: MemoryLimit,
    pub log_entries: u64,
    pub device_groups: usize,
    pub events: u64,
    pub api_connections: usize,
    pub tls_handshakes: usize,
}

/// Where devices connect by TLS, and with what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    pub listen: SocketAddr,
    pub files: TlsFiles,
}

/// The files that TLS needs, all in PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The node's certificate, and what leads from it to its authority.
    pub certificate: PathBuf,
    /// The key of that certificate.
    pub key: PathBuf,
    pub clients: Option<ClientFiles>,
}

/// Whose certificates devices have to show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientFiles {
    /// The authorities that issue them.
    pub authorities: PathBuf,
    /// Which of them are revoked.
    pub revoked: Option<PathBuf>,
}

/// How much memory the node may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemoryLimit {
    /// What its control group may, where that has a limit.
    Auto,
    None,
    Mib(u64),
}

/// Who may log in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Auth {
    /// Anyone.
    None,
    /// Whoever brings a token that one of these keys, at least one, signed.
    Jwt(TokenKeyFiles),
    /// Whoever connects by TLS with a client certificate, as the device that it names.
    Mtls,
}

/// Which legacy devices need a token although `auth` is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LegacyTokens {
    pub shops: TokenShops,
    /// At least one.
    pub files: TokenKeyFiles,
}

/// The shops that `legacy.require_token` names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenShops {
    All,
    Only(BTreeSet<String>),
}

impl TokenShops {
    /// Whether this shop is one of them.
    pub fn contains(&self, shop: &str) -> bool {
        match self {
            TokenShops::All => true,
            TokenShops::Only(shops) => shops.contains(shop),
        }
    }
}

/// Where the keys for device tokens are. No two have the same `kid`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenKeyFiles {
    /// Secrets, for HS256.
    pub secrets: Vec<KeyFile>,
    /// Ed25519 public keys in PEM, for EdDSA.
    pub public_keys: Vec<KeyFile>,
}

/// A file with one key for device tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyFile {
    /// The name by which a token says that this key signed it.
    pub kid: Option<String>,
    pub path: PathBuf,
}

/// Browser origins that are let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origins {
    Any,
    /// These, each `scheme://host[:port]` in lower case; none where it is empty.
    Only(Vec<String>),
}

/// Deadlines; see [`SETTINGS`].
#[derive(Debug, Clone)]
pub struct Timeouts {
    pub login: Duration,
    pub header: Duration,
    pub api_header: Duration,
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
    /// Whether messages live in a file of this node.
    pub fn is_embedded(&self) -> bool {
        self.0.starts_with("embedded:")
    }

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
    // The first of them has the place before its name. A question mark there may have been cut off.
    let parameters = place.split('&').map(|parameter| match parameter.split_once('=') {
        Some((name, _)) if ["password", "username"].iter().any(|secret| name.to_lowercase().contains(secret)) => {
            format!("{name}=***")
        }
        _ => parameter.to_owned(),
    });
    format!("{scheme}{}", parameters.collect::<Vec<_>>().join("&"))
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
    #[error(
        "auth is none and {listen} is no loopback address, so anyone could log in; listen on 127.0.0.1 or say --insecure"
    )]
    Open { listen: SocketAddr },
    #[error(
        "api_listen is {listen}, and without a keys file the API answers on a loopback address only; name a file with \
         --api-keys-file, listen on 127.0.0.1 or say --insecure"
    )]
    OpenApi { listen: SocketAddr },
    #[error("auth is jwt and there is no key for tokens; name one with --jwt-secret-file or --jwt-public-key-file")]
    TokenKeysMissing,
    #[error("{key} is given and auth is {auth}, so no token would be looked at; say --auth jwt, or leave the key out")]
    TokenKeysUnused { key: &'static str, auth: &'static str },
    #[error("tls_listen is given and {key} is not; name a PEM file with it")]
    TlsFileMissing { key: &'static str },
    #[error("{key} is given and tls_listen is none, so there is no TLS; give tls_listen, or leave {key} out")]
    TlsFileUnused { key: &'static str },
    #[error("tls_client_crl is given and tls_client_ca is not; name the CAs whose certificates it revokes")]
    RevokedByNobody,
    #[error(
        "auth is mtls, which needs TLS and client certificates; give --tls-listen, --tls-cert, --tls-key and \
         --tls-client-ca"
    )]
    MtlsWithoutTls,
    #[error(
        "legacy.require_token is for auth none, and auth is mtls: there a certificate says who a device is; leave one of \
         the two out"
    )]
    LegacyTokensUnderMtls,
    #[error(
        "legacy.require_token is given and there is no key for tokens; name one with --jwt-secret-file or \
         --jwt-public-key-file"
    )]
    LegacyTokenKeysMissing,
    #[error("legacy.require_token is given and legacy is off; say --legacy, or leave legacy.require_token out")]
    LegacyTokensUnused,
    #[error("two keys for tokens have the kid {kid:?}; give each a kid of its own")]
    SameKid { kid: String },
    #[error(
        "limits.session_bytes_per_s is {bytes_per_s}, by which a frame of limits.frame_bytes, {frame_bytes}, takes longer \
         than a heartbeat, {heartbeat:?}; raise the one or lower the others"
    )]
    FramesTooSlow { bytes_per_s: u32, frame_bytes: usize, heartbeat: Duration },
    #[error("events is on, but the event stream needs a Redis and the store is embedded; change one of the two")]
    EventsEmbedded,
}
