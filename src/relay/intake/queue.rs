//! A bounded queue before something that may be done so often a second.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Mutex;

/// How much of its rate a queue that was idle may spend at once. A timer is no finer than a millisecond, so
/// without some of it no queue could be faster than that.
const BURST: Duration = Duration::from_millis(50);
/// The least that a client is told to wait, and how far such waits are spread out.
const RETRY: Duration = Duration::from_secs(1);
const RETRY_SPREAD: Duration = Duration::from_secs(4);

/// See the module. First come, first served; who stops waiting costs the others nothing.
pub struct Queue {
    interval: Duration,
    /// When the next may go.
    next: Mutex<Instant>,
    waiting: AtomicUsize,
    waiting_max: usize,
}

/// There are as many in the queue as may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full {
    /// When to try again: after the queue has gone, and not all at once.
    pub retry_after: Duration,
}

/// A place in a queue, given back when dropped.
pub struct Waiting<'a>(&'a Queue);

impl Queue {
    /// A queue from which `per_s` go a second, and in which at most `waiting_max` wait.
    pub fn new(per_s: u32, waiting_max: usize) -> Queue {
        let interval = Duration::from_secs(1) / per_s.max(1);
        Queue { interval, next: Mutex::new(Instant::now()), waiting: AtomicUsize::new(0), waiting_max }
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Whether nobody may come in.
    pub fn is_full(&self) -> bool {
        self.len() >= self.waiting_max
    }

    /// What whoever does not come in is told.
    pub fn full(&self) -> Full {
        let drained = self.interval.saturating_mul(u32::try_from(self.len()).unwrap_or(u32::MAX));
        Full { retry_after: RETRY + drained + spread(RETRY_SPREAD.max(drained)) }
    }

    /// A place in the queue.
    ///
    /// # Errors
    /// There is none.
    pub fn enter(&self) -> Result<Waiting<'_>, Full> {
        // The place is given back where it is one too many.
        let before = self.waiting.fetch_add(1, Ordering::Relaxed);
        let waiting = Waiting(self);
        if before < self.waiting_max { Ok(waiting) } else { Err(self.full()) }
    }
}

impl Waiting<'_> {
    /// Waits for the turn. Cancel-safe, and nobody's turn is lost by it.
    pub async fn turn(&self) {
        let mut next = self.0.next.lock().await;
        tokio::time::sleep_until((*next).into()).await;
        let burst_from = Instant::now().checked_sub(BURST).unwrap_or(*next);
        *next = (*next).max(burst_from) + self.0.interval;
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A part of `range`, each time another, so that who are told to wait do not come back together: steps of the
/// golden ratio, which fill a range more evenly than chance does.
pub fn spread(range: Duration) -> Duration {
    const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;
    static STEP: AtomicU64 = AtomicU64::new(0);
    let part = STEP.fetch_add(GOLDEN, Ordering::Relaxed);
    range.mul_f64(part as f64 / u64::MAX as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_full_queue_takes_nobody_until_somebody_leaves() {
        let queue = Queue::new(10, 2);
        let first = queue.enter().unwrap();
        let _second = queue.enter().unwrap();
        let full = queue.enter().map(drop).unwrap_err();
        assert!(full.retry_after >= RETRY, "{full:?}");
        assert_eq!(queue.len(), 2, "who was turned away does not wait");
        drop(first);
        assert!(queue.enter().is_ok());
    }

    #[tokio::test]
    async fn the_pace_is_kept_and_who_gives_up_costs_nothing() {
        let queue = Queue::new(100, 1000);
        let began = Instant::now();
        for _ in 0..20 {
            let waiting = queue.enter().unwrap();
            // It gives up.
            let _ = tokio::time::timeout(Duration::ZERO, waiting.turn()).await;
        }
        for _ in 0..30 {
            queue.enter().unwrap().turn().await;
        }
        // Thirty turns of 10 ms, less the burst; more than that only where the machine was busy.
        assert!(began.elapsed() >= Duration::from_millis(230), "{:?}", began.elapsed());
    }

    #[test]
    fn waits_are_spread_evenly() {
        let range = Duration::from_secs(10);
        let mut tenths = [0; 10];
        for _ in 0..1000 {
            let wait = spread(range);
            assert!(wait <= range);
            tenths[(wait.as_millis() as usize / 1000).min(9)] += 1;
        }
        assert!(tenths.iter().all(|count| (60..140).contains(count)), "{tenths:?}");
    }
}
