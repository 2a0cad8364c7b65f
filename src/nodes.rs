//! Which nodes live: presence is a lease that each node renews by its heartbeat.
//!
//! Owns what this node has seen of the others' heartbeats. Never asks the store itself, and trusts
//! no other clock than its own: a node lives while its beat is seen to change. Called by `node`,
//! which beats, and by whoever shows presence.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::ids::NodeId;
use crate::protocol::PresenceState;
use crate::store::Beat;

/// A node whose beat is older than this makes its devices unknown.
const UNKNOWN_AFTER: Duration = Duration::from_secs(3);
/// A node whose beat is older than this has no devices any more.
const GONE_AFTER: Duration = Duration::from_secs(10);

/// What is known of every node.
pub struct Nodes {
    state: Mutex<State>,
}

struct State {
    heard_at: Instant,
    seen: HashMap<NodeId, Seen>,
}

struct Seen {
    beat_ms: u64,
    changed_at: Instant,
}

impl Nodes {
    /// Nothing is known yet.
    pub fn new(now: Instant) -> Nodes {
        Nodes { state: Mutex::new(State { heard_at: now, seen: HashMap::new() }) }
    }

    /// The store told of these nodes.
    pub fn on_beats(&self, beats: Vec<Beat>, now: Instant) {
        let mut state = self.state.lock();
        // While the store was away nobody could beat, so nobody is late for it.
        let was_away = now.saturating_duration_since(state.heard_at) > UNKNOWN_AFTER;
        state.heard_at = now;
        let mut before = std::mem::take(&mut state.seen);
        state.seen = beats
            .into_iter()
            .map(|beat| {
                let changed_at = match before.remove(&beat.node) {
                    Some(seen) if seen.beat_ms == beat.at_ms && !was_away => seen.changed_at,
                    Some(_) => now,
                    None => now.checked_sub(beat.age).unwrap_or(now),
                };
                (beat.node, Seen { beat_ms: beat.at_ms, changed_at })
            })
            .collect();
    }

    /// How sure it is that a device on this node is there; None where the node is gone.
    pub fn state_of(&self, node: &NodeId, now: Instant) -> Option<PresenceState> {
        let state = self.state.lock();
        // Without word from the store everybody's beat looks old; only what it last told counts.
        let at = now.min(state.heard_at + UNKNOWN_AFTER);
        let age = at.saturating_duration_since(state.seen.get(node)?.changed_at);
        if age <= UNKNOWN_AFTER {
            Some(PresenceState::Online)
        } else if age <= GONE_AFTER {
            Some(PresenceState::Unknown)
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn beat(node: &str, at_ms: u64, age: Duration) -> Beat {
        Beat { node: node.parse().unwrap(), at_ms, age }
    }

    #[test]
    fn a_node_that_stops_beating_is_unknown_after_3_s_and_gone_after_10() {
        let start = Instant::now();
        let nodes = Nodes::new(start);
        let dead: NodeId = "dead".parse().unwrap();
        let mut states = Vec::new();
        for second in 0..=12u32 {
            let now = start + second * SECOND;
            nodes.on_beats(vec![beat("dead", 1, second * SECOND), beat("live", u64::from(second), SECOND)], now);
            states.push(nodes.state_of(&dead, now));
            assert_eq!(nodes.state_of(&"live".parse().unwrap(), now), Some(PresenceState::Online));
        }
        assert_eq!(states[3], Some(PresenceState::Online));
        assert_eq!(states[4], Some(PresenceState::Unknown));
        assert_eq!(states[10], Some(PresenceState::Unknown));
        assert_eq!(states[11], None);
        assert_eq!(nodes.state_of(&"never".parse().unwrap(), start), None);
    }

    #[test]
    fn nobody_is_late_because_the_store_was_away() {
        let start = Instant::now();
        let nodes = Nodes::new(start);
        let other: NodeId = "other".parse().unwrap();
        nodes.on_beats(vec![beat("other", 1, SECOND)], start);
        let back = start + 60 * SECOND;
        assert_eq!(nodes.state_of(&other, back), Some(PresenceState::Unknown));
        nodes.on_beats(vec![beat("other", 1, 61 * SECOND)], back);
        assert_eq!(nodes.state_of(&other, back), Some(PresenceState::Online));
        nodes.on_beats(vec![beat("other", 1, 62 * SECOND)], back + SECOND);
        assert_eq!(nodes.state_of(&other, back + SECOND), Some(PresenceState::Online));
    }
}
