//! The task that holds the subscriptions of a node, and whether it truly hears.
//!
//! Owns the set of channels: puts it back after a reconnect, and tells of the gap only then, so that
//! whoever reads its log on a gap misses nothing. Owns the probe: the node sends itself one each
//! second over the command connection; two in a row that were sent and did not arrive mean that the
//! subscription is deaf, however healthy it looks, and it is made anew. Never reads an event; that
//! is [`super::feed`]. Started and ended by [`super::subscriptions`].

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fred::clients::{Client, SubscriberClient};
use fred::error::Error;
use fred::interfaces::{ClientLike, EventInterface, PubsubInterface};
use fred::types::config::Server;
use fred::types::{ClusterHash, CustomCommand, Value};
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::metrics;
use crate::store::redis::feed::{Ear, OwnChannels};
use crate::store::redis::reply::{store_error, unavailable};
use crate::store::{FeedEvent, GapCause, StoreError};

/// Channels of one round trip.
const BATCH_MAX: usize = 256;
/// Between two probes.
const PROBE_EVERY: Duration = Duration::from_secs(1);
/// How long sending a probe may take before it counts as not sent.
const PROBE_SEND_MAX: Duration = Duration::from_millis(900);
/// Probes in a row that were sent and not heard, or not even sent, before the node is no longer hearing.
const PROBES_MISSED_MAX: u32 = 2;
/// How long making the subscription anew may hold up the requests.
const RENEW_MAX: Duration = Duration::from_secs(3);

/// A channel to be joined or left.
pub struct Request {
    pub channel: String,
    pub want: Want,
    pub done: oneshot::Sender<Result<(), StoreError>>,
}

/// What is asked of a channel.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Want {
    In,
    Out,
}

/// What is known of the probes.
#[derive(Default)]
struct Probe {
    last: u64,
    /// Sent, and to be heard before the next.
    outstanding: Option<u64>,
    unheard: u32,
    unsent: u32,
    stalls: u64,
}

/// What the switchboard is connected to.
pub struct Wires {
    pub requests: mpsc::Receiver<Request>,
    pub subscriber: SubscriberClient,
    pub commands: Client,
    pub channels: OwnChannels,
    pub events: mpsc::Sender<FeedEvent>,
    pub is_hearing: Arc<AtomicBool>,
    pub ear: Arc<Ear>,
}

/// The task that holds the subscriptions.
pub struct Switchboard {
    wires: Wires,
    reconnects: broadcast::Receiver<Server>,
    channels: HashSet<String>,
    probe: Probe,
    /// The connection is new and has to be given the channels, for this cause.
    suspect: Option<GapCause>,
    /// A gap that the rooms have yet to hear of.
    untold: Option<GapCause>,
}

impl Switchboard {
    /// Subscribes the channels that are no shop's; [`Switchboard::run`] does the rest.
    ///
    /// # Errors
    /// Where they cannot be subscribed.
    pub async fn open(wires: Wires) -> Result<Switchboard, Error> {
        let board = Switchboard {
            reconnects: wires.subscriber.reconnect_rx(),
            channels: HashSet::from([wires.channels.probe.clone()]),
            probe: Probe::default(),
            suspect: None,
            untold: None,
            wires,
        };
        board.join_all().await?;
        board.join(board.channels.iter()).await?;
        Ok(board)
    }

