//! The loop of one connection.
//!
//! A session is a cursor over its shop's log: its entries come from the room while it keeps up, and
//! page by page from the log while it does not.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tracing::debug;

use crate::hub::{Member, Outbox, Parcel, Push, RoomGuard};
use crate::ids::{DeviceId, MessageId, ShopId, unix_ms};
use crate::message::Entry;
use crate::metrics::{self, FrameFault, LoginResult};
use crate::protocol::{self, Close, CloseCode, Encoding, Ref, ServerOp};
use crate::session::{Action, Answer, Call, CallOp, Offer, Session, Welcome};
use crate::socket::calls::{Answered, Caller};
use crate::socket::reader::{Incoming, Reader};
use crate::socket::{Place, Relay, writer};
use crate::store::{Page, PageLimit, StoreError};

/// How long a closed connection may still talk before it is dropped.
const LINGER: Duration = Duration::from_secs(2);
/// Wait after a page that could not be read.
const PAGE_RETRY: Duration = Duration::from_millis(200);
/// Fewest and most entries of one page of a session's log.
const PAGE_ENTRIES: (usize, usize) = (16, 128);
const PAGE_BYTES: usize = 512 * 1024;
/// Entries that may wait while the session reads its way up to them.
const HELD_MAX: usize = 256;

/// A connection whose handshake is done.
pub struct Accepted {
    pub encoding: Encoding,
    /// When the TCP connection was accepted.
    pub at: Instant,
    /// Bytes that came with the handshake.
    pub first: Bytes,
    pub place: Place,
}

type Answering = Pin<Box<dyn Future<Output = (Option<Ref>, Answered)> + Send>>;
type Reading = Pin<Box<dyn Future<Output = Result<Page, StoreError>> + Send>>;

/// Where a session's entries come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    /// The log, page by page; `until` is where the outbox begins, once it is attached.
    Log { until: Option<MessageId> },
    /// The room, by the outbox.
    Room,
}

struct Connection {
    relay: Arc<Relay>,
    number: u64,
    session: Session,
    room: Option<RoomGuard>,
    outbox: Arc<Outbox>,
    source: Source,
    /// Entries from the outbox that come after what is still to be read from the log.
    held: VecDeque<Arc<Push>>,
    answering: Option<Answering>,
    reading: Option<Reading>,
    /// The login that was last tried, which may hold in the store whatever was answered.
    tried: Option<(ShopId, DeviceId)>,
    actions: Vec<Action>,
    frames: Vec<Bytes>,
    /// When each message among the frames was stored, for the metric of pushes.
    stored_ms: Vec<u64>,
    outstanding: usize,
    close: Option<Close>,
}

