//! An entry or a signal on its way to many connections: encoded once per wire encoding.

use std::sync::OnceLock;

use bytes::Bytes;

use crate::ids::{MessageId, Name};
use crate::message::{Entry, Signal};
use crate::protocol::{self, Encoding};

/// An entry of the log, with its finished frames.
pub struct Push {
    pub id: MessageId,
    pub entry: Entry,
    /// The present status, where somebody dealt with the message.
    pub status: Option<Name>,
    /// Whether it was read from the log rather than heard in the feed.
    pub is_replay: bool,
    frames: Frames,
}

/// A signal, with its finished frames.
pub struct SignalPush {
    pub signal: Signal,
    frames: Frames,
}

#[derive(Default)]
struct Frames {
    json: OnceLock<Option<Bytes>>,
    msgpack: OnceLock<Option<Bytes>>,
}

impl Frames {
    fn get(&self, encoding: Encoding, make: impl FnOnce() -> Option<Bytes>) -> Option<Bytes> {
        let frame = match encoding {
            Encoding::Json => &self.json,
            Encoding::MsgPack => &self.msgpack,
        };
        frame.get_or_init(make).clone()
    }
}

impl Push {
    /// An entry to be sent.
    pub fn new(id: MessageId, entry: Entry, status: Option<Name>, is_replay: bool) -> Push {
        Push { id, entry, status, is_replay, frames: Frames::default() }
    }

    /// The finished frame: `finish` wraps the encoded op, once per encoding. None where the entry
    /// cannot be encoded, which the check at the edge rules out.
    pub fn frame(&self, encoding: Encoding, finish: impl FnOnce(Vec<u8>) -> Bytes) -> Option<Bytes> {
        self.frames.get(encoding, || {
            let op = match &self.entry {
                Entry::Message(message) => protocol::message_frame(encoding, self.id, message, self.status.as_ref()),
                Entry::Status(change) => protocol::status_frame(encoding, self.id, change),
                // It is sent to nobody.
                Entry::Membership(_) => return None,
            };
            op.ok().map(finish)
        })
    }
}

impl SignalPush {
    /// A signal to be sent.
    pub fn new(signal: Signal) -> SignalPush {
        SignalPush { signal, frames: Frames::default() }
    }

    /// As [`Push::frame`].
    pub fn frame(&self, encoding: Encoding, finish: impl FnOnce(Vec<u8>) -> Bytes) -> Option<Bytes> {
        self.frames.get(encoding, || protocol::signal_frame(encoding, &self.signal).ok().map(finish))
    }
}
