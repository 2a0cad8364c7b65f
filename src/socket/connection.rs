//! The loop of one connection: what comes in, what goes out, and the calls in between.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tracing::debug;

use crate::auth::ClientCertificate;
use crate::events::Events;
use crate::hub::{Member, Outbox, Push, RoomGuard};
use crate::ids::{ConnId, DeviceId, ShopId};
use crate::metrics::{self, FrameFault, LoginResult};
use crate::protocol::{Close, CloseCode, Dialect, Ref};
use crate::relay::{Place, Relay, Seat};
use crate::session::{Action, Answer, Session, Welcome};
use crate::socket::calls::Answered;
use crate::socket::entries::{LogPage, Source};
use crate::socket::reader::{Incoming, Reader};
use crate::socket::writer;
use crate::socket::writer::Outgoing;
use crate::store::{Event, EventKind, StoreError};

/// How long a closed connection may still talk before it is dropped.
const LINGER: Duration = Duration::from_secs(2);

/// How long a legacy connection waits to be on the list of connections, and between attempts.
const NOTE_WAIT: Duration = Duration::from_millis(100);
const NOTE_RETRY: Duration = Duration::from_secs(1);

/// RFC 6455 §7.1.5: no close frame was seen, or one without a code.
const CLOSED_ABNORMALLY: u16 = 1006;
const CLOSED_WITHOUT_CODE: u16 = 1005;

/// A connection whose handshake is done.
pub struct Accepted {
    pub dialect: Dialect,
    /// When the TCP connection was accepted.
    pub at: Instant,
    /// Bytes that came with the handshake.
    pub first: Bytes,
    pub place: Place,
    /// The client certificate that it came with.
    pub certificate: Option<Arc<ClientCertificate>>,
}

type Answering = Pin<Box<dyn Future<Output = (Option<Ref>, Answered)> + Send>>;
type Reading = Pin<Box<dyn Future<Output = Result<LogPage, StoreError>> + Send>>;

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
    pub(super) answering: Option<Answering>,
    /// What came while a login was under way, to be dealt with after it.
    early: Option<Incoming>,
    seat: Option<Seat>,
    pub(super) reading: Option<Reading>,
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

/// Serves a connection until it ends.
pub async fn serve(
    relay: Arc<Relay>,
    read: impl AsyncRead + Unpin,
    mut write: impl AsyncWrite + Unpin,
    accepted: Accepted,
) {
    let (conn, number) = relay.doors.next_conn(&relay.node);
    let session = Session::new(relay.session.clone(), accepted.dialect, relay.node.clone(), conn.clone(), accepted.at);
    let reader = Reader::new(read, accepted.first, relay.session.frame_bytes, relay.session_bytes_per_s);
    let connection = Connection {
        relay,
        number,
        certificate: accepted.certificate,
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
    };
    connection.tell(|| EventKind::Connect);
    let _known = connection.relay.clone().memory_known(number, &connection.outbox);
    if accepted.dialect == Dialect::Legacy {
        // Boxed, so that native connections do not carry its size.
        Box::pin(connection.run_legacy(reader, &mut write, &conn)).await;
    } else {
        connection.run(reader, &mut write).await;
    }
    drop(accepted.place);
}

