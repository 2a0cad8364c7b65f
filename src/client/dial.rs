//! Where a device connects, and whose certificate it believes.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_tungstenite::tungstenite::http::Uri;

use crate::trust::{self, TrustError};

/// Where the relay's devices come in, unless the address says otherwise.
const PATH: &str = "/ws";

/// Why an address cannot be dialled.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    #[error("{url:?} is no address of a relay; give ws://host:port or wss://host:port")]
    Address { url: String },
    #[error("{url:?}: the host is no name that a certificate could have")]
    Host { url: String },
    #[error("no certificate authority could be read from {path}; give a PEM file")]
    Ca { path: PathBuf },
    #[error("the system has no certificate authorities; name one for wss://")]
    NoRoots,
    #[error("TLS cannot be set up: {0}")]
    Tls(#[from] tokio_rustls::rustls::Error),
}

/// Whose certificates are believed.
#[derive(Clone)]
pub struct Trust(TlsConnector);

impl Trust {
    /// The authorities in this PEM file, or the system's.
    ///
    /// # Errors
    /// There are none to be had.
    pub fn open(ca: Option<&Path>) -> Result<Trust, DialError> {
        let config = trust::client_config(ca).map_err(|error| match (error, ca) {
            (TrustError::Tls(cause), _) => DialError::Tls(cause),
            (_, Some(path)) => DialError::Ca { path: path.to_owned() },
            (_, None) => DialError::NoRoots,
        })?;
        Ok(Trust(TlsConnector::from(Arc::new(config))))
    }
}

/// An address of the relay.
#[derive(Clone)]
pub struct Dial {
    /// As a WebSocket client names it, with its path.
    pub(super) url: String,
    host: String,
    port: u16,
    tls: Option<(TlsConnector, ServerName<'static>)>,
}

/// A connection, plain or not.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

impl Dial {
    /// Reads `ws://host[:port][/path]` or `wss://…`; the path is `/ws` where none is given, the port the
    /// scheme's. `trust` is looked at for `wss` only.
    ///
    /// # Errors
    /// It is no such address, or a `wss` one and there is nobody to trust.
    pub fn parse(text: &str, trust: Option<&Trust>) -> Result<Dial, DialError> {
        let wrong = || DialError::Address { url: text.to_owned() };
        let uri: Uri = text.parse().map_err(|_| wrong())?;
        let is_tls = match uri.scheme_str() {
            Some("ws") => false,
            Some("wss") => true,
            _ => return Err(wrong()),
        };
        let authority = uri.authority().filter(|authority| !authority.host().is_empty()).ok_or_else(wrong)?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = authority.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        let tls = match is_tls {
            false => None,
            true => {
                let name = ServerName::try_from(host.clone());
                let name = name.map_err(|_| DialError::Host { url: text.to_owned() })?;
                Some((trust.ok_or(DialError::NoRoots)?.0.clone(), name))
            }
        };
        let path = match uri.path_and_query().map_or("/", |path| path.as_str()) {
            "/" => PATH,
            given => given,
        };
        let scheme = if is_tls { "wss" } else { "ws" };
        Ok(Dial { url: format!("{scheme}://{authority}{path}"), host, port, tls })
    }

    /// Opens a connection.
    ///
    /// # Errors
    /// Nobody answers there, or somebody who is not believed.
    pub(super) async fn connect(&self) -> std::io::Result<Box<dyn Stream>> {
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
        stream.set_nodelay(true)?;
        Ok(match &self.tls {
            None => Box::new(stream),
            Some((connector, name)) => Box::new(connector.connect(name.clone(), stream).await?),
        })
    }
}

impl std::fmt::Display for Dial {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.url)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_the_usual_port_and_path_unless_it_names_others() {
        for (text, url, host, port) in [
            ("ws://relay", "ws://relay/ws", "relay", 80),
            ("ws://127.0.0.1:8080/", "ws://127.0.0.1:8080/ws", "127.0.0.1", 8080),
            ("ws://[::1]:9/devices", "ws://[::1]:9/devices", "::1", 9),
        ] {
            let dial = Dial::parse(text, None).unwrap();
            assert_eq!((dial.url.as_str(), dial.host.as_str(), dial.port), (url, host, port));
        }
        for text in ["http://relay", "relay:8080", "", "ws://"] {
            let error = Dial::parse(text, None).err().unwrap();
            assert!(error.to_string().contains("ws://host:port"), "{text}: {error}");
        }
        assert!(matches!(Dial::parse("wss://relay", None), Err(DialError::NoRoots)));
    }
}
