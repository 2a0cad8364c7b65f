//! What the relay carries: messages, signals and status changes, whom they are for and from whom.
//!
//! Owns the rule of who is in an audience. Never encodes anything and never looks anything up: a
//! caller brings the device it asks about as a [`Recipient`].

use std::collections::HashSet;
use std::fmt;
use std::hash::Hash;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::ids::{ConnId, DeviceId, MessageId, Name};
use crate::planted::{self, Fault};

/// What a device does in its shop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// A till or a kitchen screen: gets the subs' messages and deals with them.
    Main,
    /// A handheld, a self-order tablet, a printer.
    Sub,
}

impl Role {
    /// `main` or `sub`, as on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Main => "main",
            Role::Sub => "sub",
        }
    }

    /// Everyone of a role, or everyone.
    pub fn audience(role: Option<Role>) -> Audience {
        match role {
            Some(Role::Main) => Audience::Mains,
            Some(Role::Sub) => Audience::Subs,
            None => Audience::All,
        }
    }
}

/// A text that names no role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is no role; give main or sub")]
pub struct NoRole;

impl FromStr for Role {
    type Err = NoRole;
    fn from_str(text: &str) -> Result<Role, NoRole> {
        [Role::Main, Role::Sub].into_iter().find(|role| role.as_str() == text).ok_or(NoRole)
    }
}

/// A value of a client that the relay passes on without looking inside, in the encoding it came in.
#[derive(Clone)]
pub enum Value {
    /// JSON text.
    Json(Box<RawValue>),
    /// One MessagePack value.
    MsgPack(Box<[u8]>),
}

impl fmt::Debug for Value {
    // Payloads are never printed, lest they reach a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Json(raw) => write!(f, "Json({} bytes)", raw.get().len()),
            Value::MsgPack(bytes) => write!(f, "MsgPack({} bytes)", bytes.len()),
        }
    }
}

/// Who sent something or dealt with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A device of the shop, with its role at that time.
    Device { device: DeviceId, role: Role },
    /// A back end, by the name of its API key.
    Api { name: Name },
}

impl Origin {
    /// The device, where it was one.
    pub fn device(&self) -> Option<&DeviceId> {
        match self {
            Origin::Device { device, .. } => Some(device),
            Origin::Api { .. } => None,
        }
    }
}

/// Names in the order they were given, found quickly however many there are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed<T: Eq + Hash> {
    given: Vec<T>,
    /// Only where looking through all of them would take long.
    index: Option<HashSet<T>>,
}

impl<T: Clone + Eq + Hash> Listed<T> {
    /// Lists longer than this have an index.
    const PLAIN_MAX: usize = 16;

    /// Whether the name is listed.
    pub fn contains(&self, name: &T) -> bool {
        match &self.index {
            Some(index) => index.contains(name),
            None => self.given.contains(name),
        }
    }

    /// The names as they were given.
    pub fn as_slice(&self) -> &[T] {
        &self.given
    }
}

impl<T: Clone + Eq + Hash> From<Vec<T>> for Listed<T> {
    fn from(given: Vec<T>) -> Self {
        let index = (given.len() > Self::PLAIN_MAX).then(|| given.iter().cloned().collect());
        Listed { given, index }
    }
}

/// Whom a message or a signal is for, before exceptions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Audience {
    Mains,
    Subs,
    All,
    Devices(Listed<DeviceId>),
    Group(Name),
    User(Name),
    /// Connections, for signals only.
    Conns(Listed<ConnId>),
}

/// A device as an audience sees it.
#[derive(Debug, Clone, Copy)]
pub struct Recipient<'a> {
    pub device: &'a DeviceId,
    pub role: Role,
    pub groups: &'a [Name],
    pub user: Option<&'a Name>,
    /// The connection, where it is asked about a present one.
    pub conn: Option<&'a ConnId>,
}

