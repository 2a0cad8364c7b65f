//! Who dealt with which message, and who has been told.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use crate::ids::MessageId;
use crate::prove::crew::{Mask, bit};

/// What is new about a deal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dealt {
    Known,
    /// This one had dealt with it.
    Otherwise(u8),
}

struct Record {
    by: u8,
    due: Mask,
    proven: Mask,
    is_split: bool,
}

impl Record {
    fn lacking(&self) -> Mask {
        self.due & !self.proven
    }
}

/// See the module.
#[derive(Default)]
pub struct Deals {
    records: HashMap<MessageId, Record>,
    done: VecDeque<(Instant, MessageId)>,
}

impl Deals {
    /// Somebody dealt with it, and these are to be told. A second winner is told of once.
    pub fn dealt(&mut self, message: MessageId, by: u8, due: Mask) -> Dealt {
        let record = self.records.entry(message).or_insert(Record { by, due, proven: 0, is_split: false });
        if record.by == by || std::mem::replace(&mut record.is_split, true) {
            return Dealt::Known;
        }
        Dealt::Otherwise(record.by)
    }

    /// Whether the device has acknowledged that it was told.
    pub fn has(&self, message: MessageId, device: u8) -> bool {
        self.records.get(&message).is_some_and(|record| record.proven & bit(device) != 0)
    }

    /// Who dealt with it, as far as is remembered.
    pub fn winner(&self, message: MessageId) -> Option<u8> {
        self.records.get(&message).map(|record| record.by)
    }

    /// A device acknowledges that it was told; whether that is news.
    pub fn proven(&mut self, message: MessageId, device: u8, now: Instant) -> bool {
        let Some(record) = self.records.get_mut(&message).filter(|record| record.lacking() & bit(device) != 0) else {
            return false;
        };
        record.proven |= bit(device);
        if record.lacking() == 0 {
            self.done.push_back((now, message));
        }
        true
    }

    /// Forgets what everybody has known for so long.
    pub fn forget(&mut self, now: Instant, kept: Duration) {
        while let Some((_, message)) = self.done.pop_front_if(|(at, _)| now.saturating_duration_since(*at) > kept) {
            self.records.remove(&message);
        }
    }

    pub fn lacking(&self) -> u64 {
        self.records.values().map(|record| u64::from(record.lacking().count_ones())).sum()
    }

    /// What is lacking, and by whom.
    pub fn lacks(&self) -> impl Iterator<Item = (MessageId, Mask)> {
        let lacking = self.records.iter().filter(|(_, record)| record.lacking() != 0);
        lacking.map(|(message, record)| (*message, record.lacking()))
    }
}
