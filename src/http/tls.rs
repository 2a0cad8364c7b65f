//! TLS on the way to a WebSocket: the handshake, and how many there may be at once.
//!
//! Owns the time and the places that handshakes have. Which certificates there are is `auth`'s; what comes
//! after the handshake is what comes on a plain connection.
//!
//! A handshake costs memory, and a processor a while. So those that have begun, by the client's first
//! message, take one of a fixed number of places, and others wait for one in turn: a herd is served as fast
//! as it can be, and no slower for its size. Who connected and says nothing takes no place. Who stalls with
//! a place has the whole login time-out while there are places left, and a quarter of it while others wait.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, SemaphorePermit, watch};
use tokio::time::timeout_at;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::rustls::HandshakeKind;
use tokio_rustls::rustls::server::Acceptor;
use tokio_rustls::server::TlsStream;
use tracing::debug;

use crate::auth::{ClientCertificate, Distrusted, InForce, Tls};
use crate::http::{Peer, handshake};
use crate::metrics::{self, TlsResult};
use crate::relay::Relay;
use crate::socket::Link;

/// A slow handshake has this part of the login time-out where others wait for its place.
const CROWDED_PART: u32 = 4;
/// Bytes that a connection may hold encrypted until the client takes them, about one record; what goes
/// beyond waits as frames, which every connection of a shop shares.
const ENCRYPTED_BYTES_MAX: usize = 16 * 1024;

/// Where devices come in by TLS.
pub struct TlsDoor {
    tls: Arc<Tls>,
    places: Semaphore,
    /// How many wait for a place.
    waiting: watch::Sender<usize>,
    login_timeout: Duration,
}

/// Why a handshake came to nothing.
#[derive(Debug, thiserror::Error)]
enum Broken {
    /// Such as a balancer that only looks whether somebody listens.
    #[error("the client left before it said anything")]
    Left,
    #[error("{0}")]
    Failed(#[from] io::Error),
    #[error(transparent)]
    Certificate(#[from] Distrusted),
    #[error("it took longer than a login may (timeouts.login)")]
    TimedOut,
    #[error("all places are taken (limits.tls_handshakes)")]
    CrowdedOut,
}

/// Counts one who waits, until dropped.
struct Waiting<'a>(&'a watch::Sender<usize>);

impl<'a> Waiting<'a> {
    fn new(waiting: &'a watch::Sender<usize>) -> Waiting<'a> {
        waiting.send_modify(|count| *count += 1);
        Waiting(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

/// A connection whose handshake is done.
struct Secured<S> {
    /// Boxed: it is more than a kilobyte, and every future it passes through would keep room for it.
    stream: Box<TlsStream<S>>,
    certificate: Option<Arc<ClientCertificate>>,
}

impl TlsDoor {
    /// A door with room for so many handshakes at once.
    pub fn new(tls: Arc<Tls>, handshakes_max: usize, login_timeout: Duration) -> TlsDoor {
        TlsDoor { tls, places: Semaphore::new(handshakes_max), waiting: watch::channel(0).0, login_timeout }
    }

    /// Takes a connection from its first bytes to its WebSocket; None where it does not become one.
    pub(super) async fn shake_hands(
        &self,
        relay: Arc<Relay>,
        stream: TcpStream,
        peer: Peer,
    ) -> Option<Box<Link<Box<TlsStream<TcpStream>>>>> {
        // Boxed, so that what the handshake needs is gone after it.
        match Box::pin(self.secure(stream, peer.at)).await {
            Ok(Secured { stream, certificate }) => {
                metrics::tls_handshake(TlsResult::Ok);
                handshake::shake_hands(relay, stream, Peer { certificate, ..peer }).await
            }
            Err(Broken::Left) => None,
            Err(broken) => {
                metrics::tls_handshake(match broken {
                    Broken::TimedOut => TlsResult::TimedOut,
                    Broken::CrowdedOut => TlsResult::CrowdedOut,
                    Broken::Left | Broken::Failed(_) | Broken::Certificate(_) => TlsResult::Failed,
                });
                debug!(address = %peer.address, error = %broken, "a TLS handshake failed");
                None
            }
        }
    }

    /// The handshake of a connection that was accepted at `at`.
    async fn secure<S>(&self, stream: S, at: Instant) -> Result<Secured<S>, Broken>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let deadline = (at + self.login_timeout).into();
        let hello = timeout_at(deadline, LazyConfigAcceptor::new(Acceptor::default(), stream)).await;
        let hello = hello.map_err(|_| Broken::TimedOut)?.map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => Broken::Left,
            _ => Broken::Failed(error),
        })?;
        let place = timeout_at(deadline, self.place()).await.map_err(|_| Broken::CrowdedOut)?;
        let in_force = self.tls.in_force();
        let shaking = hello.into_stream_with(in_force.server.clone(), |connection| {
            connection.set_buffer_limit(Some(ENCRYPTED_BYTES_MAX));
        });
        let stream = tokio::select! {
            shaken = timeout_at(deadline, shaking) => shaken.map_err(|_| Broken::TimedOut)??,
            () = self.crowded() => return Err(Broken::CrowdedOut),
        };
        drop(place);
        let certificate = certificate(&in_force, &stream)?;
        Ok(Secured { stream: Box::new(stream), certificate })
    }

    async fn place(&self) -> Option<SemaphorePermit<'_>> {
        if let Ok(place) = self.places.try_acquire() {
            return Some(place);
        }
        let _waiting = Waiting::new(&self.waiting);
        // None would mean that the places were closed, which nobody does.
        self.places.acquire().await.ok()
    }

    /// Until a handshake has had its time and somebody waits for its place.
    async fn crowded(&self) {
        tokio::time::sleep(self.login_timeout / CROWDED_PART).await;
        if self.waiting.subscribe().wait_for(|waiting| *waiting > 0).await.is_err() {
            // The door that holds the sender is borrowed here.
            std::future::pending().await
        }
    }
}

fn certificate<S>(in_force: &InForce, stream: &TlsStream<S>) -> Result<Option<Arc<ClientCertificate>>, Distrusted> {
    let (_, connection) = stream.get_ref();
    let is_resumed = connection.handshake_kind() == Some(HandshakeKind::Resumed);
    in_force.certificate(connection.peer_certificates(), is_resumed)
}
