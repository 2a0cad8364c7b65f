//! Reads a client's WebSocket: whole messages out of bytes.
//!
//! fastwebsockets parses and unmasks; what it leaves open is done in front of it, in [`Tap`]: frames
//! that are unmasked or too large are seen by their headers, and it is handed one frame at a time, so
//! that its 8 KiB buffer exists only while a frame is being read. An idle connection holds none.
//! A client that sends more bytes than it may is read more slowly: they wait in its own socket.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::{Buf, Bytes, BytesMut};
use fastwebsockets::{Frame, OpCode, Role, WebSocketError, WebSocketRead, after_handshake_split};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::time::Sleep;

use crate::metrics;
use crate::protocol::{Close, CloseCode, FrameKind};
use crate::rate::Bucket;

/// How much is taken from a socket at once. The buffer is on the stack, not a connection's.
const CHUNK_BYTES: usize = 16 * 1024;

/// Largest payload of a control frame (RFC 6455 §5.5).
const CONTROL_BYTES_MAX: u64 = 125;

/// What a client sent.
#[derive(Debug)]
pub enum Incoming {
    /// A whole message, its fragments joined.
    Data(FrameKind, Bytes),
    Ping(Bytes),
    Pong(Bytes),
    /// The client closes, with this code if it gave one.
    Close(Option<u16>),
    /// The bytes ended, or the connection failed.
    End,
    /// The client does not speak WebSocket as it should.
    Fault(Fault),
}

/// In which way a client does not speak WebSocket as it should.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It breaks RFC 6455, in the way that these words say.
    Framing(&'static str),
    /// A text, or the reason of a close, is no UTF-8.
    Utf8,
    /// A frame, or the fragments of a message together, is larger than the limit.
    TooBig,
}

impl Fault {
    /// How the connection is closed for it: a legacy peer is told by the codes of RFC 6455 §7.4.1.
    pub fn close(self, is_legacy: bool) -> Close {
        match self {
            Fault::Framing(words) if is_legacy => Close::new(CloseCode::ProtocolError, words),
            Fault::Framing(words) => Close::new(CloseCode::Violation, words),
            Fault::Utf8 if is_legacy => Close::new(CloseCode::InvalidText, "it is no UTF-8"),
            Fault::Utf8 => Close::new(CloseCode::Violation, "a text frame is no UTF-8"),
            Fault::TooBig => Close::new(CloseCode::TooBig, "the message is larger than max_frame"),
        }
    }
}

/// The reading half of a connection.
pub struct Reader<R> {
    tap: Tap<R>,
    message_bytes_max: usize,
    /// The fragments so far.
    fragments: Option<(FrameKind, BytesMut)>,
}

impl<R: AsyncRead + Unpin> Reader<R> {
    /// Reads from `inner`, at most `bytes_per_s`, after the bytes that came with the handshake.
    pub fn new(inner: R, first: Bytes, message_bytes_max: usize, bytes_per_s: u32) -> Reader<R> {
        let tap = Tap {
            inner,
            bytes: Bucket::new(bytes_per_s, Instant::now()),
            pause: None,
            waiting: first.into(),
            header: Header::default(),
            payload_left: 0,
            frame_bytes_max: message_bytes_max,
            fault: None,
        };
        Reader { tap, message_bytes_max, fragments: None }
    }

    /// Reads the next message. Not cancel-safe, which is why it takes the reader along: whoever drops
    /// the future ends the connection.
    pub async fn next(mut self) -> (Self, Incoming) {
        loop {
            if std::future::poll_fn(|context| self.tap.poll_wait(context)).await.is_err() {
                return (self, Incoming::End);
            }
            let frame = self.read_frame().await;
            let incoming = match frame {
                Ok(frame) => self.take(frame),
                Err(error) => Some(self.fault(&error)),
            };
            if let Some(incoming) = incoming {
                return (self, incoming);
            }
        }
    }

