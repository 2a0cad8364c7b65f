//! Who is in the demo's shop, and what they tell of themselves.
//!
//! Pure words between the devices, which send them, and the model, which keeps the books.

use std::time::Instant;

use crate::ids::MessageId;

/// The devices that get every order.
pub const MAINS: [&str; 3] = ["till-1", "till-2", "kitchen"];
/// How many of [`MAINS`], from the first on, deal with orders.
pub const TILLS: usize = 2;
/// The devices that send orders.
pub const HANDHELDS: [&str; 3] = ["hand-1", "hand-2", "hand-3"];

/// A device of the demo: its place in [`MAINS`] or [`HANDHELDS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    Main(usize),
    Handheld(usize),
}

impl Who {
    /// As the relay knows it.
    pub fn name(self) -> &'static str {
        let name = match self {
            Who::Main(index) => MAINS.get(index),
            Who::Handheld(index) => HANDHELDS.get(index),
        };
        name.copied().unwrap_or("nobody")
    }
}

/// What a device tells of itself.
#[derive(Debug)]
pub enum Report {
    /// It is logged in.
    Online { who: Who, at: Instant },
    /// Its connection is gone, or could not be had.
    Offline { who: Who, at: Instant, why: Absence },
    /// Somebody else logged in under its name; it does not come back.
    Replaced { who: Who, at: Instant },
    /// The relay accepted what it sent.
    Stored { id: MessageId, content: Content, sent_at: Instant, at: Instant },
    /// It has the message, on the connection that it has `since`.
    Delivered { id: MessageId, main: usize, content: Content, since: Instant, at: Instant },
    /// It had the message already, from an earlier connection.
    Again,
    /// It had the entry already, from this very connection.
    Twice { main: usize, id: MessageId, at: Instant },
    /// The relay told the sender that a device has its message.
    Receipt,
    /// Somebody dealt with the message.
    Dealt { id: MessageId, by: String, status: String, at: Instant },
    /// It wanted to deal with the message, and `by` had been first.
    Conflict { id: MessageId, main: usize, by: String, at: Instant },
    /// The relay refused what it sent.
    Refused { who: Who, code: String, message: String, at: Instant },
    /// Told to rest, it has nothing under way any more.
    Resting { handheld: usize },
    /// It stops without knowing what became of what it sent.
    Unanswered,
}

/// Why a device is away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Absence {
    /// The demo pulled its plug.
    CutOff,
    Lost(String),
}

/// What a message says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    pub from: String,
    pub table: String,
    pub text: String,
}
