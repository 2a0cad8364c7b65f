//! What was published in a shop, and which of its devices have got it.
//!
//! Owns the numbers of a shop's messages: what is under way, what was accepted, what arrived where, and
//! from these what is lost and what came twice. Never sees a socket. Asked by [`super`].

use std::collections::VecDeque;

/// A set of message numbers.
#[derive(Debug, Default, Clone)]
struct Numbers(Vec<u64>);

impl Numbers {
    /// Whether it was new.
    fn insert(&mut self, number: u32) -> bool {
        let (word, bit) = (number as usize / 64, 1 << (number % 64));
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        let Some(word) = self.0.get_mut(word) else { return false };
        let is_new = *word & bit == 0;
        *word |= bit;
        is_new
    }

    fn contains(&self, number: u32) -> bool {
        self.0.get(number as usize / 64).is_some_and(|word| word & (1 << (number % 64)) != 0)
    }

    /// How many are in `self` and not in `other`.
    fn count_without(&self, other: &Numbers) -> u64 {
        let words = self.0.iter().zip(other.0.iter().chain(std::iter::repeat(&0)));
        words.map(|(word, other)| u64::from((word & !other).count_ones())).sum()
    }
}

#[derive(Debug, Default, Clone)]
struct Receiver {
    has: Numbers,
    is_gone: bool,
}

/// A message that is under way.
#[derive(Debug)]
struct Pending {
    due_ns: u64,
    sent_ns: u64,
    /// Devices that still lack it.
    left: usize,
    is_answered: bool,
    is_over: bool,
}

/// A shop of the benchmark, and its messages.
#[derive(Debug)]
pub struct Shop {
    receivers: Vec<Receiver>,
    accepted: Numbers,
    pending: VecDeque<Pending>,
    /// The number of the first of them.
    base: u32,
    /// Whether publishes are answered.
    has_answers: bool,
}

/// What an arrival meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    /// False where the device had it before.
    pub is_new: bool,
    /// Whether the message is now over: answered, and with everyone.
    pub is_over: bool,
}

impl Shop {
    pub fn new(receivers: usize, has_answers: bool) -> Shop {
        Shop {
            receivers: vec![Receiver::default(); receivers],
            accepted: Numbers::default(),
            pending: VecDeque::new(),
            base: 0,
            has_answers,
        }
    }

    /// The number of the next message, which is under way from now on.
    pub fn publish(&mut self, due_ns: u64, sent_ns: u64) -> u32 {
        let seq = self.base.wrapping_add(self.pending.len() as u32);
        let left = self.receivers.iter().filter(|receiver| !receiver.is_gone).count();
        if !self.has_answers {
            self.accepted.insert(seq);
        }
        self.pending.push_back(Pending { due_ns, sent_ns, left, is_answered: !self.has_answers, is_over: false });
        seq
    }

    /// The relay has stored it. When it was due, and whether it is over; None where nobody waits for it any more.
    pub fn on_accepted(&mut self, seq: u32) -> Option<(u64, bool)> {
        self.accepted.insert(seq);
        let pending = self.pending_mut(seq).filter(|pending| !pending.is_answered)?;
        pending.is_answered = true;
        let due_ns = pending.due_ns;
        Some((due_ns, self.settle(seq)))
    }

    /// The relay has refused it: nobody is to get it. Whether it was still waited for.
    pub fn on_refused(&mut self, seq: u32) -> bool {
        let Some(pending) = self.pending_mut(seq).filter(|pending| !pending.is_over) else { return false };
        (pending.is_answered, pending.left) = (true, 0);
        self.settle(seq)
    }

    /// A device got it.
    pub fn on_arrival(&mut self, receiver: usize, seq: u32) -> Arrival {
        let is_new = self.receivers.get_mut(receiver).is_some_and(|receiver| receiver.has.insert(seq));
        if is_new && let Some(pending) = self.pending_mut(seq) {
            pending.left = pending.left.saturating_sub(1);
        }
        Arrival { is_new, is_over: is_new && self.settle(seq) }
    }

    /// A device's connection has ended. How many messages are over because nobody else waits for them.
    pub fn on_receiver_gone(&mut self, receiver: usize) -> usize {
        let Some(gone) = self.receivers.get_mut(receiver).filter(|receiver| !receiver.is_gone) else { return 0 };
        gone.is_gone = true;
        let has = gone.has.clone();
        let lacking: Vec<u32> = self.under_way().filter(|seq| !has.contains(*seq)).collect();
        let over = lacking.into_iter().filter(|seq| {
            if let Some(pending) = self.pending_mut(*seq) {
                pending.left = pending.left.saturating_sub(1);
            }
            self.settle(*seq)
        });
        over.count()
    }

