//! Events from the engine to the rooms.
//!
//! Owns the set of shops that are listened to, and the order of events. Never waits: where whoever
//! takes the events is too slow they are dropped, and a gap is told as soon as there is room, so that
//! every room reads its log. Called by [`super::writer`] and [`super::engine`].

use std::collections::HashSet;

use parking_lot::{Mutex, RwLock};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{Notify, mpsc};

use crate::ids::ShopId;
use crate::store::{FeedEvent, GapCause};

/// Events that may wait to be taken.
const EVENTS_MAX: usize = 4096;

/// See the module.
#[derive(Debug)]
pub struct Feed {
    events: mpsc::Sender<FeedEvent>,
    shops: RwLock<HashSet<ShopId>>,
    /// A gap that is still to be told; until then everything is dropped, for the gap covers it.
    untold: Mutex<Option<GapCause>>,
    wake: Notify,
}

impl Feed {
    /// A feed that nobody listens to yet, and where its events come out.
    pub fn new() -> (Feed, mpsc::Receiver<FeedEvent>) {
        let (events, taken) = mpsc::channel(EVENTS_MAX);
        (Feed { events, shops: RwLock::default(), untold: Mutex::default(), wake: Notify::new() }, taken)
    }

    /// From now on the shop's events come out.
    pub fn join(&self, shop: &ShopId) {
        self.shops.write().insert(shop.clone());
    }

    /// Ends [`Feed::join`].
    pub fn leave(&self, shop: &ShopId) {
        self.shops.write().remove(shop);
    }

    /// Whether anyone listens to the shop.
    pub fn hears(&self, shop: &ShopId) -> bool {
        self.shops.read().contains(shop)
    }

    /// Tells an event, after those told before.
    pub fn tell(&self, event: FeedEvent) {
        let is_heard = match &event {
            FeedEvent::Entry { shop, .. }
            | FeedEvent::Signal { shop, .. }
            | FeedEvent::Receipt { shop, .. }
            | FeedEvent::Replaced { shop, .. }
            | FeedEvent::Evicted { shop, .. }
            | FeedEvent::Barred { shop, .. } => self.hears(shop),
            // They are for every shop.
            FeedEvent::Broadcast(_) | FeedEvent::LegacyText(_) => true,
            // Told by `tell_gap`.
            FeedEvent::Gap(_) => false,
        };
        if !is_heard {
            return;
        }
        let mut untold = self.untold.lock();
        if untold.is_some() {
            return;
        }
        // Where nobody takes events any more, the node is stopping.
        if let Err(TrySendError::Full(_)) = self.events.try_send(event) {
            tracing::warn!("events came faster than they were taken; every room will read its log");
            *untold = Some(GapCause::Lagged);
            self.wake.notify_one();
        }
    }

    /// Tells that events may be missing.
    pub fn tell_gap(&self, cause: GapCause) {
        self.untold.lock().get_or_insert(cause);
        self.wake.notify_one();
    }

    /// Tells gaps when there is room for them, until it is dropped or nobody takes events.
    pub async fn run(&self) {
        loop {
            self.wake.notified().await;
            let Ok(room) = self.events.reserve().await else { return };
            let mut untold = self.untold.lock();
            if let Some(cause) = untold.take() {
                room.send(FeedEvent::Gap(cause));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(shop: &str) -> FeedEvent {
        FeedEvent::Replaced { shop: shop.parse().unwrap(), device: "d".parse().unwrap(), conn: "c".parse().unwrap() }
    }

    #[tokio::test]
    async fn what_nobody_takes_is_told_as_a_gap_and_then_events_come_again() {
        let (feed, mut taken) = Feed::new();
        feed.join(&"s".parse().unwrap());
        for _ in 0..EVENTS_MAX + 10 {
            feed.tell(event("s"));
            feed.tell(event("unheard"));
        }
        let telling = feed.run();
        let taking = async {
            for _ in 0..EVENTS_MAX {
                assert!(matches!(taken.recv().await, Some(FeedEvent::Replaced { .. })));
            }
            assert!(matches!(taken.recv().await, Some(FeedEvent::Gap(GapCause::Lagged))));
            feed.tell(event("s"));
            assert!(matches!(taken.recv().await, Some(FeedEvent::Replaced { .. })));
        };
        tokio::select! {
            () = telling => panic!("it goes on"),
            () = taking => {}
        }
    }
}
