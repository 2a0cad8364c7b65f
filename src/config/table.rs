//! The table of settings: every name there is, with its default and how it may be given.
//!
//! Owns no values and reads nothing. The command line, the environment and the settings file are read
//! from it, and the README is compared with it.

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
    /// Several values: by flag, which may be repeated, environment, and file, where it may be an array.
    /// Wherever it comes from, a comma parts two values, so no value can have one.
    List,
    /// By environment and file only.
    File,
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
        "where messages live: embedded:<directory>, redis://, redis-sentinel://, redis-cluster:// (rediss: with TLS), \
         redis+unix://",
    ),
    setting("store_ca", "", Kind::Flag, "PEM file of the authority to trust for rediss, instead of the system's"),
    setting("store_prefix", "sr:", Kind::Flag, "what every key and channel in Redis begins with"),
    setting(
        "store_wait_replicas",
        "0",
        Kind::Flag,
        "replicas of Redis that have to have a message before it is accepted",
    ),
    setting("tls_listen", "none", Kind::Flag, "where devices connect by TLS; none for nowhere"),
    setting(
        "tls_cert",
        "",
        Kind::Flag,
        "PEM file with the certificate for tls_listen, and what leads from it to its CA",
    ),
    setting("tls_key", "", Kind::Flag, "PEM file with the key of that certificate"),
    setting("tls_client_ca", "", Kind::Flag, "PEM file of the CAs whose certificates devices have to show by TLS"),
    setting("tls_client_crl", "", Kind::Flag, "PEM file with the lists of those certificates that are revoked"),
    setting("auth", "none", Kind::Flag, "who may log in: none (anyone; loopback only, unless insecure), jwt or mtls"),
    setting("insecure", "false", Kind::Switch, "let anyone log in and use the API from anywhere"),
    setting(
        "jwt_secret_file",
        "",
        Kind::List,
        "file with a secret that device tokens are signed with (HS256); of several each as kid=path",
    ),
    setting(
        "jwt_public_key_file",
        "",
        Kind::List,
        "PEM file with a public key that device tokens are checked with (EdDSA); of several each as kid=path",
    ),
    setting("api_keys_file", "", Kind::Flag, "TOML file with the API's keys; without one it is loopback only"),
    setting("cors_origins", "", Kind::List, "browser origins that may call the API, or * for any"),
    setting("origins", "", Kind::List, "browser origins that may open a WebSocket beside the node's own, or * for any"),
    setting("proxy_protocol", "false", Kind::Switch, "devices' connections begin with a header of the PROXY protocol"),
    setting("trusted_proxies", "", Kind::List, "networks of balancers, whose word on a client's address is taken"),
    setting("legacy", "false", Kind::Switch, "serve the hand-made server's clients too, unchanged"),
    setting("events", "false", Kind::Switch, "tell back-end workers by an event stream; needs a Redis store"),
    setting("drain_window", "30s", Kind::Flag, "how long a node that stops has to send its devices elsewhere"),
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
    setting("limits.shop_connections", "20000", Kind::File, "sessions of a shop on this node; then rate_limited"),
    setting("limits.address_connections", "none", Kind::File, "connections of an address on this node; then 503"),
    setting("limits.handshakes_per_s", "10000", Kind::File, "WebSockets opened a second; the rest wait"),
    setting("limits.handshake_queue", "10000", Kind::File, "handshakes that may wait; then 503"),
    setting("limits.logins_per_s", "10000", Kind::File, "logins a second; the rest wait"),
    setting("limits.login_queue", "20000", Kind::File, "logins that may wait; then 503 and unavailable"),
    setting("limits.logins_at_once", "128", Kind::File, "logins that ask the store at once, at most"),
    setting("limits.login_delay", "25ms", Kind::File, "by how much logins may slow the store down; then fewer at once"),
    setting("limits.session_bytes_per_s", "1048576", Kind::File, "bytes taken from a connection; the rest waits there"),
    setting(
        "limits.memory_mib",
        "auto",
        Kind::File,
        "memory of the node; auto for the control group's, none for no limit",
    ),
    setting("limits.log_entries", "100000", Kind::File, "entries a shop's log holds; then backlog_full"),
    setting("limits.device_groups", "1000", Kind::File, "groups a device may be in"),
    setting("limits.events", "100000", Kind::File, "entries the event stream holds, roughly"),
    setting("limits.api_connections", "1000", Kind::File, "connections of back ends at once; then 503"),
    setting("limits.tls_handshakes", "1000", Kind::File, "TLS handshakes under way at once; then the next ones wait"),
    setting("timeouts.login", "10s", Kind::File, "from the TCP connection to the login"),
    setting("timeouts.header", "5s", Kind::File, "how long a device may take to send a PROXY header, and an HTTP head"),
    setting(
        "timeouts.api_header",
        "30s",
        Kind::File,
        "how long a back end may take to begin a request and end its head",
    ),
    setting("timeouts.ack", "30s", Kind::File, "how long a device may take to acknowledge, and to read"),
    setting("timeouts.store", "2s", Kind::File, "deadline of every call of the store"),
    setting("retention.messages", "7d", Kind::File, "how long messages are kept"),
    setting("retention.keys", "24h", Kind::File, "how long idempotency keys are kept"),
    setting("retention.devices", "30d", Kind::File, "how long a device that is away stays registered"),
    setting(
        "legacy.require_token",
        "",
        Kind::File,
        "shops whose legacy devices need a token though auth is none, parted by commas, or * for all",
    ),
    setting("heartbeat", "25s", Kind::File, "time between Pings; a connection silent for two is closed"),
    setting("audit", "30s", Kind::File, "within this time every room's position is compared with its log"),
];
