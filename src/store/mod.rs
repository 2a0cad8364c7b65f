//! Where messages live: the seam between the relay and its storage.
//!
//! Owns the operations and their outcomes. Each operation is atomic, has a deadline, and after an
//! error may still have happened; all but a [`Store::publish`] without a key and [`Store::add_events`]
//! are harmless twice.
//! The store never knows that sockets exist: what other nodes or this one stored comes back as
//! [`FeedEvent`]s. Called by `socket` (outward), `feed` (inward), and the keepers beside them.

pub mod embedded;
mod event;
mod open;
pub mod record;
pub mod redis;
mod registry;

use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures_util::FutureExt as _;

pub use event::{Event, EventKind, FeedEvent, GapCause, LegacyText};
pub use open::{OpenError, open};
pub use registry::{
    Admission, AttrsChanged, Barred, Connect, Connected, Device, Evicted, Forget, MembershipChanged, Online, Restored,
};

use crate::attrs::{Attrs, AttrsChange};
use crate::ids::{ConnId, DeviceId, MessageId, Name, NodeId, OnceKey, ShopId};
use crate::message::{Broadcast, Entry, MembershipChange, Message, Origin, Signal, StatusChange};
use crate::metrics::{self, StoreOp};

/// What an engine needs to know of the settings.
#[derive(Debug, Clone)]
pub struct StoreSettings {
    /// Entries a shop's log may hold: `limits.log_entries`.
    pub log_entries_max: u64,
    /// How long an idempotency key is kept: `retention.keys`.
    pub key_retention: Duration,
    /// The deadline of every call: `timeouts.store`.
    pub deadline: Duration,
    /// How long a message is kept: `retention.messages`.
    pub message_retention: Duration,
    /// What every key and channel begins with.
    pub prefix: String,
    /// Groups a device may be in: `limits.device_groups`.
    pub device_groups_max: usize,
    /// Bytes that a device's attributes may have, as JSON: `limits.frame_bytes`.
    pub attrs_bytes_max: usize,
    /// Entries that the event stream holds, roughly: `limits.events`.
    pub events_max: u64,
    /// Replicas that have to have what was written before it is answered: `store_wait_replicas`.
    pub wait_replicas: u32,
}

/// A call that did not do, or may not have done, what it should.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No answer, or none within the deadline; it may have happened.
    #[error("the store cannot be reached")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The store has no room left and said so; nothing happened.
    #[error("the store is out of memory or disk")]
    Full,
    /// The store answered something that is no answer to this call.
    #[error("the store answered {seen} to {call}")]
    Nonsense { call: &'static str, seen: String },
}

/// A message to be stored.
#[derive(Debug, Clone)]
pub struct Publish {
    pub message: Message,
    /// With a key, storing it twice stores it once.
    pub key: Option<OnceKey>,
}

/// What came of a [`Publish`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Published {
    Stored(MessageId),
    /// A message was stored under this key before.
    Duplicate(MessageId),
    /// It is for the mains, and the shop has none registered.
    NoMainDevice,
    /// It is for devices none of which is registered; or it is a back end's, and the shop has none.
    NoSuchDevice,
    /// The log holds as many entries as it may.
    BacklogFull,
}

/// What came of a [`Store::signal`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signalled {
    Sent,
    /// It is for devices none of which is registered; or it is a back end's, and the shop has none.
    NoSuchDevice,
}

/// A device's proof of receipt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    pub device: DeviceId,
    /// It has everything up to and including this entry, or it was not for it.
    pub through: MessageId,
    /// Messages at or below `through` that were for it and expired before it got them.
    pub expired: Vec<MessageId>,
}

/// What came of a [`Mark`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Marked {
    /// The cursor stood here and was moved forward.
    Advanced { from: MessageId },
    /// The cursor is there or beyond already, or the device is not registered.
    Before,
}

