//! The loop of one connection: what comes in, what goes out, and the calls in between.

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

use crate::hub::{Member, Outbox, Push, RoomGuard};
use crate::ids::{DeviceId, ShopId, unix_ms};
use crate::metrics::{self, FrameFault, LoginResult};
use crate::protocol::{Close, CloseCode, Encoding, Ref};
use crate::session::{Action, Answer, Call, CallOp, Session, Welcome};
use crate::socket::calls::{Answered, Caller};
use crate::socket::entries::Source;
use crate::socket::reader::{Incoming, Reader};
use crate::socket::{Place, Relay, writer};
use crate::store::{Page, StoreError};

/// How long a closed connection may still talk before it is dropped.
const LINGER: Duration = Duration::from_secs(2);

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

pub(super) struct Connection {
    pub(super) relay: Arc<Relay>,
    number: u64,
    pub(super) session: Session,
    pub(super) room: Option<RoomGuard>,
    pub(super) outbox: Arc<Outbox>,
    pub(super) source: Source,
    /// Entries from the outbox that come after what is still to be read from the log.
    pub(super) held: VecDeque<Arc<Push>>,
    answering: Option<Answering>,
    pub(super) reading: Option<Reading>,
    /// The login that was last tried, which may hold in the store whatever was answered.
    tried: Option<(ShopId, DeviceId)>,
    pub(super) actions: Vec<Action>,
    pub(super) frames: Vec<Bytes>,
    /// When each message among the frames was stored, for the metric of pushes.
    pub(super) stored_ms: Vec<u64>,
    outstanding: usize,
    pub(super) close: Option<Close>,
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

    pub(super) fn restart(&self) -> Close {
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
