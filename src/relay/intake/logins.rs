//! The way to the store for those who log in: paced, in order, and no faster than the store bears.
//!
//! Owns who waits and how many are under way. A login first waits for its turn by the rate, then for one of the
//! places that [`Pace`] allows. Called by [`super::super::login`].

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::Semaphore;

use super::pace::Pace;
use super::queue::{Full, Queue};
use crate::metrics;

/// What bounds logins; see the settings of these names.
#[derive(Debug, Clone)]
pub struct LoginLimits {
    /// `limits.logins_per_s`
    pub per_s: u32,
    /// `limits.login_queue`
    pub queue: usize,
    /// `limits.logins_at_once`
    pub at_once: usize,
    /// `limits.login_delay`
    pub delay: Duration,
    /// How long a login waits at most: `timeouts.login`.
    pub wait: Duration,
}

/// See the module.
pub struct Logins {
    queue: Queue,
    wait_max: Duration,
    places: Semaphore,
    state: Mutex<State>,
}

struct State {
    pace: Pace,
    /// Places there are, free or not.
    places: usize,
    under_way: usize,
}

/// A login that is under way, until it is dropped.
pub struct UnderWay {
    logins: Arc<Logins>,
    began: Instant,
}

impl Logins {
    /// Nobody is under way.
    pub fn new(limits: &LoginLimits) -> Arc<Logins> {
        let pace = Pace::new(limits.delay, limits.at_once, Instant::now());
        let places = pace.limit();
        metrics::logins_at_once(places);
        Arc::new(Logins {
            queue: Queue::new(limits.per_s, limits.queue),
            wait_max: limits.wait,
            places: Semaphore::new(places),
            state: Mutex::new(State { pace, places, under_way: 0 }),
        })
    }

    /// Whether one more could not even wait.
    ///
    /// # Errors
    /// It could not.
    pub fn check_room(&self) -> Result<(), Full> {
        if self.queue.is_full() { Err(self.queue.full()) } else { Ok(()) }
    }

    /// Waits until the store may be asked. Cancel-safe: who stops waiting is out of the queue.
    ///
    /// # Errors
    /// The queue is full, or did not come to an end in time.
    pub async fn turn(self: &Arc<Self>) -> Result<UnderWay, Full> {
        let waiting = self.queue.enter()?;
        let _shown = Shown::new();
        let turn = async {
            waiting.turn().await;
            // The semaphore is never closed; without a place there is just one login more at once.
            if let Ok(place) = self.places.acquire().await {
                place.forget();
            }
        };
        let turn = tokio::time::timeout(self.wait_max, turn).await;
        turn.map_err(|_| self.queue.full())?;
        self.state.lock().under_way += 1;
        Ok(UnderWay { logins: self.clone(), began: Instant::now() })
    }

    /// Gives a place back, or not, as the pace is now.
    fn give_back(&self) {
        let mut state = self.state.lock();
        state.under_way -= 1;
        let limit = state.pace.limit();
        if state.places > limit {
            state.places -= 1;
        } else {
            self.places.add_permits(1 + limit - state.places);
            state.places = limit;
        }
    }
}

impl UnderWay {
    /// The store has answered.
    pub fn answered(&self) {
        let mut state = self.logins.state.lock();
        let under_way = state.under_way;
        state.pace.answered(self.began.elapsed(), under_way, Instant::now());
        metrics::logins_at_once(state.pace.limit());
    }

    /// The store has not.
    pub fn failed(&self) {
        let mut state = self.logins.state.lock();
        state.pace.failed(Instant::now());
        metrics::logins_at_once(state.pace.limit());
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.logins.give_back();
    }
}

/// A login that waits, as the metric shows it.
struct Shown;

impl Shown {
    fn new() -> Shown {
        metrics::login_waits(true);
        Shown
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        metrics::login_waits(false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> LoginLimits {
        let wait = Duration::from_secs(60);
        LoginLimits { per_s: 100_000, queue: 100, at_once: 2, delay: Duration::from_millis(25), wait }
    }

    #[tokio::test]
    async fn no_more_are_under_way_than_the_pace_allows_and_they_go_in_order() {
        let logins = Logins::new(&limits());
        let first = logins.turn().await.unwrap();
        let _second = logins.turn().await.unwrap();
        let mut third = Box::pin(logins.turn());
        assert!(tokio::time::timeout(Duration::from_millis(50), &mut third).await.is_err());
        drop(first);
        assert!(third.await.is_ok());
    }

    #[tokio::test]
    async fn who_waits_too_long_is_told_when_to_come_back() {
        let logins = Logins::new(&LoginLimits { wait: Duration::from_millis(20), ..limits() });
        let _held = [logins.turn().await.unwrap(), logins.turn().await.unwrap()];
        let full = logins.turn().await.map(drop).unwrap_err();
        assert!(full.retry_after >= Duration::from_secs(1), "{full:?}");
        assert_eq!(logins.queue.len(), 0);
    }

    #[tokio::test]
    async fn places_follow_the_pace_down_and_up() {
        let logins = Logins::new(&LoginLimits { at_once: 16, ..limits() });
        let turn = logins.turn().await.unwrap();
        turn.failed();
        let mut held = Vec::new();
        for _ in 0..15 {
            held.push(logins.turn().await.unwrap());
        }
        drop(turn);
        drop(held);
        let mut held = Vec::new();
        for _ in 0..8 {
            held.push(logins.turn().await.unwrap());
        }
        assert!(tokio::time::timeout(Duration::from_millis(50), logins.turn()).await.is_err(), "8 after a failure");
    }
}