/// Serves a connection until it ends.
pub async fn serve(
    relay: Arc<Relay>,
    read: impl AsyncRead + Unpin,
    mut write: impl AsyncWrite + Unpin,
    accepted: Accepted,
) {
    let (conn, number) = relay.next_conn();
    let session = Session::new(relay.session.clone(), accepted.encoding, relay.node.clone(), conn, accepted.at);
    let reader = Reader::new(read, accepted.first, relay.session.frame_bytes);
    let connection = Connection {
        relay,
        number,
        session,
        room: None,
        outbox: Arc::default(),
        source: Source::Log { until: None },
        held: VecDeque::new(),
        answering: None,
        reading: None,
        tried: None,
        actions: Vec::new(),
        frames: Vec::new(),
        stored_ms: Vec::new(),
        outstanding: 0,
        close: None,
    };
    connection.run(reader, &mut write).await;
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
    async fn run<R: AsyncRead + Unpin>(mut self, reader: Reader<R>, write: &mut (impl AsyncWrite + Unpin)) {
        let mut stopping = self.relay.stopping.subscribe();
        let outbox = self.outbox.clone();
        let mut incoming = pin!(reader.next());
        let mut tick = pin!(tokio::time::sleep_until(self.session.deadline().into()));
        let finished = loop {
            let deadline = self.session.deadline().into();
            if tick.deadline() != deadline {
                tick.as_mut().reset(deadline);
            }
            let mut finished = None;
            tokio::select! {
                // The read future is kept across turns. While a call is under way the next frame waits.
                (reader, frame) = &mut incoming, if self.answering.is_none() => {
                    match self.on_incoming(frame) {
                        true => incoming.set(reader.next()),
                        false => finished = Some(reader),
                    }
                }
                (reference, answered) = output_of(&mut self.answering) => {
                    self.answering = None;
                    self.on_answered(reference, answered);
                }
                page = output_of(&mut self.reading) => {
                    self.reading = None;
                    self.on_page(page);
                }
                () = outbox.changed() => {}
                () = &mut tick => self.on_tick(),
                Ok(_) = stopping.wait_for(|stopping| *stopping) => self.close = Some(self.restart()),
            }
            self.settle();
            let wrote = self.write(write).await;
            if wrote.is_err() || self.close.is_some() || finished.is_some() {
                break wrote.is_ok().then_some(finished);
            }
        };
        self.depart();
        let Some(finished) = finished else { return };
        if write.shutdown().await.is_err() {
            return;
        }
        // Without this a client that still sends would have its Close frame torn away by a reset.
        let hear_out = async {
            let reader = match finished {
                Some(reader) => reader,
                None => incoming.await.0,
            };
            reader.discard().await;
        };
        let _ = tokio::time::timeout(LINGER, hear_out).await; // it has had its time
    }

    /// Whether more may come.
    fn on_incoming(&mut self, incoming: Incoming) -> bool {
        let now = Instant::now();
        match incoming {
            Incoming::Data(kind, frame) => self.session.on_frame(kind, &frame, now, unix_ms(), &mut self.actions),
            Incoming::Pong(payload) => self.session.on_pong(&payload, now, &mut self.actions),
            Incoming::Ping(payload) => {
                self.session.on_heard(now);
                self.frames.push(writer::pong_frame(&payload));
            }
            Incoming::Close(code) => {
                self.frames.push(writer::close_answer(code));
                return false;
            }
            Incoming::End => return false,
            Incoming::Fault(close) => {
                metrics::frame_rejected(FrameFault::Closed(close.code));
                self.close = Some(close);
                return false;
            }
        }
        true
    }

    fn on_tick(&mut self) {
        self.session.on_tick(Instant::now(), &mut self.actions);
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
            Answered::Plain(answer) => self.session.on_answer(reference, answer, &mut self.actions),
            Answered::LoggedIn(welcome, room) => self.on_login(reference, welcome, room),
        }
    }

    fn on_login(&mut self, reference: Option<Ref>, welcome: Box<Welcome>, room: RoomGuard) {
        let head = welcome.head;
        self.session.on_answer(reference, Answer::Welcome(welcome), &mut self.actions);
        let Some(identity) = self.session.identity() else {
            return;
        };
        metrics::session_began(identity.role);
        let member = Member {
            conn: self.session.conn().clone(),
            device: identity.device.clone(),
            role: identity.role,
            groups: identity.groups.clone(),
            user: identity.user.clone(),
            outbox: self.outbox.clone(),
        };
        if room.join(member, head) {
            self.relay.feed.catch_up(room.clone());
        }
        let is_level = self.session.position() >= head;
        self.source = Source::Log { until: is_level.then(|| room.attach(&self.outbox)) };
        self.room = Some(room);
    }

    /// Deals with everything that came up, until there is nothing left but to write and to wait.
    fn settle(&mut self) {
        self.act();
        self.empty_outbox();
        if let Source::Log { until: Some(until) } = self.source
            && self.session.position() >= until
        {
            self.source = Source::Room;
            for push in std::mem::take(&mut self.held) {
                if self.source == Source::Room {
                    self.offer(&push);
                }
            }
        }
        self.session.on_written(&mut self.actions);
        self.act();
        let is_behind = self.room.is_some() && self.source != Source::Room;
        if is_behind && self.reading.is_none() && self.close.is_none() && self.session.room() > 0 {
            self.read_on(Duration::ZERO);
        }
        let outstanding = self.session.outstanding();
        if outstanding != self.outstanding {
            metrics::outstanding_changed(outstanding as isize - self.outstanding as isize);
            self.outstanding = outstanding;
        }
    }

    fn act(&mut self) {
        for action in std::mem::take(&mut self.actions) {
            match action {
                Action::Send(payload) => self.frames.push(writer::data_frame(self.session.encoding(), payload)),
                Action::Ping(payload) => self.frames.push(writer::ping_frame(payload)),
                Action::Call(call) => self.call(call),
                Action::Proven(proven) => {
                    if let Some(identity) = self.session.identity() {
                        self.relay.proofs.proven(&identity.shop, &identity.device, proven);
                    }
                }
                Action::Refused(code) => metrics::frame_rejected(FrameFault::Refused(code)),
                Action::Close(close) => {
                    self.close.get_or_insert(close);
                }
            }
        }
    }

    fn call(&mut self, call: Call) {
        let (reference, op) = call.into_parts();
        if let CallOp::Login(login) = &op {
            self.tried = Some((login.shop.clone(), login.device.clone()));
        }
        let caller = Caller {
            relay: self.relay.clone(),
            conn: self.session.conn().clone(),
            identity: self.session.identity().cloned(),
            room: self.room.as_ref().map(|room| Arc::clone(room)),
        };
        self.answering = Some(Box::pin(async move { (reference, caller.perform(op).await) }));
    }

    fn empty_outbox(&mut self) {
        let taken = self.outbox.take();
        for parcel in taken.parcels {
            match parcel {
                Parcel::Entry(push) if self.source == Source::Room => self.offer(&push),
                Parcel::Entry(push) => self.held.push_back(push),
                Parcel::Signal(push) => {
                    let encoding = self.session.encoding();
                    self.frames.extend(push.frame(encoding, |payload| writer::data_frame(encoding, payload)));
                }
                Parcel::Receipt { message, device, at_ms } => {
                    let op = ServerOp::Receipt { message, device: &device, at: at_ms };
                    let payload = protocol::encode(self.session.encoding(), &op);
                    self.frames.extend(payload.map(|payload| writer::data_frame(self.session.encoding(), payload)));
                }
            }
        }
        if let Some(at) = taken.fell_behind_at {
            if self.source == Source::Room {
                self.session.on_passed(at);
            }
            self.fall_behind();
        } else if self.held.len() > HELD_MAX {
            self.fall_behind();
        }
        if let Some(cursor) = taken.rewound_to {
            self.fall_behind();
            self.reading = None;
            if !self.session.on_rewound(cursor) {
                self.close = Some(self.restart());
            }
        }
        if let Some(close) = taken.close {
            self.close.get_or_insert(close);
        }
    }

    /// Offers the session an entry of its room.
    fn offer(&mut self, push: &Push) {
        let offer = self.session.on_entry(push.id, &push.entry, Instant::now(), unix_ms(), &mut self.actions);
        match offer {
            Offer::Skip | Offer::Expired => {}
            Offer::Full => self.fall_behind(),
            Offer::Send => {
                let encoding = self.session.encoding();
                let frame = push.frame(encoding, |payload| writer::data_frame(encoding, payload));
                self.send_entry(push.id, &push.entry, frame, push.is_replay);
            }
        }
    }

    fn send_entry(&mut self, id: MessageId, entry: &Entry, frame: Option<Bytes>, is_replay: bool) {
        let Some(frame) = frame else {
            // It was checked before it was stored; if it can't be written all the same, the device
            // must not believe that it has everything.
            debug!(conn = %self.session.conn(), %id, "an entry cannot be encoded");
            self.close.get_or_insert(Close::new(CloseCode::Violation, "an entry cannot be encoded"));
            return;
        };
        self.frames.push(frame);
        if matches!(entry, Entry::Message(_)) {
            self.stored_ms.push(id.ms);
            if is_replay {
                metrics::replayed();
            }
        }
    }

    /// From now on the session reads the log.
    fn fall_behind(&mut self) {
        self.outbox.fall_behind();
        self.held = VecDeque::new();
        self.source = Source::Log { until: None };
    }

    fn read_on(&mut self, wait: Duration) {
        let Some(room) = &self.room else { return };
        let (relay, shop, after) = (self.relay.clone(), room.shop().clone(), self.session.position());
        let (fewest, most) = PAGE_ENTRIES;
        let limit = PageLimit { entries: self.session.room().clamp(fewest, most), bytes: PAGE_BYTES };
        self.reading = Some(Box::pin(async move {
            tokio::time::sleep(wait).await;
            // The semaphore is never closed; without a permit there are just more pages at once.
            let _permit = relay.pages.acquire().await.ok();
            metrics::catchup_page();
            relay.store.read(&shop, after, limit).await
        }));
    }

    fn on_page(&mut self, page: Result<Page, StoreError>) {
        let page = match page {
            Ok(page) => page,
            Err(error) => {
                debug!(conn = %self.session.conn(), %error, "a session waits for its log");
                return self.read_on(PAGE_RETRY);
            }
        };
        for stored in &page.entries {
            let offer = self.session.on_entry(stored.id, &stored.entry, Instant::now(), unix_ms(), &mut self.actions);
            match offer {
                Offer::Skip | Offer::Expired => {}
                // The rest stays in the log until an ack makes room.
                Offer::Full => return,
                Offer::Send => {
                    let encoding = self.session.encoding();
                    let payload = match &stored.entry {
                        Entry::Message(message) => {
                            let status = stored.dealt.as_ref().map(|dealt| &dealt.status);
                            protocol::message_frame(encoding, stored.id, message, status)
                        }
                        Entry::Status(change) => protocol::status_frame(encoding, stored.id, change),
                    };
                    let frame = payload.ok().map(|payload| writer::data_frame(encoding, payload));
                    self.send_entry(stored.id, &stored.entry, frame, true);
                }
            }
        }
        self.session.on_passed(page.last);
        if page.is_end {
            self.at_end_of_log();
        }
    }

    fn at_end_of_log(&mut self) {
        let (Some(room), Source::Log { until }) = (&self.room, self.source) else {
            return;
        };
        match until {
            None => self.source = Source::Log { until: Some(room.attach(&self.outbox)) },
            Some(until) if self.session.position() < until => {
                // What the room has seen is not in the log: it was trimmed, or the log was rewound,
                // which the feed finds out and tells.
                self.session.on_passed(until);
                self.relay.feed.suspect(Arc::clone(room));
            }
            Some(_) => {}
        }
    }

    async fn write(&mut self, stream: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
        if let Some(close) = &self.close {
            metrics::closed(close.code);
            debug!(conn = %self.session.conn(), code = close.code.number(), reason = %close.reason, "closing");
            self.frames.push(writer::close_frame(close));
        }
        if self.frames.is_empty() {
            return Ok(());
        }
        let wrote = writer::write_frames(stream, &mut self.frames, self.relay.session.ack_timeout).await;
        match &wrote {
            Ok(()) => {
                let now_ms = unix_ms();
                for stored_ms in self.stored_ms.drain(..) {
                    metrics::pushed(Duration::from_millis(now_ms.saturating_sub(stored_ms)));
                }
            }
            Err(error) if error.kind() == io::ErrorKind::TimedOut && self.close.is_none() => {
                debug!(conn = %self.session.conn(), "the device does not read");
                metrics::closed(CloseCode::TooSlow);
            }
            Err(_) => {}
        }
        if self.source == Source::Room && self.frames.capacity() > 64 {
            self.frames = Vec::new();
            self.stored_ms = Vec::new();
        }
        wrote
    }

    fn restart(&self) -> Close {
        let wait = Relay::comeback(self.number);
        Close { code: CloseCode::Restart, reason: Cow::Owned(format!("retry_after_ms={}", wait.as_millis())) }
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
            metrics::session_ended(identity.role);
        }
        if let Some((shop, device)) = &self.tried {
            self.relay.proofs.departed(shop, device, self.session.conn(), self.session.settled());
        }
        self.room = None;
    }
}
