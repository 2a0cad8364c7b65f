//! The messages of a shop: whom each is for, and who has it.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use crate::ids::MessageId;
use crate::prove::crew::{Mask, bit};

/// What an id says about a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stored {
    First,
    Again,
    /// It was known by this one.
    Otherwise(MessageId),
}

/// One message, as small as it can be.
struct Record {
    /// [`MessageId::ZERO`] while nobody knows.
    id: MessageId,
    due: Mask,
    proven: Mask,
    sent_at: Instant,
    fate: Fate,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Unknown,
    Accepted,
    Refused,
}

impl Record {
    fn is_done(&self) -> bool {
        match self.fate {
            Fate::Unknown => false,
            Fate::Accepted => self.due & !self.proven == 0,
            Fate::Refused => true,
        }
    }

    /// What of it has not come although it was promised.
    fn lacking(&self) -> Mask {
        if self.fate == Fate::Accepted { self.due & !self.proven } else { 0 }
    }
}

/// See the module.
#[derive(Default)]
pub struct Messages {
    records: HashMap<u64, Record>,
    count: u64,
    /// What is done with, in the order in which it was.
    done: VecDeque<(Instant, u64)>,
}

impl Messages {
    pub fn publish(&mut self, due: Mask, now: Instant) -> u64 {
        self.count += 1;
        let record = Record { id: MessageId::ZERO, due, proven: 0, sent_at: now, fate: Fate::Unknown };
        self.records.insert(self.count, record);
        self.count
    }

    pub fn accepted(&mut self, number: u64, id: MessageId, now: Instant) -> Stored {
        let Some(record) = self.records.get_mut(&number) else { return Stored::Again };
        let is_first = record.fate != Fate::Accepted;
        record.fate = Fate::Accepted;
        if record.id == MessageId::ZERO {
            record.id = id;
        }
        let before = record.id;
        self.note_done(number, now, is_first);
        match (before == id, is_first) {
            (true, true) => Stored::First,
            (true, false) => Stored::Again,
            (false, _) => Stored::Otherwise(before),
        }
    }

    pub fn refused(&mut self, number: u64, now: Instant) {
        let Some(record) = self.records.get_mut(&number) else { return };
        let is_first = record.fate == Fate::Unknown;
        if is_first {
            record.fate = Fate::Refused;
        }
        self.note_done(number, now, is_first);
    }

    /// A device was sent it under this id; None where it is forgotten.
    pub fn seen(&mut self, number: u64, device: u8, id: MessageId) -> Option<Stored> {
        let record = self.records.get_mut(&number)?;
        if record.id == MessageId::ZERO {
            record.id = id;
        }
        Some(match (record.id == id, record.proven & bit(device) == 0) {
            (true, true) => Stored::First,
            (true, false) => Stored::Again,
            (false, _) => Stored::Otherwise(record.id),
        })
    }

    /// A device has it; when it was sent, where that is news.
    pub fn proven(&mut self, number: u64, device: u8, now: Instant) -> Option<Instant> {
        let record = self.records.get_mut(&number).filter(|record| record.proven & bit(device) == 0)?;
        record.proven |= bit(device);
        let sent_at = record.sent_at;
        self.note_done(number, now, true);
        Some(sent_at)
    }

    fn note_done(&mut self, number: u64, now: Instant, is_news: bool) {
        if is_news && self.records.get(&number).is_some_and(Record::is_done) {
            self.done.push_back((now, number));
        }
    }

    /// Forgets what was done with so long ago.
    pub fn forget(&mut self, now: Instant, kept: Duration) {
        while let Some((_, number)) = self.done.pop_front_if(|(at, _)| now.saturating_duration_since(*at) > kept) {
            self.records.remove(&number);
        }
    }

    pub fn unanswered(&self) -> u64 {
        self.records.values().filter(|record| record.fate == Fate::Unknown).count() as u64
    }

    pub fn lacking(&self) -> u64 {
        self.records.values().map(|record| u64::from(record.lacking().count_ones())).sum()
    }

    /// What is lacking: the message by its number and id, and by whom.
    pub fn lacks(&self) -> impl Iterator<Item = (u64, MessageId, Mask)> {
        let lacking = self.records.iter().filter(|(_, record)| record.lacking() != 0);
        lacking.map(|(number, record)| (*number, record.id, record.lacking()))
    }

    /// How many are remembered.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.records.len()
    }
}
