//! The engine without another process: one node, one directory.
//!
//! Owns the mapping of the store's operations to transactions of redb, a copy-on-write B-tree in a
//! file with checksummed pages. Whatever changes something goes through the one [`writer`] thread,
//! which puts all that waits into one transaction and answers when its changes are synced in the
//! [`journal`]; the pages follow when that has grown large. Reading goes past it, once it has shown what
//! was answered. What only matters while this process runs is not written: claims, beats, whose connection
//! is whose and which are legacy ones are in memory, and a presence holds for the process that wrote it.
//! There is no event stream. Never shares its directory. Called through [`Store`](crate::store::Store);
//! built by [`open`](crate::store::open()).

mod bars;
mod changes;
mod disk;
mod engine;
mod feed;
mod journal;
mod numbers;
mod opening;
#[cfg(any(test, fuzzing))]
pub mod properties;
mod queries;
mod registry;
mod reserve;
mod tables;
mod writer;

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use parking_lot::Mutex;
use tokio::sync::mpsc;

pub use opening::StartError;

use crate::ids::{ConnId, DeviceId, NodeId, ShopId};
use crate::store::embedded::disk::{Disk, Slot};
use crate::store::embedded::feed::Feed;
use crate::store::embedded::writer::{Job, WAITING_MAX, Writer};
use crate::store::{Beat, FeedEvent, StoreSettings};

/// The engine in a directory: one thread that writes, and the feed.
pub struct EmbeddedStore {
    node: NodeId,
    settings: StoreSettings,
    slot: Arc<Slot>,
    feed: Arc<Feed>,
    commits: Arc<AtomicU64>,
    /// The way to the writer; gone once the store is closed.
    queue: Mutex<Option<mpsc::Sender<Box<dyn Job>>>>,
    tasks: Mutex<Option<Tasks>>,
    memory: Mutex<Memory>,
}

struct Tasks {
    writer: std::thread::JoinHandle<()>,
    gaps: tokio::task::JoinHandle<()>,
}

/// What is not worth a write, for it means nothing to the next process.
#[derive(Default)]
struct Memory {
    /// Task -> who has it, and until when.
    claims: HashMap<String, (NodeId, Instant)>,
    /// Node -> what was heard of it, and when by the clock that does not jump.
    beats: HashMap<NodeId, (Beat, Instant)>,
    /// Connection -> where its presence is, if it is still there.
    conns: HashMap<ConnId, (ShopId, DeviceId)>,
    /// Legacy connections.
    legacy: HashSet<ConnId>,
}

impl EmbeddedStore {
    /// Opens the store in `dir`, which is made where it is missing, as the given node; the receiver
    /// is the feed. Reads the whole file once, to see that it is sound.
    ///
    /// # Errors
    /// [`StartError`]
    pub async fn start(
        dir: PathBuf,
        node: NodeId,
        settings: StoreSettings,
    ) -> Result<(EmbeddedStore, mpsc::Receiver<FeedEvent>), StartError> {
        let (of_panic, of_thread) = (dir.clone(), dir.clone());
        let opening = tokio::task::spawn_blocking(move || Disk::open(&dir));
        // redb panics on some files that it could not have written.
        let damaged = |_| StartError::Damaged { path: of_panic, cause: "it cannot be read to its end".to_owned() };
        let disk = opening.await.map_err(damaged)??;
        let slot = disk.slot().clone();
        let (feed, events) = Feed::new();
        let feed = Arc::new(feed);
        let (queue, waiting) = mpsc::channel(WAITING_MAX);
        let commits = Arc::new(AtomicU64::new(0));
        let writer = Writer {
            disk,
            queue: waiting,
            feed: feed.clone(),
            node: node.clone(),
            settings: settings.clone(),
            commits: commits.clone(),
        };
        let thread = std::thread::Builder::new().name("store".to_owned());
        let writer = thread
            .spawn(move || writer.run())
            .map_err(|cause| StartError::Unusable { path: of_thread, cause: format!("no thread: {cause}") })?;
        let gaps = tokio::spawn({
            let feed = feed.clone();
            async move { feed.run().await }
        });
        let store = EmbeddedStore {
            node,
            settings,
            slot,
            feed,
            commits,
            queue: Mutex::new(Some(queue)),
            tasks: Mutex::new(Some(Tasks { writer, gaps })),
            memory: Mutex::default(),
        };
        Ok((store, events))
    }

    /// How many transactions were synced since the start.
    pub fn commits(&self) -> u64 {
        self.commits.load(Ordering::Relaxed)
    }
}
