//! What a connection does when something happens: to what comes in, to what goes out, to the calls in between.
//!
//! Owns the conversation's state, and never the stream, which is [`super::link`]'s.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tracing::debug;

use crate::auth::ClientCertificate;
use crate::events::Events;
use crate::hub::{Member, Outbox, Push, RoomGuard};
use crate::ids::{DeviceId, ShopId};
use crate::metrics::{self, FrameFault, LoginResult};
use crate::protocol::{Close, CloseCode, Ref};
use crate::relay::{Relay, Seat};
use crate::session::{Action, Answer, Session, Welcome};
use crate::socket::calls::Answered;
use crate::socket::entries::{LogPage, Source};
use crate::socket::reader::Incoming;
use crate::socket::writer;
use crate::socket::writer::Outgoing;
use crate::store::{Event, EventKind, StoreError};

/// RFC 6455 §7.1.5: no close frame was seen, or one without a code.
const CLOSED_ABNORMALLY: u16 = 1006;
const CLOSED_WITHOUT_CODE: u16 = 1005;

/// Times that a quiet connection may keep room for.
const STORED_KEPT: usize = 4;

/// Something that was begun and is waited for.
pub(super) struct Begun<T> {
    future: Pin<Box<dyn Future<Output = T> + Send>>,
    /// Nobody has waited for it yet, so that it will wake nobody.
    is_new: bool,
}

impl<T> Begun<T> {
    pub(super) fn new(future: impl Future<Output = T> + Send + 'static) -> Begun<T> {
        Begun { future: Box::pin(future), is_new: true }
    }

    fn is_new(&self) -> bool {
        self.is_new
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<T> {
        self.is_new = false;
        self.future.as_mut().poll(context)
    }
}

pub(super) struct Connection {
    pub(super) relay: Arc<Relay>,
    pub(super) number: u64,
    pub(super) certificate: Option<Arc<ClientCertificate>>,
    pub(super) session: Session,
    pub(super) room: Option<Arc<RoomGuard>>,
    pub(super) outbox: Arc<Outbox>,
    pub(super) source: Source,
    /// Entries from the outbox that come after what is still to be read from the log.
    pub(super) held: VecDeque<Arc<Push>>,
    pub(super) answering: Option<Begun<(Option<Ref>, Answered)>>,
    /// What came while a login was under way, to be dealt with after it.
    early: Option<Box<Incoming>>,
    seat: Option<Seat>,
    pub(super) reading: Option<Begun<Result<LogPage, StoreError>>>,
    /// The login that was last tried, which may hold in the store whatever was answered.
    pub(super) tried: Option<(ShopId, DeviceId)>,
    pub(super) actions: Vec<Action>,
    pub(super) outgoing: Outgoing,
    /// When each message among the frames was stored, for the metric of pushes.
    pub(super) stored_ms: Vec<u64>,
    outstanding: usize,
    /// When the device is to hear that the node leaves; None where it does not, or has said so.
    pub(super) leaves_at: Option<Instant>,
    pub(super) close: Option<Close>,
    /// The close code of the side that closed first; what RFC 6455 §7.1.5 has for none.
    ended_by: u16,
}

impl Connection {
    /// A connection that has not said anything.
    pub(super) fn new(
        relay: Arc<Relay>,
        number: u64,
        session: Session,
        certificate: Option<Arc<ClientCertificate>>,
    ) -> Connection {
        Connection {
            relay,
            number,
            certificate,
            session,
            room: None,
            outbox: Arc::default(),
            source: Source::Log { until: None },
            held: VecDeque::new(),
            answering: None,
            early: None,
            seat: None,
            reading: None,
            tried: None,
            actions: Vec::new(),
            outgoing: Outgoing::default(),
            stored_ms: Vec::new(),
            outstanding: 0,
            leaves_at: None,
            close: None,
            ended_by: CLOSED_ABNORMALLY,
        }
    }

