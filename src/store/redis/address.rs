//! The store's address: what it may say, and what it means to fred.
//!
//! Owns its forms, TLS and the credentials. Never connects, and never logs an address, which may hold a
//! password. Called by [`super::client`].

use std::path::{Path, PathBuf};

use fred::types::RespVersion;
use fred::types::config::{Config, Server, ServerConfig, TlsConfig, TlsConnector};
use tokio_rustls::rustls;

use crate::trust::{self, TrustError};

/// Why an address cannot be taken.
#[derive(Debug, thiserror::Error)]
pub enum AddressError {
    #[error(
        "the store's address is not of a form that is supported; use redis://, rediss://, redis+unix://, \
         redis-sentinel://, rediss-sentinel://, redis-cluster:// or rediss-cluster://"
    )]
    Scheme,
    #[error("the store's address cannot be read: {0}")]
    Text(String),
    #[error("the store's address has a parameter {name:?} that is not known there")]
    Parameter { name: String },
    #[error("give node=host:port in the store's address, without user and password: those before the first host count")]
    Node,
    #[error("a redis+unix address takes no query, as it would not be obeyed; database 0 is used")]
    UnixQuery,
    #[error("a cluster has database 0 only; leave it out of the store's address")]
    ClusterDatabase,
    #[error(
        "the user or password in the store's address holds white space or a control character, which cannot be sent"
    )]
    Credentials,
    #[error("a certificate authority was given for an address that is not rediss")]
    CaWithoutTls,
    #[error("no certificate authority could be read from {path}")]
    Ca { path: PathBuf },
    #[error("the system has no certificate authorities; name one with --store-ca")]
    NoRoots,
    #[error("TLS for the store cannot be set up")]
    Tls(#[source] rustls::Error),
}

/// An address that can be connected to.
#[derive(Debug, Clone)]
pub struct Address {
    /// How a server is spoken to; of a cluster, with one of its servers put in.
    pub config: Config,
    /// Servers of the cluster that were named; empty where it is none.
    pub seeds: Vec<Server>,
}

/// What stands behind an address.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    One,
    Unix,
    Sentinel,
    Cluster,
}

impl Form {
    fn of(scheme: &str) -> Option<(Form, bool)> {
        Some(match scheme {
            "redis" => (Form::One, false),
            "rediss" => (Form::One, true),
            "redis+unix" => (Form::Unix, false),
            "redis-sentinel" => (Form::Sentinel, false),
            "rediss-sentinel" => (Form::Sentinel, true),
            "redis-cluster" => (Form::Cluster, false),
            "rediss-cluster" => (Form::Cluster, true),
            _ => return None,
        })
    }

    /// The parameters that are obeyed.
    fn parameters(self) -> &'static [&'static str] {
        match self {
            Form::One | Form::Unix => &[],
            Form::Sentinel => &["node", "sentinelServiceName", "sentinelUsername", "sentinelPassword"],
            Form::Cluster => &["node"],
        }
    }
}

impl Address {
    /// Reads an address; `ca` names the certificate authorities for TLS, else the system's are taken.
    ///
    /// # Errors
    /// [`AddressError`]
    pub fn read(url: &str, ca: Option<&Path>) -> Result<Address, AddressError> {
        let (scheme, rest) = url.split_once("://").ok_or(AddressError::Scheme)?;
        let (form, has_tls) = Form::of(scheme).ok_or(AddressError::Scheme)?;
        if ca.is_some() && !has_tls {
            return Err(AddressError::CaWithoutTls);
        }
        check_query(form, rest)?;
        let unreadable = |error: fred::error::Error| AddressError::Text(error.details().to_owned());
        // Parsed in their plain forms: fred would take the system's authorities, and a provider of its choice.
        let mut config = match form {
            Form::One => Config::from_url_centralized(&format!("redis://{rest}")),
            Form::Unix => Config::from_url_unix(url),
            Form::Sentinel => Config::from_url_sentinel(&format!("redis-sentinel://{rest}")),
            Form::Cluster => Config::from_url_clustered(&format!("redis-cluster://{rest}")),
        }
        .map_err(unreadable)?;
        // fred greets the server in one line of text, unquoted: a blank would end the password, and a
        // line break would begin another command.
        let is_sendable = |text: &String| !text.chars().any(|c| c.is_whitespace() || c.is_control());
        if ![&config.username, &config.password].into_iter().flatten().all(is_sendable) {
            return Err(AddressError::Credentials);
        }
        config.version = RespVersion::RESP3;
        config.fail_fast = true;
        if has_tls {
            config.tls = Some(tls(ca)?);
        }
        let seeds = match &config.server {
            ServerConfig::Clustered { hosts, .. } => hosts.clone(),
            _ => Vec::new(),
        };
        Ok(Address { config, seeds })
    }

    /// How this sentinel is spoken to; None where the address names none.
    pub fn of_sentinel(&self, place: &Server) -> Option<Config> {
        let ServerConfig::Sentinel { username, password, .. } = &self.config.server else { return None };
        let (username, password) = (username.clone(), password.clone());
        let server = ServerConfig::Centralized { server: place.clone() };
        Some(Config { server, username, password, database: None, ..self.config.clone() })
    }

