//! A token bucket: how much somebody may ask for.
//!
//! Pure arithmetic on times that the caller brings; never reads a clock. Used by `session` for a
//! connection's ops, by `socket` for its bytes and by `hub` for a shop's publishes.

use std::time::{Duration, Instant};

/// How many times the rate may be spent at once.
const BURST_SECONDS: f64 = 5.0;

/// A token bucket: so many a second, five seconds' worth at once.
///
/// The algorithm is the classic one (ITU-T I.371), kept as a level and the time of the last change.
#[derive(Debug)]
pub struct Bucket {
    per_s: f64,
    level: f64,
    at: Instant,
}

impl Bucket {
    /// A full bucket.
    pub fn new(per_s: u32, now: Instant) -> Bucket {
        let per_s = f64::from(per_s);
        Bucket { per_s, level: per_s * BURST_SECONDS, at: now }
    }

    /// Takes one token.
    ///
    /// # Errors
    /// How long to wait until there is one.
    pub fn take(&mut self, now: Instant) -> Result<(), Duration> {
        self.refill(now);
        if self.level >= 1.0 {
            self.level -= 1.0;
            return Ok(());
        }
        Err(Duration::from_secs_f64((1.0 - self.level) / self.per_s))
    }

    /// Takes one token that somebody else has spent already; the level may go below nothing, but not
    /// further than it can go above.
    pub fn take_spent(&mut self, now: Instant) {
        self.refill(now);
        self.level = (self.level - 1.0).max(-self.per_s * BURST_SECONDS);
    }

    /// Takes tokens that are spent already, and says how long to wait until none is owed; nothing where none is.
    pub fn owe(&mut self, count: usize, now: Instant) -> Duration {
        self.refill(now);
        self.level -= count as f64;
        Duration::from_secs_f64((-self.level / self.per_s).max(0.0))
    }

    /// Whether more than half of it is spent, as of the last change.
    pub fn is_low(&self) -> bool {
        self.level < self.per_s * BURST_SECONDS / 2.0
    }

    fn refill(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.at).as_secs_f64();
        self.level = (self.level + elapsed * self.per_s).min(self.per_s * BURST_SECONDS);
        self.at = self.at.max(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_gives_five_seconds_worth_at_once_and_then_its_rate() {
        let start = Instant::now();
        let mut bucket = Bucket::new(2, start);
        for _ in 0..10 {
            assert_eq!(bucket.take(start), Ok(()));
        }
        assert_eq!(bucket.take(start), Err(Duration::from_millis(500)));
        assert_eq!(bucket.take(start + Duration::from_millis(500)), Ok(()));
        assert!(bucket.take(start + Duration::from_millis(600)).is_err());
    }

    #[test]
    fn what_is_spent_at_once_is_owed_in_full() {
        let start = Instant::now();
        let mut bucket = Bucket::new(100, start);
        assert_eq!(bucket.owe(500, start), Duration::ZERO);
        assert_eq!(bucket.owe(1000, start), Duration::from_secs(10));
        assert_eq!(bucket.owe(0, start + Duration::from_secs(9)), Duration::from_secs(1));
    }

    #[test]
    fn what_others_spend_is_owed() {
        let start = Instant::now();
        let mut bucket = Bucket::new(1, start);
        for _ in 0..7 {
            bucket.take_spent(start);
        }
        assert_eq!(bucket.take(start), Err(Duration::from_secs(3)));
    }
}
