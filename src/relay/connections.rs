//! Every connection of the node, logged in or not, by its outbox.
//!
//! Owns who is here. So that a connection need not look out for what is rare, the node tells it. Entered by
//! `socket`; told by `node` and by the limit of memory.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::hub::Outbox;
use crate::relay::Relay;

/// See the module.
#[derive(Default)]
pub struct Connections {
    /// By number: the higher, the newer.
    outboxes: Mutex<HashMap<u64, Arc<Outbox>>>,
}

/// A connection that is here, until this is dropped.
pub struct Known {
    relay: Arc<Relay>,
    number: u64,
}

impl Drop for Known {
    fn drop(&mut self) {
        self.relay.connections.outboxes.lock().remove(&self.number);
    }
}

impl Connections {
    /// The numbers and outboxes of all that are here.
    pub fn all(&self) -> Vec<(u64, Arc<Outbox>)> {
        self.outboxes.lock().iter().map(|(number, outbox)| (*number, outbox.clone())).collect()
    }

    /// Has each of them look at what the node is about to do.
    pub fn wake(&self) {
        for outbox in self.outboxes.lock().values() {
            outbox.wake();
        }
    }
}

impl Relay {
    /// Enters a connection.
    pub fn connection_known(self: Arc<Self>, number: u64, outbox: &Arc<Outbox>) -> Known {
        self.connections.outboxes.lock().insert(number, outbox.clone());
        Known { relay: self, number }
    }
}