/// The future's output, or never where there is none. Cancel-safe: the future stays where it is.
async fn output_of<F: Future + Unpin>(future: &mut Option<F>) -> F::Output {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

impl Connection {
    /// As [`Connection::run`], on the list of legacy connections meanwhile.
    async fn run_legacy<R: AsyncRead + Unpin>(
        self,
        reader: Reader<R>,
        write: &mut (impl AsyncWrite + Unpin),
        conn: &ConnId,
    ) {
        let relay = self.relay.clone();
        relay.hub.legacy_opened(conn, &self.outbox);
        let mut noting = pin!(async {
            while let Err(error) = relay.store.note_legacy(conn, true).await {
                debug!(%conn, %error, "a legacy connection is not on the list yet");
                tokio::time::sleep(NOTE_RETRY).await;
            }
        });
        // Mostly it is on the list before its first word; a store that is away does not keep it waiting.
        let mut is_noted = tokio::time::timeout(NOTE_WAIT, &mut noting).await.is_ok();
        let mut running = pin!(self.run(reader, write));
        loop {
            tokio::select! {
                () = &mut running => break,
                () = &mut noting, if !is_noted => is_noted = true,
            }
        }
        relay.hub.legacy_closed(conn);
        if let Err(error) = relay.store.note_legacy(conn, false).await {
            debug!(%conn, %error, "a legacy connection that ended is still on the list");
        }
    }

    async fn run<R: AsyncRead + Unpin>(mut self, reader: Reader<R>, write: &mut (impl AsyncWrite + Unpin)) {
        let relay = self.relay.clone();
        let outbox = self.outbox.clone();
        let mut stages = relay.drain.stages();
        // The node may be leaving already.
        stages.mark_changed();
        let mut incoming = pin!(reader.next());
        let mut tick = pin!(tokio::time::sleep_until(self.deadline().into()));
        let mut finished = None;
        loop {
            let deadline = self.deadline().into();
            if tick.deadline() != deadline {
                tick.as_mut().reset(deadline);
            }
            let mut wrote = Ok(());
            tokio::select! {
                // The read future is kept across turns. While a call is under way the next frame waits,
                // and so it does while the client does not take what there is.
                (reader, frame) = &mut incoming, if self.may_read() => {
                    match self.on_frame(frame) {
                        true => incoming.set(reader.next()),
                        false => finished = Some(reader),
                    }
                }
                (reference, answered) = output_of(&mut self.answering) => {
                    self.answering = None;
                    self.on_answered(reference, answered);
                    if let Some(early) = self.early.take() {
                        self.on_incoming(early);
                    }
                }
                page = output_of(&mut self.reading) => {
                    self.reading = None;
                    self.on_page(page);
                }
                flushed = self.outgoing.flush(write), if !self.outgoing.is_empty() => wrote = flushed,
                () = outbox.changed() => {}
                () = &mut tick => self.on_tick(),
                Ok(()) = stages.changed() => self.on_stage(*stages.borrow_and_update()),
            }
            if wrote.is_err() {
                return self.depart();
            }
            if finished.is_none() {
                self.settle();
            }
            if self.close.is_some() || finished.is_some() {
                break;
            }
            match self.outgoing.flush_now(write).await {
                Ok(true) => self.on_written(),
                Ok(false) => {}
                Err(_) => return self.depart(),
            }
            outbox.note_unwritten(self.outgoing.bytes());
        }
        self.say_goodbye();
        self.depart();
        // Without hearing it out, a client that still sends would have its Close frame torn away by a
        // reset.
        let hear_out = async {
            if self.outgoing.flush(write).await.is_ok() && write.shutdown().await.is_ok() {
                let reader = match finished {
                    Some(reader) => reader,
                    None => incoming.await.0,
                };
                reader.discard().await;
            }
        };
        let _ = tokio::time::timeout(LINGER, hear_out).await; // it has had its time
    }

    /// When something is due.
    fn deadline(&self) -> Instant {
        let unread = self.outgoing.blocked_since().map(|since| since + self.relay.session.ack_timeout);
        let due = self.session.deadline();
        [unread, self.leaves_at()].into_iter().flatten().fold(due, Instant::min)
    }

    /// Whether the next frame is to be looked at. While a login is under way one is, and kept for later: a client
    /// that gave up is to leave the queue that it waits in.
    fn may_read(&self) -> bool {
        let is_idle = self.answering.is_none();
        let is_logging_in = self.session.identity().is_none() && self.early.is_none();
        (is_idle || is_logging_in) && !self.outgoing.is_full()
    }

    /// Whether more may come.
    fn on_frame(&mut self, incoming: Incoming) -> bool {
        let is_end = matches!(incoming, Incoming::Close(_) | Incoming::End | Incoming::Fault(_));
        if self.answering.is_none() || is_end {
            return self.on_incoming(incoming);
        }
        self.early = Some(incoming);
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

    fn on_tick(&mut self) {
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

    fn on_answered(&mut self, reference: Option<Ref>, answered: Answered) {
        match answered {
            Answered::Plain(answer) => {
                self.session.on_answer(reference, answer, Instant::now(), self.relay.store.now_ms(), &mut self.actions);
            }
            Answered::LoggedIn(welcome, room, seat) => {
                self.seat = Some(seat);
                self.on_login(reference, welcome, room);
            }
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

    /// Deals with everything that came up, until there is nothing left but to write and to wait.
    fn settle(&mut self) {
        self.act();
        self.empty_outbox();
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
    fn tell(&self, kind: impl FnOnce() -> EventKind) {
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
    fn on_written(&mut self) {
        if self.stored_ms.is_empty() {
            return;
        }
        let now_ms = self.relay.store.now_ms();
        for stored_ms in std::mem::take(&mut self.stored_ms) {
            metrics::pushed(Duration::from_millis(now_ms.saturating_sub(stored_ms)));
        }
    }

    fn say_goodbye(&mut self) {
        let Some(close) = &self.close else { return };
        metrics::closed(close.code);
        self.ended_by = close.code.number();
        debug!(conn = %self.session.conn(), code = close.code.number(), reason = %close.reason, "closing");
        self.outgoing.push(writer::close_frame(close));
    }

    /// The connection is over: gives back what the session held.
    fn depart(&mut self) {
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
