//! From texts to values: what each setting may be.
//!
//! Owns the bounds of every setting and what is wrong with two of them together. Never opens what a
//! setting names. Called by [`Layers::check`].

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use super::{
    Auth, ClientFiles, Config, ConfigError, KeyFile, Layers, LegacyTokens, Limits, MemoryLimit, Origins, Retention,
    SETTINGS, StoreUrl, Timeouts, Tls, TlsFiles, TokenKeyFiles, TokenShops, redacted_url,
};

/// The values of [`Layers`] on their way into a [`Config`]. One that cannot be taken is noted, and its
/// default goes on in its place, so that what is wrong with the rest is found too.
pub(super) struct Values<'a> {
    pub(super) layers: &'a Layers,
    pub(super) problems: &'a mut Vec<ConfigError>,
}

impl Values<'_> {
    pub(super) fn parse(&mut self) -> Option<Config> {
        let (auth, legacy_tokens) = self.auth()?;
        let config = Config {
            listen: self.get("listen", address)?,
            api_listen: self.get("api_listen", address)?,
            metrics_listen: self.get("metrics_listen", address)?,
            tls: self.tls()?,
            store: self.get("store", store_url)?,
            store_ca: self.get("store_ca", path)?,
            store_prefix: self.get("store_prefix", store_prefix)?,
            store_wait_replicas: self.get("store_wait_replicas", number(0, 16))?,
            drain_window: self.get("drain_window", duration("0s", "1h"))?,
            log: self.get("log", log_filter)?,
            limits: Limits {
                frame_bytes: self.get("limits.frame_bytes", number(1024, 16 << 20))?,
                window: self.get("limits.window", number(1, 10_000))?,
                session_ops_per_s: self.get("limits.session_ops_per_s", number(1, 1_000_000))?,
                shop_publishes_per_s: self.get("limits.shop_publishes_per_s", number(1, 1_000_000))?,
                connections: self.get("limits.connections", number(1, 10_000_000))?,
                shop_connections: self.get("limits.shop_connections", number(1, 10_000_000))?,
                address_connections: self.get("limits.address_connections", number_or_none(1, 10_000_000))?,
                handshakes_per_s: self.get("limits.handshakes_per_s", number(1, 1_000_000))?,
                handshake_queue: self.get("limits.handshake_queue", number(1, 10_000_000))?,
                logins_per_s: self.get("limits.logins_per_s", number(1, 1_000_000))?,
                login_queue: self.get("limits.login_queue", number(1, 10_000_000))?,
                logins_at_once: self.get("limits.logins_at_once", number(1, 10_000))?,
                login_delay: self.get("limits.login_delay", duration("1ms", "10s"))?,
                session_bytes_per_s: self.get("limits.session_bytes_per_s", number(1024, 1 << 30))?,
                memory: self.get("limits.memory_mib", memory)?,
                log_entries: self.get("limits.log_entries", number(1, 100_000_000))?,
                device_groups: self.get("limits.device_groups", number(1, 100_000))?,
                events: self.get("limits.events", number(1, 100_000_000))?,
                api_connections: self.get("limits.api_connections", number(1, 1_000_000))?,
                tls_handshakes: self.get("limits.tls_handshakes", number(1, 1_000_000))?,
            },
            timeouts: Timeouts {
                login: self.get("timeouts.login", duration("100ms", "10m"))?,
                header: self.get("timeouts.header", duration("100ms", "10m"))?,
                api_header: self.get("timeouts.api_header", duration("100ms", "10m"))?,
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
            auth,
            api_keys_file: self.get("api_keys_file", path)?,
            cors_origins: self.get("cors_origins", origins)?,
            origins: self.get("origins", origins)?,
            proxy_protocol: self.get("proxy_protocol", switch)?,
            trusted_proxies: self.get("trusted_proxies", networks)?,
            legacy: self.get("legacy", switch)?,
            legacy_tokens,
            events: self.get("events", switch)?,
        };
        self.check_together(&config)?;
        Some(config)
    }

    /// Who may log in, with the keys that say so, and which legacy devices need one all the same.
    fn auth(&mut self) -> Option<(Auth, Option<LegacyTokens>)> {
        let problems_before = self.problems.len();
        let method = self.get("auth", auth)?;
        let is_method_known = self.problems.len() == problems_before;
        let files = TokenKeyFiles {
            secrets: self.get("jwt_secret_file", key_files)?,
            public_keys: self.get("jwt_public_key_file", key_files)?,
        };
        let mut kids = BTreeSet::new();
        for kid in files.secrets.iter().chain(&files.public_keys).filter_map(|file| file.kid.as_ref()) {
            if !kids.insert(kid) {
                self.problems.push(ConfigError::SameKid { kid: kid.clone() });
            }
        }
        let shops = self.get("legacy.require_token", token_shops)?;
        if shops.is_some() && !self.get("legacy", switch)? {
            self.problems.push(ConfigError::LegacyTokensUnused);
        }
        let unused = [("jwt_secret_file", &files.secrets), ("jwt_public_key_file", &files.public_keys)];
        match (method, shops) {
            (Method::None, Some(shops)) => {
                if unused.iter().all(|(_, files)| files.is_empty()) {
                    self.problems.push(ConfigError::LegacyTokenKeysMissing);
                }
                Some((Auth::None, Some(LegacyTokens { shops, files })))
            }
            (Method::None, None) => {
                // Who meant another method, and only mistyped it, needs no advice on its keys.
                let unused = unused.iter().filter(|(_, files)| is_method_known && !files.is_empty());
                self.problems.extend(unused.map(|(key, _)| ConfigError::TokenKeysUnused { key, auth: "none" }));
                Some((Auth::None, None))
            }
            (Method::Mtls, shops) => {
                if shops.is_some() {
                    self.problems.push(ConfigError::LegacyTokensUnderMtls);
                }
                let unused = unused.iter().filter(|(_, files)| !files.is_empty());
                self.problems.extend(unused.map(|(key, _)| ConfigError::TokenKeysUnused { key, auth: "mtls" }));
                Some((Auth::Mtls, None))
            }
            // There every device needs a token.
            (Method::Jwt, _) => {
                if unused.iter().all(|(_, files)| files.is_empty()) {
                    self.problems.push(ConfigError::TokenKeysMissing);
                }
                Some((Auth::Jwt(files), None))
            }
        }
    }

    /// How devices are served by TLS; None where they are not, for want of a listener or of a file.
    fn tls(&mut self) -> Option<Option<Tls>> {
        let files = ["tls_cert", "tls_key", "tls_client_ca", "tls_client_crl"];
        let mut given = Vec::new();
        for key in files {
            given.extend(self.get(key, path)?.map(|path| (key, path)));
        }
        let Some(listen) = self.get("tls_listen", address)? else {
            self.problems.extend(given.iter().map(|(key, _)| ConfigError::TlsFileUnused { key }));
            return Some(None);
        };
        let mut file = |wanted| given.iter().find(|(key, _)| *key == wanted).map(|(_, path)| path.clone());
        let [certificate, key, authorities, revoked] = files.map(&mut file);
        for (key, file) in [("tls_cert", &certificate), ("tls_key", &key)] {
            if file.is_none() {
                self.problems.push(ConfigError::TlsFileMissing { key });
            }
        }
        if revoked.is_some() && authorities.is_none() {
            self.problems.push(ConfigError::RevokedByNobody);
        }
        let clients = authorities.map(|authorities| ClientFiles { authorities, revoked });
        let files = certificate.zip(key).map(|(certificate, key)| TlsFiles { certificate, key, clients });
        Some(files.map(|files| Tls { listen, files }))
    }

    /// What each value allows and two of them together do not.
    fn check_together(&mut self, config: &Config) -> Option<()> {
        let is_insecure = self.get("insecure", switch)?;
        let open = |listen: Option<SocketAddr>| listen.filter(|listen| !listen.ip().is_loopback() && !is_insecure);
        let for_devices = [config.listen, config.tls.as_ref().map(|tls| tls.listen)];
        if config.auth == Auth::None {
            let open = for_devices.into_iter().filter_map(open);
            self.problems.extend(open.map(|listen| ConfigError::Open { listen }));
        }
        if config.auth == Auth::Mtls && config.tls.as_ref().is_none_or(|tls| tls.files.clients.is_none()) {
            self.problems.push(ConfigError::MtlsWithoutTls);
        }
        if let (Some(listen), None) = (open(config.api_listen), &config.api_keys_file) {
            self.problems.push(ConfigError::OpenApi { listen });
        }
        let Limits { session_bytes_per_s: bytes_per_s, frame_bytes, .. } = config.limits;
        if f64::from(bytes_per_s) * config.heartbeat.as_secs_f64() < frame_bytes as f64 {
            let heartbeat = config.heartbeat;
            self.problems.push(ConfigError::FramesTooSlow { bytes_per_s, frame_bytes, heartbeat });
        }
        if config.events && config.store.is_embedded() {
            self.problems.push(ConfigError::EventsEmbedded);
        }
        Some(())
    }

    /// The files with secrets for device tokens, whatever the other settings say of them.
    pub(super) fn token_secrets(&mut self) -> Option<Vec<KeyFile>> {
        self.get("jwt_secret_file", key_files)
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

pub(super) fn default_of(key: &str) -> &'static str {
    SETTINGS.iter().find(|setting| setting.key == key).map_or("", |setting| setting.default)
}

/// A value without what must not be repeated.
pub(super) fn printable(key: &str, value: &str) -> String {
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
    let known = [
        "redis://",
        "rediss://",
        "redis+unix://",
        "redis-sentinel://",
        "rediss-sentinel://",
        "redis-cluster://",
        "rediss-cluster://",
    ];
    let is_directory = text.strip_prefix("embedded:").is_some_and(|dir| !dir.is_empty());
    if is_directory || known.iter().any(|scheme| text.starts_with(scheme)) {
        return Ok(StoreUrl(text.to_owned()));
    }
    Err("give embedded:<directory>, redis://host:port, redis+unix:///path, \
         redis-sentinel://host:port/0?sentinelServiceName=name or redis-cluster://host:port; rediss for TLS"
        .into())
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

/// How a login is checked.
enum Method {
    None,
    Jwt,
    Mtls,
}

fn auth(text: &str) -> Result<Method, String> {
    match text {
        "none" => Ok(Method::None),
        "jwt" => Ok(Method::Jwt),
        "mtls" => Ok(Method::Mtls),
        _ => Err("give none, jwt or mtls".into()),
    }
}

fn path(text: &str) -> Result<Option<PathBuf>, String> {
    Ok((!text.is_empty()).then(|| PathBuf::from(text)))
}

/// The values of a list: none in an empty text, otherwise parted by commas.
fn list(text: &str) -> Result<Vec<&str>, String> {
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    let values: Vec<&str> = text.split(',').map(str::trim).collect();
    if values.contains(&"") {
        return Err("there is nothing beside one of its commas".into());
    }
    Ok(values)
}

/// Files, each as its path or as `kid=path`. What stands before the first `=` is a kid where it looks
/// like one; a slash does not, so `./a=b` is a path.
fn key_files(text: &str) -> Result<Vec<KeyFile>, String> {
    let is_kid = |text: &str| {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        (1..=64).contains(&text.len()) && text.bytes().all(allowed)
    };
    let files = list(text)?.into_iter().map(|file| match file.split_once('=') {
        Some((kid, "")) if is_kid(kid) => Err(format!("after {kid}= there is no path")),
        Some((kid, path)) if is_kid(kid) => Ok(KeyFile { kid: Some(kid.to_owned()), path: path.into() }),
        _ => Ok(KeyFile { kid: None, path: file.into() }),
    });
    files.collect()
}

/// None where no shop is named.
fn token_shops(text: &str) -> Result<Option<TokenShops>, String> {
    let shops = text.split(',').map(str::trim).filter(|shop| !shop.is_empty());
    let shops: BTreeSet<String> = shops.map(str::to_owned).collect();
    if shops.contains("*") {
        return match shops.len() {
            1 => Ok(Some(TokenShops::All)),
            _ => Err("* stands alone, for all shops".into()),
        };
    }
    Ok((!shops.is_empty()).then_some(TokenShops::Only(shops)))
}

fn origins(text: &str) -> Result<Origins, String> {
    if text.trim() == "*" {
        return Ok(Origins::Any);
    }
    let origins = list(text)?.into_iter().map(|origin| {
        let host = origin.split_once("://").filter(|(scheme, _)| !scheme.is_empty()).map(|(_, host)| host);
        match host {
            Some(host) if !host.is_empty() && !host.contains(['/', '?', '#', '@', '*', ' ']) => {
                Ok(origin.to_ascii_lowercase())
            }
            _ => Err(format!("{origin:?} is no origin; the form is scheme://host[:port], and * stands alone for any")),
        }
    });
    origins.collect::<Result<_, _>>().map(Origins::Only)
}

/// Networks, each as `address/bits` or as one address.
fn networks(text: &str) -> Result<Vec<IpNet>, String> {
    let networks = list(text)?.into_iter().map(|network| {
        let address = network.parse().map(|address: IpAddr| IpNet::from(address));
        let parsed = network.parse().or(address);
        parsed.map_err(|_| format!("{network:?} is no network; the form is 10.0.0.0/8, 2001:db8::/32 or an address"))
    });
    networks.collect()
}

fn memory(text: &str) -> Result<MemoryLimit, String> {
    match text {
        "auto" => Ok(MemoryLimit::Auto),
        "none" => Ok(MemoryLimit::None),
        _ => number(16, 16 << 20)(text).map(MemoryLimit::Mib).map_err(|problem| format!("{problem}, auto or none")),
    }
}

fn number_or_none(min: usize, max: usize) -> impl Fn(&str) -> Result<Option<usize>, String> {
    move |text| match text {
        "none" => Ok(None),
        _ => number(min, max)(text).map(Some).map_err(|problem| format!("{problem}, or none")),
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
