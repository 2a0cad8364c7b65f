//! Events on their way to the stream for back-end workers.
//!
//! Owns their order and what happens while the store is away: what was to be told waits, up to a
//! bound, and is then dropped and counted; a device's call is never kept waiting, it fails. Written
//! once at least: what the store may have taken is added again. Never reads the stream; workers do.
//! Fed by `socket` and `relay`, run by `node`.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
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
    /// None where there is no stream.
    queue: Option<mpsc::Sender<Waiting>>,
    waiting: Mutex<Option<mpsc::Receiver<Waiting>>>,
}

/// An event, and who waits until it is in the stream, if anyone does.
struct Waiting {
    event: Event,
    done: Option<oneshot::Sender<Result<(), StoreError>>>,
}

impl Events {
    /// The way to the stream, or nowhere.
    pub fn new(store: Arc<dyn Store>, is_on: bool) -> Events {
        let (queue, waiting) = mpsc::channel(WAITING_MAX);
        match is_on {
            true => Events { store, queue: Some(queue), waiting: Mutex::new(Some(waiting)) },
            false => Events { store, queue: None, waiting: Mutex::default() },
        }
    }

    /// Whether there is a stream.
    pub fn is_on(&self) -> bool {
        self.queue.is_some()
    }

    /// An event that says no more than that it happened.
    pub fn event(kind: EventKind, node: &NodeId, at_ms: u64) -> Event {
        Event { kind, at_ms, node: node.clone(), conn: None, shop: None, device: None, role: None, user: None }
    }

    /// Has an event written, after those told before; it is only made where there is a stream.
    pub fn tell(&self, event: impl FnOnce() -> Event) {
        let Some(queue) = &self.queue else { return };
        if queue.try_send(Waiting { event: event(), done: None }).is_err() {
            metrics::event_dropped();
        }
    }

    /// Adds an event, after those told before; it is in the stream when this returns.
    ///
    /// # Errors
    /// The store cannot be reached; it may be in the stream all the same.
    pub async fn add(&self, event: Event) -> Result<(), StoreError> {
        let away = || StoreError::Unavailable("the event stream cannot be written".into());
        let queue = self.queue.as_ref().ok_or_else(away)?;
        let (done, outcome) = oneshot::channel();
        queue.try_send(Waiting { event, done: Some(done) }).map_err(|_| away())?;
        outcome.await.unwrap_or_else(|_| Err(away()))
    }

    /// Writes what comes, until it is dropped.
    pub async fn run(&self) {
        let Some(mut queue) = self.waiting.lock().take() else { return std::future::pending().await };
        let mut batch = Vec::with_capacity(BATCH_MAX);
        loop {
            let free = BATCH_MAX - batch.len();
            if free > 0 && (batch.is_empty() || !queue.is_empty()) && queue.recv_many(&mut batch, free).await == 0 {
                return;
            }
            self.write(&mut batch).await;
            if !batch.is_empty() {
                tokio::time::sleep(RETRY_WAIT).await;
            }
        }
    }

    /// Writes a batch; what is to be tried again is left in it.
    async fn write(&self, batch: &mut Vec<Waiting>) {
        let events: Vec<Event> = batch.iter().map(|waiting| waiting.event.clone()).collect();
        let outcome = self.store.add_events(&events).await;
        match &outcome {
            Ok(()) => metrics::events_added(events.len() as u64),
            Err(StoreError::Unavailable(_) | StoreError::Full) => {
                debug!(count = events.len(), "events wait for the store");
            }
            Err(error) => {
                warn!(%error, count = events.len(), "events cannot be written and are dropped");
                events.iter().for_each(|_| metrics::event_dropped());
            }
        }
        let is_to_be_tried_again = matches!(outcome, Err(StoreError::Unavailable(_) | StoreError::Full));
        let mut left = Vec::new();
        for waiting in batch.drain(..) {
            match (waiting.done, &outcome) {
                (Some(done), Ok(())) => drop(done.send(Ok(()))),
                // Dropped, it says that it failed. Who calls decides whether to call again.
                (Some(_), Err(_)) => {}
                (None, Err(_)) if is_to_be_tried_again => left.push(Waiting { event: waiting.event, done: None }),
                (None, _) => {}
            }
        }
        *batch = left;
    }
}
