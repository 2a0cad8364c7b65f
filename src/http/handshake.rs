//! The way from an HTTP request to a WebSocket (RFC 6455 §4.2), and what else devices ask for.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
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
use tokio::net::TcpStream;
use tracing::debug;

use crate::http::{Reply, text};
use crate::protocol::Encoding;
use crate::socket::{self, Accepted, Place, Relay};

/// What RFC 6455 §1.3 has a server append to the key.
const KEY_SUFFIX: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// A handshake that was answered with 101.
struct Shaken {
    encoding: Encoding,
    upgrade: OnUpgrade,
    place: Place,
}

/// Serves one TCP connection of a device: HTTP, then its WebSocket.
pub async fn serve_device(relay: Arc<Relay>, stream: TcpStream) {
    let at = Instant::now();
    // Boxed, so that what HTTP needs is gone once the WebSocket is there.
    let shaken = Box::pin(tokio::time::timeout(relay.session.login_timeout, shake(relay.clone(), stream))).await;
    let Ok(Some((encoding, upgraded, place))) = shaken else {
        return;
    };
    let Ok(parts) = upgraded.downcast::<TokioIo<TcpStream>>() else {
        return;
    };
    let mut stream = parts.io.into_inner();
    let (read, write) = stream.split();
    socket::serve(relay, read, write, Accepted { encoding, at, first: parts.read_buf, place }).await;
}

async fn shake(relay: Arc<Relay>, stream: TcpStream) -> Option<(Encoding, Upgraded, Place)> {
    let shaken: Mutex<Option<Shaken>> = Mutex::new(None);
    let service = service_fn(|request| {
        let reply = answer(&relay, request, &shaken);
        async { Ok::<_, Infallible>(reply) }
    });
    let http = hyper::server::conn::http1::Builder::new();
    if let Err(error) = http.serve_connection(TokioIo::new(stream), service).with_upgrades().await {
        debug!(%error, "a connection failed before its WebSocket");
        return None;
    }
    let Shaken { encoding, upgrade, place } = shaken.into_inner()?;
    Some((encoding, upgrade.await.ok()?, place))
}

fn answer(relay: &Arc<Relay>, request: Request<Incoming>, shaken: &Mutex<Option<Shaken>>) -> Reply {
    match (request.uri().path(), request.method()) {
        ("/ws", &Method::GET) => upgrade(relay, request, shaken).unwrap_or_else(|refusal| refusal),
        ("/ws", _) => text(StatusCode::METHOD_NOT_ALLOWED, "open a WebSocket here with GET\n"),
        _ => text(StatusCode::NOT_FOUND, "devices open a WebSocket at /ws\n"),
    }
}

fn upgrade(relay: &Arc<Relay>, mut request: Request<Incoming>, shaken: &Mutex<Option<Shaken>>) -> Result<Reply, Reply> {
    let headers = request.headers();
    if !has_token(headers, CONNECTION, "upgrade") || !has_token(headers, UPGRADE, "websocket") {
        let mut refusal = text(StatusCode::UPGRADE_REQUIRED, "this is the address of a WebSocket\n");
        refusal.headers_mut().insert(UPGRADE, HeaderValue::from_static("websocket"));
        return Err(refusal);
    }
    if headers.get(SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        let mut refusal = text(StatusCode::UPGRADE_REQUIRED, "this server speaks version 13 of WebSocket\n");
        refusal.headers_mut().insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        return Err(refusal);
    }
    let key = headers.get(SEC_WEBSOCKET_KEY).map(HeaderValue::as_bytes);
    let key = key.filter(|key| BASE64.decode(key).is_ok_and(|nonce| nonce.len() == 16));
    let Some(key) = key else {
        return Err(text(StatusCode::BAD_REQUEST, "Sec-WebSocket-Key must be 16 bytes in base64\n"));
    };
    let accept = BASE64.encode(Sha1::new().chain_update(key).chain_update(KEY_SUFFIX).finalize());
    let offers = headers.contains_key(SEC_WEBSOCKET_PROTOCOL);
    let chosen =
        Encoding::first_of(headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|line| line.to_str().ok()));
    if offers && chosen.is_none() {
        let known = [Encoding::Json, Encoding::MsgPack].map(Encoding::subprotocol).join(" and ");
        return Err(text(StatusCode::BAD_REQUEST, format!("the subprotocols are {known}\n")));
    }
    let Some(place) = relay.admit() else {
        let mut refusal = text(StatusCode::SERVICE_UNAVAILABLE, "this node has no room for another connection\n");
        refusal.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("5"));
        return Err(refusal);
    };
    let encoding = chosen.unwrap_or(Encoding::Json);
    *shaken.lock() = Some(Shaken { encoding, upgrade: hyper::upgrade::on(&mut request), place });
    let mut reply = text(StatusCode::SWITCHING_PROTOCOLS, Bytes::new());
    let headers = reply.headers_mut();
    headers.clear();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    if let Ok(accept) = HeaderValue::from_str(&accept) {
        headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    }
    if let Some(chosen) = chosen {
        headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(chosen.subprotocol()));
    }
    Ok(reply)
}

fn has_token(headers: &HeaderMap, name: HeaderName, token: &str) -> bool {
    let lines = headers.get_all(name);
    let mut tokens = lines.iter().filter_map(|line| line.to_str().ok()).flat_map(|line| line.split(','));
    tokens.any(|found| found.trim().eq_ignore_ascii_case(token))
}
