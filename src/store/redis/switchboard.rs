//! The task that holds the subscriptions at one primary, and whether it truly hears.
//!
//! Owns the set of channels there: puts it back after a reconnect, and tells of the gap only then, so that
//! whoever reads its log on a gap misses nothing. Owns the probe: the node sends itself one each second
//! over the primary's command connection; two in a row that were sent and did not arrive mean that the
//! subscription is deaf, however healthy it looks, and it is made anew. A server that gives a slot away
//! drops the channels in it, and fred tells nobody; so each second the server is asked how many it holds
//! for this connection. Never reads an event; that is [`super::feed`]. Started and ended by
//! [`super::subscriptions`].

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use fred::error::{Error, ErrorKind};
use fred::interfaces::{ClientLike, EventInterface, PubsubInterface};
use fred::types::config::Server;
use fred::types::{ClusterHash, CustomCommand, Value};
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::ids::NodeId;
use crate::metrics;
use crate::store::redis::client::Shard;
use crate::store::redis::feed::Ear;
use crate::store::redis::fleet::Fleet;
use crate::store::redis::keys::Keys;
use crate::store::redis::reply::{self, Refusal, store_error, unavailable};
use crate::store::redis::slots::slot_of;
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
/// How long the server may take to count channels.
const COUNT_MAX: Duration = Duration::from_millis(500);
/// Names that are tried for a probe: the smallest part of the slots that a primary may have is found in it.
const PROBE_NAMES_MAX: u32 = 400_000;

/// What is asked of a switchboard.
pub struct Request {
    pub want: Want,
    /// None where nobody waits for it.
    pub done: Option<oneshot::Sender<Result<(), StoreError>>>,
    pub channel: String,
}

/// What is asked of a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Want {
    In,
    Out,
    /// In, and the gap is to be told: it was subscribed elsewhere before.
    Adopt,
}

/// What is known of the probes.
#[derive(Default)]
struct Probe {
    /// In a slot of this primary; None where it has none.
    channel: Option<String>,
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
    pub shard: Arc<Shard>,
    pub fleet: Arc<Fleet>,
    pub node: NodeId,
    pub keys: Keys,
    pub events: mpsc::Sender<FeedEvent>,
    pub ear: Arc<Ear>,
}

/// The task that holds the subscriptions at one primary.
pub struct Switchboard {
    wires: Wires,
    reconnects: broadcast::Receiver<Server>,
    /// Those that the server has, and those it is to have.
    channels: HashSet<String>,
    /// Of these, those that it does not have.
    missing: HashSet<String>,
    probe: Probe,
    /// The connection is new and has to be given the channels, for this cause; None for its first time.
    suspect: Option<Option<GapCause>>,
    /// A gap that the rooms have yet to hear of.
    untold: Option<GapCause>,
}

impl Switchboard {
    /// A switchboard that subscribes its probe, and whatever is asked of it, as soon as there is a connection.
    pub fn new(wires: Wires) -> Switchboard {
        Switchboard {
            reconnects: wires.shard.subscriber.reconnect_rx(),
            channels: HashSet::new(),
            missing: HashSet::new(),
            probe: Probe::default(),
            suspect: Some(None),
            untold: None,
            wires,
        }
    }

