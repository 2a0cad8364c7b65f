//! The way from an HTTP request to a WebSocket (RFC 6455 §4.2), and what else devices ask for.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hyper::body::Incoming;
use hyper::header::{
    CONNECTION, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use hyper::service::service_fn;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use sha1::{Digest, Sha1};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tracing::debug;

use crate::auth::ClientCertificate;
use crate::http::{Reply, legacy, text};
use crate::protocol::{Dialect, Encoding};
use crate::relay::{Place, Relay};
use crate::socket::{self, Accepted};

/// Largest request head.
const REQUEST_BYTES_MAX: usize = 16 * 1024;
/// What RFC 6455 §1.3 has a server append to the key.
const KEY_SUFFIX: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// A handshake that was answered with 101.
struct Shaken {
    dialect: Dialect,
    upgrade: OnUpgrade,
    place: Place,
}

/// Who is at the other end of a device's connection.
#[derive(Debug, Clone)]
pub struct Peer {
    pub address: SocketAddr,
    /// Whether it came in by a loopback address of this machine.
    pub is_local: bool,
    /// When its TCP connection was accepted.
    pub at: Instant,
    /// What it showed by TLS.
    pub certificate: Option<Arc<ClientCertificate>>,
}

impl Peer {
    /// The peer of a TCP connection that came from this address.
    pub fn of(stream: &TcpStream, address: SocketAddr) -> Peer {
        let is_local = stream.local_addr().is_ok_and(|address| address.ip().is_loopback());
        Peer { address, is_local, at: Instant::now(), certificate: None }
    }
}

/// Serves one connection of a device, plain or TLS: HTTP, then its WebSocket.
pub async fn serve_device<S>(relay: Arc<Relay>, stream: S, peer: Peer)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let Peer { is_local, at, certificate, .. } = peer;
    let deadline = at + relay.session.login_timeout;
    // Boxed, so that what HTTP needs is gone once the WebSocket is there.
    let shaking = Box::pin(tokio::time::timeout_at(deadline.into(), shake(relay.clone(), stream, is_local)));
    let Ok(Some((dialect, upgraded, place))) = shaking.await else {
        return;
    };
    let Ok(parts) = upgraded.downcast::<TokioIo<S>>() else {
        return;
    };
    let (read, write) = tokio::io::split(parts.io.into_inner());
    socket::serve(relay, read, write, Accepted { dialect, at, first: parts.read_buf, place, certificate }).await;
}

async fn shake<S>(relay: Arc<Relay>, stream: S, is_local: bool) -> Option<(Dialect, Upgraded, Place)>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let shaken: Mutex<Option<Shaken>> = Mutex::new(None);
    let service = service_fn(|request| async {
        if relay.is_legacy && legacy::is_route(request.uri().path()) {
            return Ok::<_, Infallible>(legacy::answer(relay.clone(), request, is_local).await);
        }
        Ok(answer(&relay, request, &shaken))
    });
    let mut http = hyper::server::conn::http1::Builder::new();
    http.max_buf_size(REQUEST_BYTES_MAX);
    if let Err(error) = http.serve_connection(TokioIo::new(stream), service).with_upgrades().await {
        debug!(%error, "a connection failed before its WebSocket");
        return None;
    }
    let Shaken { dialect, upgrade, place } = shaken.into_inner()?;
    Some((dialect, upgrade.await.ok()?, place))
}

fn answer(relay: &Arc<Relay>, request: Request<Incoming>, shaken: &Mutex<Option<Shaken>>) -> Reply {
    match (request.uri().path(), request.method()) {
        ("/ws", &Method::GET) => upgrade(relay, request, shaken).unwrap_or_else(|refusal| refusal.reply()),
        ("/", &Method::GET) if relay.is_legacy => {
            upgrade_legacy(relay, request, shaken).unwrap_or_else(|refusal| refusal.reply())
        }
        ("/ws", _) => text(StatusCode::METHOD_NOT_ALLOWED, "open a WebSocket here with GET\n"),
        _ => text(StatusCode::NOT_FOUND, "devices open a WebSocket at /ws\n"),
    }
}

/// A request that cannot become a WebSocket.
enum Refusal {
    NoWebSocket,
    Version,
    Key,
    Subprotocol,
    Full,
}

