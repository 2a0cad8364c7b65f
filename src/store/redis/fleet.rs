//! The primaries that hold the store, and the way of each command to the one that has its key.
//!
//! Owns the map from slots to primaries, and what happens where it was wrong: a server that refuses a
//! command because the slot is elsewhere did not carry it out, so it is sent again, to where the slot is by
//! then. That is why each primary of a cluster is spoken to by a client of its own and not by fred's for
//! clusters: with that, a command that may be sent once only can follow no such refusal; nor does it tell of
//! channels that a server drops; and while one primary is down it serves none. Without a cluster there is
//! one primary, and it has every slot. The map is made by [`super::survey`]. Called by [`super`].

use std::sync::Arc;
use std::time::Duration;

use fred::clients::Client;
use fred::error::Error;
use fred::interfaces::ClientLike;
use fred::types::{ClusterHash, CustomCommand, Value};
use futures_util::future::join_all;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::metrics;
use crate::store::StoreError;
use crate::store::redis::client::Shard;
use crate::store::redis::reply::{self, PIPELINE_MAX, Refusal, Reply, store_error, unavailable};
use crate::store::redis::script::ensure_up;
use crate::store::redis::slots::slot_of;

/// Between two attempts at a slot that is on its way.
const MOVING_WAIT: Duration = Duration::from_millis(20);
/// How long a command waits to be told where its slot went.
const SURVEY_MAX: Duration = Duration::from_millis(500);

/// Which connection of a primary a command takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Line {
    /// For all but reading the log.
    Commands,
    /// For reading the log.
    Reads,
    /// As [`Line::Commands`], and the answer waits until enough replicas have what was written, where the
    /// settings want any.
    Committed,
}

/// The primaries, and which slots each has.
pub struct Map {
    pub shards: Vec<Arc<Shard>>,
    /// By slot, a place in `shards`; None where the first has every slot.
    pub owners: Option<Vec<Option<u16>>>,
}

impl Map {
    /// The primary that has this slot.
    pub fn shard(&self, slot: u16) -> Option<&Arc<Shard>> {
        match &self.owners {
            None => self.shards.first(),
            Some(owners) => self.shards.get(usize::from((*owners.get(usize::from(slot))?)?)),
        }
    }

    /// Whether every slot is held by somebody.
    pub fn is_whole(&self) -> bool {
        self.owners.as_ref().is_none_or(|owners| owners.iter().all(Option::is_some))
    }
}

/// A command of one key.
pub struct Ask {
    name: &'static str,
    key: String,
    args: Vec<Value>,
}

impl Ask {
    /// The command `name`, of which `key` is the first argument and `args` are the others.
    pub fn new<A: Into<Value>>(name: &'static str, key: impl Into<String>, args: impl IntoIterator<Item = A>) -> Ask {
        Ask { name, key: key.into(), args: args.into_iter().map(Into::into).collect() }
    }

    /// The command `name`, of which `key` is the only argument.
    pub fn of(name: &'static str, key: impl Into<String>) -> Ask {
        Ask { name, key: key.into(), args: Vec::new() }
    }

    fn command(&self) -> CustomCommand {
        CustomCommand::new_static(self.name, ClusterHash::FirstKey, false)
    }

    fn arguments(&self) -> Vec<Value> {
        [Value::from(self.key.as_str())].into_iter().chain(self.args.iter().cloned()).collect()
    }
}

/// See the module.
pub struct Fleet {
    map: watch::Sender<Arc<Map>>,
    /// Somebody found the map wrong.
    pub doubted: Notify,
    /// How many surveys there have been.
    pub surveys: watch::Sender<u64>,
    deadline: Duration,
}

impl Fleet {
    pub fn new(map: Map, deadline: Duration) -> Fleet {
        let (map, surveys) = (watch::Sender::new(Arc::new(map)), watch::Sender::new(0));
        Fleet { map, doubted: Notify::new(), surveys, deadline }
    }

    /// The present map.
    pub fn map(&self) -> Arc<Map> {
        self.map.borrow().clone()
    }

    /// Tells of each new map.
    pub fn maps(&self) -> watch::Receiver<Arc<Map>> {
        self.map.subscribe()
    }

    /// Puts a new map in place.
    pub fn set_map(&self, map: Map) {
        self.map.send_replace(Arc::new(map));
    }

    /// Whether what is published anywhere arrives here.
    pub fn is_hearing(&self) -> bool {
        let map = self.map.borrow();
        map.is_whole() && map.shards.iter().all(|shard| shard.is_hearing())
    }

    /// Waits until the map was made anew, for a while: it seems to be wrong.
    pub async fn doubt(&self) {
        let mut surveys = self.surveys.subscribe();
        surveys.mark_unchanged();
        self.doubted.notify_one();
        // Without news the same is tried again.
        let _ = timeout(SURVEY_MAX, surveys.changed()).await;
    }

    fn shard(&self, slot: u16) -> Result<Arc<Shard>, StoreError> {
        let shard = self.map.borrow().shard(slot).cloned();
        shard.ok_or_else(|| unavailable("nobody in the cluster holds the slot"))
    }

