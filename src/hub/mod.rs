//! The rooms of this node: which sessions it holds of which shop, and how far each shop's feed has
//! come.
//!
//! Owns who gets what is pushed. Never talks to the store and never waits: what a room lacks it
//! says, and `feed` reads it. `socket` enters sessions here, `feed` brings the events.

mod member;
mod outbox;
mod push;
mod room;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

pub use member::{Member, Present};
pub use outbox::{Outbox, Parcel, Rewound, Taken};
pub use push::{Push, SignalPush};
pub use room::{Applied, HeadCheck, Reading, Room, Subscription};

use crate::ids::{ConnId, ShopId};
use crate::metrics;

/// Independent locks over the rooms.
const SHARDS: usize = 64;

type Rooms = HashMap<ShopId, Arc<Room>>;

/// Every room of the node.
pub struct Hub {
    shards: Box<[Mutex<Rooms>]>,
    publishes_per_s: u32,
    /// The legacy connections of the node, logged in or not.
    legacy: Mutex<HashMap<ConnId, Arc<Outbox>>>,
}

/// Keeps a room open while somebody uses it.
pub struct RoomGuard(Arc<Room>);

impl std::ops::Deref for RoomGuard {
    type Target = Arc<Room>;
    fn deref(&self) -> &Arc<Room> {
        &self.0
    }
}

impl Drop for RoomGuard {
    fn drop(&mut self) {
        self.0.release(Instant::now());
    }
}

impl Hub {
    /// A hub without rooms, in each of which so many notifies a second may be sent.
    pub fn new(publishes_per_s: u32) -> Hub {
        Hub {
            shards: (0..SHARDS).map(|_| Mutex::new(HashMap::new())).collect(),
            publishes_per_s,
            legacy: Mutex::default(),
        }
    }

    /// A legacy connection was opened.
    pub fn legacy_opened(&self, conn: &ConnId, outbox: &Arc<Outbox>) {
        self.legacy.lock().insert(conn.clone(), outbox.clone());
    }

    /// It ended.
    pub fn legacy_closed(&self, conn: &ConnId) {
        self.legacy.lock().remove(conn);
    }

    /// A text for legacy connections came from the feed.
    pub fn on_legacy_text(&self, conns: &[ConnId], text: &str) {
        let legacy = self.legacy.lock();
        let text: Arc<str> = text.into();
        for outbox in conns.iter().filter_map(|conn| legacy.get(conn)) {
            outbox.push_unstored(Parcel::Text(text.clone()));
        }
    }

    fn shard(&self, shop: &ShopId) -> &Mutex<Rooms> {
        // What keeps a shop's name from being chosen against the others is the hash of the map within.
        let sum = shop.as_str().bytes().fold(0_usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
        let index = sum % SHARDS;
        #[expect(clippy::indexing_slicing, reason = "there are SHARDS of them")]
        &self.shards[index]
    }

    /// The shop's room, if there is one.
    pub fn find(&self, shop: &ShopId) -> Option<Arc<Room>> {
        self.shard(shop).lock().get(shop).cloned()
    }

    /// The shop's room, made if there is none, and kept until the guard goes.
    pub fn enter(&self, shop: &ShopId) -> RoomGuard {
        let mut rooms = self.shard(shop).lock();
        let room = rooms.entry(shop.clone()).or_insert_with(|| {
            metrics::room_opened();
            Arc::new(Room::new(shop.clone(), self.publishes_per_s, Instant::now()))
        });
        room.hold();
        RoomGuard(room.clone())
    }

    /// Every room there is.
    pub fn rooms(&self) -> Vec<Arc<Room>> {
        self.shards.iter().flat_map(|shard| shard.lock().values().cloned().collect::<Vec<_>>()).collect()
    }

    /// How many rooms there are.
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().len()).sum()
    }

    /// Whether there is no room.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Rooms that nobody has used for `linger`.
    pub fn idle(&self, now: Instant, linger: Duration) -> Vec<Arc<Room>> {
        self.rooms().into_iter().filter(|room| room.is_idle(now, linger)).collect()
    }

    /// Forgets a room, unless somebody came to use it; says whether it is gone.
    pub fn remove(&self, room: &Room, now: Instant) -> bool {
        let mut rooms = self.shard(room.shop()).lock();
        let is_idle = rooms.get(room.shop()).is_some_and(|found| found.is_idle(now, Duration::ZERO));
        if is_idle {
            rooms.remove(room.shop());
            metrics::room_closed();
        }
        is_idle
    }
}
