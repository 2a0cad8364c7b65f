//! Reads a client's WebSocket: whole messages out of bytes.
//!
//! Owns the bytes that came and make no whole frame yet, and what RFC 6455 asks of a client's frames. An idle
//! connection holds no buffer: what comes is taken into one on the stack, and kept only until its frame is
//! whole. A client that sends more bytes than it may is read more slowly: they wait in its own socket.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::{Buf, Bytes, BytesMut};
use fastwebsockets::{OpCode, unmask};
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

/// What was read of a connection, and how much of it may be.
pub struct Reader {
    /// What may be taken from the socket.
    bytes: Bucket,
    /// Where more was taken than may be.
    pause: Option<Pin<Box<Sleep>>>,
    /// Came from the socket, and its frame is not whole.
    waiting: BytesMut,
    message_bytes_max: usize,
    /// The fragments so far.
    fragments: Option<Box<(FrameKind, BytesMut)>>,
}

/// A frame by itself, unmasked.
struct Frame {
    is_final: bool,
    opcode: OpCode,
    payload: Bytes,
}

impl Reader {
    /// Reads at most `bytes_per_s`, after the bytes that came with the handshake.
    pub fn new(first: Bytes, message_bytes_max: usize, bytes_per_s: u32) -> Reader {
        let bytes = Bucket::new(bytes_per_s, Instant::now());
        Reader { bytes, pause: None, waiting: first.into(), message_bytes_max, fragments: None }
    }

    /// The next message that comes over the stream. After a close, an end or a fault there is none.
    pub fn poll_next(&mut self, stream: &mut (impl AsyncRead + Unpin), context: &mut Context<'_>) -> Poll<Incoming> {
        loop {
            let incoming = match self.frame() {
                Ok(Some(frame)) => self.take(frame),
                Ok(None) => match ready!(self.poll_fill(stream, context)) {
                    Ok(()) => None,
                    Err(_) => Some(Incoming::End),
                },
                Err(fault) => Some(Incoming::Fault(fault)),
            };
            if let Some(incoming) = incoming {
                return Poll::Ready(incoming);
            }
        }
    }

    /// Takes and forgets what still comes, until the client is through.
    pub async fn discard(&mut self, stream: &mut (impl AsyncRead + Unpin)) {
        self.bytes = Bucket::new(u32::MAX, Instant::now());
        self.pause = None;
        self.waiting = BytesMut::new();
        while std::future::poll_fn(|context| self.poll_fill(stream, context)).await.is_ok() {
            self.waiting.clear();
        }
    }

    /// Waits for bytes. Ready with an error at the end of the stream.
    fn poll_fill(&mut self, stream: &mut (impl AsyncRead + Unpin), context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(pause) = &mut self.pause {
            ready!(pause.as_mut().poll(context));
            self.pause = None;
        }
        let mut chunk = [std::mem::MaybeUninit::uninit(); CHUNK_BYTES];
        let mut chunk = ReadBuf::uninit(&mut chunk);
        ready!(Pin::new(stream).poll_read(context, &mut chunk))?;
        if chunk.filled().is_empty() {
            return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
        }
        self.waiting.extend_from_slice(chunk.filled());
        let wait = self.bytes.owe(chunk.filled().len(), Instant::now());
        if !wait.is_zero() {
            metrics::reads_paused();
            self.pause = Some(Box::pin(tokio::time::sleep(wait)));
        }
        Poll::Ready(Ok(()))
    }

    /// The first of the frames that are there, where it is whole.
    fn frame(&mut self) -> Result<Option<Frame>, Fault> {
        let Some(header) = Header::of(&self.waiting) else { return Ok(None) };
        header.check(self.message_bytes_max)?;
        let Some((mask, payload_bytes)) = header.mask.zip(usize::try_from(header.payload_bytes).ok()) else {
            return Ok(None);
        };
        if self.waiting.len() < header.bytes + payload_bytes {
            return Ok(None);
        }
        self.waiting.advance(header.bytes);
        let mut payload = self.waiting.split_to(payload_bytes);
        if self.waiting.is_empty() {
            // What is left of it would keep the memory of all that came.
            self.waiting = BytesMut::new();
        }
        unmask(&mut payload, mask);
        Ok(Some(Frame { is_final: header.is_final, opcode: header.opcode()?, payload: payload.freeze() }))
    }

