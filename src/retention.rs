//! What is kept and for how long: ages out messages and devices, and makes room in a full log.
//!
//! Owns the rule of what may go: what is too old, and, where a log is full, what every registered
//! device is past. Never removes a younger entry that some device is still to get. Run by `node`,
//! asked by `socket` when a log is full.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tracing::{debug, warn};

use crate::ids::{MessageId, NodeId, ShopId};
use crate::message::Entry;
use crate::metrics;
use crate::nodes::Nodes;
use crate::store::{Device, Forget, PageLimit, Store, StoreError, Stored};

/// Shortest and longest time between two passes.
const PACE_MIN: Duration = Duration::from_millis(100);
const PACE_MAX: Duration = Duration::from_secs(3600);
/// How much of a log is read at once.
const PAGE: PageLimit = PageLimit { entries: 500, bytes: 4 << 20 };
/// Entries that making room looks at, at most.
const SEARCH_MAX: usize = 10_000;
/// The share of a full log that is removed at once where it may be.
const ROOM_SHARE: u64 = 50;
/// How long a log that had no room is taken to have none.
const FULL_FOR: Duration = Duration::from_millis(500);

/// See the module.
pub struct Retention {
    store: Arc<dyn Store>,
    nodes: Arc<Nodes>,
    node: NodeId,
    messages: Duration,
    devices: Duration,
    log_entries: u64,
    /// Shops whose log had no room, and until when that is taken for granted.
    full: Mutex<HashMap<ShopId, Instant>>,
}

impl Retention {
    /// Keeps messages and devices this long, and so many entries a log.
    pub fn new(
        store: Arc<dyn Store>,
        nodes: Arc<Nodes>,
        node: NodeId,
        kept: &crate::config::Retention,
        log_entries: u64,
    ) -> Retention {
        let (messages, devices) = (kept.messages, kept.devices);
        Retention { store, nodes, node, messages, devices, log_entries, full: Mutex::default() }
    }

    /// Removes what every registered device of the shop is past, the oldest first; whether it removed
    /// anything.
    ///
    /// # Errors
    /// The store cannot be reached.
    pub async fn make_room(&self, shop: &ShopId) -> Result<bool, StoreError> {
        let now = Instant::now();
        {
            let mut full = self.full.lock();
            full.retain(|_, until| *until > now);
            if full.contains_key(shop) {
                return Ok(false);
            }
        }
        let through = self.past_everybody(shop).await?;
        let count = (self.log_entries / ROOM_SHARE).max(1) as usize;
        let removed = self.store.trim(shop, through, count).await?;
        if removed == 0 {
            warn!(%shop, "the log is full of what some device has not received; further messages are refused");
            self.full.lock().insert(shop.clone(), now + FULL_FOR);
        } else {
            debug!(%shop, removed, "made room in a full log");
        }
        Ok(removed > 0)
    }

    /// The id up to which nothing in the log is for a registered device that has not got it.
    async fn past_everybody(&self, shop: &ShopId) -> Result<MessageId, StoreError> {
        let devices = self.store.devices(shop).await?;
        let mut through = match devices.iter().map(|device| device.cursor).min() {
            Some(cursor) => cursor,
            None => return self.store.head(shop).await,
        };
        let mut seen = 0;
        while seen < SEARCH_MAX {
            let page = self.store.read(shop, through, PAGE).await?;
            for stored in &page.entries {
                if devices.iter().any(|device| awaits(device, stored)) {
                    return Ok(through);
                }
                through = stored.id;
            }
            through = page.last;
            seen += page.entries.len();
            if page.is_end {
                break;
            }
        }
        Ok(through)
    }