    async fn read_frame(&mut self) -> Result<(bool, OpCode, Bytes), WebSocketError> {
        let (mut reader, _): (WebSocketRead<_>, _) =
            after_handshake_split(&mut self.tap, tokio::io::sink(), Role::Server);
        reader.set_auto_close(false);
        reader.set_auto_pong(false);
        // Its limit is exclusive, and the tap has checked already.
        reader.set_max_message_size(self.message_bytes_max + 1);
        let frame = reader.read_frame(&mut |_: Frame<'_>| async { Ok::<(), io::Error>(()) }).await?;
        let payload = match frame.payload {
            fastwebsockets::Payload::Bytes(bytes) => bytes.freeze(),
            other => Bytes::copy_from_slice(&other),
        };
        Ok((frame.fin, frame.opcode, payload))
    }

    fn take(&mut self, (fin, opcode, payload): (bool, OpCode, Bytes)) -> Option<Incoming> {
        let kind = match opcode {
            OpCode::Ping => return Some(Incoming::Ping(payload)),
            OpCode::Pong => return Some(Incoming::Pong(payload)),
            OpCode::Close => return Some(closed(&payload)),
            OpCode::Text => Some(FrameKind::Text),
            OpCode::Binary => Some(FrameKind::Binary),
            OpCode::Continuation => None,
        };
        match (kind, self.fragments.take()) {
            // fastwebsockets has seen to it that an unfragmented text is UTF-8.
            (Some(kind), None) if fin => Some(Incoming::Data(kind, payload)),
            (Some(kind), None) => {
                self.fragments = Some((kind, BytesMut::from(&payload[..])));
                None
            }
            (None, Some((kind, mut message))) => {
                if message.len() + payload.len() > self.message_bytes_max {
                    return Some(Incoming::Fault(Fault::TooBig));
                }
                message.extend_from_slice(&payload);
                if fin {
                    return Some(joined(kind, message.freeze()));
                }
                self.fragments = Some((kind, message));
                None
            }
            _ => Some(Incoming::Fault(Fault::Framing("a fragment is out of place"))),
        }
    }

    fn fault(&mut self, error: &WebSocketError) -> Incoming {
        if let Some(fault) = self.tap.fault.take() {
            return Incoming::Fault(fault);
        }
        match error {
            WebSocketError::IoError(_) | WebSocketError::UnexpectedEOF | WebSocketError::ConnectionClosed => {
                Incoming::End
            }
            WebSocketError::FrameTooLarge => Incoming::Fault(Fault::TooBig),
            WebSocketError::InvalidUTF8 => Incoming::Fault(Fault::Utf8),
            _ => Incoming::Fault(Fault::Framing("a frame breaks RFC 6455")),
        }
    }

    /// Takes and forgets what still comes, until the client is through.
    pub async fn discard(mut self) {
        self.tap.bytes = Bucket::new(u32::MAX, Instant::now());
        self.tap.pause = None;
        while std::future::poll_fn(|context| self.tap.poll_wait(context)).await.is_ok() {
            self.tap.waiting.clear();
        }
    }
}

fn joined(kind: FrameKind, message: Bytes) -> Incoming {
    if kind == FrameKind::Text && std::str::from_utf8(&message).is_err() {
        return Incoming::Fault(Fault::Utf8);
    }
    Incoming::Data(kind, message)
}

/// A Close frame, by its payload (RFC 6455 §5.5.1 and §7.4).
fn closed(payload: &[u8]) -> Incoming {
    let Some((code, reason)) = payload.split_first_chunk::<2>() else {
        return match payload {
            [] => Incoming::Close(None),
            _ => Incoming::Fault(Fault::Framing("a close code has two bytes")),
        };
    };
    let code = u16::from_be_bytes(*code);
    let is_allowed = matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999);
    if !is_allowed {
        return Incoming::Fault(Fault::Framing("no such close code may be sent"));
    }
    match std::str::from_utf8(reason) {
        Ok(_) => Incoming::Close(Some(code)),
        Err(_) => Incoming::Fault(Fault::Utf8),
    }
}

/// Stands between the socket and fastwebsockets, and lets through one frame at a time.
struct Tap<R> {
    inner: R,
    /// What may be taken from the socket.
    bytes: Bucket,
    /// Where more was taken than may be.
    pause: Option<Pin<Box<Sleep>>>,
    /// Came from the socket and was not handed on.
    waiting: BytesMut,
    header: Header,
    /// Bytes of the present frame's payload that were not handed on.
    payload_left: u64,
    frame_bytes_max: usize,
    fault: Option<Fault>,
}

