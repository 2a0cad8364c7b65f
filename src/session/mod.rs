//! One device's conversation, pure: events and the time in, actions out.
//!
//! Owns what a connection may say and when: login, limits, the window of outstanding messages,
//! heartbeats and time-outs. Never awaits, never logs, never reads a clock, and knows neither store
//! nor socket: what needs the store leaves as a [`Call`] and comes back as an [`Answer`]. Driven by
//! `socket`.

mod answer;
mod faults;
mod goaway;
mod grant;
mod legacy;
mod ops;
mod times;
mod window;

use std::time::{Duration, Instant};

pub use answer::{Answer, Failure, Welcome};
pub use grant::{Grant, OpSet};
pub use window::Proven;

use crate::attrs::AttrsChange;
use crate::ids::{ConnId, DeviceId, MessageId, NodeId, ShopId};
use crate::message::{Entry, Membership, MembershipStep, Message, Recipient, Role, Signal};
use crate::planted::{self, Fault};
use crate::protocol::legacy::Admin;
use crate::protocol::{
    self, AckMode, CallMethod, Close, CloseCode, Deal, Dialect, Encoding, ErrorCode, FrameKind, List, Login, Ref,
    ServerOp,
};
use crate::rate::Bucket;
use faults::Faults;
use legacy::Clock;
use window::{ItemKind, Window};

/// What holds for every session of a node.
#[derive(Debug, Clone)]
pub struct SessionSettings {
    pub frame_bytes: usize,
    pub window: usize,
    pub ops_per_s: u32,
    pub heartbeat: Duration,
    pub login_timeout: Duration,
    pub ack_timeout: Duration,
}

/// What the socket is to do for the session, in order.
#[derive(Debug)]
pub enum Action {
    /// Send this data frame.
    Send(Vec<u8>),
    /// Send this back as it came.
    Echo(FrameKind, Vec<u8>),
    /// Send a Ping with this payload.
    Ping(Vec<u8>),
    /// Send a Pong with this payload.
    Pong(Vec<u8>),
    /// Ask the store; hand back the answer before the next frame.
    Call(Call),
    /// The device proved receipt, or nothing more is to come below this.
    Proven(Proven),
    /// A frame was refused with this code.
    Refused(ErrorCode),
    /// It was a login.
    LoginRefused,
    /// Close the connection; nothing after it matters.
    Close(Close),
}

/// What a client's op needs of the store.
#[derive(Debug)]
pub struct Call {
    reference: Option<Ref>,
    pub op: CallOp,
}

/// See [`Call`].
#[derive(Debug)]
pub enum CallOp {
    Login(Login),
    Publish(Box<Message>, Option<crate::ids::OnceKey>),
    Signal(Box<Signal>),
    Deal(Deal),
    List(List),
    Online(Option<Role>),
    Membership(MembershipStep),
    /// None asks what they are.
    Attrs(Option<AttrsChange>),
    /// An operator's word on a legacy connection.
    Admin(Admin),
    /// A call of the back-end workers; its `ref` goes with it.
    Call(CallMethod, Option<Box<str>>),
}

/// Who the session belongs to, once logged in.
#[derive(Debug, Clone)]
pub struct Identity {
    pub shop: ShopId,
    pub device: DeviceId,
    pub role: Role,
    pub membership: Membership,
}

impl Identity {
    /// The device as an audience sees it, by its connection.
    pub fn recipient<'a>(&'a self, conn: &'a ConnId) -> Recipient<'a> {
        let Membership { groups, user } = &self.membership;
        Recipient { device: &self.device, role: self.role, groups, user: user.as_ref(), conn: Some(conn) }
    }
}

/// What to do with an entry of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offer {
    /// Send it.
    Send,
    /// It is not for this device, or it was sent already.
    Skip,
    /// It came too late for this device.
    Expired,
    /// The window is full: the log has to keep it.
    Full,
}

