//! Writes a client's WebSocket: finished frames, many in one vectored write.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::{Buf, Bytes};
use fastwebsockets::{Frame, OpCode, Payload};
use tokio::io::AsyncWrite;

use crate::planted::{self, Fault};
use crate::protocol::{Close, Encoding, FrameKind};

/// Frames that go into one system call; the kernel takes up to 1024.
const SLICES_MAX: usize = 64;
/// Frames and bytes that may wait for a client before nothing more is taken from it.
const FRAMES_MAX: usize = 256;
const BYTES_MAX: usize = 256 * 1024;

/// A data frame with its header: the same bytes for every connection of this encoding.
pub fn data_frame(encoding: Encoding, payload: Vec<u8>) -> Bytes {
    echo_frame(FrameKind::of(encoding), payload)
}

/// A data frame of this kind.
pub fn echo_frame(kind: FrameKind, payload: Vec<u8>) -> Bytes {
    let opcode = match kind {
        FrameKind::Text => OpCode::Text,
        FrameKind::Binary => OpCode::Binary,
    };
    finish(opcode, payload)
}

/// A Ping.
pub fn ping_frame(payload: Vec<u8>) -> Bytes {
    finish(OpCode::Ping, payload)
}

/// A Pong.
pub fn pong_frame(payload: Vec<u8>) -> Bytes {
    finish(OpCode::Pong, payload)
}

/// A Close.
pub fn close_frame(close: &Close) -> Bytes {
    bytes_of(Frame::close(close.code.number(), close.reason.as_bytes()))
}

/// The answer to a client's Close.
pub fn close_answer(code: Option<u16>) -> Bytes {
    let payload = code.map_or_else(Vec::new, |code| code.to_be_bytes().to_vec());
    bytes_of(Frame::close_raw(Payload::Owned(payload)))
}

fn finish(opcode: OpCode, payload: Vec<u8>) -> Bytes {
    bytes_of(Frame::new(true, opcode, None, Payload::Owned(payload)))
}

fn bytes_of(mut frame: Frame<'_>) -> Bytes {
    let mut bytes = Vec::new();
    let len = frame.write(&mut bytes).len();
    bytes.truncate(len);
    bytes.into()
}

/// Finished frames on their way to the client, of which the first may be half written.
#[derive(Default)]
pub struct Outgoing {
    frames: VecDeque<Bytes>,
    bytes: usize,
    /// Whether the stream took bytes that it may still hold, as one that encrypts does.
    is_unflushed: bool,
    /// Since when the client has taken less than there is.
    blocked_since: Option<Instant>,
}

impl Outgoing {
    /// Adds a frame.
    pub fn push(&mut self, frame: Bytes) {
        self.bytes += frame.len();
        // Never before the first, which may be half written.
        let swaps = self.frames.len() > 1 && planted::strikes(Fault::SwapFrames);
        self.frames.insert(self.frames.len() - usize::from(swaps), frame);
    }

    /// Whether everything is written.
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty() && !self.is_unflushed
    }

    /// Whether there is so much that nothing should be asked for that brings more.
    pub fn is_full(&self) -> bool {
        self.frames.len() >= FRAMES_MAX || self.bytes >= BYTES_MAX
    }

    /// How much is to be written.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Since when the client has taken less than there is.
    pub fn blocked_since(&self) -> Option<Instant> {
        self.blocked_since
    }

    /// Writes everything. Cancel-safe: what was written is off the list.
    ///
    /// # Errors
    /// The connection failed.
    pub async fn flush(&mut self, stream: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
        std::future::poll_fn(|context| self.poll_flush(stream, context)).await
    }

    /// As [`Outgoing::flush`], as far as the client takes it.
    pub fn poll_flush(
        &mut self,
        stream: &mut (impl AsyncWrite + Unpin),
        context: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while !self.frames.is_empty() {
            let Poll::Ready(written) = self.poll_write(stream, context)? else {
                self.blocked_since.get_or_insert_with(Instant::now);
                return Poll::Pending;
            };
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.advance(written);
            self.is_unflushed = true;
        }
        if self.is_unflushed {
            let Poll::Ready(()) = Pin::new(stream).poll_flush(context)? else {
                self.blocked_since.get_or_insert_with(Instant::now);
                return Poll::Pending;
            };
            self.is_unflushed = false;
        }
        self.blocked_since = None;
        if self.frames.capacity() > SLICES_MAX {
            self.frames = VecDeque::new();
        }
        Poll::Ready(Ok(()))
    }

    fn poll_write(
        &mut self,
        stream: &mut (impl AsyncWrite + Unpin),
        context: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let stream = Pin::new(stream);
        if let (1, Some(frame)) = (self.frames.len(), self.frames.front()) {
            // Mostly there is one, and a write of one buffer costs the kernel less.
            return stream.poll_write(context, frame);
        }
        // The slices live on the stack of a poll, so that a connection does not carry them around.
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        for (slice, frame) in slices.iter_mut().zip(&self.frames) {
            *slice = IoSlice::new(frame);
        }
        let count = self.frames.len().min(SLICES_MAX);
        stream.poll_write_vectored(context, slices.get(..count).unwrap_or_default())
    }

    fn advance(&mut self, mut written: usize) {
        self.bytes -= written;
        while let Some(frame) = self.frames.front_mut() {
            let part = written.min(frame.len());
            frame.advance(part);
            written -= part;
            if !frame.is_empty() {
                break;
            }
            self.frames.pop_front();
        }
    }
}

impl Extend<Bytes> for Outgoing {
    fn extend<T: IntoIterator<Item = Bytes>>(&mut self, frames: T) {
        frames.into_iter().for_each(|frame| self.push(frame));
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, BufWriter};

    use super::*;

    fn flushed(outgoing: &mut Outgoing, stream: &mut (impl AsyncWrite + Unpin)) -> Poll<()> {
        outgoing.poll_flush(stream, &mut Context::from_waker(std::task::Waker::noop())).map(Result::unwrap)
    }

    /// A stream that encrypts may take bytes and still hold them when the network takes no more. Without the
    /// flush they were off the list, and went out with whatever was written next, minutes later.
    #[tokio::test]
    async fn what_the_stream_holds_back_is_flushed_out() {
        let (near, mut far) = tokio::io::duplex(64);
        let mut stream = BufWriter::new(near);
        let mut outgoing = Outgoing::default();
        outgoing.push(Bytes::from_static(b"hello"));
        assert!(flushed(&mut outgoing, &mut stream).is_ready() && outgoing.is_empty());
        let mut read = [0; 5];
        far.read_exact(&mut read).await.unwrap();
        assert_eq!(&read, b"hello");
    }

    #[tokio::test]
    async fn what_cannot_be_flushed_is_not_yet_written() {
        let (near, mut far) = tokio::io::duplex(4);
        let mut stream = BufWriter::new(near);
        let mut outgoing = Outgoing::default();
        outgoing.push(Bytes::from_static(b"hello"));
        assert!(flushed(&mut outgoing, &mut stream).is_pending());
        assert!(!outgoing.is_empty() && outgoing.blocked_since().is_some());
        let mut read = [0; 4];
        far.read_exact(&mut read).await.unwrap();
        outgoing.flush(&mut stream).await.unwrap();
        assert!(outgoing.is_empty() && outgoing.blocked_since().is_none());
    }
}
