//! The protocol as a client reads it, and a connection that speaks it.
//!
//! Owns the WebSocket of a simulated device. Written from the protocol and not from the relay's own
//! types of frames, as a stranger's client would be. Never comes back by itself: that is the
//! device's. Used by the devices of the demo.

use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use serde::Deserialize;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::ids::MessageId;

/// How long connecting, or writing one frame, may take.
const WAIT_MAX: Duration = Duration::from_secs(5);
/// Characters of a stranger's text that are shown.
const TEXT_CHARS_MAX: usize = 60;

/// What the relay says.
#[derive(Debug, Deserialize)]
#[serde(tag = "op", rename_all = "lowercase")]
pub enum Heard {
    Welcome {},
    Accepted {
        #[serde(rename = "ref")]
        reference: Option<String>,
        id: Option<MessageId>,
    },
    Message(Pushed),
    Status {
        id: MessageId,
        message: MessageId,
        status: String,
        by: Peer,
    },
    Receipt {},
    Dealt {
        id: MessageId,
        status: String,
    },
    Error(Refusal),
    Goaway {
        reconnect_in_ms: u64,
    },
    #[serde(other)]
    Other,
}

/// A message of the log.
#[derive(Debug, Deserialize)]
pub struct Pushed {
    pub id: MessageId,
    pub from: Peer,
    #[serde(default)]
    pub table: Option<String>,
    #[serde(rename = "type")]
    pub kind: String,
    #[serde(default)]
    pub data: Value,
    pub status: String,
}

impl Pushed {
    /// What it says, in a form that may be printed: others than the demo's devices send messages too.
    pub fn text(&self) -> String {
        let text = match &self.data {
            Value::String(text) => text.clone(),
            Value::Null => self.kind.clone(),
            other => other.to_string(),
        };
        // A stranger's escape sequences are not for our terminal.
        text.chars().filter(|c| !c.is_control()).take(TEXT_CHARS_MAX).collect()
    }
}

/// A device, or a back end by its name.
#[derive(Debug, Clone, Deserialize)]
pub struct Peer {
    #[serde(alias = "api")]
    pub device: String,
}

/// An op that was refused.
#[derive(Debug, Deserialize)]
pub struct Refusal {
    #[serde(rename = "ref", default)]
    pub reference: Option<String>,
    pub code: String,
    pub message: String,
    #[serde(default)]
    pub retry_after_ms: Option<u64>,
    /// Of a conflict: the present status.
    #[serde(default)]
    pub status: Option<String>,
    /// Of a conflict: who set it.
    #[serde(default)]
    pub by: Option<Peer>,
}

/// How a connection ended.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    #[error("the WebSocket failed: {0}")]
    Socket(#[from] Box<Error>),
    #[error("the relay closed the connection with {code} ({reason})")]
    Closed { code: u16, reason: String },
    #[error("the relay did not answer in {WAIT_MAX:?}")]
    Slow,
    #[error("the relay said what no client can read: {0}")]
    Nonsense(#[from] serde_json::Error),
    #[error("the login was refused: {code}: {message}")]
    Refused { code: String, message: String },
}

impl From<Error> for LinkError {
    fn from(error: Error) -> LinkError {
        LinkError::Socket(Box::new(error))
    }
}

/// A connection that is logged in. Dropping it is what a pulled plug is to the relay: no close frame.
pub struct Link {
    socket: WebSocketStream<TcpStream>,
}

impl Link {
    /// Connects, logs in and waits for the welcome.
    ///
    /// # Errors
    /// What came instead.
    pub async fn open(url: &str, login: &Value) -> Result<Link, LinkError> {
        let opened = tokio::time::timeout(WAIT_MAX, Link::log_in(url, login)).await;
        opened.map_err(|_| LinkError::Slow)?
    }

    async fn log_in(url: &str, login: &Value) -> Result<Link, LinkError> {
        let mut request = url.into_client_request()?;
        let subprotocol = HeaderValue::from_static("shoprelay.v1.json");
        request.headers_mut().insert("Sec-WebSocket-Protocol", subprotocol);
        let address = request.uri().authority().map(ToString::to_string).unwrap_or_default();
        let stream = TcpStream::connect(address).await.map_err(Error::Io)?;
        stream.set_nodelay(true).map_err(Error::Io)?;
        let (socket, _) = tokio_tungstenite::client_async(request, stream).await?;
        let mut link = Link { socket };
        link.send(login).await?;
        match link.next().await? {
            Heard::Welcome {} => Ok(link),
            Heard::Error(Refusal { code, message, .. }) => Err(LinkError::Refused { code, message }),
            other => Err(LinkError::Refused { code: "nonsense".into(), message: format!("{other:?}") }),
        }
    }

    /// Sends an op.
    ///
    /// # Errors
    /// The connection is gone, or takes nothing.
    pub async fn send(&mut self, op: &Value) -> Result<(), LinkError> {
        let sent = tokio::time::timeout(WAIT_MAX, self.socket.send(Message::text(op.to_string()))).await;
        Ok(sent.map_err(|_| LinkError::Slow)??)
    }

    /// What the relay says next. Pings are answered on the way. Cancel-safe: a frame of which a part was
    /// read stays where it is.
    ///
    /// # Errors
    /// The connection is over.
    pub async fn next(&mut self) -> Result<Heard, LinkError> {
        loop {
            match self.socket.next().await {
                Some(Ok(Message::Text(text))) => return Ok(serde_json::from_str(text.as_str())?),
                Some(Ok(Message::Close(frame))) => {
                    let (code, reason) = frame
                        .map_or((1005, String::new()), |frame| (frame.code.into(), frame.reason.as_str().to_owned()));
                    return Err(LinkError::Closed { code, reason });
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error.into()),
                None => return Err(LinkError::Closed { code: 1006, reason: "no close frame".into() }),
            }
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn pushed(json: &str) -> Pushed {
        match serde_json::from_str(json).unwrap() {
            Heard::Message(pushed) => pushed,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_a_stranger_sends_is_printable() {
        let head = r#"{"op":"message","id":"1-2","at":1,"to":"mains","from":{"device":"me","role":"main"},"type":"hi","status":"open""#;
        assert_eq!(pushed(&format!("{head}}}")).text(), "hi");
        assert_eq!(pushed(&format!(r#"{head},"data":"a\u001b[2Jb"}}"#)).text(), "a[2Jb");
        assert_eq!(pushed(&format!(r#"{head},"data":{{"x":1}}}}"#)).text(), r#"{"x":1}"#);
    }

    #[test]
    fn what_later_versions_say_is_passed_over() {
        assert!(matches!(serde_json::from_str(r#"{"op":"weather","is":"fine"}"#).unwrap(), Heard::Other));
        assert!(matches!(serde_json::from_str(r#"{"op":"welcome","conn":"c"}"#).unwrap(), Heard::Welcome { .. }));
    }
}
