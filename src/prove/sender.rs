//! What a device has to send, until the relay has said what became of it.
//!
//! Pure. Owns the queue: what is under way when a connection is lost goes out again on the next, in the
//! same order and under the same keys, so that it is stored once.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::ids::MessageId;
use crate::prove::plan::Draft;

/// Messages that may be sent before the first of them is answered.
const UNDER_WAY_MAX: usize = 16;
/// An answer that takes longer is not awaited on this connection any more.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// A message on its way.
#[derive(Debug, Clone)]
pub struct Sending {
    pub draft: Draft,
    /// Given when it is sent first.
    pub number: Option<u64>,
    /// The newest id that the device knew then.
    pub floor: MessageId,
    asked_at: Instant,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Sender {
    waiting: VecDeque<Sending>,
    under_way: VecDeque<Sending>,
    not_before: Option<Instant>,
    newest: MessageId,
}

impl Sender {
    /// Adds a message.
    pub fn add(&mut self, draft: Draft, now: Instant) {
        self.waiting.push_back(Sending { draft, number: None, floor: MessageId::ZERO, asked_at: now });
    }

    /// How many wait.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// When [`Sender::next`] may have something; None while it has nothing.
    pub fn wake(&self) -> Option<Instant> {
        let answer_by = self.under_way.front().map(|sending| sending.asked_at + ANSWER_MAX);
        let can_send = !self.waiting.is_empty() && self.under_way.len() < UNDER_WAY_MAX;
        let send_at = can_send.then(|| self.not_before.unwrap_or_else(Instant::now));
        [answer_by, send_at].into_iter().flatten().min()
    }

    /// Whether an answer has been awaited for too long.
    pub fn is_late(&self, now: Instant) -> bool {
        self.under_way.front().is_some_and(|sending| now >= sending.asked_at + ANSWER_MAX)
    }

    /// The next message to be sent now, which is under way from then on; `number` gives a new one its
    /// number, and is not asked for signals, of which nothing more is expected.
    pub fn next(&mut self, now: Instant, number: impl FnOnce(&Draft) -> u64) -> Option<Sending> {
        if self.under_way.len() >= UNDER_WAY_MAX || self.not_before.is_some_and(|at| now < at) {
            return None;
        }
        let mut sending = self.waiting.pop_front()?;
        if sending.draft.is_signal {
            return Some(sending);
        }
        if sending.number.is_none() {
            sending.number = Some(number(&sending.draft));
            sending.floor = self.newest;
        }
        sending.asked_at = now;
        self.under_way.push_back(sending.clone());
        Some(sending)
    }

    /// The relay accepted this one; nothing where it was not under way.
    pub fn accepted(&mut self, number: u64, id: MessageId) -> Option<Sending> {
        let sending = self.take(number)?;
        self.newest = self.newest.max(id);
        if sending.draft.is_repeated {
            let draft = Draft { is_repeated: false, ..sending.draft.clone() };
            self.waiting.push_front(Sending { draft, ..sending.clone() });
        }
        Some(sending)
    }

    /// The relay wants it again later, and nothing else before.
    pub fn postponed(&mut self, number: u64, until: Instant) {
        if let Some(sending) = self.take(number) {
            self.waiting.push_front(sending);
            self.not_before = Some(until);
        }
    }

    /// The relay refused it for good.
    pub fn refused(&mut self, number: u64) -> Option<Sending> {
        self.take(number)
    }

    fn take(&mut self, number: u64) -> Option<Sending> {
        let place = self.under_way.iter().position(|sending| sending.number == Some(number))?;
        self.under_way.remove(place)
    }

    /// The connection is gone, and with it the answers.
    pub fn connection_lost(&mut self) {
        while let Some(sending) = self.under_way.pop_back() {
            self.waiting.push_front(sending);
        }
        self.not_before = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prove::crew::Crew;

    fn drafts(sender: &mut Sender, count: usize, now: Instant) {
        for _ in 0..count {
            sender.add(Draft::to_all(Crew { mains: 1, subs: 1 }, 0), now);
        }
    }

    fn send(sender: &mut Sender, now: Instant) -> Vec<u64> {
        let mut count = 100;
        let mut number = |_: &Draft| {
            count += 1;
            count
        };
        std::iter::from_fn(|| sender.next(now, &mut number)).filter_map(|sending| sending.number).collect()
    }

    #[test]
    fn what_a_connection_took_with_it_is_sent_again_in_order_and_under_its_number() {
        let now = Instant::now();
        let mut sender = Sender::default();
        drafts(&mut sender, 3, now);
        assert_eq!(send(&mut sender, now), [101, 102, 103]);
        assert!(sender.accepted(102, MessageId { ms: 5, n: 0 }).is_some());
        sender.connection_lost();
        assert_eq!(send(&mut sender, now), [101, 103]);
        assert!(sender.accepted(102, MessageId { ms: 5, n: 0 }).is_none());
        assert!(!sender.is_late(now) && sender.is_late(now + ANSWER_MAX));
    }

    #[test]
    fn what_was_put_off_comes_first_and_not_before_its_time() {
        let now = Instant::now();
        let later = now + Duration::from_secs(1);
        let mut sender = Sender::default();
        drafts(&mut sender, UNDER_WAY_MAX + 4, now);
        assert_eq!(send(&mut sender, now).len(), UNDER_WAY_MAX);
        sender.postponed(101, later);
        assert_eq!(send(&mut sender, now), [0; 0]);
        assert_eq!(send(&mut sender, later), [101]);
        assert_eq!(sender.waiting(), 4);
    }

    #[test]
    fn a_repeated_one_goes_out_once_more_after_it_was_accepted() {
        let now = Instant::now();
        let mut sender = Sender::default();
        let draft = Draft { is_repeated: true, ..Draft::to_all(Crew { mains: 1, subs: 1 }, 0) };
        sender.add(draft, now);
        assert_eq!(send(&mut sender, now), [101]);
        sender.accepted(101, MessageId { ms: 5, n: 0 });
        assert_eq!(send(&mut sender, now), [101]);
        sender.accepted(101, MessageId { ms: 5, n: 0 });
        assert_eq!(sender.waiting(), 0);
    }
}