/// The header of a frame (RFC 6455 §5.2) as far as it was handed on.
#[derive(Default)]
struct Header {
    bytes: [u8; 14],
    len: usize,
}

impl Header {
    /// How long the whole header is, as far as its bytes tell.
    fn size(&self) -> usize {
        let [_, second, ..] = self.bytes;
        if self.len < 2 {
            return 2;
        }
        let extended = match second & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let mask = if second & 0x80 != 0 { 4 } else { 0 };
        2 + extended + mask
    }

    fn is_control(&self) -> bool {
        let [first, ..] = self.bytes;
        first & 0x08 != 0
    }

    fn is_masked(&self) -> bool {
        let [_, second, ..] = self.bytes;
        second & 0x80 != 0
    }

    fn payload_bytes(&self) -> u64 {
        let [_, second, a, b, c, d, e, f, g, h, ..] = self.bytes;
        match second & 0x7f {
            126 => u64::from(u16::from_be_bytes([a, b])),
            127 => u64::from_be_bytes([a, b, c, d, e, f, g, h]),
            short => u64::from(short),
        }
    }
}

impl<R: AsyncRead + Unpin> Tap<R> {
    /// Waits for bytes, holding no buffer meanwhile. Ready with an error at the end of the stream.
    fn poll_wait(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.waiting.is_empty() {
            return Poll::Ready(Ok(()));
        }
        if let Some(pause) = &mut self.pause {
            std::task::ready!(pause.as_mut().poll(context));
            self.pause = None;
        }
        let mut chunk = [std::mem::MaybeUninit::uninit(); CHUNK_BYTES];
        let mut chunk = ReadBuf::uninit(&mut chunk);
        std::task::ready!(Pin::new(&mut self.inner).poll_read(context, &mut chunk))?;
        if chunk.filled().is_empty() {
            return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
        }
        self.waiting = BytesMut::from(chunk.filled());
        let wait = self.bytes.owe(self.waiting.len(), Instant::now());
        if !wait.is_zero() {
            metrics::reads_paused();
            self.pause = Some(Box::pin(tokio::time::sleep(wait)));
        }
        Poll::Ready(Ok(()))
    }

    /// How many of the waiting bytes belong to the present frame.
    fn allowance(&mut self) -> io::Result<usize> {
        if self.payload_left > 0 {
            return Ok(self.waiting.len().min(usize::try_from(self.payload_left).unwrap_or(usize::MAX)));
        }
        let mut taken = 0;
        while self.header.len < self.header.size() {
            let (Some(byte), Some(place)) = (self.waiting.get(taken), self.header.bytes.get_mut(self.header.len))
            else {
                break;
            };
            *place = *byte;
            self.header.len += 1;
            taken += 1;
        }
        if self.header.len == self.header.size() {
            self.check_header()?;
            self.payload_left = self.header.payload_bytes();
            self.header = Header::default();
        }
        Ok(taken)
    }

    fn check_header(&mut self) -> io::Result<()> {
        let fault = if !self.header.is_masked() {
            Fault::Framing("a frame is not masked")
        } else if self.header.is_control() && self.header.payload_bytes() > CONTROL_BYTES_MAX {
            Fault::Framing("a control frame is too large")
        } else if self.header.payload_bytes() > self.frame_bytes_max as u64 {
            Fault::TooBig
        } else {
            return Ok(());
        };
        self.fault = Some(fault);
        Err(io::ErrorKind::InvalidData.into())
    }
}

impl<R: AsyncRead + Unpin> AsyncRead for Tap<R> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        std::task::ready!(self.poll_wait(context))?;
        let is_payload = self.payload_left > 0;
        let count = if is_payload { self.allowance()?.min(out.remaining()) } else { self.allowance()? };
        if count > out.remaining() {
            // fastwebsockets makes room for a whole header before it reads one.
            return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
        }
        let Some(bytes) = self.waiting.get(..count) else {
            return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
        };
        out.put_slice(bytes);
        self.waiting.advance(count);
        if is_payload {
            self.payload_left -= count as u64;
        }
        if self.waiting.is_empty() {
            self.waiting = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }
}