    /// Serves requests and watches the connection, until nobody can ask any more.
    pub async fn run(mut self) {
        let mut batch = Vec::with_capacity(BATCH_MAX);
        let mut ticks = interval(PROBE_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let events = self.wires.events.clone();
        loop {
            tokio::select! {
                count = self.wires.requests.recv_many(&mut batch, BATCH_MAX) => {
                    if count == 0 {
                        return;
                    }
                    self.serve(std::mem::take(&mut batch)).await;
                }
                reconnect = self.reconnects.recv() => match reconnect {
                    Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {
                        self.wires.is_hearing.store(false, Ordering::Release);
                        self.suspect.get_or_insert(GapCause::Reconnected);
                    }
                    Err(broadcast::error::RecvError::Closed) => return,
                },
                // Waiting for room here and not where the gap is found: who takes the events may be
                // waiting for a request to be served.
                permit = events.reserve(), if self.untold.is_some() => match permit {
                    Ok(permit) => {
                        if let Some(cause) = self.untold.take() {
                            permit.send(FeedEvent::Gap(cause));
                        }
                    }
                    // Nobody takes events any more: the node is stopping.
                    Err(_) => self.untold = None,
                },
                () = self.wires.ear.news() => self.on_heard(),
                _ = ticks.tick() => self.on_tick().await,
            }
            if self.suspect.is_some() && self.restore().await {
                ticks.reset_immediately();
            }
        }
    }

    /// Serves requests in order, neighbours of one kind in one round trip.
    async fn serve(&mut self, batch: Vec<Request>) {
        let mut batch = batch.into_iter().peekable();
        while let Some(first) = batch.next() {
            let want = first.want;
            let mut run = vec![first];
            while let Some(next) = batch.next_if(|next| next.want == want) {
                run.push(next);
            }
            match want {
                Want::In => self.serve_in(run).await,
                Want::Out => self.serve_out(run).await,
            }
        }
    }

    async fn serve_in(&mut self, mut run: Vec<Request>) {
        run.retain(|request| !request.done.is_closed());
        if self.suspect.is_some() || !self.wires.subscriber.is_connected() {
            for request in run {
                answer(request, Err(unavailable("the subscription is down; it is being made anew")));
            }
            return;
        }
        let joined = self.join(run.iter().map(|request| &request.channel)).await;
        let mut abandoned = Vec::new();
        for request in run {
            match &joined {
                Ok(()) => {
                    self.channels.insert(request.channel.clone());
                    let channel = request.channel.clone();
                    if request.done.send(Ok(())).is_err() {
                        abandoned.push(channel);
                    }
                }
                Err(error) => answer(request, Err(store_error("ssubscribe", error.clone()))),
            }
        }
        self.part(abandoned).await;
    }

    async fn serve_out(&mut self, run: Vec<Request>) {
        self.part(run.iter().map(|request| request.channel.clone()).collect()).await;
        for request in run {
            answer(request, Ok(()));
        }
    }

    /// Subscribes what is for every shop. fred takes no note of the server's reply to this one, and
    /// returns when it is sent; a reply to [`Switchboard::join`], sent after it on the same connection,
    /// says that this is done too.
    async fn join_all(&self) -> Result<(), Error> {
        self.wires.subscriber.to_client().subscribe(self.wires.channels.all.as_str()).await
    }

    /// Subscribes, and returns once the server has. One command a channel: fred takes the second
    /// reply of a command with two channels for the reply to the next command; and in a cluster they
    /// lie in different slots.
    async fn join(&self, channels: impl Iterator<Item = &String>) -> Result<(), Error> {
        let pipeline = self.wires.subscriber.to_client().pipeline();
        let mut is_empty = true;
        for channel in channels {
            let command = CustomCommand::new_static("SSUBSCRIBE", ClusterHash::FirstKey, false);
            let _queued: Value = pipeline.custom(command, vec![channel.as_str()]).await?;
            is_empty = false;
        }
        if is_empty {
            return Ok(());
        }
        pipeline.all::<Value>().await.map(|_replies| ())
    }

    /// Unsubscribes. Where that fails the connection is gone, and the subscription with it.
    async fn part(&mut self, channels: Vec<String>) {
        for channel in channels {
            self.channels.remove(&channel);
            if let Err(error) = self.wires.subscriber.sunsubscribe(channel).await {
                tracing::debug!(%error, "a channel was not unsubscribed");
            }
        }
    }

    /// Gives a new connection the channels; says whether it did.
    async fn restore(&mut self) -> bool {
        if !self.wires.subscriber.is_connected() {
            return false;
        }
        // What these tell of happened before what follows: commands go to the newest connection.
        self.reconnects = self.reconnects.resubscribe();
        let channels: Vec<String> = self.channels.iter().cloned().collect();
        let joining = async {
            self.join_all().await?;
            for chunk in channels.chunks(BATCH_MAX) {
                self.join(chunk.iter()).await?;
            }
            Ok::<_, Error>(())
        };
        if let Err(error) = joining.await {
            tracing::warn!(%error, "the channels cannot be subscribed again yet");
            self.renew().await;
            return false;
        }
        self.probe = Probe { last: self.probe.last, stalls: self.wires.ear.stalls(), ..Probe::default() };
        if let Some(cause) = self.suspect.take() {
            tracing::info!(channels = channels.len(), ?cause, "the subscription is back");
            self.untold = Some(cause);
        }
        true
    }

    fn on_heard(&mut self) {
        if self.suspect.is_none() && self.probe.outstanding.is_some_and(|sent| self.wires.ear.heard() >= sent) {
            self.probe.unheard = 0;
            self.wires.is_hearing.store(true, Ordering::Release);
        }
    }

    async fn on_tick(&mut self) {
        let is_heard = self.probe.outstanding.is_some_and(|sent| self.wires.ear.heard() >= sent);
        let stalls = self.wires.ear.stalls();
        let is_stalled = stalls != std::mem::replace(&mut self.probe.stalls, stalls);
        if self.suspect.is_none() && self.probe.outstanding.is_some() && !is_heard && !is_stalled {
            self.probe.unheard += 1;
            if self.probe.unheard >= PROBES_MISSED_MAX {
                return self.on_deaf().await;
            }
        }
        self.send_probe().await;
    }

    async fn send_probe(&mut self) {
        self.probe.last += 1;
        let is_sent = self.wires.commands.is_connected() && {
            let sending = self
                .wires
                .commands
                .spublish::<i64, _, _>(self.wires.channels.probe.as_str(), self.probe.last.to_string());
            matches!(timeout(PROBE_SEND_MAX, sending).await, Ok(Ok(_)))
        };
        metrics::store_up(is_sent);
        if is_sent {
            self.probe.outstanding = Some(self.probe.last);
            self.probe.unsent = 0;
            // It may have come back before its sending was confirmed.
            return self.on_heard();
        }
        self.probe.outstanding = None;
        self.probe.unsent = self.probe.unsent.saturating_add(1);
        if self.probe.unsent >= PROBES_MISSED_MAX {
            self.wires.is_hearing.store(false, Ordering::Release);
        }
    }

    async fn on_deaf(&mut self) {
        metrics::feed_deaf();
        tracing::warn!("the subscription is up and nothing arrives; it is made anew");
        self.wires.is_hearing.store(false, Ordering::Release);
        self.probe.outstanding = None;
        self.suspect = Some(GapCause::Deaf);
        self.renew().await;
    }

    /// Drops the connection of the subscription and makes a new one.
    async fn renew(&mut self) {
        match timeout(RENEW_MAX, self.wires.subscriber.force_reconnection()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the subscription cannot be made anew yet"),
            Err(_) => tracing::warn!(waited = ?RENEW_MAX, "the subscription cannot be made anew yet"),
        }
    }
}

fn answer(request: Request, outcome: Result<(), StoreError>) {
    // Who asked may have stopped waiting.
    let _ = request.done.send(outcome);
}
