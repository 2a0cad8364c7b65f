//! Who is in: the connections' ids, and how many are logged in. How many may come in is the business of
//! [`super::intake`].

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crate::ids::{ConnId, NodeId};
use crate::message::Role;
use crate::metrics;

/// See the module.
pub struct Doors {
    mains: AtomicUsize,
    subs: AtomicUsize,
    next_conn: AtomicU64,
}

impl Default for Doors {
    fn default() -> Doors {
        Doors { mains: AtomicUsize::new(0), subs: AtomicUsize::new(0), next_conn: AtomicU64::new(1) }
    }
}

impl Doors {
    /// How many connections of a role are logged in.
    pub fn sessions(&self, role: Role) -> usize {
        self.of(role).load(Ordering::Relaxed)
    }

    /// A connection logged in.
    pub fn session_began(&self, role: Role) {
        self.of(role).fetch_add(1, Ordering::Relaxed);
        metrics::session_began(role);
    }

    /// A connection that was logged in ended.
    pub fn session_ended(&self, role: Role) {
        self.of(role).fetch_sub(1, Ordering::Relaxed);
        metrics::session_ended(role);
    }

    fn of(&self, role: Role) -> &AtomicUsize {
        match role {
            Role::Main => &self.mains,
            Role::Sub => &self.subs,
        }
    }

    /// An id for a new connection of `node`, with its number.
    pub fn next_conn(&self, node: &NodeId) -> (ConnId, u64) {
        let number = self.next_conn.fetch_add(1, Ordering::Relaxed);
        (ConnId::of(node, number), number)
    }
}
