//! The way from an HTTP request to a WebSocket (RFC 6455 §4.2), and what else devices ask for.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

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
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use sha1::{Digest, Sha1};
use tokio::io::{AsyncRead, AsyncWrite};
use tracing::debug;

use crate::http::{Peer, Reply, legacy, origin, text};
use crate::metrics::{self, Refusal as Refused};
use crate::protocol::{Dialect, Encoding};
use crate::relay::{Place, Relay, Turned};
use crate::socket::{Accepted, Link};

/// Largest request head.
const REQUEST_BYTES_MAX: usize = 16 * 1024;
/// What RFC 6455 §1.3 has a server append to the key.
const KEY_SUFFIX: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// A handshake that was answered with 101.
struct Shaken {
    dialect: Dialect,
    upgrade: OnUpgrade,
    /// How long the relay had it wait for its turn.
    waited: Duration,
}

/// A connection before its WebSocket.
struct Visit {
    relay: Arc<Relay>,
    peer: Mutex<Peer>,
    shaken: Mutex<Option<Shaken>>,
}

/// Answers what comes over one connection of a device, plain or TLS, until it is a WebSocket; None where it
/// does not become one.
pub async fn shake_hands<S>(relay: Arc<Relay>, stream: S, peer: Peer) -> Option<Box<Link<S>>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (at, certificate) = (peer.at, peer.certificate.clone());
    // What the relay has a connection wait for is not held against it.
    let deadline = at + relay.session.login_timeout + relay.intake.handshake_wait_max();
    let shaken = tokio::time::timeout_at(deadline.into(), shake(relay.clone(), stream, peer)).await;
    let (shaken, upgraded, place) = shaken.unwrap_or_else(|_| {
        metrics::connection_refused(Refused::Header);
        None
    })?;
    let parts = upgraded.downcast::<TokioIo<S>>().ok()?;
    let (dialect, at) = (shaken.dialect, at + shaken.waited);
    let stream = parts.io.into_inner();
    Some(Link::new(relay, Accepted { stream, dialect, at, first: parts.read_buf, place, certificate }))
}

async fn shake<S>(relay: Arc<Relay>, stream: S, peer: Peer) -> Option<(Shaken, Upgraded, Place)>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut http = hyper::server::conn::http1::Builder::new();
    http.max_buf_size(REQUEST_BYTES_MAX).timer(TokioTimer::new()).header_read_timeout(peer.header_timeout());
    http.keep_alive(peer.place.refused().is_none());
    let visit = Visit { relay, peer: Mutex::new(peer), shaken: Mutex::new(None) };
    let served = {
        let service = service_fn(|request| async { Ok::<_, Infallible>(visit.answer(request).await) });
        let mut serving = pin!(http.serve_connection(TokioIo::new(stream), service).with_upgrades());
        tokio::select! {
            served = &mut serving => served,
            () = visit.relay.drain.closing() => {
                serving.as_mut().graceful_shutdown();
                serving.await
            }
        }
    };
    if let Err(error) = served {
        if error.is_timeout() {
            metrics::connection_refused(Refused::Header);
        }
        debug!(%error, address = %visit.peer.lock().address, "a connection failed before its WebSocket");
        return None;
    }
    let mut shaken = visit.shaken.into_inner()?;
    let upgraded = (&mut shaken.upgrade).await.ok()?;
    Some((shaken, upgraded, visit.peer.into_inner().place))
}

impl Visit {
    async fn answer(&self, request: Request<Incoming>) -> Reply {
        let is_local = {
            let mut peer = self.peer.lock();
            if let Err(turned) = peer.identify(request.headers()) {
                return Refusal::Turned(turned).reply();
            }
            peer.is_local
        };
        let is_legacy = self.relay.is_legacy;
        if is_legacy && legacy::is_route(request.uri().path()) {
            return legacy::answer(self.relay.clone(), request, is_local).await;
        }
        match (request.uri().path(), request.method()) {
            ("/ws", &Method::GET) => self.upgrade(request, is_local).await,
            ("/", &Method::GET) if is_legacy => self.upgrade_legacy(request).await,
            ("/ws", _) => return text(StatusCode::METHOD_NOT_ALLOWED, "open a WebSocket here with GET\n"),
            _ => return text(StatusCode::NOT_FOUND, "devices open a WebSocket at /ws\n"),
        }
        .unwrap_or_else(|refusal| refusal.reply())
    }

    async fn upgrade(&self, request: Request<Incoming>, is_local: bool) -> Result<Reply, Refusal> {
        let accept = accept_of(request.headers())?;
        let encoding = subprotocol_of(request.headers())?;
        check_origin(origin::is_allowed(&self.peer.lock().door.origins, request.headers(), is_local))?;
        let mut reply = switching(&accept);
        if let Some(encoding) = encoding {
            let subprotocol = HeaderValue::from_static(encoding.subprotocol());
            reply.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, subprotocol);
        }
        self.shake_hands(request, Dialect::Native(encoding.unwrap_or(Encoding::Json))).await?;
        Ok(reply)
    }

    /// The old clients name no subprotocol; one that is named all the same is not taken.
    async fn upgrade_legacy(&self, request: Request<Incoming>) -> Result<Reply, Refusal> {
        let accept = accept_of(request.headers())?;
        check_origin(origin::is_allowed_legacy(&self.peer.lock().door.origins, request.headers()))?;
        self.shake_hands(request, Dialect::Legacy).await?;
        Ok(switching(&accept))
    }

    async fn shake_hands(&self, mut request: Request<Incoming>, dialect: Dialect) -> Result<(), Refusal> {
        let waited = self.relay.intake.shake_hands().await;
        let waited = waited.inspect_err(|turned| metrics::connection_refused(turned.why)).map_err(Refusal::Turned)?;
        *self.shaken.lock() = Some(Shaken { dialect, upgrade: hyper::upgrade::on(&mut request), waited });
        Ok(())
    }
}

fn check_origin(is_allowed: bool) -> Result<(), Refusal> {
    if is_allowed {
        return Ok(());
    }
    metrics::connection_refused(Refused::Origin);
    Err(Refusal::Origin)
}

/// A request that cannot become a WebSocket.
enum Refusal {
    NoWebSocket,
    Version,
    Key,
    Subprotocol,
    Origin,
    Turned(Turned),
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
            Refusal::Origin => {
                let why = "pages of this origin may not open a WebSocket here; see the setting origins\n";
                text(StatusCode::FORBIDDEN, why)
            }
            Refusal::Turned(Turned { why, retry_after }) => {
                let mut reply = text(StatusCode::SERVICE_UNAVAILABLE, words(*why));
                let wait_s = retry_after.as_secs_f64().ceil() as u64;
                reply.headers_mut().insert(RETRY_AFTER, HeaderValue::from(wait_s));
                with(reply, CONNECTION, "close")
            }
        }
    }
}

/// Why there is no place, for whoever reads the answer.
fn words(why: Refused) -> &'static str {
    match why {
        Refused::Address => "this node has as many connections of your address as it may\n",
        Refused::Memory => "this node is short of memory\n",
        Refused::HandshakeQueue | Refused::LoginQueue => "too many others come in at the moment\n",
        _ => "this node has no room for another connection\n",
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
