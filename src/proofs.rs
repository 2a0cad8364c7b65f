//! Proofs of receipt on their way to the store, and the departures behind them.
//!
//! Owns what is acknowledged and not yet written down: merged per shop, one mark a device, flushed as
//! soon as the shop's flush before is back, kept while the store is away. Counts deliveries where
//! the store says that a cursor moved, so that each is counted once in the whole deployment. Never
//! talks to a socket. Fed by `socket`.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tracing::{debug, warn};

use crate::ids::{ConnId, DeviceId, MessageId, ShopId, unix_ms};
use crate::metrics;
use crate::session::Proven;
use crate::store::{Mark, Marked, Receipt, Store, StoreError};

/// Shops whose proofs are written at the same time.
const FLUSHES_MAX: usize = 64;
/// Wait after a flush that failed.
const RETRY_WAIT: Duration = Duration::from_millis(250);
/// Deliveries of one device that may wait to be counted; the proof itself is one id.
const UNCOUNTED_MAX: usize = 10_000;

/// See the module.
pub struct Proofs {
    store: Arc<dyn Store>,
    state: Mutex<State>,
    wake: Notify,
    emptied: Notify,
}

#[derive(Default)]
struct State {
    shops: HashMap<ShopId, Pending>,
    /// Shops with something to write that nobody is writing.
    ready: VecDeque<ShopId>,
}

#[derive(Default)]
struct Pending {
    marks: HashMap<DeviceId, PendingMark>,
    departures: Vec<(DeviceId, ConnId)>,
    is_scheduled: bool,
}

#[derive(Default)]
struct PendingMark {
    through: MessageId,
    delivered: Vec<(MessageId, Option<DeviceId>)>,
    expired: Vec<MessageId>,
}

impl PendingMark {
    fn add(&mut self, proven: Proven) {
        self.through = self.through.max(proven.through);
        self.delivered.extend(proven.delivered);
        self.delivered.truncate(UNCOUNTED_MAX);
        self.expired.extend(proven.expired);
    }

    /// Puts back what an earlier flush took and could not write.
    fn add_earlier(&mut self, mut earlier: PendingMark) {
        self.through = self.through.max(earlier.through);
        earlier.delivered.append(&mut self.delivered);
        earlier.delivered.truncate(UNCOUNTED_MAX);
        self.delivered = earlier.delivered;
        self.expired.append(&mut earlier.expired);
    }
}

impl Pending {
    fn is_empty(&self) -> bool {
        self.marks.is_empty() && self.departures.is_empty()
    }
}

impl Proofs {
    /// Nothing waits yet.
    pub fn new(store: Arc<dyn Store>) -> Proofs {
        Proofs { store, state: Mutex::default(), wake: Notify::new(), emptied: Notify::new() }
    }

    /// A device proved receipt.
    pub fn proven(&self, shop: &ShopId, device: &DeviceId, proven: Proven) {
        self.change(shop, |pending| pending.marks.entry(device.clone()).or_default().add(proven));
    }

    /// A connection ended: its presence goes once its proofs are written.
    pub fn departed(&self, shop: &ShopId, device: &DeviceId, conn: &ConnId, settled: Option<MessageId>) {
        self.change(shop, |pending| {
            if let Some(settled) = settled.filter(|settled| *settled > MessageId::ZERO) {
                let mark = pending.marks.entry(device.clone()).or_default();
                mark.through = mark.through.max(settled);
            }
            pending.departures.push((device.clone(), conn.clone()));
        });
    }

    fn change(&self, shop: &ShopId, change: impl FnOnce(&mut Pending)) {
        let mut state = self.state.lock();
        let pending = match state.shops.get_mut(shop) {
            Some(pending) => pending,
            None => state.shops.entry(shop.clone()).or_default(),
        };
        change(pending);
        if !std::mem::replace(&mut pending.is_scheduled, true) {
            state.ready.push_back(shop.clone());
            drop(state);
            self.wake.notify_one();
        }
    }

