//! From fred's messages to the store's feed.
//!
//! Owns the order of events and the note of what was heard. Waits where the feed is full, so that
//! what overflows is fred's buffer, and that is told as a gap. Never subscribes anything. Run by
//! [`super::subscriptions`], one task for each primary.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use fred::types::Message;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{Notify, broadcast, mpsc};
use tokio::task::unconstrained;

use crate::metrics;
use crate::store::redis::keys::Keys;
use crate::store::redis::{payload, reply};
use crate::store::{FeedEvent, GapCause};

/// What this node heard of itself over one connection.
#[derive(Debug, Default)]
pub struct Ear {
    heard: AtomicU64,
    stalls: AtomicU64,
    is_stalled: AtomicBool,
    news: Notify,
}

impl Ear {
    /// The newest probe that arrived; 0 before the first.
    pub fn heard(&self) -> u64 {
        self.heard.load(Ordering::Acquire)
    }

    /// Waits until a probe arrived since the last call. Cancel-safe.
    pub async fn news(&self) {
        self.news.notified().await;
    }

    /// How often the feed was full so far; also counts a wait that still goes on, anew each time. A
    /// probe behind such a wait says nothing about the subscription.
    pub fn stalls(&self) -> u64 {
        if self.is_stalled.load(Ordering::Acquire) {
            return self.stalls.fetch_add(1, Ordering::AcqRel) + 1;
        }
        self.stalls.load(Ordering::Acquire)
    }

    fn hear(&self, probe: u64) {
        self.heard.fetch_max(probe, Ordering::AcqRel);
        self.news.notify_one();
    }
}

/// Hands on events until fred's channel is closed.
pub struct Pump {
    pub messages: broadcast::Receiver<Message>,
    pub events: mpsc::Sender<FeedEvent>,
    pub keys: Keys,
    /// The channel of what is for every shop.
    pub all: String,
    pub ear: Arc<Ear>,
}

impl Pump {
    pub async fn run(self) {
        // It stops where the feed is full. Otherwise as whoever takes events: all that there are.
        unconstrained(self.hand_on_all()).await;
    }

    async fn hand_on_all(mut self) {
        loop {
            match self.messages.recv().await {
                Ok(message) if self.keys.is_probe(&message.channel) => self.hear(&message),
                Ok(message) => {
                    if let Some(event) = self.event(&message) {
                        self.hand_on(event).await;
                    }
                }
                Err(RecvError::Lagged(lost)) => {
                    tracing::warn!(lost, "events came faster than they were taken; every room will read its log");
                    self.hand_on(FeedEvent::Gap(GapCause::Lagged)).await;
                }
                Err(RecvError::Closed) => return,
            }
        }
    }

    fn hear(&self, message: &Message) {
        if let Some(probe) = reply::text(&message.value).and_then(|text| text.parse().ok()) {
            self.ear.hear(probe);
        }
    }

    fn event(&self, message: &Message) -> Option<FeedEvent> {
        if *message.channel == *self.all {
            return self.event_for_all(message);
        }
        let Some(shop) = self.keys.shop_of(&message.channel) else {
            metrics::record_unreadable();
            tracing::warn!(channel = %message.channel, "an event came on a channel that is no shop's");
            return None;
        };
        let bytes = reply::bytes(&message.value).unwrap_or_default();
        match payload::parse(shop.clone(), bytes) {
            Ok(event) => Some(event),
            // An entry that is left out here has a successor with a `prev` that betrays it.
            Err(error) => {
                metrics::record_unreadable();
                tracing::warn!(%shop, %error, "an event of the feed cannot be read and is left out");
                None
            }
        }
    }

    fn event_for_all(&self, message: &Message) -> Option<FeedEvent> {
        let event = payload::parse_for_all(reply::bytes(&message.value).unwrap_or_default());
        event
            .inspect_err(|error| {
                metrics::record_unreadable();
                tracing::warn!(%error, "an event for every shop cannot be read and is left out");
            })
            .ok()
    }

    async fn hand_on(&self, event: FeedEvent) {
        match self.events.try_send(event) {
            Ok(()) => {}
            Err(TrySendError::Full(event)) => {
                self.ear.stalls.fetch_add(1, Ordering::AcqRel);
                self.ear.is_stalled.store(true, Ordering::Release);
                // Whoever took events is gone: the node is stopping.
                let _ = self.events.send(event).await;
                self.ear.is_stalled.store(false, Ordering::Release);
            }
            Err(TrySendError::Closed(_)) => {}
        }
    }
}
