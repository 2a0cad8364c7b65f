//! A device of the old days: one WebSocket to `/`, in the hand-made server's dialect.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use super::tls::Wire;
use super::{SOON, unique};

/// A legacy connection. The library answers Pings when the test reads.
pub struct LegacyDevice {
    socket: WebSocketStream<Box<dyn Wire>>,
}

impl LegacyDevice {
    /// Opens a WebSocket at `ip:port` without logging in.
    ///
    /// # Panics
    /// Where it is refused.
    pub async fn connect(address: &str) -> LegacyDevice {
        let stream = TcpStream::connect(address).await.expect("the node listens");
        stream.set_nodelay(true).expect("a socket");
        LegacyDevice::over(Box::new(stream), address).await
    }

    /// Opens a WebSocket over a connection that there is.
    ///
    /// # Panics
    /// Where it is refused.
    pub async fn over(wire: Box<dyn Wire>, address: &str) -> LegacyDevice {
        let opened = timeout(SOON, tokio_tungstenite::client_async(format!("ws://{address}/"), wire));
        let (socket, _) = opened.await.expect("a WebSocket in time").expect("a WebSocket");
        LegacyDevice { socket }
    }

    /// Opens a WebSocket and logs in; `role` is 主 or 副. There is no answer to wait for but the echo of
    /// a raw frame, before which everything that was missed comes.
    pub async fn log_in(address: &str, shop: Value, client: Value, role: &str) -> LegacyDevice {
        let mut device = LegacyDevice::connect(address).await;
        device.send(json!({"op": "login", "shop_id": shop, "client_id": client, "type": role})).await;
        device
    }

    /// Sends an object as text.
    pub async fn send(&mut self, object: Value) {
        self.send_raw(Message::text(object.to_string())).await;
    }

    /// Sends a text as it is.
    pub async fn say(&mut self, text: impl Into<String>) {
        self.send_raw(Message::text(text.into())).await;
    }

    /// Sends a frame as it is.
    ///
    /// # Panics
    /// Where the connection is gone.
    pub async fn send_raw(&mut self, frame: Message) {
        self.socket.send(frame).await.expect("the connection is there");
    }

    /// The next data frame, or the close.
    ///
    /// # Panics
    /// Where none comes.
    pub async fn next(&mut self) -> Message {
        self.next_within(SOON).await.expect("something comes")
    }

    /// The next data frame, or the close; None where none comes in time.
    pub async fn next_within(&mut self, wait: Duration) -> Option<Message> {
        let next = async {
            loop {
                match self.socket.next().await {
                    Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                    Some(Ok(frame)) => return Some(frame),
                    Some(Err(_)) | None => return None,
                }
            }
        };
        timeout(wait, next).await.ok().flatten()
    }

    /// The next data frame's text.
    ///
    /// # Panics
    /// Where something else comes.
    pub async fn text(&mut self) -> String {
        match self.next().await {
            Message::Text(text) => text.to_string(),
            other => panic!("a text, not {other:?}"),
        }
    }

    /// The next data frame as JSON.
    ///
    /// # Panics
    /// Where it is none.
    pub async fn json(&mut self) -> Value {
        let text = self.text().await;
        serde_json::from_str(&text).unwrap_or_else(|cause| panic!("{cause}: {text}"))
    }

    /// Checks that nothing is on its way: the echo of a frame sent now is the next thing that comes.
    pub async fn expect_nothing(&mut self) {
        let mark = unique("mark");
        self.send_raw(Message::text(mark.clone())).await;
        assert_eq!(self.text().await, mark);
    }

    /// Waits for the close; its code and reason.
    ///
    /// # Panics
    /// Where something else comes.
    pub async fn close_code(&mut self) -> (u16, String) {
        match self.next().await {
            Message::Close(Some(close)) => (close.code.into(), close.reason.to_string()),
            other => panic!("a close, not {other:?}"),
        }
    }

    /// Waits for a refusal, checks it byte for byte, and gives its `msg`.
    ///
    /// # Panics
    /// Where something else comes.
    pub async fn refusal(&mut self) -> String {
        let text = self.text().await;
        let answer: Value = serde_json::from_str(&text).unwrap_or_else(|cause| panic!("{cause}: {text}"));
        assert_answer(&answer);
        let msg = answer["msg"].as_str().expect("a msg");
        let (msg_text, time, took) = (&answer["msg"], &answer["time"], &answer["ttfb_time"]);
        assert_eq!(text, format!(r#"{{"code":1,"msg":{msg_text},"time":{time},"data":null,"ttfb_time":{took}}}"#));
        msg.to_owned()
    }

    /// Waits for an answer in the old form, and checks its form; its `code` and `msg`.
    ///
    /// # Panics
    /// Where something else comes.
    pub async fn answer(&mut self) -> (u64, String) {
        let answer = self.json().await;
        assert_answer(&answer);
        (answer["code"].as_u64().expect("a code"), answer["msg"].as_str().expect("a msg").to_owned())
    }
}

/// Checks the form of an answer: `{"code":…,"msg":…,"time":"Y-m-d H:i:s","data":…,"ttfb_time":"…s"}`.
///
/// # Panics
/// Where it has another.
pub fn assert_answer(answer: &Value) {
    let members = answer.as_object().unwrap_or_else(|| panic!("an object, not {answer}"));
    let mut names: Vec<&str> = members.keys().map(String::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["code", "data", "msg", "time", "ttfb_time"], "{answer}");
    assert!(matches!(answer["code"].as_u64(), Some(0 | 1)), "{answer}");
    let time = answer["time"].as_str().expect("a time");
    let shape: String = time.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    assert_eq!(shape, "0000-00-00 00:00:00", "{answer}");
    let took = answer["ttfb_time"].as_str().and_then(|took| took.strip_suffix('s')).expect("a time to first byte");
    assert!(took.parse::<f64>().is_ok_and(|took| took >= 0.0) && took.split('.').nth(1).is_some_and(|d| d.len() == 6));
}
