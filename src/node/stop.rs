//! The end of a node: its devices are sent elsewhere first, then what they proved is written down.
//!
//! Owns the order of these steps and the time each may take. How a connection hears of it is the relay's
//! [`Drain`](crate::relay::Drain). Called by whoever runs the node.

use std::future::Future;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::time::{sleep_until, timeout, timeout_at};
use tracing::{info, warn};

use crate::message::Role;
use crate::metrics;
use crate::node::{BEAT, Node, report};
use crate::protocol::PresenceState;
use crate::relay::Plan;

/// How long connections that have been closed, and requests under way, may take to end.
const CLOSE_WAIT: Duration = Duration::from_secs(3);
/// How long the last proofs and events are waited for.
const FLUSH_WAIT: Duration = Duration::from_secs(5);

impl Node {
    /// Stops within the drain window: the node is unready at once, goes on for a part of the window,
    /// takes nobody in from then on and sends its sessions elsewhere, each at a moment of its own; who is
    /// still here at the end is closed. Then the last proofs and events are written. Without sessions, or once
    /// `hurry` is there, all of it is done at once.
    pub async fn stop(mut self, hurry: impl Future<Output = ()>) {
        self.probes.is_stopping.store(true, Ordering::Relaxed);
        metrics::draining();
        let sessions = self.sessions();
        let window = if sessions == 0 { Duration::ZERO } else { self.drain_window };
        info!(sessions, ?window, "stopping");
        tokio::select! {
            biased;
            () = hurry => info!("every connection is closed now"),
            () = self.send_elsewhere(window) => {}
        }
        self.close_all().await;
        self.write_last().await;
        self.keepers.shutdown().await;
        if let Err(error) = self.relay.store.leave(&self.id).await {
            warn!(%error, "the node could not take its leave of the store");
        }
        self.relay.store.close().await;
        let drained = self.relay.drain.drained();
        info!(node = %self.id, told = drained.told, closed = drained.closed, "stopped");
    }

    fn sessions(&self) -> usize {
        self.relay.doors.sessions(Role::Main) + self.relay.doors.sessions(Role::Sub)
    }

    /// Whether no other node is known to live, so that devices have nowhere else to go.
    pub async fn is_alone(&self) -> bool {
        // One that was started to take this one's place may not have been heard of yet.
        if let Ok(Ok(beats)) = timeout(BEAT, self.relay.store.beat(&self.id, &report(&self.relay))).await {
            self.relay.nodes.on_beats(beats, Instant::now());
        }
        let live = self.relay.nodes.live(Instant::now());
        !live.iter().any(|live| live.node != self.id && live.state == PresenceState::Online)
    }

    /// Ends at the end of the window, or when the last connection has gone.
    async fn send_elsewhere(&mut self, window: Duration) {
        if window.is_zero() {
            return;
        }
        let plan = Plan::new(Instant::now(), window);
        self.relay.drain.begin(plan);
        self.relay.connections.wake();
        // Whoever balances the load takes a moment to see that this node is unready.
        sleep_until(plan.from.into()).await;
        self.stop.send_replace(true);
        info!(
            connections = self.relay.intake.connections(),
            "nobody is let in any more, and sessions are sent elsewhere"
        );
        // An error means that it is over with them in another way.
        let _ = timeout_at(plan.until.into(), &mut self.doors).await;
    }

    async fn close_all(&mut self) {
        self.stop.send_replace(true);
        self.relay.drain.end();
        self.relay.connections.wake();
        if !self.doors.is_finished() && timeout(CLOSE_WAIT, &mut self.doors).await.is_err() {
            warn!(connections = self.relay.intake.connections(), "some connections did not end in time");
            self.doors.abort();
        }
    }

    async fn write_last(&self) {
        let (proofs, events) = tokio::join!(
            timeout(FLUSH_WAIT, self.relay.proofs.finish()),
            timeout(FLUSH_WAIT, self.relay.events.finish()),
        );
        if proofs.is_err() {
            warn!("some proofs of receipt could not be written; the messages are sent again");
        }
        if events.is_err() {
            warn!("some events could not be written to the stream, and are lost");
        }
    }
}