    /// Serves requests and watches the connection, until nobody can ask any more.
    pub async fn run(mut self) {
        let mut batch = Vec::with_capacity(BATCH_MAX);
        let mut ticks = interval(PROBE_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let events = self.wires.events.clone();
        let shard = self.wires.shard.clone();
        loop {
            if self.suspect.is_some() && self.restore().await {
                ticks.reset_immediately();
            }
            tokio::select! {
                count = self.wires.requests.recv_many(&mut batch, BATCH_MAX) => {
                    if count == 0 {
                        return;
                    }
                    self.serve(std::mem::take(&mut batch)).await;
                }
                reconnect = self.reconnects.recv() => match reconnect {
                    Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {
                        self.wires.shard.set_hearing(false);
                        self.suspect.get_or_insert(Some(GapCause::Reconnected));
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
                () = shard.demoted.notified() => self.on_demoted().await,
                _ = ticks.tick() => self.on_tick().await,
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
                Want::Adopt => {
                    let channels = run.into_iter().map(|request| request.channel);
                    let channels: Vec<String> = channels.collect();
                    self.channels.extend(channels.iter().cloned());
                    self.missing.extend(channels);
                    self.find_missing().await;
                }
            }
        }
    }

    async fn serve_in(&mut self, mut run: Vec<Request>) {
        run.retain(|request| request.done.as_ref().is_none_or(|done| !done.is_closed()));
        if self.suspect.is_some() || !self.wires.shard.subscriber.is_connected() {
            for request in run {
                answer(request.done, Err(unavailable("the subscription is down; it is being made anew")));
            }
            return;
        }
        let joined = self.join(run.iter().map(|request| &request.channel)).await;
        let mut abandoned = Vec::new();
        for (request, joined) in run.into_iter().zip(joined) {
            match joined {
                Ok(()) => {
                    self.missing.remove(&request.channel);
                    self.channels.insert(request.channel.clone());
                    if !answer(request.done, Ok(())) {
                        abandoned.push(request.channel);
                    }
                }
                Err(error) => {
                    self.doubt_where(&error);
                    answer(request.done, Err(store_error("ssubscribe", error)));
                }
            }
        }
        self.part(abandoned).await;
    }

    async fn serve_out(&mut self, run: Vec<Request>) {
        self.part(run.iter().map(|request| request.channel.clone()).collect()).await;
        for request in run {
            answer(request.done, Ok(()));
        }
    }

    /// Subscribes, and returns once the server has; one outcome for each. One command a channel: fred takes
    /// the second reply of a command with two channels for the reply to the next command.
    async fn join(&self, channels: impl Iterator<Item = &String>) -> Vec<Result<(), Error>> {
        let pipeline = self.wires.shard.subscriber.to_client().pipeline();
        let mut count = 0;
        for channel in channels {
            let command = CustomCommand::new_static("SSUBSCRIBE", ClusterHash::FirstKey, false);
            // What cannot even be queued has no reply below.
            let queued: Result<Value, Error> = pipeline.custom(command, vec![channel.as_str()]).await;
            if let Err(error) = queued {
                tracing::debug!(%error, "a channel was not subscribed");
            }
            count += 1;
        }
        if count == 0 {
            return Vec::new();
        }
        let mut outcomes: Vec<_> = pipeline.try_all::<Value>().await.into_iter().map(|reply| reply.map(drop)).collect();
        if outcomes.len() != count {
            let error = outcomes.into_iter().find_map(Result::err);
            let error = error.unwrap_or_else(|| Error::new(ErrorKind::Protocol, "a pipeline was answered in part"));
            outcomes = vec![Err(error); count];
        }
        outcomes
    }

    /// Unsubscribes. Where that fails the connection is gone, and the subscription with it.
    async fn part(&mut self, channels: Vec<String>) {
        for channel in channels {
            self.missing.remove(&channel);
            self.channels.remove(&channel);
            if let Err(error) = self.wires.shard.subscriber.sunsubscribe(channel).await {
                tracing::debug!(%error, "a channel was not unsubscribed");
            }
        }
    }

    /// Subscribes these; what the server does not hold is missing from then on.
    ///
    /// # Errors
    /// Where the connection did not last.
    async fn join_all(&mut self, channels: Vec<String>) -> Result<(), Error> {
        for chunk in channels.chunks(BATCH_MAX) {
            let joined = self.join(chunk.iter()).await;
            for (channel, joined) in chunk.iter().zip(joined) {
                match joined {
                    Ok(()) => {
                        self.missing.remove(channel);
                    }
                    Err(error) if reply::refusal(&error).is_some() => {
                        self.doubt_where(&error);
                        self.missing.insert(channel.clone());
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }

    /// Gives a new connection the channels; says whether it did.
    async fn restore(&mut self) -> bool {
        if !self.wires.shard.subscriber.is_connected() {
            return false;
        }
        // What these tell of happened before what follows: commands go to the newest connection.
        self.reconnects = self.reconnects.resubscribe();
        self.name_probe();
        let (count, missing) = (self.channels.len(), self.missing.len());
        let channels = self.channels.iter().chain(&self.probe.channel).cloned().collect();
        if let Err(error) = self.join_all(channels).await {
            tracing::warn!(%error, "the channels cannot be subscribed again yet");
            self.renew().await;
            return false;
        }
        let (channel, last) = (self.probe.channel.take(), self.probe.last);
        self.probe = Probe { channel, last, stalls: self.wires.ear.stalls(), ..Probe::default() };
        // Of the first time there is nothing to tell, unless the channels were subscribed elsewhere before.
        let moved = (self.missing.len() < missing).then_some(GapCause::Moved);
        if let Some(cause) = self.suspect.take().and_then(|cause| cause.or(moved)) {
            tracing::info!(channels = count, ?cause, "the subscription is back");
            self.untold = Some(cause);
        }
        true
    }

    /// Tries again to subscribe what the server does not have, and tells of the gap where it does now.
    async fn find_missing(&mut self) {
        if self.suspect.is_some() || self.missing.is_empty() || !self.wires.shard.subscriber.is_connected() {
            return;
        }
        let before = self.missing.len();
        if let Err(error) = self.join_all(self.missing.iter().cloned().collect()).await {
            tracing::debug!(%error, "channels cannot be subscribed yet");
        }
        if self.missing.len() < before {
            self.untold.get_or_insert(GapCause::Moved);
        }
    }

    /// Asks the server how many channels it holds for this connection: it drops those of a slot that it
    /// gives away. Where they are too few all are subscribed once more.
    async fn count_channels(&mut self) {
        let command = CustomCommand::new_static("CLIENT", ClusterHash::FirstKey, false);
        let subscriber = self.wires.shard.subscriber.to_client();
        let counting = subscriber.custom::<String, _>(command, vec!["INFO"]);
        let Ok(Ok(info)) = timeout(COUNT_MAX, counting).await else { return };
        let held = info.split_whitespace().find_map(|field| field.strip_prefix("ssub=")?.parse::<usize>().ok());
        let subscribed =
            self.channels.iter().chain(&self.probe.channel).filter(|channel| !self.missing.contains(*channel));
        let own = subscribed.count();
        // A connection that is new holds none yet, and its news is on its way.
        if held.is_some_and(|held| held < own) && self.reconnects.is_empty() {
            tracing::info!(held, expected = own, "the server dropped channels; all are subscribed once more");
            self.wires.fleet.doubted.notify_one();
            self.suspect.get_or_insert(Some(GapCause::Moved));
        }
    }

    /// A channel is refused by who does not have its slot: then the map is wrong.
    fn doubt_where(&self, error: &Error) {
        if reply::refusal(error) == Some(Refusal::Moved) {
            self.wires.fleet.doubted.notify_one();
        }
    }

    fn on_heard(&mut self) {
        if self.suspect.is_none() && self.probe.outstanding.is_some_and(|sent| self.wires.ear.heard() >= sent) {
            self.probe.unheard = 0;
            self.wires.shard.set_hearing(true);
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
        if self.suspect.is_none() && self.name_probe() {
            self.suspect = Some(None);
        }
        self.send_probe().await;
        if self.suspect.is_none() && self.wires.shard.subscriber.is_connected() {
            self.find_missing().await;
            self.count_channels().await;
        }
    }

    async fn send_probe(&mut self) {
        let Some(channel) = self.probe.channel.clone() else { return };
        self.probe.last += 1;
        let commands = &self.wires.shard.commands;
        let is_sent = commands.is_connected() && {
            let sending = commands.spublish::<i64, _, _>(channel, self.probe.last.to_string());
            matches!(timeout(PROBE_SEND_MAX, sending).await, Ok(Ok(_)))
        };
        self.wires.shard.set_answering(is_sent);
        self.wires.fleet.note_up();
        if is_sent {
            self.probe.outstanding = Some(self.probe.last);
            self.probe.unsent = 0;
            // It may have come back before its sending was confirmed.
            return self.on_heard();
        }
        self.probe.outstanding = None;
        self.probe.unsent = self.probe.unsent.saturating_add(1);
        if self.probe.unsent >= PROBES_MISSED_MAX {
            self.wires.shard.set_hearing(false);
        }
    }

    /// Sees that the probe lies in a slot of this primary; says whether it has another name now.
    fn name_probe(&mut self) -> bool {
        let map = self.wires.fleet.map();
        let is_here =
            |channel: &String| map.shard(slot_of(channel)).is_some_and(|shard| shard.id == self.wires.shard.id);
        if self.probe.channel.as_ref().is_some_and(is_here) {
            return false;
        }
        let is_any = map.owners.is_none() || map.shards.iter().any(|shard| shard.id == self.wires.shard.id);
        let mut names = (0..PROBE_NAMES_MAX).map(|turn| self.wires.keys.probe(&self.wires.node, turn));
        let named = if is_any { names.find(is_here) } else { None };
        let is_changed = self.probe.channel != named;
        self.probe.channel = named;
        is_changed
    }

    async fn on_deaf(&mut self) {
        metrics::feed_deaf();
        tracing::warn!(server = ?self.wires.shard.server, "the subscription is up and nothing arrives; it is made anew");
        self.wires.shard.set_hearing(false);
        self.probe.outstanding = None;
        self.suspect = Some(Some(GapCause::Deaf));
        self.renew().await;
    }

    /// The server is no primary any more: whoever takes its place has to be looked for.
    async fn on_demoted(&mut self) {
        tracing::warn!("Redis is a replica now; its connections are made anew, to find the primary");
        self.wires.shard.set_hearing(false);
        self.suspect.get_or_insert(Some(GapCause::Reconnected));
        self.renew().await;
        let shard = self.wires.shard.clone();
        if timeout(RENEW_MAX, shard.renew()).await.is_err() {
            tracing::warn!(waited = ?RENEW_MAX, "the connections cannot be made anew yet");
        }
    }

    /// Drops the connection of the subscription and makes a new one.
    async fn renew(&mut self) {
        match timeout(RENEW_MAX, self.wires.shard.subscriber.force_reconnection()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the subscription cannot be made anew yet"),
            Err(_) => tracing::warn!(waited = ?RENEW_MAX, "the subscription cannot be made anew yet"),
        }
    }
}

/// Whether somebody still waited for it, or nobody ever did.
fn answer(done: Option<oneshot::Sender<Result<(), StoreError>>>, outcome: Result<(), StoreError>) -> bool {
    done.is_none_or(|done| done.send(outcome).is_ok())
}
