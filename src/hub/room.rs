//! One shop on this node: its sessions, and how far its feed has come.
//!
//! The one rule: an entry whose `prev` is the room's position is taken straight from the feed;
//! anything else means that the room has to read its log.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::Mutex as AsyncMutex;

use crate::hub::member::{Latecomers, Member, Present, restart};
use crate::hub::outbox::{Outbox, Parcel, Rewound};
use crate::hub::push::{Push, SignalPush};
use crate::ids::{ConnId, DeviceId, MessageId, ShopId};
use crate::message::{Entry, Listed, Membership, Signal};
use crate::planted::{self, Fault};
use crate::protocol::{Close, CloseCode};
use crate::rate::Bucket;

/// Whether a shop's events come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subscription {
    None,
    /// They do.
    Held,
    /// Somebody tried to change it and does not know what came of it: it has to be asked for again
    /// before it is relied on, and ended before it is forgotten.
    Unsure,
}

/// What became of an entry that the feed brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applied {
    /// The sessions that are live have it.
    Taken,
    /// The room has come past it already.
    Old,
    /// The room is reading its log, or does not know yet where it stands, and will find it there.
    Noted,
    /// Something is missing before it: the log has to be read. The caller does, and calls
    /// [`Room::caught_up`] when it is through.
    Gap,
    /// The entry before it is older than what the room has seen: the log was rewound.
    Rewound,
}

/// What the newest id of the log says about a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeadCheck {
    /// The room is there, or reading already.
    Fine,
    /// The log goes further: it has to be read, as after [`Applied::Gap`].
    Behind,
    /// The log ends before what the room has seen.
    Rewound,
}

/// A reading of the log for a room, for [`Room::caught_up`].
#[derive(Debug)]
pub struct Reading {
    pub from: MessageId,
    heard: MessageId,
    readings: u32,
}

/// One shop on this node.
pub struct Room {
    shop: ShopId,
    state: Mutex<State>,
    /// Whether the shop's events come in; held while that is being changed.
    pub subscription: AsyncMutex<Subscription>,
    /// Held while somebody makes room in the shop's full log.
    pub trimming: AsyncMutex<()>,
}

struct State {
    /// Every live session has been given what was for it up to here; None before the first login.
    position: Option<MessageId>,
    /// The newest entry heard of.
    heard: MessageId,
    /// Somebody is reading the log for this room, or takes it back after a rewind.
    is_reading: bool,
    /// Changes where a reading of the log that is under way counts no more.
    readings: u32,
    members: Vec<Member>,
    latecomers: Latecomers,
    /// Logins and sessions that keep the room open.
    users: usize,
    idle_since: Instant,
    publishes: Bucket,
}

impl Room {
    pub(super) fn new(shop: ShopId, publishes_per_s: u32, now: Instant) -> Room {
        let state = State {
            position: None,
            heard: MessageId::ZERO,
            is_reading: false,
            readings: 0,
            members: Vec::new(),
            latecomers: Latecomers::default(),
            users: 0,
            idle_since: now,
            publishes: Bucket::new(publishes_per_s, now),
        };
        Room {
            shop,
            state: Mutex::new(state),
            subscription: AsyncMutex::new(Subscription::None),
            trimming: AsyncMutex::new(()),
        }
    }

    /// The shop.
    pub fn shop(&self) -> &ShopId {
        &self.shop
    }

    /// How far the room has come; None before the first login.
    pub fn position(&self) -> Option<MessageId> {
        self.state.lock().position
    }

    pub(super) fn hold(&self) {
        self.state.lock().users += 1;
    }

    pub(super) fn release(&self, now: Instant) {
        let mut state = self.state.lock();
        state.users -= 1;
        state.idle_since = now;
    }

    pub(super) fn is_idle(&self, now: Instant, linger: Duration) -> bool {
        let state = self.state.lock();
        state.users == 0 && now.saturating_duration_since(state.idle_since) >= linger
    }

    /// Whether nobody is logged in or logging in.
    pub fn is_unused(&self) -> bool {
        self.state.lock().users == 0
    }

    /// The subscription ended: what the room knew of the feed holds no more.
    pub fn unsubscribed(&self) {
        let mut state = self.state.lock();
        state.position = None;
        state.heard = MessageId::ZERO;
        state.is_reading = false;
        state.readings = state.readings.wrapping_add(1);
    }

    /// Takes one of the shop's notifies; what other nodes took is known from the feed.
    ///
    /// # Errors
    /// How long to wait until one is allowed.
    pub fn take_publish(&self, now: Instant) -> Result<(), Duration> {
        self.state.lock().publishes.take(now)
    }

