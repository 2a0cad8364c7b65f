//! The channels this node listens to: how a caller asks for one, and which primary it is held at.
//!
//! Owns the homes of the channels: each is subscribed at the primary that has its slot, and moves when the
//! slot does. [`super::switchboard`] holds the subscriptions at one primary, [`super::feed`] reads them.
//! Called by [`super`].

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use fred::interfaces::EventInterface;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout_at};

use crate::ids::NodeId;
use crate::store::redis::client::Shard;
use crate::store::redis::feed::{Ear, Pump};
use crate::store::redis::fleet::{Fleet, Map};
use crate::store::redis::keys::Keys;
use crate::store::redis::reply::unavailable;
use crate::store::redis::slots::slot_of;
use crate::store::redis::switchboard::{Request, Switchboard, Want, Wires};
use crate::store::{FeedEvent, StoreError};

/// Requests that may wait to be served, here and at each primary.
const REQUESTS_MAX: usize = 4096;
/// Events that may wait to be taken.
const EVENTS_MAX: usize = 4096;
/// Requests that are taken at once.
const BATCH_MAX: usize = 256;
/// Between two looks for channels that are not where they should be.
const TIDY_EVERY: Duration = Duration::from_millis(250);

/// What the subscriptions are built from.
pub struct Parts {
    pub fleet: Arc<Fleet>,
    pub node: NodeId,
    pub keys: Keys,
    pub deadline: Duration,
}

/// The handle to the tasks that hold the subscriptions.
pub struct Subscriptions {
    requests: mpsc::Sender<Request>,
    fleet: Arc<Fleet>,
    deadline: Duration,
    task: parking_lot::Mutex<Option<JoinHandle<()>>>,
}

impl Subscriptions {
    /// Starts the tasks, which begin with the channel that is no shop's; the receiver is the feed.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] where that channel cannot be subscribed within the deadline.
    pub async fn start(parts: Parts) -> Result<(Subscriptions, mpsc::Receiver<FeedEvent>), StoreError> {
        let (events, feed) = mpsc::channel(EVENTS_MAX);
        let (requests, requested) = mpsc::channel(REQUESTS_MAX);
        let (fleet, deadline, all) = (parts.fleet.clone(), parts.deadline, parts.keys.all());
        let exchange = Exchange {
            requests: requested,
            maps: fleet.maps(),
            map: fleet.map(),
            homes: HashMap::new(),
            boards: Vec::new(),
            events,
            parts,
        };
        let task = parking_lot::Mutex::new(Some(tokio::spawn(exchange.run())));
        let handle = Subscriptions { requests, fleet, deadline, task };
        if let Err(error) = handle.join(all).await {
            handle.close().await;
            return Err(error);
        }
        Ok((handle, feed))
    }

    /// From its return on, what is published on the channel comes through the feed.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], within the deadline. It is then not subscribed.
    pub async fn join(&self, channel: String) -> Result<(), StoreError> {
        let end = Instant::now() + self.deadline;
        loop {
            let map = self.fleet.map();
            let outcome = self.ask(channel.clone(), Want::In, end).await;
            // It may have been refused only because the slot is elsewhere by now.
            if outcome.is_ok() || map.owners.is_none() || Instant::now() + self.deadline / 2 > end {
                return outcome;
            }
            self.fleet.doubt().await;
        }
    }

    /// Ends [`Subscriptions::join`].
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], within the deadline.
    pub async fn leave(&self, channel: String) -> Result<(), StoreError> {
        self.ask(channel, Want::Out, Instant::now() + self.deadline).await
    }

    async fn ask(&self, channel: String, want: Want, end: Instant) -> Result<(), StoreError> {
        let (done, answer) = oneshot::channel();
        let asking = async {
            self.requests
                .send(Request { channel, want, done: Some(done) })
                .await
                .map_err(|_| unavailable("the store is closed"))?;
            answer.await.unwrap_or_else(|_| Err(unavailable("the store is closed")))
        };
        timeout_at(end, asking).await.unwrap_or_else(|_| Err(unavailable("subscribing took too long")))
    }

    /// Ends the tasks.
    pub async fn close(&self) {
        let task = self.task.lock().take();
        if let Some(task) = task {
            task.abort();
            // It was ended just now, and says so.
            let _ = task.await;
        }
    }
}

/// The tasks of one primary, ended when this is dropped.
struct Board {
    shard: u64,
    requests: mpsc::Sender<Request>,
    tasks: [JoinHandle<()>; 2],
}

