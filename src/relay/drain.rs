//! How the connections of a node that stops are sent elsewhere: each at a moment of its own.
//!
//! Owns the plan and what came of it. Never talks to a device: each connection looks up its moment here
//! and does the rest by itself. Begun and ended by `node`, heeded by `socket`.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::metrics;

/// The part of the window in which the node goes on as before, because balancers still send devices and
/// requests here; and the part at its end that is left to those who were told last.
const WAIT_PART: u32 = 5;
const TAIL_PART: u32 = 5;
/// Within this time devices whose connections are closed all at once are asked to come back.
const COMEBACK_MS: std::ops::Range<u64> = 100..3100;

/// What a connection has to know of its node's end.
#[derive(Debug, Clone, Copy)]
pub enum Stage {
    /// The node stays.
    Serving,
    /// It leaves, and each connection by this plan.
    Leaving(Plan),
    /// Every connection is to be closed now.
    Over,
}

/// When the connections of a node hear that it leaves.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// From here on the node takes nobody in, and tells one connection after the other.
    pub from: Instant,
    spread: Duration,
    /// Who is still here then is closed.
    pub until: Instant,
}

impl Plan {
    /// A plan for a node that begins to leave at `now` and takes `window` over it.
    pub fn new(now: Instant, window: Duration) -> Plan {
        let (wait, tail) = (window / WAIT_PART, window / TAIL_PART);
        Plan { from: now + wait, spread: window - wait - tail, until: now + window }
    }

    /// When connection `number` is told: evenly spread, whichever of the numbers are still here.
    pub fn moment_of(&self, number: u64) -> Instant {
        self.from + self.spread.mul_f64(share(number))
    }
}

/// A number from 0 up to 1 for each connection; any run of connections is spread evenly over them (the
/// multiples of the golden ratio).
fn share(number: u64) -> f64 {
    let hash = number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (hash >> 32) as f64 / 2f64.powi(32)
}

/// See the module.
pub struct Drain {
    stage: watch::Sender<Stage>,
    /// How often the stage has changed, which is cheaper to look at.
    changes: AtomicU32,
    told: AtomicU64,
    closed: AtomicU64,
}

/// What became of the connections of a node that left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drained {
    /// Sessions that were told to log in elsewhere.
    pub told: u64,
    /// Connections closed with 1012: those that can't be told, and those that stayed to the end.
    pub closed: u64,
}

impl Drain {
    /// The node stays.
    pub fn new() -> Drain {
        Drain {
            stage: watch::channel(Stage::Serving).0,
            changes: AtomicU32::new(0),
            told: AtomicU64::new(0),
            closed: AtomicU64::new(0),
        }
    }

    /// The node begins to leave by this plan.
    pub fn begin(&self, plan: Plan) {
        self.change(Stage::Leaving(plan));
    }

    /// Has every connection that is still here closed with 1012.
    pub fn end(&self) {
        self.change(Stage::Over);
    }

    fn change(&self, stage: Stage) {
        self.stage.send_replace(stage);
        self.changes.fetch_add(1, Ordering::Release);
    }

    /// The present stage.
    pub fn now(&self) -> Stage {
        *self.stage.borrow()
    }

    /// How often the stage has changed so far; who looks at it is woken by
    /// [`Connections::wake`](crate::relay::Connections::wake).
    pub fn changes(&self) -> u32 {
        self.changes.load(Ordering::Acquire)
    }

    /// Waits until the node takes nobody in any more. Cancel-safe.
    pub async fn closing(&self) {
        let mut stages = self.stage.subscribe();
        loop {
            let from = match *stages.borrow_and_update() {
                Stage::Serving => None,
                Stage::Leaving(plan) => Some(plan.from),
                Stage::Over => return,
            };
            let begun = async {
                match from {
                    Some(from) => tokio::time::sleep_until(from.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = begun => return,
                Ok(()) = stages.changed() => {}
            }
        }
    }

    /// A session was told to log in elsewhere.
    pub fn told(&self) {
        self.told.fetch_add(1, Ordering::Relaxed);
        metrics::goaway();
    }

    /// A connection was closed with 1012 because the node leaves.
    pub fn closed(&self) {
        self.closed.fetch_add(1, Ordering::Relaxed);
    }

    /// What became of the connections so far.
    pub fn drained(&self) -> Drained {
        Drained { told: self.told.load(Ordering::Relaxed), closed: self.closed.load(Ordering::Relaxed) }
    }

    /// How long connection `number` should wait before it comes back, where all are closed at once:
    /// spread out, so that a restart sends no herd.
    pub fn comeback(number: u64) -> Duration {
        let span = COMEBACK_MS.end - COMEBACK_MS.start;
        Duration::from_millis(COMEBACK_MS.start + (share(number) * span as f64) as u64)
    }
}

impl Default for Drain {
    fn default() -> Drain {
        Drain::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_connection_has_its_moment_between_the_wait_and_the_tail() {
        let now = Instant::now();
        let window = Duration::from_secs(30);
        let plan = Plan::new(now, window);
        assert_eq!((plan.from, plan.until), (now + window / 5, now + window));
        let last = now + window - window / 5;
        let mut per_second = [0u32; 18];
        // Those that are left of many, as on a node that has run for long.
        for number in (1_000_000..1_090_000).step_by(50) {
            let moment = plan.moment_of(number);
            assert!(plan.from <= moment && moment < last, "{number}");
            per_second[(moment - plan.from).as_secs() as usize] += 1;
        }
        assert!(per_second.iter().all(|count| (90..=110).contains(count)), "{per_second:?}");
    }

    #[test]
    fn a_window_of_nothing_leaves_no_time() {
        let now = Instant::now();
        let plan = Plan::new(now, Duration::ZERO);
        assert_eq!((plan.from, plan.moment_of(7), plan.until), (now, now, now));
    }

    #[test]
    fn devices_that_are_closed_at_once_come_back_one_after_the_other() {
        let mut waits: Vec<u64> = (1..=3000).map(|number| Drain::comeback(number).as_millis() as u64).collect();
        waits.sort_unstable();
        assert!(waits[0] >= 100 && waits[2999] < 3100);
        assert!(waits.windows(2).all(|pair| pair[1] - pair[0] < 10), "no gap and no herd");
    }
}