/// What messages and signals have in common.
#[derive(Debug, Clone)]
pub struct Content {
    pub from: Origin,
    pub to: Audience,
    pub except: Listed<DeviceId>,
    /// The wire's `type`.
    pub kind: Name,
    pub table: Option<Name>,
    pub data: Option<Value>,
    pub user_info: Option<Value>,
    /// What a legacy device gave that the rest cannot tell a legacy peer, as the text of a JSON object.
    pub legacy: Option<Box<RawValue>>,
}

impl Content {
    /// Whether this device is to get it: in the audience, not excepted, and not the sender, unless
    /// the sender names itself among the devices.
    pub fn is_for(&self, who: Recipient<'_>) -> bool {
        if self.except.contains(who.device) && !planted::strikes(Fault::IgnoreExcept) {
            return false;
        }
        let own = self.from.device() == Some(who.device);
        match &self.to {
            Audience::Devices(devices) => devices.contains(who.device),
            Audience::Mains => !own && who.role == Role::Main,
            Audience::Subs => !own && who.role == Role::Sub,
            Audience::All => !own,
            Audience::Group(group) => !own && who.groups.contains(group),
            Audience::User(user) => !own && who.user == Some(user),
            Audience::Conns(conns) => !own && who.conn.is_some_and(|conn| conns.contains(conn)),
        }
    }
}

/// A durable entry of a shop's log that devices deal with.
#[derive(Debug, Clone)]
pub struct Message {
    pub content: Content,
    /// The status it starts with.
    pub status: Name,
    /// How long after it was stored it is still worth sending.
    pub ttl: Option<Duration>,
    /// Whether the sender wants to hear of each delivery.
    pub receipt: bool,
}

impl Message {
    /// Whether it is too old to be sent at `now_ms`, given the id it was stored under.
    pub fn is_expired(&self, id: MessageId, now_ms: u64) -> bool {
        self.ttl.is_some_and(|ttl| now_ms > id.ms.saturating_add(ttl.as_millis() as u64))
    }
}

/// The status every message starts with, unless its sender gives another.
pub const STATUS_OPEN: &str = "open";

/// An entry of the log that tells the other mains and the sender that a message was dealt with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatusChange {
    pub message: MessageId,
    pub status: Name,
    pub by: Origin,
    /// The device that sent the message, where one did.
    pub sender: Option<DeviceId>,
}

/// An entry of the log that tells the sessions of a shop that a device's groups or user changed. It is
/// sent to nobody. The registry holds what came of it, so only who logged in before it heeds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MembershipChange {
    /// None for every device of the shop.
    pub device: Option<DeviceId>,
    pub step: MembershipStep,
}

/// See [`MembershipChange`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MembershipStep {
    Join(Name),
    Leave(Name),
    /// The device is this user's from now on, and no other's.
    Bind(Name),
    /// It is this user's no more; whoever it is's, where none is named.
    Unbind(Option<Name>),
}

/// The groups a device is in, in no order, and the user it belongs to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Membership {
    pub groups: Vec<Name>,
    pub user: Option<Name>,
}

impl Membership {
    /// Takes a step; says whether it changed anything.
    pub fn take(&mut self, step: &MembershipStep) -> bool {
        match step {
            MembershipStep::Join(group) if self.groups.contains(group) => false,
            MembershipStep::Join(group) => {
                self.groups.push(group.clone());
                true
            }
            MembershipStep::Leave(group) => {
                let before = self.groups.len();
                self.groups.retain(|joined| joined != group);
                self.groups.len() < before
            }
            MembershipStep::Bind(user) => self.user.replace(user.clone()).as_ref() != Some(user),
            MembershipStep::Unbind(None) => self.user.take().is_some(),
            MembershipStep::Unbind(Some(user)) if self.user.as_ref() == Some(user) => self.user.take().is_some(),
            MembershipStep::Unbind(Some(_)) => false,
        }
    }
}

/// One entry of a shop's log.
#[derive(Debug, Clone)]
#[expect(clippy::large_enum_variant, reason = "nearly every entry is a message, and each lives in a list or an Arc")]
pub enum Entry {
    Message(Message),
    Status(StatusChange),
    Membership(MembershipChange),
}