    /// Writes what comes, until it is dropped; what is being written then may or may not be.
    pub async fn run(self: Arc<Self>) {
        let mut flushes = JoinSet::new();
        loop {
            while flushes.len() < FLUSHES_MAX {
                let Some(shop) = self.state.lock().ready.pop_front() else {
                    break;
                };
                let proofs = self.clone();
                flushes.spawn(async move { proofs.flush(shop).await });
            }
            tokio::select! {
                () = self.wake.notified() => {}
                Some(_) = flushes.join_next() => {}
            }
        }
    }

    /// Waits until everything is written. Cancel-safe.
    pub async fn finish(&self) {
        loop {
            let emptied = self.emptied.notified();
            if self.state.lock().shops.is_empty() {
                return;
            }
            emptied.await;
        }
    }

    async fn flush(&self, shop: ShopId) {
        let (marks, departures) = {
            let mut state = self.state.lock();
            let Some(pending) = state.shops.get_mut(&shop) else {
                return;
            };
            (std::mem::take(&mut pending.marks), std::mem::take(&mut pending.departures))
        };
        let (marks, departures, outcome) = self.write(&shop, marks, departures).await;
        if let Err(error) = outcome {
            debug!(%shop, %error, "proofs of receipt wait for the store");
            tokio::time::sleep(RETRY_WAIT).await;
        }
        let mut state = self.state.lock();
        let Some(pending) = state.shops.get_mut(&shop) else {
            return;
        };
        for (device, mark) in marks {
            pending.marks.entry(device).or_default().add_earlier(mark);
        }
        pending.departures.extend(departures);
        if !pending.is_empty() {
            state.ready.push_back(shop);
            drop(state);
            self.wake.notify_one();
            return;
        }
        state.shops.remove(&shop);
        if state.shops.is_empty() {
            // A deployment has many shops, a quiet node should hold none of them.
            state.shops.shrink_to(64);
            self.emptied.notify_waiters();
        }
    }

    /// Gives back what could not be written.
    async fn write(
        &self,
        shop: &ShopId,
        pending: HashMap<DeviceId, PendingMark>,
        mut departures: Vec<(DeviceId, ConnId)>,
    ) -> (HashMap<DeviceId, PendingMark>, Vec<(DeviceId, ConnId)>, Result<(), StoreError>) {
        let marks: Vec<Mark> = pending
            .iter()
            .map(|(device, mark)| Mark { device: device.clone(), through: mark.through, expired: mark.expired.clone() })
            .collect();
        if !marks.is_empty() {
            match self.store.mark_delivered(shop, &marks).await {
                Ok(outcomes) => {
                    let receipts = count(&marks, pending, &outcomes);
                    if !receipts.is_empty()
                        && let Err(error) = self.store.send_receipts(shop, &receipts).await
                    {
                        warn!(%shop, %error, count = receipts.len(), "receipts were not sent");
                    }
                }
                Err(error) => return (pending, departures, Err(error)),
            }
        }
        while let Some((device, conn)) = departures.pop() {
            if let Err(error) = self.store.disconnect(shop, &device, &conn).await {
                departures.push((device, conn));
                return (HashMap::new(), departures, Err(error));
            }
        }
        (HashMap::new(), departures, Ok(()))
    }
}

/// Counts what the store says is proven for the first time; the receipts that are owed for it.
fn count(marks: &[Mark], mut pending: HashMap<DeviceId, PendingMark>, outcomes: &[Marked]) -> Vec<Receipt> {
    let now_ms = unix_ms();
    let mut receipts = Vec::new();
    for (mark, outcome) in marks.iter().zip(outcomes) {
        let (Marked::Advanced { from }, Some(proofs)) = (outcome, pending.remove(&mark.device)) else {
            continue;
        };
        metrics::expired(proofs.expired.iter().filter(|id| *id > from).count() as u64);
        for (message, receipt_to) in proofs.delivered.into_iter().filter(|(id, _)| id > from) {
            metrics::delivered(Duration::from_millis(now_ms.saturating_sub(message.ms)));
            if let Some(sender) = receipt_to {
                receipts.push(Receipt { sender, message, device: mark.device.clone(), at_ms: now_ms });
            }
        }
    }
    receipts
}
