//! A fake device: one WebSocket to a node, read in the background, so that pings are answered while
//! the test does something else.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::{Error, Message};

use super::SOON;
use super::tls::Wire;
use super::wire::{Encoding, Id, id_of};

/// What happens on a connection.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    Op(Value),
    /// A Ping, which has been answered.
    Ping(Vec<u8>),
    /// The relay closed the connection, with its code (1005 for none) and reason.
    Closed(u16, String),
    /// The connection ended without a close.
    Lost(String),
}

type Socket = WebSocketStream<Box<dyn Wire>>;

/// A connection, logged in or not. Dropping it loses the connection without a close frame.
pub struct Device {
    /// The answer to the login; null before it.
    pub welcome: Value,
    label: String,
    encoding: Encoding,
    sink: SplitSink<Socket, Message>,
    events: mpsc::UnboundedReceiver<Event>,
    reader: JoinHandle<()>,
    /// What came while the test waited for an answer.
    held: VecDeque<Event>,
    /// A second handle of a plain socket, to reset it.
    socket: Option<std::net::TcpStream>,
}

impl Drop for Device {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl Device {
    /// Opens a WebSocket and offers the encoding's subprotocol.
    ///
    /// # Panics
    /// Where it is refused.
    pub async fn connect(url: &str, encoding: Encoding) -> Device {
        Device::try_connect(url, Some(encoding)).await.unwrap_or_else(|cause| panic!("{url}: {cause}"))
    }

    /// Opens a WebSocket; without an encoding it offers no subprotocol and speaks JSON.
    ///
    /// # Errors
    /// Why it was refused.
    pub async fn try_connect(url: &str, encoding: Option<Encoding>) -> Result<Device, String> {
        let request = url.into_client_request().map_err(|cause| cause.to_string())?;
        let address = request.uri().authority().ok_or("the URL has no host")?.to_string();
        let opened = timeout(SOON, async {
            let stream = TcpStream::connect(address).await.map_err(|cause| cause.to_string())?;
            stream.set_nodelay(true).map_err(|cause| cause.to_string())?;
            let std = stream.into_std().map_err(|cause| cause.to_string())?;
            let socket = std.try_clone().map_err(|cause| cause.to_string())?;
            let stream = TcpStream::from_std(std).map_err(|cause| cause.to_string())?;
            Ok::<_, String>((stream, socket))
        });
        let (stream, socket) = opened.await.map_err(|_| format!("no connection in {SOON:?}"))??;
        let mut device = Device::over(Box::new(stream), url, encoding).await?;
        device.socket = Some(socket);
        Ok(device)
    }

    /// Opens a WebSocket over a connection that there is; see [`Device::try_connect`].
    ///
    /// # Errors
    /// Why it was refused.
    pub async fn over(wire: Box<dyn Wire>, url: &str, encoding: Option<Encoding>) -> Result<Device, String> {
        let mut request = url.into_client_request().map_err(|cause| cause.to_string())?;
        if let Some(encoding) = encoding {
            let subprotocol = HeaderValue::from_static(encoding.subprotocol());
            request.headers_mut().insert("Sec-WebSocket-Protocol", subprotocol);
        }
        let opened = timeout(SOON, tokio_tungstenite::client_async(request, wire)).await;
        let (ws, _) = opened.map_err(|_| format!("no WebSocket in {SOON:?}"))?.map_err(|cause| cause.to_string())?;
        let encoding = encoding.unwrap_or(Encoding::Json);
        let (sink, stream) = ws.split();
        let (tx, events) = mpsc::unbounded_channel();
        let reader = tokio::spawn(read(stream, encoding, tx));
        let label = "a device before its login".into();
        Ok(Device { welcome: Value::Null, label, encoding, sink, events, reader, held: VecDeque::new(), socket: None })
    }

    /// Sends this login and waits for its welcome.
    ///
    /// # Errors
    /// What came instead.
    pub async fn log_in(mut self, login: &Value, label: String) -> Result<Device, String> {
        self.label = label;
        let welcome = self.try_request(login.clone()).await?;
        if welcome["op"] != "welcome" {
            return Err(format!("the login was answered by {welcome}"));
        }
        self.welcome = welcome;
        Ok(self)
    }

    /// Sends an op.
    ///
    /// # Panics
    /// Where the connection is gone.
    pub async fn send(&mut self, op: Value) {
        self.send_raw(self.encoding.frame(&op)).await;
    }

