//! Events on their way to the stream for back-end workers.
//!
//! Owns their order and what happens while the store is away: what was to be told waits, up to a
//! bound, and is then dropped and counted; a device's call is never kept waiting, it fails. Written
//! once at least: what the store may have taken is added again. Never reads the stream; workers do.
//! Fed by `socket` and `relay`, run by `node`.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};
use tracing::{debug, warn};

use crate::ids::NodeId;
use crate::metrics;
use crate::store::{Event, EventKind, Store, StoreError};

/// Events that may wait to be written.
const WAITING_MAX: usize = 8192;
/// Events of one call of the store.
const BATCH_MAX: usize = 256;
/// Wait after a call that failed.
const RETRY_WAIT: Duration = Duration::from_millis(250);

/// See the module.
pub struct Events {
    store: Arc<dyn Store>,
    is_on: bool,
    /// In order; what is being written stays at the front until it is.
    waiting: Mutex<VecDeque<Waiting>>,
    wake: Notify,
    emptied: Notify,
}

/// An event, and who waits until it is in the stream, if anyone does.
struct Waiting {
    event: Event,
    done: Option<oneshot::Sender<Result<(), StoreError>>>,
}

impl Events {
    /// The way to the stream, or nowhere.
    pub fn new(store: Arc<dyn Store>, is_on: bool) -> Events {
        Events { store, is_on, waiting: Mutex::default(), wake: Notify::new(), emptied: Notify::new() }
    }

    /// Whether there is a stream.
    pub fn is_on(&self) -> bool {
        self.is_on
    }

    /// An event that says no more than that it happened.
    pub fn event(kind: EventKind, node: &NodeId, at_ms: u64) -> Event {
        Event { kind, at_ms, node: node.clone(), conn: None, shop: None, device: None, role: None, user: None }
    }

    /// Has an event written, after those told before; it is only made where there is a stream.
    pub fn tell(&self, event: impl FnOnce() -> Event) {
        if self.is_on && !self.push(Waiting { event: event(), done: None }) {
            metrics::events_dropped(1);
        }
    }

    /// Adds an event, after those told before; it is in the stream when this returns. Where the store
    /// is away this fails with the first write that does. Dropping the future leaves the event to be
    /// written.
    ///
    /// # Errors
    /// It could not be added; after [`StoreError::Unavailable`] it may be in the stream all the same.
    pub async fn add(&self, event: Event) -> Result<(), StoreError> {
        let (done, outcome) = oneshot::channel();
        if !self.is_on || !self.push(Waiting { event, done: Some(done) }) {
            return Err(away());
        }
        outcome.await.unwrap_or_else(|_| Err(away()))
    }

    /// Whether there was room for it.
    fn push(&self, event: Waiting) -> bool {
        let mut waiting = self.waiting.lock();
        if waiting.len() >= WAITING_MAX {
            return false;
        }
        waiting.push_back(event);
        drop(waiting);
        self.wake.notify_one();
        true
    }

    /// Writes what comes, until it is dropped; what is being written then may or may not be.
    pub async fn run(&self) {
        loop {
            let batch: Vec<Event> =
                self.waiting.lock().iter().take(BATCH_MAX).map(|waiting| waiting.event.clone()).collect();
            if batch.is_empty() {
                self.emptied.notify_waiters();
                self.wake.notified().await;
                continue;
            }
            match self.store.add_events(&batch).await {
                Ok(()) => self.written(batch.len()),
                Err(error @ (StoreError::Unavailable(_) | StoreError::Full)) => {
                    self.to_be_tried_again(&error);
                    tokio::time::sleep(RETRY_WAIT).await;
                }
                Err(error) => self.refused(batch.len(), &error),
            }
        }
    }

    /// Waits until everything is written, or dropped. Cancel-safe.
    pub async fn finish(&self) {
        loop {
            let emptied = self.emptied.notified();
            if self.waiting.lock().is_empty() {
                return;
            }
            emptied.await;
        }
    }

    /// The first `count` events are in the stream.
    fn written(&self, count: usize) {
        metrics::events_added(count as u64);
        for done in self.take(count).into_iter().filter_map(|waiting| waiting.done) {
            let _ = done.send(Ok(())); // its connection may have gone
        }
    }

    /// The store is away. Who calls decides whether to call again, so no call waits for it to be back:
    /// not those behind the batch that was tried either.
    fn to_be_tried_again(&self, error: &StoreError) {
        let mut waiting = self.waiting.lock();
        waiting.retain_mut(|waiting| match waiting.done.take() {
            Some(done) => {
                let _ = done.send(Err(same(error))); // its connection may have gone
                false
            }
            None => true,
        });
        debug!(%error, count = waiting.len(), "events wait for the store");
    }

    /// The store will never take the first `count` events.
    fn refused(&self, count: usize, error: &StoreError) {
        warn!(%error, count, "events cannot be written and are dropped");
        metrics::events_dropped(count as u64);
        for done in self.take(count).into_iter().filter_map(|waiting| waiting.done) {
            let _ = done.send(Err(same(error))); // its connection may have gone
        }
    }

    fn take(&self, count: usize) -> Vec<Waiting> {
        let mut waiting = self.waiting.lock();
        let taken = (0..count).map_while(|_| waiting.pop_front()).collect();
        if waiting.is_empty() {
            // An outage fills it, a quiet node should hold none of that.
            waiting.shrink_to(BATCH_MAX);
        }
        taken
    }
}

fn away() -> StoreError {
    StoreError::Unavailable("the event stream cannot be written".into())
}

/// The error once more, for everyone who waits.
fn same(error: &StoreError) -> StoreError {
    match error {
        StoreError::Unavailable(_) => away(),
        StoreError::Full => StoreError::Full,
        StoreError::Nonsense { call, seen } => StoreError::Nonsense { call, seen: seen.clone() },
    }
}
