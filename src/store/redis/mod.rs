//! The engine on Redis, for any number of nodes.
//!
//! Owns the mapping of the store's operations to scripts and commands. What must be atomic is a
//! script of `lua/`; see [`scripts`], and [`batches`] for how calls go together. Every command has a
//! deadline and is sent once. Never decides about delivery, and never spells a key; that is [`keys`].
//! Called through [`Store`](crate::store::Store); built by `node`.
//!
//! Redis may be one server, one that sentinels watch over, or a cluster. [`fleet`] knows which server has a
//! key and [`survey`] keeps that true; everyone else only ever names the key.

mod address;
mod batches;
mod call;
mod client;
mod commits;
mod conns;
mod engine;
mod events;
mod feed;
mod fleet;
mod hashes;
mod keys;
mod numbers;
pub mod payload;
#[cfg(any(test, fuzzing))]
pub mod properties;
mod registry;
pub mod reply;
mod script;
mod scripts;
mod sentinel;
mod signals;
mod slots;
mod subscriptions;
mod survey;
mod switchboard;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

pub use address::AddressError;
pub use client::StartError;

use crate::ids::NodeId;
use crate::store::redis::client::{Maker, START_MAX};
use crate::store::redis::fleet::Fleet;
use crate::store::redis::keys::Keys;
use crate::store::redis::scripts::Scripts;
use crate::store::redis::subscriptions::{Parts, Subscriptions};
use crate::store::{FeedEvent, StoreSettings};

/// Between two looks at whether the node hears itself for the first time.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// The engine on Redis: the connections to each primary, and the feed.
pub struct RedisStore {
    node: NodeId,
    settings: StoreSettings,
    keys: Keys,
    fleet: Arc<Fleet>,
    scripts: Scripts,
    subscriptions: Subscriptions,
    /// Who sees to it that the primaries which are connected to are those that there are.
    keeper: Option<JoinHandle<()>>,
    /// How far Redis's clock is ahead of this process's steady one, in milliseconds, as the last beat told.
    ahead_ms: AtomicI64,
}

impl RedisStore {
    /// Connects to Redis 7 or newer, in any of the forms of address there are (with the certificate
    /// authorities of the file `ca`, else the system's, where it is over TLS), as the given node; the receiver
    /// is the feed. It has to be read: while it is full nothing new is heard.
    ///
    /// # Errors
    /// [`StartError`], within a few seconds.
    pub async fn start(
        url: &str,
        ca: Option<&Path>,
        node: NodeId,
        settings: StoreSettings,
    ) -> Result<(RedisStore, mpsc::Receiver<FeedEvent>), StartError> {
        let maker = Maker::read(url, ca, settings.deadline, settings.wait_replicas)?;
        let (fleet, keeper) = survey::open(maker).await?;
        let keeper = keeper.map(|keeper| tokio::spawn(keeper.run()));
        let keys = Keys::new(&settings.prefix);
        let parts = Parts { fleet: fleet.clone(), node: node.clone(), keys: keys.clone(), deadline: settings.deadline };
        let hearing = async {
            let started = Subscriptions::start(parts).await.ok()?;
            while !fleet.is_hearing() {
                sleep(LOOK_EVERY).await;
            }
            Some(started)
        };
        let Some((subscriptions, feed)) = timeout(START_MAX, hearing).await.ok().flatten() else {
            if let Some(keeper) = &keeper {
                keeper.abort();
            }
            survey::close(&fleet).await;
            return Err(StartError::Silent { waited: START_MAX });
        };
        let scripts = Scripts::new(&fleet);
        let ahead_ms = AtomicI64::new(0);
        Ok((RedisStore { node, settings, keys, fleet, scripts, subscriptions, keeper, ahead_ms }, feed))
    }
}
