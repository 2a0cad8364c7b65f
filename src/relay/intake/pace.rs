//! How many calls of the store may be under way at once, by how long they take.
//!
//! The store's queue is kept short by the delay that it causes, as LEDBAT (RFC 6817) does for a network: the
//! least delay of the last ten minutes is what a call takes by itself, whatever is above it was spent in a
//! queue, and the limit grows while that is less than the target and shrinks while it is more. It shrinks by a
//! factor, as LEDBAT++ does, so that a herd is held back within a few round trips. Pure arithmetic on times that
//! the caller brings.

use std::time::{Duration, Instant};

/// Calls at once, however slow the store is: fewer would not tell how slow it is.
const LEAST: f64 = 4.0;
/// Calls at once before anything is known.
const FIRST: f64 = 16.0;
/// Minutes over which the least delay is looked for (RFC 6817, BASE_HISTORY).
const MINUTES: usize = 10;
const MINUTE: Duration = Duration::from_secs(60);
/// Of so many delays the least counts as the present one (RFC 6817, CURRENT_FILTER): one slow call is chance.
const FILTER: usize = 4;
/// Only one halving in this time: calls that fail together fail for one reason.
const FAILURES_APART: Duration = Duration::from_millis(500);

/// See the module.
#[derive(Debug)]
pub struct Pace {
    target: Duration,
    most: f64,
    limit: f64,
    /// The least delay of each of the last minutes, the present one first.
    base: [Duration; MINUTES],
    minute_began: Instant,
    recent: [Duration; FILTER],
    calls: usize,
    failed_at: Option<Instant>,
}

impl Pace {
    /// At most `most` calls at once, and fewer where they make each other wait for longer than `target`.
    pub fn new(target: Duration, most: usize, now: Instant) -> Pace {
        let most = (most as f64).max(1.0);
        Pace {
            target,
            most,
            limit: FIRST.min(most),
            base: [Duration::MAX; MINUTES],
            minute_began: now,
            recent: [Duration::MAX; FILTER],
            calls: 0,
            failed_at: None,
        }
    }

    /// How many calls may be under way.
    pub fn limit(&self) -> usize {
        self.limit as usize
    }

    /// A call was answered after `took`, while `under_way` others were not.
    pub fn answered(&mut self, took: Duration, under_way: usize, now: Instant) {
        self.remember(took, now);
        let least = |delays: &[Duration]| delays.iter().min().copied().unwrap_or_default();
        let waited = least(&self.recent).saturating_sub(least(&self.base));
        let share = waited.as_secs_f64() / self.target.as_secs_f64();
        if share > 1.0 {
            // At most by half in a round of as many calls as are under way.
            self.limit -= (share - 1.0).min(0.5);
        } else if under_way as f64 >= self.limit / 2.0 {
            // What nobody asks for tells nothing of what there is. By one in a round.
            self.limit += (1.0 - share) / self.limit;
        }
        self.bound();
    }

    /// A call failed, or was not answered in time.
    pub fn failed(&mut self, now: Instant) {
        if self.failed_at.is_none_or(|at| now.saturating_duration_since(at) >= FAILURES_APART) {
            self.failed_at = Some(now);
            self.limit /= 2.0;
            self.bound();
        }
    }

    fn bound(&mut self) {
        self.limit = self.limit.clamp(LEAST.min(self.most), self.most);
    }

    fn remember(&mut self, took: Duration, now: Instant) {
        if now.saturating_duration_since(self.minute_began) >= MINUTE {
            self.minute_began = now;
            self.base.rotate_right(1);
            if let Some(present) = self.base.first_mut() {
                *present = Duration::MAX;
            }
        }
        if let Some(present) = self.base.first_mut() {
            *present = took.min(*present);
        }
        let turn = self.calls % FILTER;
        if let Some(recent) = self.recent.get_mut(turn) {
            *recent = took;
        }
        self.calls = self.calls.wrapping_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// A store that does one call a millisecond: what is under way waits for each other. The limit after so
    /// many seconds, and how long a call took then.
    fn drive(pace: &mut Pace, call: Duration, seconds: u32, from: Instant) -> (usize, Duration) {
        let mut now = from;
        let mut took = Duration::ZERO;
        while now < from + Duration::from_secs(1) * seconds {
            let at_once = pace.limit();
            took = call * at_once as u32;
            now += took;
            for _ in 0..at_once {
                pace.answered(took, at_once, now);
            }
        }
        (pace.limit(), took)
    }

    #[test]
    fn the_delay_settles_at_the_target_whatever_the_store_can_do() {
        for call in [MS / 10, MS, 3 * MS] {
            let start = Instant::now();
            let mut pace = Pace::new(25 * MS, 1000, start);
            // What a call takes on a quiet day.
            pace.answered(call, 1, start);
            let (limit, took) = drive(&mut pace, call, 30, start);
            assert!(took >= 12 * MS && took <= 60 * MS, "{call:?} a call: {limit} at once take {took:?}");
        }
    }

    #[test]
    fn a_store_that_becomes_slow_is_asked_less_within_a_few_rounds_and_more_again_later() {
        let start = Instant::now();
        let mut pace = Pace::new(25 * MS, 100, start);
        pace.answered(MS / 10, 1, start);
        let (fast, _) = drive(&mut pace, MS / 10, 10, start);
        assert!(fast >= 90, "{fast}");
        // The first round takes two seconds, the next half of that, and so on.
        let (slow, _) = drive(&mut pace, 20 * MS, 8, start + 10_000 * MS);
        assert!(slow <= 6, "{slow}");
        let (again, _) = drive(&mut pace, MS / 10, 10, start + 20_000 * MS);
        assert!(again >= 90, "{again}");
    }

    #[test]
    fn a_far_store_is_not_taken_for_a_slow_one() {
        let start = Instant::now();
        let mut pace = Pace::new(25 * MS, 100, start);
        for n in 0..100_000 {
            pace.answered(80 * MS, pace.limit(), start + n * MS);
        }
        assert_eq!(pace.limit(), 100);
    }

    #[test]
    fn failures_halve_it_once_for_all_that_fail_together_and_never_to_nothing() {
        let start = Instant::now();
        let mut pace = Pace::new(25 * MS, 64, start);
        for _ in 0..100 {
            pace.failed(start);
        }
        assert_eq!(pace.limit(), 8);
        for n in 1..100 {
            pace.failed(start + n * FAILURES_APART);
        }
        assert_eq!(pace.limit(), 4);
        assert_eq!(Pace::new(25 * MS, 2, start).limit(), 2, "the setting is the most");
    }

    #[test]
    fn what_is_not_asked_for_is_not_learned() {
        let start = Instant::now();
        let mut pace = Pace::new(25 * MS, 100, start);
        for n in 0..10_000 {
            pace.answered(MS, 1, start + n * MS);
        }
        assert_eq!(pace.limit(), 16);
    }
}
