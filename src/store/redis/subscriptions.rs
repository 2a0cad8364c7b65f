//! The channels this node listens to: the handle to the tasks that hold and read them.
//!
//! Owns how a caller asks for a channel and how long it waits; [`super::switchboard`] holds the
//! subscriptions, [`super::feed`] reads them. Called by [`super`].

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fred::clients::{Client, SubscriberClient};
use fred::error::Error;
use fred::interfaces::{ClientLike, EventInterface};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::store::redis::feed::{Ear, OwnChannels, Pump};
use crate::store::redis::keys::Keys;
use crate::store::redis::reply::unavailable;
use crate::store::redis::switchboard::{Request, Switchboard, Want, Wires};
use crate::store::{FeedEvent, StoreError};

/// Requests that may wait to be served.
const REQUESTS_MAX: usize = 4096;
/// Events that may wait to be taken.
const EVENTS_MAX: usize = 4096;

/// What the subscriptions are built from.
pub struct Parts {
    pub subscriber: SubscriberClient,
    pub commands: Client,
    pub keys: Keys,
    pub channels: OwnChannels,
    pub deadline: Duration,
}

/// The handle to the task that holds the subscriptions.
pub struct Subscriptions {
    requests: mpsc::Sender<Request>,
    is_hearing: Arc<AtomicBool>,
    subscriber: SubscriberClient,
    deadline: Duration,
    tasks: parking_lot::Mutex<Vec<JoinHandle<()>>>,
}

impl Subscriptions {
    /// Subscribes the channels that are no shop's and starts the tasks; the receiver is the feed.
    ///
    /// # Errors
    /// Where they cannot be subscribed.
    pub async fn start(parts: Parts) -> Result<(Subscriptions, mpsc::Receiver<FeedEvent>), Error> {
        let (events, feed) = mpsc::channel(EVENTS_MAX);
        let (requests, requested) = mpsc::channel(REQUESTS_MAX);
        let is_hearing = Arc::new(AtomicBool::new(true));
        let ear = Arc::new(Ear::default());
        let pump = Pump {
            messages: parts.subscriber.message_rx(),
            events: events.clone(),
            keys: parts.keys,
            channels: parts.channels.clone(),
            ear: ear.clone(),
        };
        let wires = Wires {
            requests: requested,
            subscriber: parts.subscriber.clone(),
            commands: parts.commands,
            channels: parts.channels,
            events,
            is_hearing: is_hearing.clone(),
            ear,
        };
        let board = Switchboard::open(wires).await?;
        let tasks = parking_lot::Mutex::new(vec![tokio::spawn(pump.run()), tokio::spawn(board.run())]);
        let handle =
            Subscriptions { requests, is_hearing, subscriber: parts.subscriber, deadline: parts.deadline, tasks };
        Ok((handle, feed))
    }

    /// From its return on, what is published on the channel comes through the feed.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], within the deadline. It is then not subscribed.
    pub async fn join(&self, channel: String) -> Result<(), StoreError> {
        self.ask(channel, Want::In).await
    }

    /// Ends [`Subscriptions::join`].
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], within the deadline.
    pub async fn leave(&self, channel: String) -> Result<(), StoreError> {
        self.ask(channel, Want::Out).await
    }

    async fn ask(&self, channel: String, want: Want) -> Result<(), StoreError> {
        let (done, answer) = oneshot::channel();
        let asking = async {
            self.requests
                .send(Request { channel, want, done })
                .await
                .map_err(|_| unavailable("the store is closed"))?;
            answer.await.unwrap_or_else(|_| Err(unavailable("the store is closed")))
        };
        timeout(self.deadline, asking).await.unwrap_or_else(|_| Err(unavailable("subscribing took too long")))
    }

    /// See [`crate::store::Store::is_hearing`].
    pub fn is_hearing(&self) -> bool {
        self.is_hearing.load(Ordering::Acquire) && self.subscriber.is_connected()
    }

    /// Ends the tasks.
    pub async fn close(&self) {
        let tasks = std::mem::take(&mut *self.tasks.lock());
        for task in tasks {
            task.abort();
            // It was ended just now, and says so.
            let _ = task.await;
        }
        self.is_hearing.store(false, Ordering::Release);
    }
}
