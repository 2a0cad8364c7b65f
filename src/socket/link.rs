//! A connection with its stream, and the loop that drives both.
//!
//! Owns when something is read, written and waited for. All state of a connection is in one allocation, and
//! the future that drives it holds no more than the way there: a future keeps room for whatever it ever held.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::time::Sleep;
use tracing::debug;

use crate::auth::ClientCertificate;
use crate::protocol::Dialect;
use crate::relay::{Known, Place, Relay};
use crate::session::Session;
use crate::socket::connection::Connection;
use crate::socket::reader::Reader;
use crate::store::EventKind;

/// How long a closed connection may still talk before it is dropped.
const LINGER: Duration = Duration::from_secs(2);

/// How long a legacy connection waits to be on the list of connections, and between attempts.
const NOTE_WAIT: Duration = Duration::from_millis(100);
const NOTE_RETRY: Duration = Duration::from_secs(1);

/// Frames that are taken in before what they led to is written.
const FRAMES_MAX: usize = 16;

/// A connection whose handshake is done.
pub struct Accepted<S> {
    pub stream: S,
    pub dialect: Dialect,
    /// When the TCP connection was accepted.
    pub at: Instant,
    /// Bytes that came with the handshake.
    pub first: Bytes,
    pub place: Place,
    /// The client certificate that it came with.
    pub certificate: Option<Arc<ClientCertificate>>,
}

/// A connection and what it is over.
pub struct Link<S> {
    stream: S,
    reader: Reader,
    connection: Connection,
    tick: Pin<Box<Sleep>>,
    /// Of the node's changes of mind about leaving, how many were heeded.
    stages: u32,
    _known: Known,
    _place: Place,
}

/// What there was when a connection looked.
#[derive(Default)]
struct News {
    is_any: bool,
    /// There is something in the outbox.
    is_outbox: bool,
    /// There may be more of it at once.
    is_part: bool,
    /// The client has said all that it will.
    is_last: bool,
}