    /// Whether more than half of what may be sent at once is spent.
    pub fn has_few_publishes(&self) -> bool {
        self.state.lock().publishes.is_low()
    }

    /// Another node took one of the shop's notifies.
    pub fn publish_elsewhere(&self, now: Instant) {
        self.state.lock().publishes.take_spent(now);
    }

    /// Lets a session in that has logged in and found the log's head there. Whether the log has to be
    /// read for the room, as after [`Applied::Gap`].
    pub fn join(&self, mut member: Member, head: MessageId) -> bool {
        let mut state = self.state.lock();
        state.latecomers.receive(&mut member);
        state.members.push(member);
        if state.members.len() >= state.users {
            state.latecomers.clear();
        }
        if state.position.is_none() {
            state.position = Some(head);
        }
        state.needs_reading()
    }

    /// Lets a session go.
    pub fn leave(&self, conn: &ConnId) {
        let mut state = self.state.lock();
        state.members.retain(|member| member.conn != *conn);
        if state.members.is_empty() {
            state.members = Vec::new();
        }
    }

    /// From now on the room's entries go into this outbox. Says after which id they begin: up to
    /// there the session has to read the log before it takes them out.
    pub fn attach(&self, outbox: &Outbox) -> MessageId {
        let state = self.state.lock();
        outbox.set_live();
        state.position.unwrap_or(MessageId::ZERO)
    }

    /// An entry came from the feed.
    pub fn on_entry(&self, prev: MessageId, push: &Arc<Push>) -> Applied {
        let mut state = self.state.lock();
        let Some(position) = state.position else {
            state.heard = state.heard.max(push.id);
            return Applied::Noted;
        };
        if push.id <= position {
            return Applied::Old;
        }
        state.heard = state.heard.max(push.id);
        if state.is_reading {
            return Applied::Noted;
        }
        if prev == position || planted::strikes(Fault::IgnorePrev) {
            state.give(prev, push);
            return Applied::Taken;
        }
        state.is_reading = true;
        if prev < position { Applied::Rewound } else { Applied::Gap }
    }

    /// A reading of the log begins, from [`Reading::from`] on; None where nobody needs it any more.
    pub fn begin_reading(&self) -> Option<Reading> {
        let state = self.state.lock();
        let from = state.position.filter(|_| state.is_reading)?;
        Some(Reading { from, heard: state.heard, readings: state.readings })
    }

    /// An entry was read from the log, right after the one read before it.
    pub fn on_replay(&self, push: &Arc<Push>, reading: &Reading) {
        let mut state = self.state.lock();
        if state.readings != reading.readings {
            return;
        }
        if let Some(position) = state.position.filter(|position| *position < push.id) {
            state.give(position, push);
        }
    }

    /// The log was read to its end, which was `through`. Whether it has to be read on, because more
    /// was heard of meanwhile; otherwise the feed carries the room again.
    pub fn caught_up(&self, through: MessageId, reading: &Reading) -> bool {
        let mut state = self.state.lock();
        if state.readings != reading.readings {
            return false;
        }
        if state.heard == reading.heard {
            // What had been heard of before and is not in the log was trimmed; it never comes.
            state.heard = through;
        }
        state.position = state.position.map(|position| position.max(through));
        state.is_reading = false;
        state.needs_reading()
    }

    /// The log's newest id was `head`, asked for when the room stood at `position`.
    pub fn check_head(&self, position: MessageId, head: MessageId) -> HeadCheck {
        let mut state = self.state.lock();
        if state.is_reading || state.position.is_none() {
            // Whoever reads reads on if this is newer than what there was to read.
            state.heard = state.heard.max(head);
            return HeadCheck::Fine;
        }
        if head < position {
            state.is_reading = true;
            return HeadCheck::Rewound;
        }
        state.heard = state.heard.max(head);
        if state.needs_reading() { HeadCheck::Behind } else { HeadCheck::Fine }
    }

    /// The log was rewound: the room stands at its end, and each session goes back to the cursor and
    /// the membership that the store has of it, or is closed where the store has forgotten the device.
    pub fn rewind(&self, head: MessageId, known: impl Fn(&DeviceId) -> Option<(MessageId, Membership)>) {
        let mut state = self.state.lock();
        state.position = Some(head);
        state.heard = head;
        state.is_reading = false;
        state.readings = state.readings.wrapping_add(1);
        for member in &mut state.members {
            match known(&member.device) {
                Some((cursor, membership)) => {
                    member.membership = membership.clone();
                    member.member_as_of = head;
                    member.outbox.rewind(Rewound { cursor, membership, head });
                }
                None => member.outbox.close(restart()),
            }
        }
    }

