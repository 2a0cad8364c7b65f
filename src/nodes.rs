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
use crate::store::{Beat, NodeReport, Online};

/// A node whose beat is older than this makes its devices unknown.
const UNKNOWN_AFTER: Duration = Duration::from_secs(3);
/// A node whose beat is older than this has no devices any more.
pub const GONE_AFTER: Duration = Duration::from_secs(10);

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
    report: NodeReport,
}

/// A node that is not gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveNode {
    pub node: NodeId,
    /// When the store last heard of it, in milliseconds since 1970.
    pub seen_ms: u64,
    /// Whether it is late.
    pub state: PresenceState,
    /// What it told of itself then.
    pub report: NodeReport,
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
                (beat.node, Seen { beat_ms: beat.at_ms, changed_at, report: beat.report })
            })
            .collect();
    }

    /// Whether this node itself was heard: until then nothing is known of the others.
    pub fn has_heard(&self, node: &NodeId) -> bool {
        self.state.lock().seen.contains_key(node)
    }

    /// The nodes that are not gone, in the order of their ids.
    pub fn live(&self, now: Instant) -> Vec<LiveNode> {
        let state = self.state.lock();
        let at = now.min(state.heard_at + UNKNOWN_AFTER);
        let live = state.seen.iter().filter_map(|(node, seen)| {
            let presence = state_after(at.saturating_duration_since(seen.changed_at))?;
            let report = seen.report.clone();
            Some(LiveNode { node: node.clone(), seen_ms: seen.beat_ms, state: presence, report })
        });
        let mut live: Vec<LiveNode> = live.collect();
        live.sort_by(|a, b| a.node.cmp(&b.node));
        live
    }

    /// How sure it is that a device is there; None where its node is gone. A login counts as a sign
    /// of life of its node, whose first beat may not have been seen yet.
    pub fn state_of(&self, online: &Online, now: Instant, now_ms: u64) -> Option<PresenceState> {
        let state = self.state.lock();
        // Without word from the store everybody's beat looks old; only what it last told counts.
        let at = now.min(state.heard_at + UNKNOWN_AFTER);
        let since_login = Duration::from_millis(now_ms.saturating_sub(online.since_ms));
        let since_beat = state.seen.get(&online.node).map(|seen| at.saturating_duration_since(seen.changed_at));
        let age = since_beat.map_or(since_login, |since_beat| since_beat.min(since_login));
        state_after(age)
    }
}

/// What a node is that was last heard of so long ago; None where it is gone.
fn state_after(age: Duration) -> Option<PresenceState> {
    if age <= UNKNOWN_AFTER {
        Some(PresenceState::Online)
    } else if age <= GONE_AFTER {
        Some(PresenceState::Unknown)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Role;

    const SECOND: Duration = Duration::from_secs(1);

    fn beat(node: &str, at_ms: u64, age: Duration) -> Beat {
        Beat { node: node.parse().unwrap(), at_ms, age, report: NodeReport::default() }
    }

    /// What is known of a device that logged in on `node` a minute ago.
    fn state(nodes: &Nodes, node: &str, now: Instant) -> Option<PresenceState> {
        let (device, conn) = ("d".parse().unwrap(), "n.1".parse().unwrap());
        let online = Online { device, role: Role::Sub, conn, node: node.parse().unwrap(), since_ms: 0 };
        nodes.state_of(&online, now, 60_000)
    }

    #[test]
    fn a_node_that_stops_beating_is_unknown_after_3_s_and_gone_after_10() {
        let start = Instant::now();
        let nodes = Nodes::new(start);
        let mut states = Vec::new();
        for second in 0..=12u32 {
            let now = start + second * SECOND;
            nodes.on_beats(vec![beat("dead", 1, second * SECOND), beat("live", u64::from(second), SECOND)], now);
            states.push(state(&nodes, "dead", now));
            assert_eq!(state(&nodes, "live", now), Some(PresenceState::Online));
        }
        assert_eq!(states[3], Some(PresenceState::Online));
        assert_eq!(states[4], Some(PresenceState::Unknown));
        assert_eq!(states[10], Some(PresenceState::Unknown));
        assert_eq!(states[11], None);
        assert_eq!(state(&nodes, "never", start), None);
    }

    #[test]
    fn nobody_is_late_because_the_store_was_away() {
        let start = Instant::now();
        let nodes = Nodes::new(start);
        nodes.on_beats(vec![beat("other", 1, SECOND)], start);
        let back = start + 60 * SECOND;
        assert_eq!(state(&nodes, "other", back), Some(PresenceState::Unknown));
        nodes.on_beats(vec![beat("other", 1, 61 * SECOND)], back);
        assert_eq!(state(&nodes, "other", back), Some(PresenceState::Online));
        nodes.on_beats(vec![beat("other", 1, 62 * SECOND)], back + SECOND);
        assert_eq!(state(&nodes, "other", back + SECOND), Some(PresenceState::Online));
    }

    #[test]
    fn a_fresh_login_shows_that_its_node_lives() {
        let now = Instant::now();
        let nodes = Nodes::new(now);
        let (device, conn) = ("d".parse().unwrap(), "n.1".parse().unwrap());
        let online = Online { device, role: Role::Sub, conn, node: "new".parse().unwrap(), since_ms: 59_000 };
        assert_eq!(nodes.state_of(&online, now, 60_000), Some(PresenceState::Online));
        assert_eq!(nodes.state_of(&online, now, 69_000), Some(PresenceState::Unknown));
        assert_eq!(nodes.state_of(&online, now, 70_000), None);
    }
}