/// How the loop of a connection ends.
enum End {
    /// It is to be closed.
    Close,
    /// Its client has said all that it will.
    Finished,
    /// It cannot be written to.
    Broken,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Link<S> {
    /// A connection that begins.
    pub fn new(relay: Arc<Relay>, accepted: Accepted<S>) -> Box<Link<S>> {
        let Accepted { stream, dialect, at, first, place, certificate } = accepted;
        let (conn, number) = relay.doors.next_conn(&relay.node);
        let session = Session::new(relay.session.clone(), dialect, relay.node.clone(), conn, at);
        let reader = Reader::new(first, relay.session.frame_bytes, relay.session_bytes_per_s);
        let connection = Connection::new(relay.clone(), number, session, certificate);
        let known = relay.connection_known(number, &connection.outbox);
        let tick = Box::pin(tokio::time::sleep_until(connection.deadline().into()));
        Box::new(Link { stream, reader, connection, tick, stages: 0, _known: known, _place: place })
    }

    /// Serves it until it ends.
    pub async fn serve(self: Box<Self>) {
        self.connection.tell(|| EventKind::Connect);
        if self.connection.session.is_legacy() {
            // Boxed, so that native connections do not carry its size.
            Box::pin(self.run_legacy()).await;
        } else {
            self.run().await;
        }
    }

    /// As [`Link::run`], on the list of legacy connections meanwhile.
    async fn run_legacy(self: Box<Self>) {
        let (relay, conn) = (self.connection.relay.clone(), self.connection.session.conn().clone());
        relay.hub.legacy_opened(&conn, &self.connection.outbox);
        let mut noting = pin!(async {
            while let Err(error) = relay.store.note_legacy(&conn, true).await {
                debug!(%conn, %error, "a legacy connection is not on the list yet");
                tokio::time::sleep(NOTE_RETRY).await;
            }
        });
        // Mostly it is on the list before its first word; a store that is away does not keep it waiting.
        let mut is_noted = tokio::time::timeout(NOTE_WAIT, &mut noting).await.is_ok();
        let mut running = pin!(self.run());
        loop {
            tokio::select! {
                () = &mut running => break,
                () = &mut noting, if !is_noted => is_noted = true,
            }
        }
        relay.hub.legacy_closed(&conn);
        if let Err(error) = relay.store.note_legacy(&conn, false).await {
            debug!(%conn, %error, "a legacy connection that ended is still on the list");
        }
    }

    async fn run(mut self: Box<Self>) {
        let end = std::future::poll_fn(|context| self.poll_run(context)).await;
        if matches!(end, End::Broken) {
            return self.connection.depart();
        }
        self.connection.say_goodbye();
        self.connection.depart();
        // It has had its time. Boxed as above.
        let _ = Box::pin(tokio::time::timeout(LINGER, self.hear_out())).await;
    }

    /// Without hearing it out, a client that still sends would have its Close frame torn away by a reset.
    async fn hear_out(&mut self) {
        if self.connection.outgoing.flush(&mut self.stream).await.is_ok() && self.stream.shutdown().await.is_ok() {
            self.reader.discard(&mut self.stream).await;
        }
    }

    /// Deals with whatever happens until the connection is over. Mostly one round is enough: what it led to is
    /// written in it, and whatever may happen next has been asked to wake this.
    fn poll_run(&mut self, context: &mut Context<'_>) -> Poll<End> {
        let mut is_due = false;
        loop {
            let news = self.poll_news(context);
            if news.is_last {
                return Poll::Ready(End::Finished);
            }
            let connection = &mut self.connection;
            if news.is_any || is_due {
                connection.settle(news.is_outbox);
            }
            if connection.close.is_some() {
                return Poll::Ready(End::Close);
            }
            let (may_read, was_blocked) = (connection.may_read(), connection.outgoing.blocked_since().is_some());
            let flushed = connection.outgoing.poll_flush(&mut self.stream, context);
            connection.outbox.note_unwritten(connection.outgoing.bytes());
            match flushed {
                Poll::Ready(Err(_)) => return Poll::Ready(End::Broken),
                Poll::Ready(Ok(())) => connection.on_written(),
                Poll::Pending => {}
            }
            if was_blocked && flushed.is_ready() {
                // What waited for the client to take something goes on.
                connection.outbox.wake();
            }
            let goes_on = news.is_part || connection.has_begun() || may_read != connection.may_read();
            is_due = self.poll_deadline(context).is_ready();
            if !goes_on && !is_due {
                return Poll::Pending;
            }
        }
    }

    /// Takes in what has happened.
    fn poll_news(&mut self, context: &mut Context<'_>) -> News {
        let is_outbox = self.connection.outbox.poll_changed(context).is_ready();
        let mut news = News { is_outbox, is_any: is_outbox, ..News::default() };
        let stages = self.connection.relay.drain.changes();
        if stages != self.stages {
            self.stages = stages;
            self.connection.on_stage(self.connection.relay.drain.now());
            news.is_any = true;
        }
        news.is_any |= self.connection.poll_answering(context) | self.connection.poll_reading(context);
        // While a call is under way the next frame waits, and so it does while the client does not take what
        // there is.
        for frames in 0.. {
            if !self.connection.may_read() || self.connection.close.is_some() {
                break;
            }
            if frames == FRAMES_MAX {
                news.is_part = true;
                break;
            }
            let Poll::Ready(incoming) = self.reader.poll_next(&mut self.stream, context) else { break };
            news.is_any = true;
            if !self.connection.on_frame(incoming) {
                news.is_last = true;
                break;
            }
            self.connection.act();
            self.connection.poll_answering(context);
        }
        news
    }

    /// Ready when something was due, and is dealt with. An alarm that is too early is left as it is: what it was
    /// for is mostly put off, message by message.
    fn poll_deadline(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let deadline = self.connection.deadline().into();
        if deadline < self.tick.deadline() || self.tick.is_elapsed() {
            self.tick.as_mut().reset(deadline);
        }
        ready!(self.tick.as_mut().poll(context));
        self.connection.on_tick();
        Poll::Ready(())
    }
}
