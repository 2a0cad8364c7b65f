//! The one thread that changes the file.
//!
//! Owns the grouping of changes: whatever waits goes into one transaction and shares its sync, and
//! a lone change waits for no company. Nothing is told or answered before the sync, nor seen by who reads. A
//! change that fails by itself is answered so and disturbs no other; where a file fails the transaction is
//! lost, the files are opened again, and what only the lack of room kept from its transaction is tried once
//! more without the messages. Never decides an outcome; that is [`super::changes`]. Started by [`super`].

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

use crate::ids::{NodeId, unix_ms};
use crate::store::embedded::changes::{Change, Scene, remove_ended_keys};
use crate::store::embedded::disk::{Disk, guarded};
use crate::store::embedded::feed::Feed;
use crate::store::embedded::tables::{Changes, Failure, Tables};
use crate::store::{FeedEvent, GapCause, StoreError, StoreSettings};

/// Changes that may wait for the thread.
pub const WAITING_MAX: usize = 4096;
/// Changes of one transaction.
const BATCH_MAX: usize = 1024;
/// Bytes of one transaction, roughly; it ends with the change that reaches it.
const BATCH_BYTES: usize = 8 << 20;
/// How long the first of a transaction waits for those who shared the last one, and who have just had
/// their answers. Without it they split into two groups that wait for each other's syncs.
const REGROUP: Duration = Duration::from_micros(100);
/// Ended keys that a transaction removes beyond twice its own changes.
const ENDED_KEYS: usize = 64;

/// A change that waits for its transaction, and somebody for its outcome.
pub trait Job: Send {
    fn bytes(&self) -> usize;
    fn is_refused_when_full(&self) -> bool;
    fn is_look(&self) -> bool;
    /// # Errors
    /// [`Failure`] where the transaction is lost.
    fn apply(&mut self, tables: &mut Tables<'_>, scene: &mut Scene<'_>) -> Result<(), Failure>;
    fn answer(self: Box<Self>);
    fn refuse(self: Box<Self>, error: StoreError);
}

/// What somebody waits for.
pub type Answer<T> = Result<T, StoreError>;

struct Pending<C: Change> {
    call: &'static str,
    change: C,
    outcome: Option<Answer<C::Outcome>>,
    answer: oneshot::Sender<Answer<C::Outcome>>,
}

/// A job for the thread, and where its outcome comes out.
pub fn job<C: Change>(call: &'static str, change: C) -> (Box<dyn Job>, oneshot::Receiver<Answer<C::Outcome>>) {
    let (answer, outcome) = oneshot::channel();
    (Box::new(Pending { call, change, outcome: None, answer }), outcome)
}

impl<C: Change> Job for Pending<C> {
    fn bytes(&self) -> usize {
        self.change.bytes()
    }

    fn is_refused_when_full(&self) -> bool {
        C::IS_REFUSED_WHEN_FULL
    }

    fn is_look(&self) -> bool {
        C::IS_LOOK
    }

    fn apply(&mut self, tables: &mut Tables<'_>, scene: &mut Scene<'_>) -> Result<(), Failure> {
        self.outcome = Some(match self.change.apply(tables, scene) {
            Ok(outcome) => Ok(outcome),
            Err(row @ Failure::Row { .. }) => Err(row.of_call(self.call)),
            Err(lost) => return Err(lost),
        });
        Ok(())
    }

    fn answer(self: Box<Self>) {
        if let Some(outcome) = self.outcome {
            // Who asked may have stopped waiting.
            let _ = self.answer.send(outcome);
        }
    }

    fn refuse(self: Box<Self>, error: StoreError) {
        // Who asked may have stopped waiting.
        let _ = self.answer.send(Err(error));
    }
}

/// What the thread works with.
pub struct Writer {
    pub disk: Disk,
    pub queue: mpsc::Receiver<Box<dyn Job>>,
    pub feed: Arc<Feed>,
    pub node: NodeId,
    pub settings: StoreSettings,
    /// How many transactions were synced.
    pub commits: Arc<AtomicU64>,
}

impl Writer {
    /// Works until nobody can ask any more, and closes the file.
    pub fn run(mut self) {
        let mut expected = 1;
        while let Some(first) = self.queue.blocking_recv() {
            self.regroup(expected);
            let batch = self.gather(first);
            expected = batch.len();
            self.serve(batch);
            self.disk.sync_when_due();
        }
        self.disk.close();
    }

