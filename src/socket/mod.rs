//! One task a connection: reader, writer, and the loop where session, room and store meet.
//!
//! Owns the WebSocket of a connection from its handshake to its end. Decides nothing about the
//! conversation, which is the session's, and nothing about who gets what, which is the room's. Run by
//! `http`, once a connection.

mod calls;
mod connection;
mod entries;
mod reader;
mod writer;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Semaphore, watch};

pub use connection::{Accepted, serve};

use crate::feed::Feed;
use crate::hub::Hub;
use crate::ids::{ConnId, NodeId};
use crate::nodes::Nodes;
use crate::proofs::Proofs;
use crate::retention::Retention;
use crate::session::SessionSettings;
use crate::store::Store;

/// Sessions that read a page of their logs at the same time; each page holds up to half a megabyte.
const PAGES_MAX: usize = 256;

/// What every connection of a node shares.
pub struct Relay {
    pub node: NodeId,
    pub session: Arc<SessionSettings>,
    pub hub: Arc<Hub>,
    pub store: Arc<dyn Store>,
    pub feed: Arc<Feed>,
    pub proofs: Arc<Proofs>,
    pub nodes: Arc<Nodes>,
    pub retention: Arc<Retention>,
    pub connections_max: usize,
    connections: AtomicUsize,
    next_conn: AtomicU64,
    pages: Semaphore,
    stopping: watch::Sender<bool>,
}

/// What a [`Relay`] is made of.
pub struct RelayParts {
    pub node: NodeId,
    pub session: SessionSettings,
    pub hub: Arc<Hub>,
    pub store: Arc<dyn Store>,
    pub feed: Arc<Feed>,
    pub proofs: Arc<Proofs>,
    pub nodes: Arc<Nodes>,
    pub retention: Arc<Retention>,
    pub connections_max: usize,
}

/// A place among the node's connections, given back when dropped.
pub struct Place(Arc<Relay>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Relay {
    /// Puts the parts together.
    pub fn new(parts: RelayParts) -> Relay {
        Relay {
            node: parts.node,
            session: Arc::new(parts.session),
            hub: parts.hub,
            store: parts.store,
            feed: parts.feed,
            proofs: parts.proofs,
            nodes: parts.nodes,
            retention: parts.retention,
            connections_max: parts.connections_max,
            connections: AtomicUsize::new(0),
            next_conn: AtomicU64::new(1),
            pages: Semaphore::new(PAGES_MAX),
            stopping: watch::channel(false).0,
        }
    }

    /// A place for one more connection; None where the node is full.
    pub fn admit(self: &Arc<Self>) -> Option<Place> {
        let before = self.connections.fetch_add(1, Ordering::Relaxed);
        let place = Place(self.clone());
        (before < self.connections_max).then_some(place)
    }

    /// How many connections there are.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Closes every connection with 1012.
    pub fn stop(&self) {
        self.stopping.send_replace(true);
    }

    /// Waits until the node stops. Cancel-safe.
    pub async fn stopped(&self) {
        // The sender is this relay's own, so it cannot be gone.
        let _ = self.stopping.subscribe().wait_for(|stopping| *stopping).await;
    }

    fn next_conn(&self) -> (ConnId, u64) {
        let number = self.next_conn.fetch_add(1, Ordering::Relaxed);
        (ConnId::of(&self.node, number), number)
    }

    /// How long connection `number` should wait before it comes back after a restart: spread out, so
    /// that a restart sends no herd.
    fn comeback(number: u64) -> Duration {
        Duration::from_millis(100 + number.wrapping_mul(997) % 3000)
    }
}
