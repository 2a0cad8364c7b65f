//! What the rows of the tables hold that are more than a number or a text.
//!
//! Owns their fields. Never reads or writes a table; that is [`super`].

use serde::{Deserialize, Serialize};

use crate::ids::{ConnId, DeviceId, MessageId, Name, NodeId};
use crate::message::{Membership, Origin, Role};
use crate::store::Dealt;

/// A row of [`SHOPS`](super::SHOPS).
#[derive(Debug, Clone, Copy, Default)]
pub struct ShopRow {
    pub head: MessageId,
    pub entries: u64,
    pub mains: u64,
}

impl From<(u64, u64, u64, u64)> for ShopRow {
    fn from((ms, n, entries, mains): (u64, u64, u64, u64)) -> ShopRow {
        ShopRow { head: MessageId { ms, n }, entries, mains }
    }
}

/// A row of [`DEVICES`](super::DEVICES).
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DeviceRow {
    pub role: Role,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    groups: Vec<Name>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    user: Option<Name>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub meta: Option<Box<str>>,
    pub first_seen: u64,
    pub last_seen: u64,
    pub registered_at: MessageId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    presence: Option<Presence>,
    /// The connection that an operator ended last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ended: Option<ConnId>,
}

/// Which connection a device has.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Presence {
    pub conn: ConnId,
    pub node: Box<str>,
    pub since: u64,
    /// The process that wrote it. What another one wrote holds no more: that process is gone.
    holder: Box<str>,
}

impl DeviceRow {
    /// A device that nobody knew before.
    pub fn new(role: Role, now_ms: u64, head: MessageId) -> DeviceRow {
        DeviceRow {
            role,
            groups: Vec::new(),
            user: None,
            meta: None,
            first_seen: now_ms,
            last_seen: now_ms,
            registered_at: head,
            presence: None,
            ended: None,
        }
    }

    /// Whether it is registered as a main.
    pub fn is_main(&self) -> bool {
        self.role == Role::Main
    }

    /// What it is a member of.
    pub fn membership(&self) -> Membership {
        Membership { groups: self.groups.clone(), user: self.user.clone() }
    }

    /// Makes it a member of this and no more.
    pub fn set_membership(&mut self, membership: Membership) {
        Membership { groups: self.groups, user: self.user } = membership;
    }

    /// Its connection, if this process holds it.
    pub fn presence(&self, holder: &NodeId) -> Option<&Presence> {
        self.presence.as_ref().filter(|presence| *presence.holder == *holder.as_str())
    }

    /// Gives it this connection.
    pub fn come(&mut self, holder: &NodeId, conn: &ConnId, node: &NodeId, since: u64) {
        let (node, holder) = (node.as_str().into(), holder.as_str().into());
        self.presence = Some(Presence { conn: conn.clone(), node, since, holder });
        self.ended = None;
    }

    /// Ends its connection.
    pub fn go(&mut self) {
        self.presence = None;
    }

    /// Ends its connection for an operator: it is not given back.
    pub fn end(&mut self) {
        self.ended = self.presence.take().map(|presence| presence.conn);
    }

    /// Whether an operator ended this connection.
    pub fn was_ended(&self, conn: &ConnId) -> bool {
        self.ended.as_ref() == Some(conn)
    }
}

/// A row of [`FATES`](super::FATES): what has become of an entry since it was stored.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Fate {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    dealt: Option<(Name, By)>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unseen_by: Vec<DeviceId>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
enum By {
    Device(DeviceId, Role),
    Api(Name),
}

impl Fate {
    /// Who dealt with it last.
    pub fn dealt(&self) -> Option<Dealt> {
        let (status, by) = self.dealt.clone()?;
        let by = match by {
            By::Device(device, role) => Origin::Device { device, role },
            By::Api(name) => Origin::Api { name },
        };
        Some(Dealt { status, by })
    }

    /// Notes who dealt with it.
    pub fn deal(&mut self, status: &Name, by: &Origin) {
        let by = match by {
            Origin::Device { device, role } => By::Device(device.clone(), *role),
            Origin::Api { name } => By::Api(name.clone()),
        };
        self.dealt = Some((status.clone(), by));
    }
}
