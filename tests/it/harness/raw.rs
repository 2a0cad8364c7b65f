//! A WebSocket client by hand, for everything that a decent client cannot be made to send: unmasked
//! frames, reserved bits, fragments, single bytes, and silence on a Ping.

use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{SOON, http};

pub const CONTINUATION: u8 = 0;
pub const TEXT: u8 = 1;
pub const BINARY: u8 = 2;
pub const CLOSE: u8 = 8;
pub const PING: u8 = 9;
pub const PONG: u8 = 10;

/// A frame, to be bent before it is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    pub fin: bool,
    /// The three reserved bits, as a number of 0 to 7.
    pub reserved: u8,
    pub opcode: u8,
    pub masked: bool,
    pub payload: Vec<u8>,
}

impl Frame {
    /// A whole, masked frame.
    pub fn new(opcode: u8, payload: impl Into<Vec<u8>>) -> Frame {
        Frame { fin: true, reserved: 0, opcode, masked: true, payload: payload.into() }
    }

    /// A whole, masked text frame.
    pub fn text(payload: impl Into<String>) -> Frame {
        Frame::new(TEXT, payload.into())
    }

    /// A message cut into fragments of this many bytes.
    pub fn fragments(message: &[u8], size: usize) -> Vec<Frame> {
        let mut frames: Vec<Frame> =
            message.chunks(size).map(|part| Frame { fin: false, ..Frame::new(CONTINUATION, part) }).collect();
        if let Some(first) = frames.first_mut() {
            first.opcode = TEXT;
        }
        if let Some(last) = frames.last_mut() {
            last.fin = true;
        }
        frames
    }

    /// The header alone, for a payload of `len` bytes that may never come.
    pub fn header(&self, len: u64) -> Vec<u8> {
        let mut bytes = vec![u8::from(self.fin) << 7 | self.reserved << 4 | self.opcode];
        let mask = u8::from(self.masked) << 7;
        match len {
            0..126 => bytes.push(mask | len as u8),
            126..65_536 => {
                bytes.push(mask | 126);
                bytes.extend((len as u16).to_be_bytes());
            }
            _ => {
                bytes.push(mask | 127);
                bytes.extend(len.to_be_bytes());
            }
        }
        bytes
    }

    /// As it goes over the wire.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.header(self.payload.len() as u64);
        if self.masked {
            let key = rand::random::<[u8; 4]>();
            bytes.extend(key);
            bytes.extend(self.payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key));
        } else {
            bytes.extend(&self.payload);
        }
        bytes
    }
}

/// A raw connection after its handshake.
pub struct RawSocket {
    stream: TcpStream,
}

impl RawSocket {
    /// Opens a WebSocket without a subprotocol: it speaks JSON.
    ///
    /// # Panics
    /// Where it is refused.
    pub async fn open(url: &str) -> RawSocket {
        let (status, socket) = RawSocket::handshake(url, &[]).await;
        assert_eq!(status, 101, "{url} did not switch protocols");
        socket
    }

    /// Asks for a WebSocket with these headers added, and gives the HTTP status of the answer.
    ///
    /// # Panics
    /// Without an answer in 10 s.
    pub async fn handshake(url: &str, headers: &[(&str, &str)]) -> (u16, RawSocket) {
        let socket = RawSocket::connect(url).await;
        let (head, socket) = socket.ask(url, headers).await.unwrap_or_else(|cause| panic!("{url}: {cause}"));
        (http::status(&head).unwrap_or_else(|| panic!("no HTTP: {head}")), socket)
    }

    /// A TCP connection that has said nothing yet.
    ///
    /// # Panics
    /// Where there is nobody.
    pub async fn connect(url: &str) -> RawSocket {
        let address = url.strip_prefix("ws://").and_then(|rest| rest.split('/').next()).expect("a ws:// URL");
        let stream = TcpStream::connect(address).await.unwrap_or_else(|cause| panic!("{url}: {cause}"));
        stream.set_nodelay(true).expect("TCP_NODELAY can be set");
        RawSocket { stream }
    }

    /// The same from another address of this machine, such as `127.0.0.2`.
    ///
    /// # Panics
    /// Where there is nobody.
    pub async fn connect_from(from: &str, url: &str) -> RawSocket {
        let address = url.strip_prefix("ws://").and_then(|rest| rest.split('/').next()).expect("a ws:// URL");
        let socket = tokio::net::TcpSocket::new_v4().expect("a socket can be made");
        socket.bind(format!("{from}:0").parse().expect("an address")).expect("it is this machine's");
        let stream = socket.connect(address.parse().expect("an address")).await;
        RawSocket { stream: stream.unwrap_or_else(|cause| panic!("{url} from {from}: {cause}")) }
    }