/// A main's claim that it dealt with a message.
#[derive(Debug, Clone)]
pub struct SetStatus {
    pub message: MessageId,
    pub status: Name,
    /// Only where the present status is this one.
    pub expect: Option<Name>,
    pub by: Origin,
    /// The status the message started with.
    pub initial: Name,
    /// The device that sent the message.
    pub sender: Option<DeviceId>,
}

impl SetStatus {
    /// The entry that tells the others.
    pub fn entry(&self) -> StatusChange {
        StatusChange {
            message: self.message,
            status: self.status.clone(),
            by: self.by.clone(),
            sender: self.sender.clone(),
        }
    }
}

/// What came of a [`SetStatus`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StatusSet {
    /// Set, and an entry with this id tells the others.
    Set(MessageId),
    /// The same origin had set the same status before.
    Unchanged,
    /// Another was first, or the status is not the expected one.
    Conflict { status: Name, by: Option<Origin> },
    /// No such message is in the log.
    NotFound,
}

/// The present status of a message that somebody dealt with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dealt {
    pub status: Name,
    pub by: Origin,
}

/// An entry as the log holds it.
#[derive(Debug, Clone)]
pub struct Stored {
    pub id: MessageId,
    pub entry: Entry,
    /// Read with the entry; None in the feed, and where nobody has dealt with it.
    pub dealt: Option<Dealt>,
    /// Devices that it was for and that it expired for unseen; empty in the feed.
    pub unseen_by: Vec<DeviceId>,
}

/// A stretch of a shop's log.
#[derive(Debug, Clone)]
pub struct Page {
    /// In id order. Entries that cannot be read are left out, and were logged.
    pub entries: Vec<Stored>,
    /// The last entry looked at; where to read on. The `after` of the call where there was none.
    pub last: MessageId,
    /// Whether the log went no further when it was read.
    pub is_end: bool,
}

/// How much a page may hold: it ends at whichever comes first, but holds at least one entry.
#[derive(Debug, Clone, Copy)]
pub struct PageLimit {
    pub entries: usize,
    pub bytes: usize,
}

/// Word for the sender of a message that a device has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// Whom to tell.
    pub sender: DeviceId,
    pub message: MessageId,
    pub device: DeviceId,
    pub at_ms: u64,
}

/// A node's last sign of life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Beat {
    pub node: NodeId,
    /// When the store heard it, by the store's clock, in milliseconds since 1970.
    pub at_ms: u64,
    /// How long ago that is, by the store's clock.
    pub age: Duration,
    pub report: NodeReport,
}

/// What a node tells the others of itself with each beat.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeReport {
    /// Connections, logged in or not.
    pub connections: u64,
    /// Logged-in mains and subs.
    pub mains: u64,
    pub subs: u64,
    pub rooms: u64,
    /// The program's version; empty where it is not known.
    pub version: Box<str>,
}

/// Storage and feed. One engine serves a whole node; see the module for what holds of every call.
/// Dropping a call's future does not undo it.
#[async_trait]
pub trait Store: Send + Sync {
    /// Stores a message and tells every node that listens to the shop. The entry is in the log
    /// before this returns.
    async fn publish(&self, shop: &ShopId, publish: &Publish) -> Result<Published, StoreError>;

    /// Tells every node that listens to the shop, without storing anything.
    async fn signal(&self, shop: &ShopId, signal: &Signal) -> Result<Signalled, StoreError>;

    /// Tells the sender of a message that a device has it, if the sender is online.
    async fn send_receipts(&self, shop: &ShopId, receipts: &[Receipt]) -> Result<(), StoreError>;

    /// Moves cursors forward, never back. One outcome a mark, in order.
    async fn mark_delivered(&self, shop: &ShopId, marks: &[Mark]) -> Result<Vec<Marked>, StoreError>;

    /// Registers a device, takes over its presence, and tells the node that had it; unless it is barred.
    async fn connect(&self, shop: &ShopId, connect: &Connect) -> Result<Admission, StoreError>;