    /// Who was alone waits for nobody.
    fn regroup(&self, expected: usize) {
        let began = Instant::now();
        while self.queue.len() + 1 < expected && began.elapsed() < REGROUP {
            std::thread::yield_now();
        }
    }

    fn gather(&mut self, first: Box<dyn Job>) -> Vec<Box<dyn Job>> {
        let mut bytes = first.bytes();
        let mut batch = vec![first];
        while batch.len() < BATCH_MAX && bytes < BATCH_BYTES {
            let Ok(next) = self.queue.try_recv() else { break };
            bytes += next.bytes();
            batch.push(next);
        }
        batch
    }

    fn serve(&mut self, mut batch: Vec<Box<dyn Job>>) {
        if !self.disk.slot().is_open() {
            self.disk.reopen();
            if !self.disk.slot().is_open() {
                return refuse_all(batch, &Failure::Closed);
            }
        }
        if !self.disk.reserve().is_there() {
            batch = refuse_what_can_wait(batch);
        }
        if batch.is_empty() {
            return;
        }
        match self.transact(&mut batch) {
            Ok(events) => self.finish(batch, events),
            Err(failure) => self.recover(batch, &failure),
        }
    }

    fn finish(&self, batch: Vec<Box<dyn Job>>, events: Vec<FeedEvent>) {
        // Told first, as in Redis: who has an answer and then signals is not to overtake itself.
        for event in events {
            self.feed.tell(event);
        }
        for job in batch {
            job.answer();
        }
    }

    fn recover(&mut self, batch: Vec<Box<dyn Job>>, failure: &Failure) {
        tracing::warn!(%failure, changes = batch.len(), "the store's file failed; it is opened again");
        self.disk.reopen();
        // The transaction may have reached the disk all the same.
        self.feed.tell_gap(GapCause::Reconnected);
        if !failure.is_full() {
            // After a sync that failed a file may read as if it had been one.
            self.disk.sync_or_reopen();
            return refuse_all(batch, failure);
        }
        self.disk.reserve().spend();
        let mut rest = refuse_what_can_wait(batch);
        if rest.is_empty() {
            return;
        }
        match self.transact(&mut rest) {
            Ok(events) => self.finish(rest, events),
            Err(failure) => {
                self.disk.reopen();
                refuse_all(rest, &failure);
            }
        }
    }

    /// Does all of it in one transaction; what is to be told then.
    fn transact(&mut self, batch: &mut [Box<dyn Job>]) -> Result<Vec<FeedEvent>, Failure> {
        // There is no other thread like this.
        guarded(|| self.try_transact(batch))
    }

    fn try_transact(&mut self, batch: &mut [Box<dyn Job>]) -> Result<Vec<FeedEvent>, Failure> {
        let transaction = self.disk.begin()?;
        let (now_ms, events, changes) = (unix_ms(), Vec::new(), Changes::default());
        let mut scene = Scene { now_ms, node: &self.node, settings: &self.settings, events };
        let mut tables = Tables::open(&transaction, &changes)?;
        for job in batch.iter_mut() {
            job.apply(&mut tables, &mut scene)?;
        }
        remove_ended_keys(&mut tables, now_ms, ENDED_KEYS + 2 * batch.len())?;
        drop(tables);
        if self.disk.keep(transaction, &changes.into_bytes())? {
            self.commits.fetch_add(1, Ordering::Relaxed);
        }
        if batch.iter().any(|job| job.is_look()) {
            self.disk.show()?;
        }
        Ok(scene.events)
    }
}

/// Refuses the messages, and gives back what empties the disk.
fn refuse_what_can_wait(batch: Vec<Box<dyn Job>>) -> Vec<Box<dyn Job>> {
    let (refused, rest): (Vec<_>, Vec<_>) = batch.into_iter().partition(|job| job.is_refused_when_full());
    for job in refused {
        job.refuse(StoreError::Full);
    }
    rest
}

fn refuse_all(batch: Vec<Box<dyn Job>>, failure: &Failure) {
    for job in batch {
        job.refuse(match failure.is_full() {
            true => StoreError::Full,
            false => StoreError::Unavailable(failure.to_string().into()),
        });
    }
}