    /// A newer connection of the device took over from this one.
    pub fn replaced(&self, conn: &ConnId) {
        if !planted::strikes(Fault::LoseTakeover) {
            self.close(conn, None, Close::new(CloseCode::Replaced, "replaced by a newer login"));
        }
    }

    /// An operator wants this connection closed, after a last signal.
    pub fn evicted(&self, conn: &ConnId, last: Option<Signal>) {
        self.close(conn, last, Close::new(CloseCode::Operator, "closed by an operator"));
    }

    /// An operator barred this device: every connection of it is closed, after a last signal.
    pub fn barred(&self, device: &DeviceId, conn: Option<&ConnId>, last: Option<Signal>) {
        let present = self.present().into_iter().filter(|present| present.device == *device);
        let mut conns: Vec<ConnId> = present.map(|present| present.conn).collect();
        // It may be logging in: before it was barred, and so before it joined.
        conns.extend(conn.filter(|conn| !conns.contains(conn)).cloned());
        for conn in conns {
            self.close(&conn, last.clone(), Close::new(CloseCode::Operator, "barred by an operator"));
        }
    }

    fn close(&self, conn: &ConnId, last: Option<Signal>, close: Close) {
        let mut state = self.state.lock();
        match state.members.iter().find(|member| member.conn == *conn) {
            Some(member) => {
                if let Some(last) = last {
                    member.outbox.push_unstored(Parcel::Signal(Arc::new(SignalPush::new(last))));
                }
                member.outbox.close(close);
            }
            // It may be one of this node's that has not joined yet.
            None if state.members.len() < state.users => state.latecomers.note_close(conn, close),
            None => {}
        }
    }

    /// The store does not know this connection any more: the device has to log in again.
    pub fn forgotten(&self, conn: &ConnId) {
        let state = self.state.lock();
        for member in state.members.iter().filter(|member| member.conn == *conn) {
            member.outbox.close(restart());
        }
    }

    /// Whether a session of this device is here.
    pub fn has_device(&self, device: &DeviceId) -> bool {
        self.state.lock().members.iter().any(|member| member.device == *device)
    }

    /// The devices here with their connections.
    pub fn present(&self) -> Vec<Present> {
        let state = self.state.lock();
        let present = |member: &Member| Present {
            device: member.device.clone(),
            conn: member.conn.clone(),
            role: member.role,
            since_ms: member.since_ms,
        };
        state.members.iter().map(present).collect()
    }

    /// A signal came from the feed.
    pub fn on_signal(&self, signal: Signal) {
        self.give_signal(&Arc::new(SignalPush::new(signal)), |_| true);
    }

    /// A signal for every shop came from the feed.
    pub fn on_broadcast(&self, push: &Arc<SignalPush>, except: &Listed<ConnId>) {
        self.give_signal(push, |conn| !except.contains(conn));
    }

    fn give_signal(&self, push: &Arc<SignalPush>, is_meant: impl Fn(&ConnId) -> bool) {
        let state = self.state.lock();
        let meant = state.members.iter().filter(|member| push.signal.content.is_for(member.recipient()));
        for member in meant.filter(|member| is_meant(&member.conn)) {
            member.outbox.push_unstored(Parcel::Signal(push.clone()));
        }
    }

    /// A receipt for one of the shop's devices came from the feed.
    pub fn on_receipt(&self, sender: &DeviceId, message: MessageId, device: &DeviceId, at_ms: u64) {
        let state = self.state.lock();
        for member in state.members.iter().filter(|member| member.device == *sender) {
            member.outbox.push_unstored(Parcel::Receipt { message, device: device.clone(), at_ms });
        }
    }
}

impl State {
    /// Whether something was heard of that the room does not have; it counts as reading from then on.
    fn needs_reading(&mut self) -> bool {
        let needs = !self.is_reading && self.position.is_some_and(|position| self.heard > position);
        self.is_reading |= needs;
        needs
    }

    fn give(&mut self, prev: MessageId, push: &Arc<Push>) {
        if let Entry::Membership(change) = &push.entry
            && self.users > self.members.len()
        {
            self.latecomers.note_change(push.id, change);
        }
        for member in &mut self.members {
            if let Some(step) = push.entry.membership_step(&member.device) {
                member.take(push.id, step);
                // The session heeds it in the order of its own entries.
                member.outbox.push(push, prev);
            } else if matches!(push.entry, Entry::Status(_)) && planted::strikes(Fault::DropStatus) {
            } else if push.entry.is_for(member.recipient()) {
                member.outbox.push(push, prev);
            }
        }
        self.position = Some(push.id);
    }
}

#[cfg(test)]
mod tests;