    /// Ends a device's presence, if it is still this connection's; says whether it was. Then its
    /// cursor also goes forward to `settled`, up to which everything was proven or not for it.
    async fn disconnect(
        &self,
        shop: &ShopId,
        device: &DeviceId,
        conn: &ConnId,
        settled: Option<MessageId>,
    ) -> Result<bool, StoreError>;

    /// Gives a connected device its presence back, where there is none of it.
    async fn restore(&self, shop: &ShopId, online: &Online) -> Result<Restored, StoreError>;

    /// Deals with a message: compare and set, then an entry that tells the others.
    async fn set_status(&self, shop: &ShopId, change: &SetStatus) -> Result<StatusSet, StoreError>;

    /// Reads the log after an id.
    async fn read(&self, shop: &ShopId, after: MessageId, limit: PageLimit) -> Result<Page, StoreError>;

    /// The newest id of each shop's log, in order; [`MessageId::ZERO`] for an empty one. None for a shop
    /// whose part of the store cannot be reached, where another's can.
    async fn heads(&self, shops: &[ShopId]) -> Result<Vec<Option<MessageId>>, StoreError>;

    /// The newest id of a shop's log; [`MessageId::ZERO`] for an empty one.
    async fn head(&self, shop: &ShopId) -> Result<MessageId, StoreError> {
        let heads = self.heads(std::slice::from_ref(shop)).await?;
        let unanswered = || StoreError::Nonsense { call: "heads", seen: "nothing".to_owned() };
        heads.into_iter().flatten().next().ok_or_else(unanswered)
    }

    /// Whether the log holds entries older than this one, which was in it, and not this one. Entries go in
    /// the order of their age, so the log is not the one that this one was in: it was rewound.
    async fn has_lost(&self, shop: &ShopId, id: MessageId) -> Result<bool, StoreError>;

    /// The registered devices of a shop, in the order of their ids.
    async fn devices(&self, shop: &ShopId) -> Result<Vec<Device>, StoreError>;

    /// The connected devices of a shop, in the order of their ids, dead nodes' ghosts among them.
    async fn online(&self, shop: &ShopId) -> Result<Vec<Online>, StoreError>;

    /// Removes entries up to and including `through`, at most `entries_max` of them; says how many
    /// it removed.
    async fn trim(&self, shop: &ShopId, through: MessageId, entries_max: usize) -> Result<usize, StoreError>;

    /// How many entries a shop's log holds.
    async fn log_len(&self, shop: &ShopId) -> Result<u64, StoreError>;

    /// Removes a device from the registry, with its cursor and attributes; says whether it did. One that
    /// is barred stays barred.
    async fn forget(&self, shop: &ShopId, device: &DeviceId, which: Forget) -> Result<bool, StoreError>;

    /// A registered device.
    async fn device(&self, shop: &ShopId, device: &DeviceId) -> Result<Option<Device>, StoreError>;

    /// Changes what devices are members of, and tells the shop's sessions by an entry of the log, however
    /// full that is. A change for every device is refused as a whole where one device cannot take it.
    async fn change_membership(
        &self,
        shop: &ShopId,
        change: &MembershipChange,
    ) -> Result<MembershipChanged, StoreError>;

    /// A device's attributes; None where it is not registered.
    async fn attrs(&self, shop: &ShopId, device: &DeviceId) -> Result<Option<Attrs>, StoreError>;

    /// Changes a device's attributes.
    async fn change_attrs(
        &self,
        shop: &ShopId,
        device: &DeviceId,
        change: &AttrsChange,
    ) -> Result<AttrsChanged, StoreError>;

    /// Ends a device's presence and has its connection closed, after a last signal; with a `conn` only
    /// if it is that one.
    async fn evict(
        &self,
        shop: &ShopId,
        device: &DeviceId,
        conn: Option<&ConnId>,
        last: Option<&Signal>,
    ) -> Result<Evicted, StoreError>;

