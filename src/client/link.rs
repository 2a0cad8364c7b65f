//! A connection that is logged in.

use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::Value;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::client::dial::{Dial, Stream};
use crate::client::words::{Heard, Refusal, Welcome};

/// How long connecting, or writing one frame, may take.
const WAIT_MAX: Duration = Duration::from_secs(5);

/// How ops are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    Json,
    MsgPack,
}

impl Encoding {
    fn subprotocol(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Encoding::Json => "shoprelay.v1.json",
            Encoding::MsgPack => "shoprelay.v1.msgpack",
        })
    }

    fn frame(self, op: &Value) -> Result<Message, LinkError> {
        Ok(match self {
            Encoding::Json => Message::text(op.to_string()),
            Encoding::MsgPack => Message::binary(rmp_serde::to_vec_named(op).map_err(LinkError::unwritable)?),
        })
    }
}

/// How a connection ended.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    #[error("no connection to {url}: {cause}")]
    Connect { url: String, cause: std::io::Error },
    #[error("the WebSocket failed: {0}")]
    Socket(#[from] Box<Error>),
    #[error("the relay closed the connection with {code} ({reason})")]
    Closed { code: u16, reason: String },
    #[error("the relay did not answer in {WAIT_MAX:?}")]
    Slow,
    #[error("the relay said what no client can read: {0}")]
    Nonsense(String),
    #[error("an op cannot be written: {0}")]
    Unwritable(String),
    #[error("the login was refused: {}: {}", .0.code, .0.message)]
    Refused(Box<Refusal>),
}

impl LinkError {
    fn unwritable(error: impl std::fmt::Display) -> LinkError {
        LinkError::Unwritable(error.to_string())
    }

    /// How long the relay wants to be left alone: by its refusal, or by a close whose reason is
    /// `retry_after_ms=N`.
    pub fn retry_after(&self) -> Option<Duration> {
        let millis = match self {
            LinkError::Refused(refusal) => refusal.retry_after_ms?,
            LinkError::Closed { reason, .. } => reason.strip_prefix("retry_after_ms=")?.parse().ok()?,
            _ => return None,
        };
        Some(Duration::from_millis(millis))
    }
}

impl From<Error> for LinkError {
    fn from(error: Error) -> LinkError {
        LinkError::Socket(Box::new(error))
    }
}

/// A connection that is logged in. Dropping it is what a pulled plug is to the relay: no close frame.
pub struct Link {
    socket: WebSocketStream<Box<dyn Stream>>,
    encoding: Encoding,
}

impl Link {
    /// Connects, logs in and waits for the welcome.
    ///
    /// # Errors
    /// What came instead.
    pub async fn open(dial: &Dial, encoding: Encoding, login: &Value) -> Result<(Link, Welcome), LinkError> {
        let opened = tokio::time::timeout(WAIT_MAX, Link::log_in(dial, encoding, login)).await;
        opened.map_err(|_| LinkError::Slow)?
    }

    async fn log_in(dial: &Dial, encoding: Encoding, login: &Value) -> Result<(Link, Welcome), LinkError> {
        let mut request = dial.url.as_str().into_client_request()?;
        request.headers_mut().insert("Sec-WebSocket-Protocol", encoding.subprotocol());
        let stream = dial.connect().await.map_err(|cause| LinkError::Connect { url: dial.to_string(), cause })?;
        let (socket, _) = tokio_tungstenite::client_async(request, stream).await?;
        let mut link = Link { socket, encoding };
        link.send(login).await?;
        match link.next().await? {
            Heard::Welcome(welcome) => Ok((link, welcome)),
            Heard::Error(refusal) => Err(LinkError::Refused(Box::new(refusal))),
            other => Err(LinkError::Nonsense(format!("{other:?} to a login"))),
        }
    }

    /// Sends an op.
    ///
    /// # Errors
    /// The connection is gone, or takes nothing.
    pub async fn send(&mut self, op: &Value) -> Result<(), LinkError> {
        let frame = self.encoding.frame(op)?;
        let sent = tokio::time::timeout(WAIT_MAX, self.socket.send(frame)).await;
        Ok(sent.map_err(|_| LinkError::Slow)??)
    }

    /// What the relay says next. A Ping is answered when this has returned what it asks for, and the
    /// answer is on its way when the next call is made or [`Link::flush`] returns. Cancel-safe: a frame
    /// of which a part was read stays where it is.
    ///
    /// # Errors
    /// The connection is over.
    pub async fn next(&mut self) -> Result<Heard, LinkError> {
        match self.socket.next().await {
            Some(Ok(Message::Text(text))) => {
                serde_json::from_str(text.as_str()).map_err(|error| LinkError::Nonsense(error.to_string()))
            }
            Some(Ok(Message::Binary(bytes))) => {
                rmp_serde::from_slice(&bytes).map_err(|error| LinkError::Nonsense(error.to_string()))
            }
            Some(Ok(Message::Ping(payload))) => {
                let id = std::str::from_utf8(&payload).ok().and_then(|text| text.parse().ok());
                Ok(id.map_or(Heard::Other, Heard::Ping))
            }
            Some(Ok(Message::Close(frame))) => {
                let (code, reason) =
                    frame.map_or((1005, String::new()), |frame| (frame.code.into(), frame.reason.as_str().to_owned()));
                Err(LinkError::Closed { code, reason })
            }
            Some(Ok(_)) => Ok(Heard::Other),
            Some(Err(error)) => Err(error.into()),
            None => Err(LinkError::Closed { code: 1006, reason: "no close frame".into() }),
        }
    }

    /// Sends what waits to be sent, such as the answer to a Ping.
    ///
    /// # Errors
    /// The connection is gone, or takes nothing.
    pub async fn flush(&mut self) -> Result<(), LinkError> {
        let flushed = tokio::time::timeout(WAIT_MAX, self.socket.flush()).await;
        Ok(flushed.map_err(|_| LinkError::Slow)??)
    }

    /// Says good-bye and waits for the relay to close.
    pub async fn log_out(mut self) {
        let farewell = async {
            self.send(&serde_json::json!({"op": "logout"})).await?;
            while self.next().await.is_ok() {}
            Ok::<_, LinkError>(())
        };
        // Whichever way it ends, it ends.
        let _ = tokio::time::timeout(WAIT_MAX, farewell).await;
    }
}