    /// Runs a call of one slot on the primary that has it, and again elsewhere where it was refused for
    /// being asked in the wrong place. The call is dropped at the deadline.
    ///
    /// # Errors
    /// [`StoreError`], told as one of `call`.
    pub async fn follow<T, F>(
        &self,
        call: &'static str,
        slot: u16,
        run: impl Fn(Arc<Shard>) -> F,
    ) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let end = Instant::now() + self.deadline;
        loop {
            let shard = self.shard(slot)?;
            let error = match timeout_at(end, run(shard.clone())).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(error)) => error,
                Err(_) => return Err(unavailable("Redis did not answer within the deadline")),
            };
            let refusal = reply::refusal(&error);
            // The last attempt is to have time for its answer.
            if refusal == Some(Refusal::Demoted) {
                shard.demoted.notify_one();
            }
            match refusal.filter(|_| Instant::now() + self.deadline / 2 < end) {
                Some(Refusal::Moved) => Box::pin(self.doubt()).await,
                Some(Refusal::Moving) => sleep(MOVING_WAIT).await,
                Some(Refusal::Demoted) | None => return Err(store_error(call, error)),
            }
        }
    }

    /// Sends a command.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn ask(&self, line: Line, ask: Ask) -> Result<Reply, StoreError> {
        let value = self.follow(ask.name, slot_of(&ask.key), |shard| run(shard, line, &ask)).await?;
        Ok(Reply::new(ask.name, value))
    }

    /// Sends commands, those of one primary in few round trips; gives the replies in order.
    ///
    /// # Errors
    /// The first [`StoreError`]; the other commands may have been carried out.
    pub async fn ask_all(&self, line: Line, asks: Vec<Ask>) -> Result<Vec<Value>, StoreError> {
        let mut replies = vec![Value::Null; asks.len()];
        for answered in self.ask_groups(line, &asks).await? {
            put(&mut replies, answered?, |value| value);
        }
        Ok(replies)
    }

    /// As [`Fleet::ask_all`], with None for commands of a primary that did not answer.
    ///
    /// # Errors
    /// [`StoreError`] where no primary answered.
    pub async fn ask_each(&self, line: Line, asks: Vec<Ask>) -> Result<Vec<Option<Value>>, StoreError> {
        let mut replies = vec![None; asks.len()];
        let (mut is_any, mut failure) = (false, None);
        for answered in self.ask_groups(line, &asks).await? {
            match answered {
                Ok(answered) => {
                    is_any = true;
                    put(&mut replies, answered, Some);
                }
                Err(error) => failure = Some(error),
            }
        }
        match failure.filter(|_| !is_any) {
            Some(failure) => Err(failure),
            None => Ok(replies),
        }
    }

    /// Sends commands, and gives the replies of each primary with their places.
    async fn ask_groups(&self, line: Line, asks: &[Ask]) -> Result<Vec<Answers>, StoreError> {
        let mut groups: Vec<(Arc<Shard>, Vec<usize>)> = Vec::new();
        for (at, ask) in asks.iter().enumerate() {
            let shard = self.shard(slot_of(&ask.key))?;
            let open = groups.iter_mut().find(|(known, places)| known.id == shard.id && places.len() < PIPELINE_MAX);
            match open {
                Some((_, places)) => places.push(at),
                None => groups.push((shard, vec![at])),
            }
        }
        let runs = groups.into_iter().map(|(shard, places)| self.ask_one(shard, line, asks, places));
        Ok(join_all(runs).await)
    }

    /// The replies of one primary to those of the commands that are its own, with their places.
    async fn ask_one(&self, shard: Arc<Shard>, line: Line, asks: &[Ask], places: Vec<usize>) -> Answers {
        let client = client_of(&shard, line);
        ensure_up(client).map_err(|error| store_error("pipeline", error))?;
        let pipeline = client.pipeline();
        let mut sent: Vec<(usize, &Ask)> = Vec::with_capacity(places.len());
        for at in places {
            let Some(ask) = asks.get(at) else { continue };
            let _queued: Value = Box::pin(pipeline.custom(ask.command(), ask.arguments()))
                .await
                .map_err(|error| store_error(ask.name, error))?;
            sent.push((at, ask));
        }
        let mut answers = Box::pin(pipeline.try_all::<Value>()).await.into_iter(); // as in `run`
        let mut replies = Vec::with_capacity(sent.len());
        for (at, ask) in sent {
            let value = match answers.next() {
                Some(Ok(value)) => value,
                // It was refused, so that sending it again is no repeat.
                Some(Err(error)) if reply::refusal(&error).is_some() => {
                    self.follow(ask.name, slot_of(&ask.key), |shard| run(shard, line, ask)).await?
                }
                Some(Err(error)) => return Err(store_error(ask.name, error)),
                None => return Err(unavailable("a pipeline was answered in part")),
            };
            replies.push((at, value));
        }
        Ok(replies)
    }

    /// Notes whether a primary answers, for the metric of the store as a whole.
    pub fn note_up(&self) {
        let map = self.map.borrow();
        metrics::store_up(map.is_whole() && map.shards.iter().all(|shard| shard.is_answering()));
    }
}

/// Replies with the places of their commands.
type Answers = Result<Vec<(usize, Value)>, StoreError>;

fn put<T>(replies: &mut [T], answered: Vec<(usize, Value)>, wrap: impl Fn(Value) -> T) {
    for (at, value) in answered {
        if let Some(reply) = replies.get_mut(at) {
            *reply = wrap(value);
        }
    }
}

/// The connection of a primary that a command takes which waits for no replica.
pub fn client_of(shard: &Shard, line: Line) -> &Client {
    match line {
        Line::Reads => &shard.reads,
        Line::Commands | Line::Committed => &shard.commands,
    }
}

async fn run(shard: Arc<Shard>, line: Line, ask: &Ask) -> Result<Value, Error> {
    let client = client_of(&shard, line);
    ensure_up(client)?;
    // Boxed, for what fred keeps of a command is large, and every call of the store would have room for it.
    Box::pin(client.custom(ask.command(), ask.arguments())).await
}
