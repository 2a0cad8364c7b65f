//! One task a connection: reader, writer, and the loop where session, room and relay meet.
//!
//! Owns the WebSocket of a connection from its handshake to its end. Decides nothing about the
//! conversation, which is the session's, and nothing about who gets what, which is the room's. Run by
//! `http`, once a connection.

mod acting;
mod calls;
mod connection;
mod entries;
mod leaving;
mod link;
#[cfg(any(test, fuzzing))]
pub mod properties;
mod reader;
pub mod writer;

pub use link::{Accepted, Link};
