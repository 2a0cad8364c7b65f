//! The channels this node listens to, and whether it truly hears.
//!
//! Owns the set of channels: puts it back after a reconnect, and tells of the gap only then, so that
//! whoever reads its log on a gap misses nothing. Owns the probe: the node sends itself one each
//! second over the command connection; two in a row that were sent and did not arrive mean that the
//! subscription is deaf, however healthy it looks, and it is made anew. Never reads an event; that
//! is [`super::feed`]. Called by [`super`].

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
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::metrics;
use crate::store::redis::feed::{Ear, Pump};
use crate::store::redis::keys::Keys;
use crate::store::redis::reply::store_error;
use crate::store::{FeedEvent, GapCause, StoreError};

/// Channels of one round trip.
const BATCH_MAX: usize = 256;
/// Requests that may wait to be served.
const REQUESTS_MAX: usize = 4096;
/// Events that may wait to be taken.
const EVENTS_MAX: usize = 4096;
/// Between two probes.
const PROBE_EVERY: Duration = Duration::from_secs(1);
/// How long sending a probe may take before it counts as not sent.
const PROBE_SEND_MAX: Duration = Duration::from_millis(900);
/// Probes in a row that were sent and not heard, or not even sent, before the node is no longer hearing.
const PROBES_MISSED_MAX: u32 = 2;
/// How long making the subscription anew may hold up the requests.
const RENEW_MAX: Duration = Duration::from_secs(3);

/// What the subscriptions are built from.
pub struct Parts {
    pub subscriber: SubscriberClient,
    pub commands: Client,
    pub keys: Keys,
    pub probe_channel: String,
    pub deadline: Duration,
}

/// The handle to the task that holds the subscriptions.
pub struct Subscriptions {
    requests: mpsc::Sender<Request>,
    is_hearing: Arc<AtomicBool>,
    subscriber: SubscriberClient,
    deadline: Duration,
    tasks: parking_lot::Mutex<Vec<JoinHandle<()>>>,
}

struct Request {
    channel: String,
    want: Want,
    done: oneshot::Sender<Result<(), StoreError>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Want {
    In,
    Out,
}

impl Subscriptions {
    /// Subscribes the probe and starts the tasks; the receiver is the feed.
    ///
    /// # Errors
    /// Where the probe cannot be subscribed.
    pub async fn start(parts: Parts) -> Result<(Subscriptions, mpsc::Receiver<FeedEvent>), Error> {
        let (events, feed) = mpsc::channel(EVENTS_MAX);
        let (requests, requested) = mpsc::channel(REQUESTS_MAX);
        let is_hearing = Arc::new(AtomicBool::new(true));
        let ear = Arc::new(Ear::default());
        let pump = Pump {
            messages: parts.subscriber.message_rx(),
            events: events.clone(),
            keys: parts.keys,
            probe_channel: parts.probe_channel.clone(),
            ear: ear.clone(),
        };
        let board = Switchboard {
            requests: requested,
            reconnects: parts.subscriber.reconnect_rx(),
            subscriber: parts.subscriber.clone(),
            commands: parts.commands,
            channels: HashSet::from([parts.probe_channel.clone()]),
            events,
            is_hearing: is_hearing.clone(),
            ear,
            probe_channel: parts.probe_channel,
            probe: Probe::default(),
            suspect: None,
            untold: None,
        };
        board.join(board.channels.iter()).await?;
        let tasks = parking_lot::Mutex::new(vec![tokio::spawn(pump.run()), tokio::spawn(board.run())]);
        let handle = Subscriptions {
            requests,
            is_hearing,
            subscriber: parts.subscriber,
            deadline: parts.deadline,
            tasks,
        };
        Ok((handle, feed))
    }

    /// From its return on, what is published on the channel comes through the feed.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], within the deadline. It is then not subscribed.
    pub async fn join(&self, channel: String) -> Result<(), StoreError> {
        self.ask(channel, Want::In).await
    }

    /// Ends [`Subscriptions::join`].
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], within the deadline.
    pub async fn leave(&self, channel: String) -> Result<(), StoreError> {
        self.ask(channel, Want::Out).await
    }

    async fn ask(&self, channel: String, want: Want) -> Result<(), StoreError> {
        let (done, answer) = oneshot::channel();
        let asking = async {
            self.requests
                .send(Request { channel, want, done })
                .await
                .map_err(|_| unavailable("the store is closed"))?;
            answer.await.unwrap_or_else(|_| Err(unavailable("the store is closed")))
        };
        timeout(self.deadline, asking)
            .await
            .unwrap_or_else(|_| Err(unavailable("subscribing took too long")))
    }

