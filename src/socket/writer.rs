//! Writes a client's WebSocket: finished frames, many in one vectored write.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::time::Duration;

use bytes::{Buf, Bytes};
use fastwebsockets::{Frame, OpCode, Payload};
use tokio::io::AsyncWrite;

use crate::protocol::{Close, Encoding};

/// Frames that go into one system call; the kernel takes up to 1024.
const SLICES_MAX: usize = 64;

/// A data frame with its header: the same bytes for every connection of this encoding.
pub fn data_frame(encoding: Encoding, payload: Vec<u8>) -> Bytes {
    let opcode = match encoding {
        Encoding::Json => OpCode::Text,
        Encoding::MsgPack => OpCode::Binary,
    };
    finish(opcode, payload)
}

/// A Ping.
pub fn ping_frame(payload: Vec<u8>) -> Bytes {
    finish(OpCode::Ping, payload)
}

/// A Pong.
pub fn pong_frame(payload: &[u8]) -> Bytes {
    finish(OpCode::Pong, payload.to_vec())
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

/// Writes frames whole, and empties the list. Not cancel-safe: a frame may be half written.
///
/// # Errors
/// The connection failed, or the client took nothing for as long as `deadline`.
pub async fn write_frames(
    stream: &mut (impl AsyncWrite + Unpin),
    frames: &mut Vec<Bytes>,
    deadline: Duration,
) -> io::Result<()> {
    let mut next = 0;
    while next < frames.len() {
        let pending = frames.get_mut(next..).unwrap_or_default();
        // The slices live on the stack of a poll, so that a connection does not carry them around.
        let write = std::future::poll_fn(|context| {
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            for (slice, frame) in slices.iter_mut().zip(pending.iter()) {
                *slice = IoSlice::new(frame);
            }
            let count = pending.len().min(SLICES_MAX);
            Pin::new(&mut *stream).poll_write_vectored(context, slices.get(..count).unwrap_or_default())
        });
        let mut written = tokio::time::timeout(deadline, write).await.map_err(|_| io::ErrorKind::TimedOut)??;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        for frame in pending.iter_mut() {
            let part = written.min(frame.len());
            frame.advance(part);
            written -= part;
            if !frame.is_empty() {
                break;
            }
            next += 1;
        }
    }
    frames.clear();
    Ok(())
}
