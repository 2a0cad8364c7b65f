//! A device's side of the protocol, for the programs that play devices.
//!
//! Owns the WebSocket of a played device and the words that go over it. Written from the protocol's
//! page and not from the relay's own types of frames, as a stranger's client would be, so that a
//! mistake in those is not made twice. Never comes back by itself and keeps nothing of what it was
//! sent: both are the device's. Used by the demo and the proof.

mod dial;
mod dice;
mod link;
mod words;

pub use dial::{Dial, DialError, Trust};
pub use dice::Dice;
pub use link::{Encoding, Link, LinkError};
pub use words::{Heard, Item, Peer, Pushed, Refusal, StatusNews, Welcome};

/// The close code for "the same device logged in on a newer connection".
pub const REPLACED: u16 = 4000;
