//! Who is at the other end of a device's connection, and whether it gets a place.
//!
//! Owns what happens between the accepting of a TCP connection and its first request: the place on the node, the
//! PROXY header, the true address. Comes before TLS. The address decides nothing but the limit of connections an
//! address, and whether a caller is on this machine; it is logged at `debug` only.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::header::HeaderMap;
use ipnet::IpNet;
use tokio::net::TcpStream;
use tracing::debug;

use crate::auth::ClientCertificate;
use crate::config::{Config, Origins};
use crate::http::{forwarded, proxy};
use crate::metrics::{self, Refusal};
use crate::relay::{Place, Relay, Turned};

/// How long whoever is only told that there is no room may take to ask.
const REFUSED_HEAD_TIMEOUT: Duration = Duration::from_secs(2);

/// What the doors of devices are set to.
pub struct Door {
    proxy_protocol: bool,
    trusted_proxies: Vec<IpNet>,
    header_timeout: Duration,
    pub(super) origins: Origins,
}

/// Who is at the other end of a device's connection.
pub struct Peer {
    /// Of the device, as far as the node is told; of the last proxy where it is not.
    pub address: SocketAddr,
    /// Whether it came in by a loopback address of this machine, and from this machine.
    pub is_local: bool,
    /// When the TCP connection was accepted.
    pub at: Instant,
    /// What it showed by TLS.
    pub certificate: Option<Arc<ClientCertificate>>,
    pub(super) place: Place,
    pub(super) door: Arc<Door>,
}

impl Door {
    /// The doors of a node of these settings.
    pub fn new(config: &Config) -> Arc<Door> {
        Arc::new(Door {
            proxy_protocol: config.proxy_protocol,
            trusted_proxies: config.trusted_proxies.clone(),
            header_timeout: config.timeouts.header,
            origins: config.origins.clone(),
        })
    }

    /// Gives a connection that was just accepted its place and finds out whose it is; None where it is to be
    /// dropped. Comes before anything else is read from it, TLS too.
    pub async fn meet(self: &Arc<Self>, relay: &Relay, stream: &mut TcpStream, from: SocketAddr) -> Option<Peer> {
        let at = Instant::now();
        let mut place = relay.intake.arrive()?;
        let mut address = from;
        if self.proxy_protocol {
            match self.read_proxy_header(stream, from).await {
                Ok(told) => address = told.unwrap_or(from),
                Err(why) => {
                    metrics::connection_refused(Refusal::ProxyHeader);
                    debug!(%from, why, "a connection was dropped for its PROXY header");
                    return None;
                }
            }
        }
        // What a proxy forwards says by itself whose it is.
        if !forwarded::is_trusted(&self.trusted_proxies, address.ip()) && !place.count_address(address.ip()) {
            return None;
        }
        let came_in_locally = stream.local_addr().is_ok_and(|address| address.ip().is_loopback());
        let is_local = came_in_locally && address.ip().to_canonical().is_loopback();
        Some(Peer { address, is_local, at, certificate: None, place, door: self.clone() })
    }

    async fn read_proxy_header(
        &self,
        stream: &mut TcpStream,
        from: SocketAddr,
    ) -> Result<Option<SocketAddr>, &'static str> {
        if !self.trusted_proxies.is_empty() && !forwarded::is_trusted(&self.trusted_proxies, from.ip()) {
            return Err("it is not of a trusted proxy");
        }
        match tokio::time::timeout(self.header_timeout, proxy::read_header(stream)).await {
            Ok(Ok(told)) => Ok(told),
            Ok(Err(_)) => Err("it has none, or a wrong one"),
            Err(_) => Err("it did not come in time"),
        }
    }
}

impl Peer {
    /// Takes a proxy's word on who sends a request, and counts that one's connections. The address counted
    /// first stays: a connection carries one device.
    ///
    /// # Errors
    /// The connection is not to be served.
    pub(super) fn identify(&mut self, headers: &HeaderMap) -> Result<(), Turned> {
        let proxies = &self.door.trusted_proxies;
        if forwarded::is_trusted(proxies, self.address.ip()) {
            let client = forwarded::client_of(proxies, self.address.ip(), headers);
            self.is_local &= client.to_canonical().is_loopback();
            if !forwarded::is_trusted(proxies, client) {
                // The port is the proxy's own business.
                self.address = SocketAddr::new(client, 0);
                self.count(client);
            }
        }
        self.place.refused().map_or(Ok(()), Err)
    }

    fn count(&mut self, client: IpAddr) {
        // One of too many that are to be told is told all the same: its connection is there already.
        let _is_told = self.place.count_address(client);
    }

    /// How long it may take to send the head of a request.
    pub(super) fn header_timeout(&self) -> Duration {
        match self.place.refused() {
            Some(_) => self.door.header_timeout.min(REFUSED_HEAD_TIMEOUT),
            None => self.door.header_timeout,
        }
    }
}
