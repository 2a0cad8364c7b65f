//! The engine on Redis, for any number of nodes.
//!
//! Owns the mapping of the store's operations to scripts and commands. What must be atomic is a
//! script of `lua/`; see [`scripts`]. Every command has a deadline and is sent once. Never decides
//! about delivery, and never spells a key; that is [`keys`]. Called through
//! [`Store`](crate::store::Store); built by `node`.

mod client;
mod conns;
mod engine;
mod events;
mod feed;
mod hashes;
mod keys;
mod numbers;
mod payload;
mod registry;
mod reply;
mod script;
mod scripts;
mod signals;
mod subscriptions;
mod switchboard;

use std::path::Path;
use std::sync::atomic::AtomicI64;

use tokio::sync::mpsc;

pub use client::StartError;

use crate::ids::NodeId;
use crate::store::redis::client::Connections;
use crate::store::redis::feed::OwnChannels;
use crate::store::redis::keys::Keys;
use crate::store::redis::scripts::Scripts;
use crate::store::redis::subscriptions::{Parts, Subscriptions};
use crate::store::{FeedEvent, StoreSettings};

/// The engine on Redis: three connections, and the feed.
pub struct RedisStore {
    node: NodeId,
    settings: StoreSettings,
    keys: Keys,
    connections: Connections,
    scripts: Scripts,
    subscriptions: Subscriptions,
    /// How far Redis's clock is ahead of this process's steady one, in milliseconds, as the last beat told.
    ahead_ms: AtomicI64,
}

impl RedisStore {
    /// Connects to Redis 7 or newer at `redis://`, `rediss://` (with the certificate authorities of
    /// the file `ca`, else the system's) or `redis+unix://`, as the given node; the receiver is the
    /// feed. It has to be read: while it is full nothing new is heard.
    ///
    /// # Errors
    /// [`StartError`], within a few seconds.
    pub async fn start(
        url: &str,
        ca: Option<&Path>,
        node: NodeId,
        settings: StoreSettings,
    ) -> Result<(RedisStore, mpsc::Receiver<FeedEvent>), StartError> {
        let connections = Connections::open(url, ca, settings.deadline).await?;
        let keys = Keys::new(&settings.prefix);
        let parts = Parts {
            subscriber: connections.subscriber.clone(),
            commands: connections.commands.clone(),
            keys: keys.clone(),
            channels: OwnChannels { probe: keys.probe(&node), all: keys.all() },
            deadline: settings.deadline,
        };
        let (subscriptions, feed) = match Subscriptions::start(parts).await {
            Ok(started) => started,
            Err(error) => {
                connections.close().await;
                return Err(StartError::Unreachable(error));
            }
        };
        let scripts = Scripts::new(connections.commands.clone(), connections.reads.clone());
        let ahead_ms = AtomicI64::new(0);
        Ok((RedisStore { node, settings, keys, connections, scripts, subscriptions, ahead_ms }, feed))
    }
}