impl Drop for Board {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// The task that hands requests to the primaries, and moves channels between them.
struct Exchange {
    requests: mpsc::Receiver<Request>,
    maps: watch::Receiver<Arc<Map>>,
    /// The one that the boards are of.
    map: Arc<Map>,
    /// The primary at which a channel is held.
    homes: HashMap<String, u64>,
    boards: Vec<Board>,
    events: mpsc::Sender<FeedEvent>,
    parts: Parts,
}

impl Exchange {
    async fn run(mut self) {
        self.follow();
        let mut batch = Vec::with_capacity(BATCH_MAX);
        let mut ticks = interval(TIDY_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                changed = self.maps.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    self.follow();
                }
                count = self.requests.recv_many(&mut batch, BATCH_MAX) => {
                    if count == 0 {
                        return;
                    }
                    for request in batch.drain(..) {
                        self.hand_on(request);
                    }
                }
                _ = ticks.tick() => self.move_channels(),
            }
        }
    }

    fn hand_on(&mut self, request: Request) {
        let home = match request.want {
            Want::In | Want::Adopt => self.map.shard(slot_of(&request.channel)).map(|shard| shard.id),
            Want::Out => self.homes.remove(&request.channel),
        };
        let Some(home) = home else {
            let is_gone = request.want == Want::Out;
            let refused = || Err(unavailable("nobody in the cluster holds the slot"));
            return answer(request, if is_gone { Ok(()) } else { refused() });
        };
        if request.want == Want::In {
            let moved = self.homes.insert(request.channel.clone(), home).filter(|old| *old != home);
            if let Some(old) = moved {
                // Nobody waits for it, and the server drops it by itself.
                let _ = self.send(old, Request { channel: request.channel.clone(), want: Want::Out, done: None });
            }
        }
        if let Err(request) = self.send(home, request) {
            answer(request, Err(unavailable("too many requests wait for the subscription")));
        }
    }

    /// Hands a request to a primary; gives it back where it cannot.
    fn send(&self, home: u64, request: Request) -> Result<(), Request> {
        match self.boards.iter().find(|board| board.shard == home) {
            Some(board) => board.requests.try_send(request).map_err(|refused| refused.into_inner()),
            None => Err(request),
        }
    }

    /// Follows the newest map: with boards for its primaries, and each channel at its own.
    fn follow(&mut self) {
        self.map = self.maps.borrow_and_update().clone();
        let map = self.map.clone();
        self.boards.retain(|board| map.shards.iter().any(|shard| shard.id == board.shard));
        for shard in &map.shards {
            if self.boards.iter().all(|board| board.shard != shard.id) {
                self.boards.push(self.board(shard));
            }
        }
        self.move_channels();
    }

    fn board(&self, shard: &Arc<Shard>) -> Board {
        let (requests, requested) = mpsc::channel(REQUESTS_MAX);
        let (ear, keys) = (Arc::new(Ear::default()), &self.parts.keys);
        let pump = Pump {
            messages: shard.subscriber.message_rx(),
            events: self.events.clone(),
            keys: keys.clone(),
            all: keys.all(),
            ear: ear.clone(),
        };
        let switchboard = Switchboard::new(Wires {
            requests: requested,
            shard: shard.clone(),
            fleet: self.parts.fleet.clone(),
            node: self.parts.node.clone(),
            keys: keys.clone(),
            events: self.events.clone(),
            ear,
        });
        Board { shard: shard.id, requests, tasks: [tokio::spawn(pump.run()), tokio::spawn(switchboard.run())] }
    }

    /// Takes each channel to the primary that has its slot; what a full queue refuses is taken next time.
    fn move_channels(&mut self) {
        if self.map.owners.is_none() {
            return;
        }
        let mut moves = Vec::new();
        for (channel, home) in &self.homes {
            if let Some(owner) = self.map.shard(slot_of(channel)).filter(|owner| owner.id != *home) {
                moves.push((channel.clone(), *home, owner.id));
            }
        }
        for (channel, from, to) in moves {
            let adopt = Request { channel: channel.clone(), want: Want::Adopt, done: None };
            if self.send(to, adopt).is_ok() {
                self.homes.insert(channel.clone(), to);
                // Its old home may be gone, and has dropped it.
                let _ = self.send(from, Request { channel, want: Want::Out, done: None });
            }
        }
    }
}

fn answer(request: Request, outcome: Result<(), StoreError>) {
    if let Some(done) = request.done {
        // Who asked may have stopped waiting.
        let _ = done.send(outcome);
    }
}
