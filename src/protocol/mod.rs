//! The wire, pure: what clients may say, what the relay answers, and how both are encoded.
//!
//! Owns wire names, error codes and close codes. Never awaits, never logs, never reads a clock.
//! `session` decides with its types; `socket` moves its bytes.

pub mod body;
mod client;
mod code;
pub mod legacy;
mod notify;
mod opening;
mod server;
mod value;

pub use client::{
    AckMode, CallMethod, ClientFrame, ClientOp, Deal, List, ListStatus, Login, Token, decode, list_limit, plain_ack,
};
pub use code::{Close, CloseCode, ErrorCode};
pub use notify::Notify;
#[cfg(any(test, fuzzing))]
pub(crate) use opening::open_any;
pub use opening::{Opening, Ref, Refused, open};
pub use server::{Item, Presence, PresenceState, ServerOp, encode, message_frame, signal_frame, status_frame};

/// Levels of arrays and maps a client's value may nest; deeper ones are refused.
pub const VALUE_DEPTH_MAX: usize = 100;

/// How frames of a connection are encoded, chosen by the WebSocket subprotocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// Text frames of JSON: `shoprelay.v1.json`, and what a client gets that names no subprotocol.
    Json,
    /// Binary frames of MessagePack, maps with the same string keys: `shoprelay.v1.msgpack`.
    MsgPack,
}

/// The language of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    Native(Encoding),
    /// That of the hand-made server's clients; see [`legacy`].
    Legacy,
}

impl Dialect {
    /// The encoding of what is told in frames of the native protocol; legacy ones are text too.
    pub fn encoding(self) -> Encoding {
        match self {
            Dialect::Native(encoding) => encoding,
            Dialect::Legacy => Encoding::Json,
        }
    }
}

impl Encoding {
    /// The subprotocol's name.
    pub fn subprotocol(self) -> &'static str {
        match self {
            Encoding::Json => "shoprelay.v1.json",
            Encoding::MsgPack => "shoprelay.v1.msgpack",
        }
    }

    /// The first subprotocol of a client's offers that the relay speaks.
    pub fn first_of<'a>(offers: impl IntoIterator<Item = &'a str>) -> Option<Encoding> {
        let known = [Encoding::Json, Encoding::MsgPack];
        offers
            .into_iter()
            .flat_map(|line| line.split(','))
            .find_map(|offer| known.into_iter().find(|encoding| encoding.subprotocol() == offer.trim()))
    }
}

/// Whether a data frame carries text or bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameKind {
    Text,
    Binary,
}

impl FrameKind {
    /// The kind of frame this encoding travels in.
    pub fn of(encoding: Encoding) -> FrameKind {
        match encoding {
            Encoding::Json => FrameKind::Text,
            Encoding::MsgPack => FrameKind::Binary,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_subprotocol_that_is_spoken_is_chosen() {
        assert_eq!(Encoding::first_of(["mqtt, shoprelay.v1.msgpack", "shoprelay.v1.json"]), Some(Encoding::MsgPack));
        assert_eq!(Encoding::first_of(["shoprelay.v2.json"]), None);
    }
}