    /// Asks for a WebSocket with these headers added, and gives the head of the answer.
    ///
    /// # Errors
    /// The connection ended instead.
    pub async fn ask(self, url: &str, headers: &[(&str, &str)]) -> Result<(String, RawSocket), String> {
        let rest = url.strip_prefix("ws://").expect("a ws:// URL");
        let (address, path) = rest.split_once('/').unwrap_or((rest, ""));
        let address = headers.iter().find(|(name, _)| *name == "Host").map_or(address, |(_, host)| host);
        let mut request = format!(
            "GET /{path} HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        );
        for (name, value) in headers.iter().filter(|(name, _)| *name != "Host") {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        request.push_str("\r\n");
        let mut socket = self;
        socket.write(request.as_bytes()).await;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.extend(socket.read(1).await?);
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        if http::status(&head) == Some(101) {
            // The answer to the key of RFC 6455, section 1.3.
            assert!(head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "a wrong Sec-WebSocket-Accept: {head}");
        }
        Ok((head, socket))
    }

    /// Writes bytes as they are; the peer may have gone.
    pub async fn write(&mut self, bytes: &[u8]) {
        // Whoever was closed for what it wrote learns it from reading.
        let _ = timeout(SOON, self.stream.write_all(bytes)).await;
    }

    /// Writes a frame.
    pub async fn send(&mut self, frame: &Frame) {
        self.write(&frame.bytes()).await;
    }

    /// Writes an op as JSON.
    pub async fn send_op(&mut self, op: &Value) {
        self.send(&Frame::text(op.to_string())).await;
    }

    /// Writes a frame in single bytes, each in a segment of its own.
    pub async fn send_byte_by_byte(&mut self, frame: &Frame) {
        for byte in frame.bytes() {
            self.write(&[byte]).await;
            // With TCP_NODELAY a write is a segment; the pause lets the peer read it as one.
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    async fn read(&mut self, count: usize) -> Result<Vec<u8>, String> {
        let mut bytes = vec![0; count];
        match timeout(2 * SOON, self.stream.read_exact(&mut bytes)).await {
            Ok(Ok(_)) => Ok(bytes),
            Ok(Err(cause)) => Err(format!("lost without a close: {cause}")),
            Err(_) => Err("nothing came in time".into()),
        }
    }

    /// Waits until the relay has ended the connection; what comes before that is forgotten.
    ///
    /// # Panics
    /// Where it does not within 20 s.
    pub async fn wait_end(&mut self) {
        let mut waste = [0; 4096];
        let ended =
            timeout(2 * SOON, async { while self.stream.read(&mut waste).await.is_ok_and(|count| count > 0) {} });
        assert!(ended.await.is_ok(), "the connection is still there after {:?}", 2 * SOON);
    }

    /// The next frame, whatever it is; a Ping is not answered.
    ///
    /// # Errors
    /// Where the connection ends, or nothing comes in 20 s.
    pub async fn read_frame(&mut self) -> Result<Frame, String> {
        let head = self.read(2).await?;
        let (first, second) = (head[0], head[1]);
        let len = match second & 0x7f {
            126 => self.read(2).await?.iter().fold(0, |len, byte| len << 8 | usize::from(*byte)),
            127 => self.read(8).await?.iter().fold(0, |len, byte| len << 8 | usize::from(*byte)),
            len => usize::from(len),
        };
        let masked = second & 0x80 != 0;
        assert!(!masked, "a server does not mask its frames");
        let payload = self.read(len).await?;
        Ok(Frame { fin: first & 0x80 != 0, reserved: first >> 4 & 7, opcode: first & 15, masked, payload })
    }

    /// The next op; Pings stay unanswered.
    ///
    /// # Panics
    /// Where the connection ends or is closed instead.
    pub async fn next(&mut self) -> Value {
        loop {
            let frame = self.read_frame().await.unwrap_or_else(|cause| panic!("{cause}"));
            match frame.opcode {
                TEXT if frame.fin => return serde_json::from_slice(&frame.payload).expect("the relay sends JSON"),
                PING | PONG => {}
                _ => panic!("waited for an op, but {frame:?} came"),
            }
        }
    }

    /// The next op, which must be this one.
    ///
    /// # Panics
    /// Where it is another.
    pub async fn expect(&mut self, op: &str) -> Value {
        let came = self.next().await;
        assert_eq!(came["op"], op, "{came} came");
        came
    }

    /// Reads until the relay closes the connection, and gives the code and the reason.
    ///
    /// # Panics
    /// Where it ends otherwise.
    pub async fn close_code(&mut self) -> (u16, String) {
        loop {
            let frame = self.read_frame().await.unwrap_or_else(|cause| panic!("{cause}"));
            if frame.opcode != CLOSE {
                continue;
            }
            let Some((code, reason)) = frame.payload.split_first_chunk::<2>() else {
                return (1005, String::new());
            };
            return (u16::from_be_bytes(*code), String::from_utf8_lossy(reason).into_owned());
        }
    }
}