    /// Sends a frame as it is.
    ///
    /// # Panics
    /// Where the connection is gone.
    pub async fn send_raw(&mut self, frame: Message) {
        if let Err(cause) = self.try_send_raw(frame).await {
            panic!("{}: {cause}", self.label);
        }
    }

    /// Sends a frame as it is.
    ///
    /// # Errors
    /// Where the connection is gone or takes nothing for 10 s.
    pub async fn try_send_raw(&mut self, frame: Message) -> Result<(), String> {
        match timeout(SOON, self.sink.send(frame)).await {
            Ok(sent) => sent.map_err(|cause| format!("cannot send: {cause}")),
            Err(_) => Err(format!("cannot send for {SOON:?}")),
        }
    }

    /// Sends an op.
    ///
    /// # Errors
    /// As [`Device::try_send_raw`].
    pub async fn try_send_op(&mut self, op: Value) -> Result<(), String> {
        self.try_send_raw(self.encoding.frame(&op)).await
    }

    /// What happens next; nothing where nothing happens in `wait`.
    pub async fn event_within(&mut self, wait: Duration) -> Option<Event> {
        if let Some(event) = self.held.pop_front() {
            return Some(event);
        }
        timeout(wait, self.events.recv()).await.ok().map(|event| event.unwrap_or_else(ended))
    }

    /// What happens next, without a deadline. Cancel-safe.
    pub async fn event(&mut self) -> Event {
        match self.held.pop_front() {
            Some(event) => event,
            None => self.events.recv().await.unwrap_or_else(ended),
        }
    }

    /// The next op.
    ///
    /// # Panics
    /// Where none comes in 10 s, or the connection ends.
    pub async fn next(&mut self) -> Value {
        let end = Instant::now() + SOON;
        loop {
            match timeout_at(end, self.event()).await {
                Ok(Event::Op(op)) => return op,
                Ok(Event::Ping(_)) => {}
                Ok(end) => panic!("{}: waited for an op, but: {end:?}", self.label),
                Err(_) => panic!("{}: nothing came in {SOON:?}", self.label),
            }
        }
    }

    /// The next op, which must be this one.
    ///
    /// # Panics
    /// Where it is another.
    pub async fn expect(&mut self, op: &str) -> Value {
        let came = self.next().await;
        assert_eq!(came["op"], op, "{}: {came} came", self.label);
        came
    }

    /// The first op that fits; what comes before it is lost.
    ///
    /// # Panics
    /// Where none comes in time.
    pub async fn next_where(&mut self, mut fits: impl FnMut(&Value) -> bool) -> Value {
        loop {
            let op = self.next().await;
            if fits(&op) {
                return op;
            }
        }
    }

    /// Receives this many messages, acknowledges the last and gives their ids.
    ///
    /// # Panics
    /// Where something else comes.
    pub async fn take(&mut self, count: usize) -> Vec<Id> {
        let mut ids = Vec::new();
        for _ in 0..count {
            ids.push(id_of(&self.expect("message").await, "id"));
        }
        if let Some(last) = ids.last() {
            self.ack(&last.to_string()).await;
        }
        ids
    }

    /// Sends an op with a `ref` of its own and gives its answer; what comes before it is kept for
    /// [`Device::next`].
    ///
    /// # Panics
    /// Where no answer comes in 10 s.
    pub async fn request(&mut self, op: Value) -> Value {
        let label = self.label.clone();
        self.try_request(op).await.unwrap_or_else(|cause| panic!("{label}: {cause}"))
    }

    /// Sends an op with a `ref` of its own and gives its answer.
    ///
    /// # Errors
    /// What happened instead.
    pub async fn try_request(&mut self, mut op: Value) -> Result<Value, String> {
        static REF: AtomicU64 = AtomicU64::new(1);
        let reference = Value::from(REF.fetch_add(1, Ordering::Relaxed));
        op["ref"] = reference.clone();
        self.try_send_raw(self.encoding.frame(&op)).await?;
        let end = Instant::now() + SOON;
        loop {
            let event =
                timeout_at(end, self.events.recv()).await.map_err(|_| format!("no answer to {op} in {SOON:?}"))?;
            match event.unwrap_or_else(ended) {
                Event::Op(answer) if answer["ref"] == reference => return Ok(answer),
                event @ (Event::Op(_) | Event::Ping(_)) => self.held.push_back(event),
                end => {
                    let cause = format!("{end:?} instead of an answer to {op}");
                    self.held.push_back(end);
                    return Err(cause);
                }
            }
        }
    }

