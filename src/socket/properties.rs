//! What must hold of any bytes that come over a connection; see [`crate::properties`].

#![allow(clippy::panic, clippy::unwrap_used, reason = "a property that does not hold panics")]

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use tokio::io::{AsyncRead, ReadBuf};

use super::reader::{Incoming, Reader};
use crate::protocol::FrameKind;

const MESSAGE_BYTES_MAX: usize = 1000;

/// A stream of frames comes to its end, in no more messages than it can hold and none of them larger than
/// the limit, and means the same however the network cuts it up. The first byte says how it is cut.
pub fn stream(bytes: &[u8]) {
    let Some((cut, stream)) = bytes.split_first() else { return };
    let whole = heard(stream, stream.len().max(1), 0);
    let cut = usize::from(*cut);
    assert_eq!(heard(stream, cut % 16 + 1, cut / 16), whole, "cut into pieces of {}", cut % 16 + 1);
}

/// All that a reader makes of the stream, which comes in pieces of this size but for the first bytes, which
/// came with the handshake.
fn heard(stream: &[u8], piece: usize, with_handshake: usize) -> Vec<String> {
    let (first, rest) = stream.split_at(with_handshake.min(stream.len()));
    let mut pieces = Pieces { rest, piece };
    let mut reader = Reader::new(Bytes::copy_from_slice(first), MESSAGE_BYTES_MAX, u32::MAX);
    let mut context = Context::from_waker(Waker::noop());
    let mut all = Vec::new();
    loop {
        // All of it is there, so there is nothing to wait for.
        let Poll::Ready(incoming) = reader.poll_next(&mut pieces, &mut context) else { panic!("it waits") };
        // Which fault of a frame with several is met first depends on where it was cut.
        let is_fault = matches!(incoming, Incoming::Fault(_));
        all.push(if is_fault { "Fault".to_owned() } else { format!("{incoming:?}") });
        // A masked frame has six bytes at least.
        assert!(all.len() <= stream.len() / 6 + 1, "{all:?}");
        match incoming {
            Incoming::Data(kind, payload) => {
                assert!(payload.len() <= MESSAGE_BYTES_MAX);
                assert!(kind == FrameKind::Binary || std::str::from_utf8(&payload).is_ok());
            }
            Incoming::Ping(payload) | Incoming::Pong(payload) => assert!(payload.len() <= 125),
            Incoming::Close(_) | Incoming::End | Incoming::Fault(_) => return all,
        }
    }
}

struct Pieces<'a> {
    rest: &'a [u8],
    piece: usize,
}

impl AsyncRead for Pieces<'_> {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let count = self.piece.min(self.rest.len()).min(out.remaining());
        let (piece, rest) = self.rest.split_at(count);
        out.put_slice(piece);
        self.rest = rest;
        Poll::Ready(Ok(()))
    }
}
