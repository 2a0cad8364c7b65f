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

use crate::ids::{ConnId, DeviceId, MessageId, ShopId};
use crate::metrics;
use crate::planted::{self, Fault};
use crate::session::Proven;
use crate::store::{Mark, Marked, Receipt, Store, StoreError};

/// Shops whose proofs are written at the same time.
const FLUSHES_MAX: usize = 64;
/// Devices whose proofs go into one call, so that its outcome is known for all or for none.
const MARKS_MAX: usize = 100;
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
    marks: Marks,
    departures: Vec<Departure>,
    is_scheduled: bool,
}

/// A connection that ended.
struct Departure {
    device: DeviceId,
    conn: ConnId,
    /// Where the cursor may go, unless a newer connection has taken over.
    settled: Option<MessageId>,
}

type Marks = HashMap<DeviceId, PendingMark>;

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
    /// What one flush writes: so many marks, and the departures where no mark is left before them.
    fn take(&mut self) -> (Marks, Vec<Departure>) {
        if self.marks.len() > MARKS_MAX {
            let devices: Vec<DeviceId> = self.marks.keys().take(MARKS_MAX).cloned().collect();
            let marks = devices.into_iter().filter_map(|device| self.marks.remove_entry(&device)).collect();
            return (marks, Vec::new());
        }
        (std::mem::take(&mut self.marks), std::mem::take(&mut self.departures))
    }

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
            pending.departures.push(Departure { device: device.clone(), conn: conn.clone(), settled });
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
            pending.take()
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
        pending: Marks,
        mut departures: Vec<Departure>,
    ) -> (Marks, Vec<Departure>, Result<(), StoreError>) {
        let marks: Vec<Mark> = pending
            .iter()
            .filter(|_| !planted::strikes(Fault::SkipMark))
            .map(|(device, mark)| Mark { device: device.clone(), through: mark.through, expired: mark.expired.clone() })
            .collect();
        if !marks.is_empty() {
            match self.store.mark_delivered(shop, &marks).await {
                Ok(outcomes) => {
                    let receipts = count(&marks, pending, &outcomes, self.store.now_ms());
                    if !receipts.is_empty()
                        && let Err(error) = self.store.send_receipts(shop, &receipts).await
                    {
                        warn!(%shop, %error, count = receipts.len(), "receipts were not sent");
                    }
                }
                Err(error) => return (pending, departures, Err(error)),
            }
        }
        while let Some(departure) = departures.pop() {
            let Departure { device, conn, settled } = &departure;
            if let Err(error) = self.store.disconnect(shop, device, conn, *settled).await {
                departures.push(departure);
                return (Marks::new(), departures, Err(error));
            }
        }
        (Marks::new(), departures, Ok(()))
    }
}

/// Counts what the store says is proven for the first time; the receipts that are owed for it.
fn count(marks: &[Mark], mut pending: Marks, outcomes: &[Marked], now_ms: u64) -> Vec<Receipt> {
    let mut receipts = Vec::new();
    for (mark, outcome) in marks.iter().zip(outcomes) {
        let (Marked::Advanced { from }, Some(mut proofs)) = (outcome, pending.remove(&mark.device)) else {
            continue;
        };
        // Two connections of the device on this node may have proven the same message.
        proofs.delivered.sort_by_key(|(id, _)| *id);
        proofs.delivered.dedup_by_key(|(id, _)| *id);
        proofs.expired.sort();
        proofs.expired.dedup();
        metrics::expired(proofs.expired.iter().filter(|id| *id > from).count() as u64);
        for (message, receipt_to) in proofs.delivered.into_iter().filter(|(id, _)| id > from) {
            metrics::delivered(Duration::from_millis(now_ms.saturating_sub(message.ms)));
            if let Some(sender) = receipt_to {
                receipts.push(Receipt { sender, message, device: mark.device.clone(), at_ms: now_ms.max(message.ms) });
            }
        }
    }
    receipts
}