    /// When something is due.
    pub(super) fn deadline(&self) -> Instant {
        let unread = self.outgoing.blocked_since().map(|since| since + self.relay.session.ack_timeout);
        let due = self.session.deadline();
        [unread, self.leaves_at()].into_iter().flatten().fold(due, Instant::min)
    }

    /// Whether the next frame is to be looked at. While a login is under way one is, and kept for later: a client
    /// that gave up is to leave the queue that it waits in.
    pub(super) fn may_read(&self) -> bool {
        let is_idle = self.answering.is_none();
        let is_logging_in = self.session.identity().is_none() && self.early.is_none();
        (is_idle || is_logging_in) && !self.outgoing.is_full()
    }

    /// Whether more may come.
    pub(super) fn on_frame(&mut self, incoming: Incoming) -> bool {
        let is_end = matches!(incoming, Incoming::Close(_) | Incoming::End | Incoming::Fault(_));
        if self.answering.is_none() || is_end {
            return self.on_incoming(incoming);
        }
        self.early = Some(Box::new(incoming));
        true
    }

    /// Whether more may come.
    fn on_incoming(&mut self, incoming: Incoming) -> bool {
        let now = Instant::now();
        match incoming {
            Incoming::Data(kind, frame) => {
                self.session.on_frame(kind, &frame, now, self.relay.store.now_ms(), &mut self.actions);
            }
            Incoming::Pong(payload) => self.session.on_pong(&payload, now, &mut self.actions),
            Incoming::Ping(payload) => self.session.on_ping(&payload, now, &mut self.actions),
            Incoming::Close(code) => {
                self.ended_by = code.unwrap_or(CLOSED_WITHOUT_CODE);
                self.outgoing.push(writer::close_answer(code));
                return false;
            }
            Incoming::End => return false,
            Incoming::Fault(fault) => {
                let close = fault.close(self.session.is_legacy());
                metrics::frame_rejected(FrameFault::Closed(close.code));
                self.close = Some(close);
                return false;
            }
        }
        true
    }

    pub(super) fn on_tick(&mut self) {
        let now = Instant::now();
        let unread_for = self.outgoing.blocked_since().map(|since| now.saturating_duration_since(since));
        if unread_for.is_some_and(|unread_for| unread_for >= self.relay.session.ack_timeout) {
            self.close.get_or_insert(Close::new(CloseCode::TooSlow, "too slow to read"));
        }
        // There is a tick at every heartbeat, so a certificate that is revoked lasts no longer than that.
        if self.certificate.as_ref().is_some_and(|certificate| !self.relay.gate.trusts(certificate)) {
            self.close.get_or_insert(Close::new(CloseCode::Unauthorized, "the client certificate is no longer good"));
        }
        self.leave_if_due(now);
        self.session.on_tick(now, &mut self.actions);
        let is_login_late = self.session.identity().is_none()
            && self
                .actions
                .iter()
                .any(|action| matches!(action, Action::Close(close) if close.code == CloseCode::Unauthorized));
        if is_login_late {
            metrics::login(LoginResult::TimedOut);
        }
    }

    /// What was asked of the relay came to this.
    pub(super) fn on_answered(&mut self, reference: Option<Ref>, answered: Answered) {
        self.answering = None;
        match answered {
            Answered::Plain(answer) => {
                self.session.on_answer(reference, answer, Instant::now(), self.relay.store.now_ms(), &mut self.actions);
            }
            Answered::LoggedIn(welcome, room, seat) => {
                self.seat = Some(seat);
                self.on_login(reference, welcome, room);
            }
        }
        if let Some(early) = self.early.take() {
            self.on_incoming(*early);
        }
    }

    fn on_login(&mut self, reference: Option<Ref>, welcome: Box<Welcome>, room: Arc<RoomGuard>) {
        let (head, since_ms) = (welcome.head, welcome.server_time_ms);
        let answer = Answer::Welcome(welcome);
        self.session.on_answer(reference, answer, Instant::now(), self.relay.store.now_ms(), &mut self.actions);
        let Some(identity) = self.session.identity() else {
            return;
        };
        self.relay.doors.session_began(identity.role);
        let member = Member {
            conn: self.session.conn().clone(),
            device: identity.device.clone(),
            role: identity.role,
            membership: identity.membership.clone(),
            member_as_of: head,
            since_ms,
            outbox: self.outbox.clone(),
        };
        if room.join(member, head) {
            self.relay.feed.catch_up(Arc::clone(&**room));
        }
        self.room = Some(room);
        self.begin_entries(head);
    }