    /// Bars a device, registered or not: ends its presence, has its connections closed, after a last
    /// signal, and lets it log in no more. Says whether it was not barred before; who barred it first stays.
    async fn bar(&self, shop: &ShopId, device: &DeviceId, by: &Name, last: Option<&Signal>)
    -> Result<bool, StoreError>;

    /// Lets a barred device log in again; says whether it was barred.
    async fn unbar(&self, shop: &ShopId, device: &DeviceId) -> Result<bool, StoreError>;

    /// The barred devices of a shop, in the order of their ids.
    async fn barred(&self, shop: &ShopId) -> Result<Vec<Barred>, StoreError>;

    /// Whose connection this is; None where it is gone. A dead node's ghosts are found too.
    async fn locate(&self, conn: &ConnId) -> Result<Option<(ShopId, Online)>, StoreError>;

    /// Tells every node, whatever shops it listens to, without storing anything.
    async fn broadcast(&self, broadcast: &Broadcast) -> Result<(), StoreError>;

    /// The numbers by which legacy peers know these messages of a shop, in order: unique in the whole
    /// deployment, from 1 on, given when they are first asked for, and kept as long as the message. One that
    /// is not in the log gets a number of its own each time, which leads nowhere.
    async fn numbers(&self, shop: &ShopId, messages: &[MessageId]) -> Result<Vec<u64>, StoreError>;

    /// The message that has this number; None where none has it, or not any more.
    async fn numbered(&self, number: u64) -> Result<Option<(ShopId, MessageId)>, StoreError>;

    /// Notes a legacy connection of a node from its handshake on, logged in or not; or, with
    /// `is_there` false, that it ended.
    async fn note_legacy(&self, conn: &ConnId, is_there: bool) -> Result<(), StoreError>;

    /// The legacy connections of the whole deployment, dead nodes' ghosts among them.
    async fn legacy_conns(&self) -> Result<Vec<ConnId>, StoreError>;

    /// Tells every node to send these legacy connections a text as it is, without storing anything.
    async fn send_text(&self, text: &LegacyText) -> Result<(), StoreError>;

    /// Adds events to the stream for back-end workers, in order. After an error the first of them may be
    /// there, and are there twice where they are added again.
    async fn add_events(&self, events: &[Event]) -> Result<(), StoreError>;

    /// Every shop ever seen.
    async fn shops(&self) -> Result<Vec<ShopId>, StoreError>;

    /// Takes a task that one node of all should do, for a while; says whether this node has it.
    async fn claim(&self, task: &str, node: &NodeId, lease: Duration) -> Result<bool, StoreError>;

    /// Tells that this node lives, and hears of every node that lately did.
    async fn beat(&self, node: &NodeId, report: &NodeReport) -> Result<Vec<Beat>, StoreError>;

    /// Takes this node from the list of those alive.
    async fn leave(&self, node: &NodeId) -> Result<(), StoreError>;

    /// From its return on, the shop's events come through the feed; also remembers the shop.
    async fn subscribe(&self, shop: &ShopId) -> Result<(), StoreError>;

    /// Ends [`Store::subscribe`]; events that are on their way may still come.
    async fn unsubscribe(&self, shop: &ShopId) -> Result<(), StoreError>;

    /// The store's clock, which stamps entries, in milliseconds since 1970: this machine's, put right
    /// by what the last beat told.
    fn now_ms(&self) -> u64;

    /// Whether what other nodes publish arrives here: false while the subscription is down or deaf.
    fn is_hearing(&self) -> bool;

    /// Ends the engine's tasks and closes its connections.
    async fn close(&self);
}

/// Measures a call of an engine.
fn timed<F: Future>(op: StoreOp, call: F) -> impl Future<Output = F::Output> {
    let began = Instant::now();
    // No `async` block, which would have room for the call twice.
    call.inspect(move |_| metrics::store_call(op, began.elapsed()))
}