impl Entry {
    /// Whether this device is to get it.
    pub fn is_for(&self, who: Recipient<'_>) -> bool {
        match self {
            Entry::Message(message) => message.content.is_for(who),
            Entry::Status(change) => {
                change.by.device() != Some(who.device)
                    && (who.role == Role::Main || change.sender.as_ref() == Some(who.device))
            }
            Entry::Membership(_) => false,
        }
    }

    /// Whether it changes what this device is a member of.
    pub fn membership_step(&self, device: &DeviceId) -> Option<&MembershipStep> {
        match self {
            Entry::Membership(change) if change.device.as_ref().is_none_or(|changed| changed == device) => {
                Some(&change.step)
            }
            _ => None,
        }
    }
}

/// Something for whoever is online now; it is not stored.
#[derive(Debug, Clone)]
pub struct Signal {
    /// When the node took it, in milliseconds since 1970.
    pub at_ms: u64,
    pub content: Content,
}

/// A signal for every shop.
#[derive(Debug, Clone)]
pub struct Broadcast {
    /// Its audience is a role or everyone.
    pub signal: Signal,
    /// Connections that do not get it.
    pub except: Listed<ConnId>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(name: &str) -> DeviceId {
        name.parse().unwrap()
    }

    fn content(from: &str, to: Audience, except: &[&str]) -> Content {
        Content {
            from: Origin::Device { device: device(from), role: Role::Sub },
            to,
            except: except.iter().map(|name| device(name)).collect::<Vec<_>>().into(),
            kind: "order".parse().unwrap(),
            table: None,
            data: None,
            user_info: None,
            legacy: None,
        }
    }

    fn is_for(content: &Content, name: &str, role: Role) -> bool {
        content.is_for(Recipient { device: &device(name), role, groups: &[], user: None, conn: None })
    }

    #[test]
    fn a_sender_gets_its_own_message_only_when_it_names_itself() {
        let all = content("a", Audience::All, &[]);
        assert!(!is_for(&all, "a", Role::Sub));
        assert!(is_for(&all, "b", Role::Main));
        let named = content("a", Audience::Devices(vec![device("a"), device("b")].into()), &["b"]);
        assert!(is_for(&named, "a", Role::Sub));
        assert!(!is_for(&named, "b", Role::Main), "an exception outweighs being named");
    }

    #[test]
    fn a_long_list_is_the_same_as_a_short_one() {
        let names: Vec<DeviceId> = (0..1000).map(|n| device(&format!("d{n}"))).collect();
        let long = Listed::from(names.clone());
        assert_eq!(long.as_slice(), names);
        assert!(long.contains(&device("d999")) && !long.contains(&device("d1000")));
    }

    #[test]
    fn a_status_is_for_the_mains_and_the_sender_but_not_for_whoever_dealt() {
        let change = Entry::Status(StatusChange {
            message: MessageId { ms: 1, n: 0 },
            status: "done".parse().unwrap(),
            by: Origin::Device { device: device("till-1"), role: Role::Main },
            sender: Some(device("hand-1")),
        });
        let for_device = |name: &str, role| {
            change.is_for(Recipient { device: &device(name), role, groups: &[], user: None, conn: None })
        };
        assert!(!for_device("till-1", Role::Main));
        assert!(for_device("till-2", Role::Main));
        assert!(for_device("hand-1", Role::Sub));
        assert!(!for_device("hand-2", Role::Sub));
    }

    #[test]
    fn a_message_expires_after_its_ttl() {
        let mut message = Message {
            content: content("a", Audience::Mains, &[]),
            status: "open".parse().unwrap(),
            ttl: Some(Duration::from_secs(2)),
            receipt: false,
        };
        let id = MessageId { ms: 1000, n: 0 };
        assert!(!message.is_expired(id, 3000));
        assert!(message.is_expired(id, 3001));
        message.ttl = None;
        assert!(!message.is_expired(id, u64::MAX));
    }
}
