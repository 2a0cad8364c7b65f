//! Listeners and plain HTTP: the way to a WebSocket, the API, health and metrics.
//!
//! Owns accepting connections and the HTTP before the upgrade. Knows nothing of the conversation
//! after it, which `socket` serves in the same task. Run by `node`.

pub mod api;
mod forwarded;
mod handshake;
pub mod health;
mod legacy;
mod origin;
mod peer;
mod probes;
#[cfg(any(test, fuzzing))]
pub mod properties;
mod proxy;
mod tls;

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::warn;

use crate::relay::Relay;
use crate::socket::Link;

pub use peer::{Door, Peer};
pub use probes::{Probes, serve_probe};
pub use tls::TlsDoor;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 4096;
/// Wait after the process ran out of file descriptors.
const ACCEPT_RETRY: Duration = Duration::from_millis(50);

type Reply = Response<Full<Bytes>>;

/// Opens a listener.
///
/// # Errors
/// The address is taken, or not this machine's.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Accepts connections and serves each in a task of its own until `stopping` says so; then waits for
/// those that are left. Dropping the future ends them all.
pub async fn accept<F>(
    listener: TcpListener,
    stopping: Option<watch::Receiver<bool>>,
    serve: impl Fn(TcpStream, SocketAddr) -> F,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let mut connections = JoinSet::new();
    let mut stopped = pin!(async move {
        match stopping {
            // An error means that nobody is left to say it.
            Some(mut stopping) => drop(stopping.wait_for(|stopping| *stopping).await),
            None => std::future::pending().await,
        }
    });
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, address)) => {
                    // Messages are small and late ones are worthless to a waiter. Where it can't be
                    // set the connection is gone already.
                    let _ = stream.set_nodelay(true);
                    connections.spawn(serve(stream, address));
                }
                Err(error) => {
                    warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_RETRY).await;
                }
            },
            Some(_) = connections.join_next() => {}
            () = &mut stopped => break,
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// The way of a device's connection from its acceptance to its end.
pub fn serve_device(
    relay: Arc<Relay>,
    door: Arc<Door>,
    mut stream: TcpStream,
    from: SocketAddr,
) -> impl Future<Output = ()> + Send + 'static {
    serve_link(async move {
        let peer = door.meet(&relay, &mut stream, from).await?;
        handshake::shake_hands(relay, stream, peer).await
    })
}

/// As [`serve_device`], by TLS.
pub fn serve_tls_device(
    relay: Arc<Relay>,
    door: Arc<Door>,
    tls: Arc<TlsDoor>,
    mut stream: TcpStream,
    from: SocketAddr,
) -> impl Future<Output = ()> + Send + 'static {
    serve_link(async move {
        let peer = door.meet(&relay, &mut stream, from).await?;
        tls.shake_hands(relay, stream, peer).await
    })
}

/// Serves what `coming` leads to, if it leads to a WebSocket.
fn serve_link<S>(
    coming: impl Future<Output = Option<Box<Link<S>>>> + Send + 'static,
) -> impl Future<Output = ()> + Send + 'static
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    // Boxed, so that what comes before the WebSocket is gone once it is there.
    let coming = Box::pin(coming);
    async move {
        if let Some(link) = coming.await {
            link.serve().await;
        }
    }
}

fn text(status: StatusCode, text: impl Into<Bytes>) -> Reply {
    reply(status, "text/plain; charset=utf-8", text)
}

fn reply(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Reply {
    let mut reply = Response::new(Full::new(body.into()));
    *reply.status_mut() = status;
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    reply
}