    /// The message that a frame is, or ends.
    fn take(&mut self, Frame { is_final, opcode, payload }: Frame) -> Option<Incoming> {
        let kind = match opcode {
            OpCode::Ping => return Some(Incoming::Ping(payload)),
            OpCode::Pong => return Some(Incoming::Pong(payload)),
            OpCode::Close => return Some(closed(&payload)),
            OpCode::Text => Some(FrameKind::Text),
            OpCode::Binary => Some(FrameKind::Binary),
            OpCode::Continuation => None,
        };
        match (kind, self.fragments.take()) {
            (Some(kind), None) if is_final => Some(whole(kind, payload)),
            (Some(kind), None) => {
                self.fragments = Some(Box::new((kind, BytesMut::from(&payload[..]))));
                None
            }
            (None, Some(mut fragments)) => {
                let (kind, message) = &mut *fragments;
                if message.len() + payload.len() > self.message_bytes_max {
                    return Some(Incoming::Fault(Fault::TooBig));
                }
                message.extend_from_slice(&payload);
                if is_final {
                    return Some(whole(*kind, std::mem::take(message).freeze()));
                }
                self.fragments = Some(fragments);
                None
            }
            _ => Some(Incoming::Fault(Fault::Framing("a fragment is out of place"))),
        }
    }
}

/// A data message.
fn whole(kind: FrameKind, message: Bytes) -> Incoming {
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

/// The header of a frame (RFC 6455 §5.2), as far as it is there.
struct Header {
    /// How long it is.
    bytes: usize,
    is_final: bool,
    has_reserved: bool,
    opcode: u8,
    is_masked: bool,
    payload_bytes: u64,
    /// None where it is not all there, or there is none.
    mask: Option<[u8; 4]>,
}

impl Header {
    /// The header at the beginning of these bytes; None where there is not enough to tell how large the frame is.
    fn of(bytes: &[u8]) -> Option<Header> {
        let ([first, second], rest) = bytes.split_first_chunk::<2>()?;
        let is_masked = second & 0x80 != 0;
        let (extended_bytes, payload_bytes) = match second & 0x7f {
            // A frame that is not masked is refused whatever its size.
            _ if !is_masked => (0, 0),
            126 => (2, u64::from(u16::from_be_bytes(*rest.first_chunk()?))),
            127 => (8, u64::from_be_bytes(*rest.first_chunk()?)),
            short => (0, u64::from(short)),
        };
        let mask = rest.get(extended_bytes..).and_then(|rest| rest.first_chunk().copied());
        Some(Header {
            bytes: 2 + extended_bytes + 4,
            is_final: first & 0x80 != 0,
            has_reserved: first & 0x70 != 0,
            opcode: first & 0x0f,
            is_masked,
            payload_bytes,
            mask,
        })
    }

    fn is_control(&self) -> bool {
        self.opcode & 0x08 != 0
    }

    fn opcode(&self) -> Result<OpCode, Fault> {
        OpCode::try_from(self.opcode).map_err(|_| Fault::Framing("a frame has an opcode that there is not"))
    }

    fn check(&self, payload_bytes_max: usize) -> Result<(), Fault> {
        if !self.is_masked {
            return Err(Fault::Framing("a frame is not masked"));
        }
        if self.is_control() && self.payload_bytes > CONTROL_BYTES_MAX {
            return Err(Fault::Framing("a control frame is too large"));
        }
        if self.is_control() && !self.is_final {
            return Err(Fault::Framing("a control frame is fragmented"));
        }
        if self.has_reserved {
            return Err(Fault::Framing("a frame has reserved bits set"));
        }
        self.opcode()?;
        if self.payload_bytes > payload_bytes_max as u64 {
            return Err(Fault::TooBig);
        }
        Ok(())
    }
}
