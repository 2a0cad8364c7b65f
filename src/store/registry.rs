//! What the registry and the presence of a shop hold of its devices, and what comes of changing it.
//!
//! Owns these values only. Called by who calls [`Store`](crate::store::Store), and by the engines.

use crate::attrs::Attrs;
use crate::ids::{ConnId, DeviceId, MessageId, Name, NodeId};
use crate::message::{Membership, Recipient, Role};

/// A device that logs in.
#[derive(Debug, Clone)]
pub struct Connect {
    pub device: DeviceId,
    pub role: Role,
    pub conn: ConnId,
    pub node: NodeId,
    /// JSON text of the device's own description; None leaves what is registered.
    pub meta: Option<Box<str>>,
    /// The groups it is in from now on, and no others; None leaves what is registered.
    pub groups: Option<Vec<Name>>,
    /// The user it belongs to from now on; None leaves what is registered.
    pub user: Option<Name>,
}

/// What a device finds when it logs in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connected {
    /// Where it left off; the head for a device seen for the first time.
    pub cursor: MessageId,
    pub head: MessageId,
    /// The connection it had until now.
    pub replaced: Option<ConnId>,
    /// As of the head: changes come as entries above it.
    pub membership: Membership,
}

/// What came of a [`Store::connect`](crate::store::Store::connect).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Admission {
    Admitted(Connected),
    /// An operator barred it; nothing was changed.
    Barred,
}

impl Admission {
    /// What it found, where it was let in.
    pub fn admitted(self) -> Option<Connected> {
        match self {
            Admission::Admitted(connected) => Some(connected),
            Admission::Barred => None,
        }
    }
}

/// A device that may not log in, registered or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Barred {
    pub device: DeviceId,
    pub since_ms: u64,
    /// The back end that barred it.
    pub by: Name,
}

/// A registered device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    pub device: DeviceId,
    pub role: Role,
    pub membership: Membership,
    /// JSON text.
    pub meta: Option<Box<str>>,
    pub first_seen_ms: u64,
    pub last_seen_ms: u64,
    /// The head of the log when it was registered: entries above it were stored later.
    pub registered_at: MessageId,
    pub cursor: MessageId,
}

impl Device {
    /// The device as an audience sees it.
    pub fn recipient(&self) -> Recipient<'_> {
        let Membership { groups, user } = &self.membership;
        Recipient { device: &self.device, role: self.role, groups, user: user.as_ref(), conn: None }
    }
}

/// A device that some node holds a connection of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Online {
    pub device: DeviceId,
    pub role: Role,
    pub conn: ConnId,
    pub node: NodeId,
    pub since_ms: u64,
}

/// What came of a [`Store::restore`](crate::store::Store::restore).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restored {
    /// The device is online by this connection.
    Online,
    /// It is online by another one.
    Taken,
    /// It is not registered, or an operator has ended this connection or barred the device.
    Refused,
}

/// What came of a [`Store::change_membership`](crate::store::Store::change_membership).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MembershipChanged {
    /// An entry with this id tells the sessions.
    Changed(MessageId),
    /// It was so already.
    Unchanged,
    NoSuchDevice,
    /// The device is in as many groups as it may be.
    TooManyGroups,
}

/// What came of a [`Store::change_attrs`](crate::store::Store::change_attrs).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AttrsChanged {
    /// The attributes are these now.
    Now(Attrs),
    NoSuchDevice,
    /// They would have so many bytes; nothing changed.
    TooLarge {
        size: usize,
    },
}

/// What came of a [`Store::evict`](crate::store::Store::evict).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Evicted {
    /// The node that holds this connection is told to close it.
    Closing(ConnId),
    /// It is not connected, or not by that connection.
    Away,
}

/// Which device is to be forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forget {
    /// One that is not connected and was last seen before this time, in milliseconds since 1970.
    UnseenSince(u64),
    /// Any; its connection is closed, for an operator said so.
    ByOperator,
}