    /// See [`crate::store::Store::is_hearing`].
    pub fn is_hearing(&self) -> bool {
        self.is_hearing.load(Ordering::Acquire) && self.subscriber.is_connected()
    }

    /// Ends the tasks.
    pub async fn close(&self) {
        let tasks = std::mem::take(&mut *self.tasks.lock());
        for task in tasks {
            task.abort();
            // It was ended just now, and says so.
            let _ = task.await;
        }
        self.is_hearing.store(false, Ordering::Release);
    }
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

/// The task that holds the subscriptions.
struct Switchboard {
    requests: mpsc::Receiver<Request>,
    reconnects: broadcast::Receiver<Server>,
    subscriber: SubscriberClient,
    commands: Client,
    channels: HashSet<String>,
    events: mpsc::Sender<FeedEvent>,
    is_hearing: Arc<AtomicBool>,
    ear: Arc<Ear>,
    probe_channel: String,
    probe: Probe,
    /// The connection is new and has to be given the channels, for this cause.
    suspect: Option<GapCause>,
    /// A gap that the rooms have yet to hear of.
    untold: Option<GapCause>,
}

impl Switchboard {
    async fn run(mut self) {
        let mut batch = Vec::with_capacity(BATCH_MAX);
        let mut ticks = interval(PROBE_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let events = self.events.clone();
        loop {
            tokio::select! {
                count = self.requests.recv_many(&mut batch, BATCH_MAX) => {
                    if count == 0 {
                        return;
                    }
                    self.serve(std::mem::take(&mut batch)).await;
                }
                reconnect = self.reconnects.recv() => match reconnect {
                    Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {
                        self.is_hearing.store(false, Ordering::Release);
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
                () = self.ear.news() => self.on_heard(),
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
        if self.suspect.is_some() || !self.subscriber.is_connected() {
            for request in run {
                answer(
                    request,
                    Err(unavailable("the subscription is down; it is being made anew")),
                );
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
        self.part(run.iter().map(|request| request.channel.clone()).collect())
            .await;
        for request in run {
            answer(request, Ok(()));
        }
    }

    /// Subscribes, and returns once the server has. One command a channel: fred takes the second
    /// reply of a command with two channels for the reply to the next command; and in a cluster they
    /// lie in different slots.
    async fn join(&self, channels: impl Iterator<Item = &String>) -> Result<(), Error> {
        let pipeline = self.subscriber.to_client().pipeline();
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
            if let Err(error) = self.subscriber.sunsubscribe(channel).await {
                tracing::debug!(%error, "a channel was not unsubscribed");
            }
        }
    }

    /// Gives a new connection the channels; says whether it did.
    async fn restore(&mut self) -> bool {
        if !self.subscriber.is_connected() {
            return false;
        }
        // What these tell of happened before what follows: commands go to the newest connection.
        self.reconnects = self.reconnects.resubscribe();
        let channels: Vec<String> = self.channels.iter().cloned().collect();
        for chunk in channels.chunks(BATCH_MAX) {
            if let Err(error) = self.join(chunk.iter()).await {
                tracing::warn!(%error, "the channels cannot be subscribed again yet");
                self.renew().await;
                return false;
            }
        }
        self.probe = Probe {
            last: self.probe.last,
            stalls: self.ear.stalls(),
            ..Probe::default()
        };
        if let Some(cause) = self.suspect.take() {
            tracing::info!(channels = channels.len(), ?cause, "the subscription is back");
            self.untold = Some(cause);
        }
        true
    }

    fn on_heard(&mut self) {
        if self.suspect.is_none() && self.probe.outstanding.is_some_and(|sent| self.ear.heard() >= sent) {
            self.probe.unheard = 0;
            self.is_hearing.store(true, Ordering::Release);
        }
    }

    async fn on_tick(&mut self) {
        let is_heard = self.probe.outstanding.is_some_and(|sent| self.ear.heard() >= sent);
        let stalls = self.ear.stalls();
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
        let is_sent = self.commands.is_connected() && {
            let sending = self
                .commands
                .spublish::<i64, _, _>(self.probe_channel.as_str(), self.probe.last.to_string());
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
            self.is_hearing.store(false, Ordering::Release);
        }
    }

    async fn on_deaf(&mut self) {
        metrics::feed_deaf();
        tracing::warn!("the subscription is up and nothing arrives; it is made anew");
        self.is_hearing.store(false, Ordering::Release);
        self.probe.outstanding = None;
        self.suspect = Some(GapCause::Deaf);
        self.renew().await;
    }

    /// Drops the connection of the subscription and makes a new one.
    async fn renew(&mut self) {
        match timeout(RENEW_MAX, self.subscriber.force_reconnection()).await {
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

fn unavailable(why: &'static str) -> StoreError {
    StoreError::Unavailable(why.into())
}