    /// Gives up what was sent before this moment: how many messages, and how many of them had no answer.
    pub fn give_up(&mut self, sent_before_ns: u64) -> (usize, u64) {
        let late: Vec<u32> = self.under_way().collect();
        let (mut given_up, mut unanswered) = (0, 0);
        for seq in late {
            let Some(pending) = self.pending_mut(seq).filter(|pending| pending.sent_ns < sent_before_ns) else {
                continue;
            };
            unanswered += u64::from(!pending.is_answered);
            (pending.is_answered, pending.left) = (true, 0);
            given_up += usize::from(self.settle(seq));
        }
        (given_up, unanswered)
    }

    /// Messages that were accepted and that a device has not got, over all its devices.
    pub fn missing(&self) -> u64 {
        self.receivers.iter().map(|receiver| self.accepted.count_without(&receiver.has)).sum()
    }

    fn under_way(&self) -> impl Iterator<Item = u32> + use<> {
        let (base, count) = (self.base, self.pending.len() as u32);
        (0..count).map(move |n| base.wrapping_add(n))
    }

    fn pending_mut(&mut self, seq: u32) -> Option<&mut Pending> {
        self.pending.get_mut(seq.checked_sub(self.base)? as usize)
    }

    /// Whether a message has just come to its end.
    fn settle(&mut self, seq: u32) -> bool {
        let Some(pending) = self.pending_mut(seq) else { return false };
        if pending.is_over || !pending.is_answered || pending.left > 0 {
            return false;
        }
        pending.is_over = true;
        while self.pending.front().is_some_and(|pending| pending.is_over) {
            self.pending.pop_front();
            self.base = self.base.wrapping_add(1);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_over_when_it_is_answered_and_with_everyone() {
        let mut shop = Shop::new(2, true);
        let (first, second) = (shop.publish(10, 11), shop.publish(20, 21));
        assert_eq!(shop.on_arrival(0, first), Arrival { is_new: true, is_over: false });
        assert_eq!(shop.on_accepted(first), Some((10, false)));
        assert_eq!(shop.on_accepted(second), Some((20, false)));
        assert_eq!(shop.on_arrival(0, second), Arrival { is_new: true, is_over: false });
        assert_eq!(shop.on_arrival(1, second), Arrival { is_new: true, is_over: true }, "out of turn");
        assert_eq!(shop.on_arrival(1, first), Arrival { is_new: true, is_over: true });
        assert_eq!(shop.on_arrival(1, first), Arrival { is_new: false, is_over: false }, "a second time");
        assert_eq!(shop.missing(), 0);
        assert_eq!(shop.publish(30, 31), 2);
    }

    #[test]
    fn what_was_accepted_and_did_not_come_is_missing() {
        let mut shop = Shop::new(2, true);
        let lost = shop.publish(0, 5);
        shop.on_accepted(lost);
        shop.on_arrival(0, lost);
        let refused = shop.publish(0, 6);
        assert!(shop.on_refused(refused));
        let unanswered = shop.publish(0, 7);
        assert_eq!(shop.give_up(7), (1, 0));
        assert_eq!(shop.give_up(8), (1, 1));
        assert_eq!(shop.missing(), 1);
        assert_eq!(shop.on_accepted(unanswered), None, "it was given up");
        assert_eq!(shop.missing(), 3, "the answer came late, and it is stored");
    }

    #[test]
    fn nobody_waits_for_a_device_that_is_gone_but_what_it_lacks_is_missing() {
        let mut shop = Shop::new(2, true);
        let seq = shop.publish(0, 0);
        shop.on_accepted(seq);
        assert!(!shop.on_arrival(0, seq).is_over);
        assert_eq!(shop.on_receiver_gone(1), 1);
        assert_eq!(shop.on_receiver_gone(1), 0);
        let next = shop.publish(0, 0);
        shop.on_accepted(next);
        assert!(shop.on_arrival(0, next).is_over);
        assert_eq!(shop.missing(), 2);
    }

    #[test]
    fn without_answers_a_message_counts_from_when_it_was_sent() {
        let mut shop = Shop::new(1, false);
        let seq = shop.publish(0, 0);
        assert!(shop.on_arrival(0, seq).is_over);
        shop.publish(0, 0);
        assert_eq!(shop.missing(), 1);
    }
}