    /// Does its work at its pace, until it is dropped. One node of all works at a time.
    pub async fn run(&self) {
        let pace = (self.messages.min(self.devices) / 10).clamp(PACE_MIN, PACE_MAX);
        // The claim is for most of the pace and asked for often, so that another node goes on in time
        // where the one that had it is gone.
        let mut ticks = tokio::time::interval(pace / 10);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut worked: Option<Instant> = None;
        loop {
            ticks.tick().await;
            if worked.is_some_and(|worked| worked.elapsed() < pace * 8 / 10) {
                continue;
            }
            match self.pass(pace * 8 / 10).await {
                Ok(true) => worked = Some(Instant::now()),
                Ok(false) => {}
                Err(error) => debug!(%error, "retention waits for the store"),
            }
        }
    }

    /// Goes over every shop; false where another node does.
    async fn pass(&self, lease: Duration) -> Result<bool, StoreError> {
        if !self.store.claim("retention", &self.node, lease).await? {
            return Ok(false);
        }
        let mut failed = None;
        for shop in self.store.shops().await? {
            // One shop that cannot be dealt with must not keep the others waiting.
            if let Err(error) = self.tidy(&shop).await {
                debug!(%shop, %error, "a shop was left for the next pass");
                failed = Some(error);
            }
        }
        failed.map_or(Ok(true), Err)
    }

    async fn tidy(&self, shop: &ShopId) -> Result<(), StoreError> {
        self.age_out(shop).await?;
        self.forget_devices(shop).await?;
        self.clear_ghosts(shop).await
    }

    /// Removes messages that are too old, and counts each once for every device that never got it.
    async fn age_out(&self, shop: &ShopId) -> Result<(), StoreError> {
        let cutoff_ms = self.store.now_ms().saturating_sub(self.messages.as_millis() as u64);
        let mut devices = None;
        let mut after = MessageId::ZERO;
        // Mostly there is nothing old, which the oldest entry tells.
        let oldest = self.store.read(shop, after, PageLimit { entries: 1, bytes: 1 }).await?;
        if oldest.entries.first().is_none_or(|stored| stored.id.ms >= cutoff_ms) {
            return Ok(());
        }
        loop {
            let page = self.store.read(shop, after, PAGE).await?;
            let old: Vec<&Stored> = page.entries.iter().take_while(|stored| stored.id.ms < cutoff_ms).collect();
            let Some(last) = old.last() else { return Ok(()) };
            if devices.is_none() {
                devices = Some(self.store.devices(shop).await?);
            }
            let unseen = old.iter().map(|stored| {
                let waiting = devices.iter().flatten().filter(|device| awaits(device, stored));
                let is_message = matches!(stored.entry, Entry::Message(_));
                if is_message { waiting.count() as u64 } else { 0 }
            });
            let unseen: u64 = unseen.sum();
            let removed = self.store.trim(shop, last.id, old.len()).await?;
            if unseen > 0 && removed > 0 {
                metrics::expired(unseen);
                warn!(%shop, unseen, through = %last.id, "messages grew too old before every device had them");
            }
            after = last.id;
            if page.is_end || old.len() < page.entries.len() {
                return Ok(());
            }
        }
    }

    async fn forget_devices(&self, shop: &ShopId) -> Result<(), StoreError> {
        let cutoff_ms = self.store.now_ms().saturating_sub(self.devices.as_millis() as u64);
        for device in self.store.devices(shop).await?.iter().filter(|device| device.last_seen_ms < cutoff_ms) {
            if self.store.forget(shop, &device.device, Forget::UnseenSince(cutoff_ms)).await? {
                warn!(%shop, device = %device.device, "forgot a device that has been away for too long");
            }
        }
        Ok(())
    }

    /// Ends the presence of devices whose node died.
    async fn clear_ghosts(&self, shop: &ShopId) -> Result<(), StoreError> {
        for entry in self.store.online(shop).await? {
            let is_heard = self.nodes.has_heard(&self.node);
            if is_heard && self.nodes.state_of(&entry, Instant::now(), self.store.now_ms()).is_none() {
                self.store.disconnect(shop, &entry.device, &entry.conn, None).await?;
            }
        }
        Ok(())
    }
}

/// Whether a device is still to get an entry.
fn awaits(device: &Device, stored: &Stored) -> bool {
    device.cursor < stored.id && stored.entry.is_for(device.recipient())
}