    /// Whether a call is answered, which is dealt with.
    pub(super) fn poll_answering(&mut self, context: &mut Context<'_>) -> bool {
        let Some(answering) = &mut self.answering else { return false };
        let Poll::Ready((reference, answered)) = answering.poll(context) else { return false };
        self.on_answered(reference, answered);
        // A frame that came early may ask for the next call, before another is read.
        self.act();
        true
    }

    /// Whether a page was read, which is dealt with.
    pub(super) fn poll_reading(&mut self, context: &mut Context<'_>) -> bool {
        let Some(reading) = &mut self.reading else { return false };
        let Poll::Ready(page) = reading.poll(context) else { return false };
        self.reading = None;
        self.on_page(page);
        true
    }

    /// Whether a call or a page was begun that nobody has waited for yet.
    pub(super) fn has_begun(&self) -> bool {
        self.answering.as_ref().is_some_and(Begun::is_new) || self.reading.as_ref().is_some_and(Begun::is_new)
    }

    /// Deals with everything that came up, until there is nothing left but to write and to wait.
    pub(super) fn settle(&mut self, has_outbox_news: bool) {
        self.act();
        if has_outbox_news {
            self.empty_outbox();
        }
        self.go_live();
        self.session.on_written(&mut self.actions);
        self.act();
        self.read_if_behind();
        let outstanding = self.session.outstanding();
        if outstanding != self.outstanding {
            metrics::outstanding_changed(outstanding as isize - self.outstanding as isize);
            self.outstanding = outstanding;
        }
    }

    /// Tells the back-end workers of something that happened to this connection.
    pub(super) fn tell(&self, kind: impl FnOnce() -> EventKind) {
        self.relay.events.tell(|| {
            let event = Event {
                conn: Some(self.session.conn().clone()),
                ..Events::event(kind(), &self.relay.node, self.relay.store.now_ms())
            };
            let Some(identity) = self.session.identity() else { return event };
            Event {
                shop: Some(identity.shop.clone()),
                device: Some(identity.device.clone()),
                role: Some(identity.role),
                user: identity.membership.user.clone(),
                ..event
            }
        });
    }

    /// Everything that was to be sent has been written.
    pub(super) fn on_written(&mut self) {
        if self.stored_ms.is_empty() {
            return;
        }
        let now_ms = self.relay.store.now_ms();
        for stored_ms in self.stored_ms.drain(..) {
            metrics::pushed(Duration::from_millis(now_ms.saturating_sub(stored_ms)));
        }
        if self.stored_ms.capacity() > STORED_KEPT {
            self.stored_ms = Vec::new();
        }
    }

    pub(super) fn say_goodbye(&mut self) {
        let Some(close) = &self.close else { return };
        metrics::closed(close.code);
        self.ended_by = close.code.number();
        debug!(conn = %self.session.conn(), code = close.code.number(), reason = %close.reason, "closing");
        self.outgoing.push(writer::close_frame(close));
    }

    /// The connection is over: gives back what the session held.
    pub(super) fn depart(&mut self) {
        self.answering = None;
        self.reading = None;
        metrics::outstanding_changed(-(self.outstanding as isize));
        if let Some(room) = &self.room {
            room.leave(self.session.conn());
        }
        if let Some(identity) = self.session.identity() {
            self.relay.doors.session_ended(identity.role);
        }
        self.tell(|| EventKind::Close { code: self.ended_by });
        if let Some((shop, device)) = &self.tried {
            self.relay.proofs.departed(shop, device, self.session.conn(), self.session.settled());
        }
        self.room = None;
        self.seat = None;
    }
}