    /// How this server of a cluster is spoken to: by itself, for it is we who know the way.
    pub fn of_server(&self, server: &Server) -> Config {
        let server = ServerConfig::Centralized { server: server.clone() };
        Config { server, ..self.config.clone() }
    }
}

/// Refuses what fred would pass over in silence.
fn check_query(form: Form, rest: &str) -> Result<(), AddressError> {
    let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
    if form == Form::Unix {
        // fred takes the path for the socket's and drops the query, where others put the database.
        return if rest.contains('?') { Err(AddressError::UnixQuery) } else { Ok(()) };
    }
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        if !form.parameters().contains(&&*name) {
            return Err(AddressError::Parameter { name: name.into_owned() });
        }
        let is_place =
            value.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
        if name == "node" && (!is_place || value.contains('@')) {
            return Err(AddressError::Node);
        }
    }
    let database =
        place.rsplit_once('@').map_or(place, |(_, place)| place).split_once('/').map_or("", |(_, path)| path);
    if form == Form::Cluster && !["", "0"].contains(&database) {
        return Err(AddressError::ClusterDatabase);
    }
    Ok(())
}

fn tls(ca: Option<&Path>) -> Result<TlsConfig, AddressError> {
    let config = trust::client_config(ca).map_err(|error| match (error, ca) {
        (TrustError::Tls(cause), _) => AddressError::Tls(cause),
        (_, Some(path)) => AddressError::Ca { path: path.to_owned() },
        (_, None) => AddressError::NoRoots,
    })?;
    Ok(TlsConnector::from(config).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(url: &str) -> AddressError {
        Address::read(url, None).unwrap_err()
    }

    #[test]
    fn addresses_that_cannot_be_obeyed_are_refused() {
        assert!(matches!(refused("localhost:6379"), AddressError::Scheme));
        assert!(matches!(refused("http://h"), AddressError::Scheme));
        assert!(matches!(refused("redis+unix:///tmp/s?db=1"), AddressError::UnixQuery));
        assert!(matches!(refused("redis://h:1/x"), AddressError::Text(_)));
        assert!(matches!(refused("redis://h:1?timeout=3"), AddressError::Parameter { name } if name == "timeout"));
        assert!(matches!(refused("redis://:a%0d%0ab@h:1"), AddressError::Credentials));
        assert!(matches!(refused("redis-sentinel://h:1/0"), AddressError::Text(_)), "no service is named");
        assert!(matches!(refused("redis-cluster://h:1/3"), AddressError::ClusterDatabase));
        assert!(matches!(refused("redis-cluster://h:1?node=h"), AddressError::Node));
        assert!(matches!(refused("redis-cluster://h:1?sentinelServiceName=x"), AddressError::Parameter { .. }));
        let with_ca = |url, path| Address::read(url, Some(Path::new(path))).unwrap_err();
        assert!(matches!(with_ca("redis://h", "ca.pem"), AddressError::CaWithoutTls));
        assert!(matches!(with_ca("redis-cluster://h", "ca.pem"), AddressError::CaWithoutTls));
        assert!(matches!(with_ca("rediss-cluster://h", "/no/ca.pem"), AddressError::Ca { .. }));
    }

    #[test]
    fn a_sentinel_address_names_sentinels_their_service_and_their_own_credentials() {
        let url = "redis-sentinel://u:p@a:1/2?sentinelServiceName=shop&node=b:2&sentinelUsername=s&sentinelPassword=q";
        let Address { config, seeds } = Address::read(url, None).unwrap();
        assert_eq!((config.username.as_deref(), config.password.as_deref()), (Some("u"), Some("p")));
        assert_eq!((config.database, seeds.len()), (Some(2), 0));
        let ServerConfig::Sentinel { hosts, service_name, username, password } = config.server else { panic!() };
        assert_eq!(hosts, [Server::new("b", 2), Server::new("a", 1)]);
        assert_eq!((&*service_name, username.as_deref(), password.as_deref()), ("shop", Some("s"), Some("q")));
    }

    #[test]
    fn a_cluster_address_names_servers_to_ask_and_each_is_spoken_to_by_itself() {
        let address = Address::read("redis-cluster://:p@a?node=b:2&node=c:3", None).unwrap();
        assert_eq!(address.seeds, [Server::new("b", 2), Server::new("c", 3), Server::new("a", 6379)]);
        let config = address.of_server(&Server::new("d", 4));
        assert_eq!(config.password.as_deref(), Some("p"));
        assert!(matches!(config.server, ServerConfig::Centralized { server } if server == Server::new("d", 4)));
    }

    #[test]
    fn a_refusal_never_repeats_the_password() {
        for url in [
            "redis://u:hunter2@h:1/x",
            "redis://u:hunter2@",
            "x://u:hunter2@h",
            "redis+unix://u:hunter2@h/s?db=1",
            "redis-cluster://h?node=u:hunter2@h:1",
            "redis-sentinel://h?sentinelPassword=hunter2",
            "redis-sentinel://h?Password=hunter2",
        ] {
            let error = refused(url);
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
        }
    }
}