/// One device's conversation.
#[derive(Debug)]
pub struct Session {
    settings: std::sync::Arc<SessionSettings>,
    encoding: Encoding,
    /// Where the connection speaks the legacy dialect.
    legacy: Option<Box<Clock>>,
    node: NodeId,
    conn: ConnId,
    phase: Phase,
    ops: Bucket,
    rate_limited_in_row: u32,
    faults: Faults,
    last_heard: Instant,
    next_ping: Instant,
}

#[derive(Debug)]
enum Phase {
    /// Until this moment a login is awaited; for ever on a legacy connection. While the store is asked about
    /// one, since `asked_at`, that time does not run: the device has done its part.
    Anonymous {
        until: Option<Instant>,
        asked_at: Option<Instant>,
    },
    LoggedIn(Box<LoggedIn>),
}

#[derive(Debug)]
struct LoggedIn {
    identity: Identity,
    /// The membership came from the registry when the log ended here: what changed it before is in it.
    member_as_of: MessageId,
    grant: Grant,
    expires_at: Option<Instant>,
    ack: AckMode,
    window: Window,
    /// Whether something was sent since the last Ping that asks for a proof.
    owes_ping: bool,
    /// The log was rewound: what is remembered as sent is not sent again.
    was_rewound: bool,
}

impl Session {
    /// A connection that was accepted at `accepted`, and has not said anything.
    pub fn new(
        settings: std::sync::Arc<SessionSettings>,
        dialect: Dialect,
        node: NodeId,
        conn: ConnId,
        accepted: Instant,
    ) -> Session {
        let is_legacy = dialect == Dialect::Legacy;
        Session {
            phase: Phase::Anonymous { until: (!is_legacy).then(|| accepted + settings.login_timeout), asked_at: None },
            encoding: dialect.encoding(),
            legacy: is_legacy.then(|| Box::new(Clock { asked_at: accepted, now: accepted, now_ms: 0 })),
            ops: Bucket::new(settings.ops_per_s, accepted),
            rate_limited_in_row: 0,
            faults: Faults::default(),
            last_heard: accepted,
            next_ping: accepted + settings.heartbeat,
            settings,
            node,
            conn,
        }
    }

    /// Who logged in.
    pub fn identity(&self) -> Option<&Identity> {
        self.logged_in().map(|login| &login.identity)
    }

    /// The connection's id.
    pub fn conn(&self) -> &ConnId {
        &self.conn
    }

    /// Whether it speaks the legacy dialect.
    pub fn is_legacy(&self) -> bool {
        self.legacy.is_some()
    }

    /// The wire encoding.
    pub fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// Everything up to here was sent, or was not for this device.
    pub fn position(&self) -> MessageId {
        self.logged_in().map_or(MessageId::ZERO, |login| login.window.position())
    }

    /// How many more entries may be sent now.
    pub fn room(&self) -> usize {
        self.logged_in().map_or(0, |login| login.window.room())
    }

    /// Entries sent and not proven received.
    pub fn outstanding(&self) -> usize {
        self.logged_in().map_or(0, |login| login.window.outstanding())
    }

    /// Where the cursor may go when the connection ends; see [`Window::settled`].
    pub fn settled(&self) -> Option<MessageId> {
        self.logged_in().and_then(|login| login.window.settled())
    }

    fn logged_in(&self) -> Option<&LoggedIn> {
        match &self.phase {
            Phase::LoggedIn(login) => Some(login),
            Phase::Anonymous { .. } => None,
        }
    }

    /// Any frame came in: a sign of life.
    pub fn on_heard(&mut self, now: Instant) {
        self.last_heard = now;
    }

    /// A Pong came in.
    pub fn on_pong(&mut self, payload: &[u8], now: Instant, out: &mut Vec<Action>) {
        self.on_heard(now);
        let is_proof = self.logged_in().is_some_and(|login| login.ack == AckMode::Pong);
        let id = std::str::from_utf8(payload).ok().and_then(|text| text.parse().ok());
        if let Some(id) = id.filter(|_| is_proof) {
            self.acknowledge(id, out);
        }
    }