impl Refusal {
    fn reply(&self) -> Reply {
        let with = |mut reply: Reply, name: HeaderName, value: &'static str| {
            reply.headers_mut().insert(name, HeaderValue::from_static(value));
            reply
        };
        match self {
            Refusal::NoWebSocket => {
                let reply = text(StatusCode::UPGRADE_REQUIRED, "this is the address of a WebSocket\n");
                with(reply, UPGRADE, "websocket")
            }
            Refusal::Version => {
                let reply = text(StatusCode::UPGRADE_REQUIRED, "this server speaks version 13 of WebSocket\n");
                with(reply, SEC_WEBSOCKET_VERSION, "13")
            }
            Refusal::Key => text(StatusCode::BAD_REQUEST, "Sec-WebSocket-Key must be 16 bytes in base64\n"),
            Refusal::Subprotocol => {
                let known = [Encoding::Json, Encoding::MsgPack].map(Encoding::subprotocol).join(" and ");
                text(StatusCode::BAD_REQUEST, format!("the subprotocols are {known}\n"))
            }
            Refusal::Full => {
                let reply = text(StatusCode::SERVICE_UNAVAILABLE, "this node has no room for another connection\n");
                with(reply, RETRY_AFTER, "5")
            }
        }
    }
}

/// The answer to the key of a request for a WebSocket.
fn accept_of(headers: &HeaderMap) -> Result<String, Refusal> {
    if !has_token(headers, CONNECTION, "upgrade") || !has_token(headers, UPGRADE, "websocket") {
        return Err(Refusal::NoWebSocket);
    }
    if headers.get(SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        return Err(Refusal::Version);
    }
    let key = headers.get(SEC_WEBSOCKET_KEY).map(HeaderValue::as_bytes);
    let key = key.filter(|key| BASE64.decode(key).is_ok_and(|nonce| nonce.len() == 16)).ok_or(Refusal::Key)?;
    Ok(BASE64.encode(Sha1::new().chain_update(key).chain_update(KEY_SUFFIX).finalize()))
}

/// The encoding of the first subprotocol that is spoken; None where the client names none.
fn subprotocol_of(headers: &HeaderMap) -> Result<Option<Encoding>, Refusal> {
    let offers = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|line| line.to_str().ok());
    let encoding = Encoding::first_of(offers);
    if encoding.is_none() && headers.contains_key(SEC_WEBSOCKET_PROTOCOL) {
        return Err(Refusal::Subprotocol);
    }
    Ok(encoding)
}

fn upgrade(
    relay: &Arc<Relay>,
    mut request: Request<Incoming>,
    shaken: &Mutex<Option<Shaken>>,
) -> Result<Reply, Refusal> {
    let accept = accept_of(request.headers())?;
    let encoding = subprotocol_of(request.headers())?;
    let place = relay.admit().ok_or(Refusal::Full)?;
    let dialect = Dialect::Native(encoding.unwrap_or(Encoding::Json));
    *shaken.lock() = Some(Shaken { dialect, upgrade: hyper::upgrade::on(&mut request), place });
    let mut reply = switching(&accept);
    if let Some(encoding) = encoding {
        let subprotocol = HeaderValue::from_static(encoding.subprotocol());
        reply.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, subprotocol);
    }
    Ok(reply)
}

/// The old clients name no subprotocol; one that is named all the same is not taken.
fn upgrade_legacy(
    relay: &Arc<Relay>,
    mut request: Request<Incoming>,
    shaken: &Mutex<Option<Shaken>>,
) -> Result<Reply, Refusal> {
    let accept = accept_of(request.headers())?;
    let place = relay.admit().ok_or(Refusal::Full)?;
    let upgrade = hyper::upgrade::on(&mut request);
    *shaken.lock() = Some(Shaken { dialect: Dialect::Legacy, upgrade, place });
    Ok(switching(&accept))
}

fn switching(accept: &str) -> Reply {
    let mut reply = Reply::default();
    *reply.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = reply.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    if let Ok(accept) = HeaderValue::from_str(accept) {
        headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    }
    reply
}

fn has_token(headers: &HeaderMap, name: HeaderName, token: &str) -> bool {
    let lines = headers.get_all(name);
    let mut tokens = lines.iter().filter_map(|line| line.to_str().ok()).flat_map(|line| line.split(','));
    tokens.any(|found| found.trim().eq_ignore_ascii_case(token))
}