    /// What came beside the answers so far.
    pub fn take_held(&mut self) -> Vec<Event> {
        while let Ok(event) = self.events.try_recv() {
            self.held.push_back(event);
        }
        self.held.drain(..).collect()
    }

    /// Notifies, must be accepted, and gives the id: empty for a signal.
    ///
    /// # Panics
    /// Where it is refused.
    pub async fn notify(&mut self, fields: Value) -> String {
        let accepted = self.request(op("notify", fields)).await;
        assert_eq!(accepted["op"], "accepted", "{}: {accepted}", self.label);
        accepted["id"].as_str().unwrap_or_default().to_owned()
    }

    /// Sends an op that must be refused with this code, and gives the error.
    ///
    /// # Panics
    /// Where it is not.
    pub async fn refused(&mut self, name: &str, fields: Value, code: &str) -> Value {
        let request = op(name, fields);
        let error = self.request(request.clone()).await;
        assert_eq!(
            (&error["op"], &error["code"]),
            (&"error".into(), &code.into()),
            "{request} was answered by {error}"
        );
        assert!(error["message"].as_str().is_some_and(|text| !text.is_empty()), "{error} says nothing");
        error
    }

    /// Acknowledges everything up to this id.
    pub async fn ack(&mut self, id: &str) {
        self.send(json!({"op": "ack", "id": id})).await;
    }

    /// Asks for a pong, which must be the next op: nothing else is on its way.
    ///
    /// # Panics
    /// Where something else comes.
    pub async fn expect_nothing(&mut self) {
        self.send(json!({"op": "ping"})).await;
        self.expect("pong").await;
    }

    /// Reads until the relay closes the connection, and gives the code and the reason.
    ///
    /// # Panics
    /// Where it ends otherwise, or not within 20 s.
    pub async fn close_code(&mut self) -> (u16, String) {
        let end = Instant::now() + 2 * SOON;
        loop {
            match timeout_at(end, self.event()).await {
                Ok(Event::Closed(code, reason)) => return (code, reason),
                Ok(Event::Lost(cause)) => panic!("{}: lost without a close: {cause}", self.label),
                Ok(_) => {}
                Err(_) => panic!("{}: not closed in time", self.label),
            }
        }
    }

    /// Leaves with a close frame.
    pub async fn close(mut self) {
        // It may have been closed by the relay already.
        let _ = self.sink.send(Message::Close(None)).await;
        while !matches!(self.event_within(SOON).await, None | Some(Event::Closed(..) | Event::Lost(_))) {}
    }

    /// Loses a plain connection: no close frame, no TCP goodbye, only a reset.
    pub fn reset(self) {
        self.reader.abort();
        let socket = self.socket.as_ref().expect("a plain connection").try_clone().and_then(TcpStream::from_std);
        let linger = socket.and_then(|socket| socket.set_zero_linger());
        assert!(linger.is_ok(), "{}: {linger:?}", self.label);
    }
}

/// An op of these fields.
pub fn op(name: &str, mut fields: Value) -> Value {
    fields["op"] = name.into();
    fields
}

fn ended() -> Event {
    Event::Lost("the connection has ended before".into())
}

async fn read(mut stream: SplitStream<Socket>, encoding: Encoding, events: mpsc::UnboundedSender<Event>) {
    loop {
        let event = match stream.next().await {
            Some(Ok(Message::Ping(payload))) => Event::Ping(payload.to_vec()),
            Some(Ok(Message::Pong(_))) => continue,
            Some(Ok(Message::Close(frame))) => {
                let (code, reason) =
                    frame.map_or((1005, String::new()), |frame| (frame.code.into(), frame.reason.to_string()));
                Event::Closed(code, reason)
            }
            Some(Ok(frame)) => match encoding.read(&frame) {
                Ok(op) => Event::Op(op),
                Err(cause) => Event::Lost(format!("unreadable: {cause}")),
            },
            // What tungstenite says after a close frame.
            Some(Err(Error::ConnectionClosed)) | None => return,
            Some(Err(cause)) => Event::Lost(cause.to_string()),
        };
        let last = matches!(event, Event::Lost(_));
        if events.send(event).is_err() || last {
            return;
        }
    }
}
