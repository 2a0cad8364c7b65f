//! What the store tells: the rooms of what is stored and sent, back-end workers of what happens.
//!
//! Owns these values only. Called by the engines, which make the ones and take the others.

use crate::ids::{ConnId, DeviceId, MessageId, Name, NodeId, ShopId};
use crate::message::{Broadcast, Role, Signal};
use crate::store::{Receipt, Stored};

/// What the store has to tell the rooms.
#[derive(Debug)]
pub enum FeedEvent {
    /// An entry was stored, right after `prev`.
    Entry {
        shop: ShopId,
        prev: MessageId,
        stored: Stored,
        publisher: Option<NodeId>,
    },
    Signal {
        shop: ShopId,
        signal: Signal,
        publisher: Option<NodeId>,
    },
    Receipt {
        shop: ShopId,
        receipt: Receipt,
    },
    /// A newer connection of the device took over from `conn`.
    Replaced {
        shop: ShopId,
        device: DeviceId,
        conn: ConnId,
    },
    /// An operator had `conn` closed, after this last signal.
    Evicted {
        shop: ShopId,
        conn: ConnId,
        last: Option<Signal>,
    },
    /// An operator barred a device: whatever connection it has is to be closed, after this last signal.
    Barred {
        shop: ShopId,
        device: DeviceId,
        /// The one that the store knew of, which may be logging in at this moment.
        conn: Option<ConnId>,
        last: Option<Signal>,
    },
    /// A signal for every shop.
    Broadcast(Broadcast),
    /// A text for legacy connections.
    LegacyText(LegacyText),
    /// Events may have been lost: every room has to look at its log.
    Gap(GapCause),
}

/// A text for legacy connections, by which they are written to as they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LegacyText {
    pub conns: Vec<ConnId>,
    pub text: Box<str>,
}

/// Why events may have been lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GapCause {
    /// The subscription's connection was made anew.
    Reconnected,
    /// Events came faster than they were taken.
    Lagged,
    /// The subscription was there and nothing arrived.
    Deaf,
    /// Channels went to another server of the store, or were dropped by the one that had them.
    Moved,
}

/// Something that back-end workers are told of; see the event stream in the protocol's page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    pub kind: EventKind,
    /// In milliseconds since 1970.
    pub at_ms: u64,
    pub node: NodeId,
    pub conn: Option<ConnId>,
    pub shop: Option<ShopId>,
    pub device: Option<DeviceId>,
    pub role: Option<Role>,
    pub user: Option<Name>,
}

/// See [`Event`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EventKind {
    /// A WebSocket was opened.
    Connect,
    Login,
    /// A connection ended, with this close code; 1006 where it broke.
    Close {
        code: u16,
    },
    /// A device calls a method of the workers.
    Call {
        method: Name,
        /// The call's own `ref`, as text.
        reference: Option<Box<str>>,
        /// JSON text.
        data: Option<Box<str>>,
    },
    /// A message was dealt with; by the API key of this name, where no device did.
    Dealt {
        message: MessageId,
        status: Name,
        api: Option<Name>,
    },
}
