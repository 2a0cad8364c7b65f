//! Who gets in and how much at once: each limit from both sides, and what a node does when too much comes.
//!
//! The limits of frames and of ops are with [`crate::protocol_errors`].

mod addresses;
mod memory;
mod origins;
mod overload;
mod queues;
mod sessions;
mod sockets;
mod storm;

use crate::harness::http;

/// The status of an answer and the seconds of its `Retry-After`.
fn answer(head: &str) -> (u16, Option<u64>) {
    let retry = head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("retry-after: ")?.parse().ok());
    (http::status(head).unwrap_or_else(|| panic!("no HTTP: {head}")), retry)
}