    fn acknowledge(&mut self, id: MessageId, out: &mut Vec<Action>) {
        if let Phase::LoggedIn(login) = &mut self.phase {
            out.extend(login.window.acknowledge(id).map(Action::Proven));
        }
    }

    /// An entry of the log is next, from the feed or from a page; `now_ms` is the wall clock.
    pub fn on_entry(
        &mut self,
        id: MessageId,
        entry: &Entry,
        now: Instant,
        now_ms: u64,
        out: &mut Vec<Action>,
    ) -> Offer {
        let Phase::LoggedIn(login) = &mut self.phase else {
            return Offer::Skip;
        };
        if id <= login.window.position() {
            return Offer::Skip;
        }
        if let Some(step) = entry.membership_step(&login.identity.device).filter(|_| id > login.member_as_of) {
            login.identity.membership.take(step);
        }
        // The old clients know no word for a status that changed.
        let is_unheard_of = self.legacy.is_some() && matches!(entry, Entry::Status(_));
        if is_unheard_of
            || !entry.is_for(login.identity.recipient(&self.conn))
            || (login.was_rewound && login.window.was_sent(id))
        {
            login.window.skip(id);
            return Offer::Skip;
        }
        if login.window.room() == 0 {
            return Offer::Full;
        }
        let kind = match entry {
            Entry::Message(message) if message.is_expired(id, now_ms) => {
                out.extend(login.window.push_expired(id).map(Action::Proven));
                return Offer::Expired;
            }
            Entry::Message(message) => ItemKind::Message {
                receipt_to: message.receipt.then(|| message.content.from.device().cloned()).flatten(),
            },
            Entry::Status(_) | Entry::Membership(_) => ItemKind::Status,
        };
        login.window.push_sent(id, kind, now);
        if planted::strikes(Fault::WrittenIsProven) {
            out.extend(login.window.acknowledge(id).map(Action::Proven));
        }
        login.owes_ping = login.ack == AckMode::Pong;
        Offer::Send
    }

    /// Everything up to `id` that was for this device has been offered: by a page that ended there,
    /// or because the feed says so.
    pub fn on_passed(&mut self, id: MessageId) {
        if let Phase::LoggedIn(login) = &mut self.phase {
            login.window.skip(id);
        }
    }

    /// The entries of a batch have been written: asks for a proof where the device gives it by Pong.
    pub fn on_written(&mut self, out: &mut Vec<Action>) {
        let Phase::LoggedIn(login) = &mut self.phase else {
            return;
        };
        if std::mem::take(&mut login.owes_ping)
            && let Some(newest) = login.window.newest()
        {
            out.push(Action::Ping(newest.to_string().into_bytes()));
        }
    }

    /// The log was rewound, and the registry knows this of the device where the log ends at `head`.
    /// Says whether the session can go on.
    pub fn on_rewound(&mut self, cursor: MessageId, membership: Membership, head: MessageId) -> bool {
        let Phase::LoggedIn(login) = &mut self.phase else {
            return true;
        };
        login.identity.membership = membership;
        login.member_as_of = head;
        login.was_rewound = true;
        login.window.rewind(cursor)
    }

    fn send(&self, op: &ServerOp<'_>, out: &mut Vec<Action>) {
        match protocol::encode(self.encoding, op) {
            Ok(frame) => out.push(Action::Send(frame)),
            // What was checked at the edge can be written; should it not be, silence would leave the
            // client waiting.
            Err(_) => out.push(Action::Close(Close::new(CloseCode::Violation, "the answer cannot be encoded"))),
        }
    }

    fn fail(&self, reference: Option<Ref>, failure: Failure, out: &mut Vec<Action>) {
        out.push(Action::Refused(failure.code));
        match &self.legacy {
            Some(clock) => out.push(Action::Send(Session::legacy_refusal(clock, &failure))),
            None => self.send(&failure.op(reference), out),
        }
    }
}

#[cfg(test)]
mod tests;
