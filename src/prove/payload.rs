//! What the proof's messages say: enough for whoever gets one to judge whether it should have.
//!
//! Pure. A message names the run, the shop and the devices it is for, so that one that comes to the wrong
//! place betrays itself. A status names who set it and who sent the message.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::prove::crew::Mask;

/// Characters of the longest filling.
const FILLING_MAX: u64 = 400;

/// The `data` of a message or signal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Payload {
    pub run: u64,
    pub shop: u32,
    /// The message's number in its shop, from 1 on; 0 for a signal.
    pub number: u64,
    pub from: u8,
    #[serde(rename = "for")]
    pub due: Mask,
    /// Whether every main is to deal with it.
    pub deal: bool,
    filling: String,
}

/// What a payload says beside its number.
#[derive(Debug, Clone, Copy)]
pub struct Facts {
    pub run: u64,
    pub shop: u32,
    pub from: u8,
    pub due: Mask,
    pub deal: bool,
}

impl Payload {
    pub fn new(number: u64, facts: Facts) -> Payload {
        let Facts { run, shop, from, due, deal } = facts;
        Payload { run, shop, number, from, due, deal, filling: filling(number) }
    }

    /// The payload of one of the proof's messages; None for a stranger's.
    pub fn read(data: &Value) -> Option<Payload> {
        Payload::deserialize(data).ok()
    }

    /// Whether what can be told from the number is as it was sent.
    pub fn is_intact(&self) -> bool {
        self.filling == filling(self.number)
    }
}

/// A text that its number gives: messages are to be of different lengths, and more than ASCII.
fn filling(number: u64) -> String {
    let len = usize::try_from(number.wrapping_mul(37) % FILLING_MAX).unwrap_or(0);
    format!("{number} é桌 ").chars().cycle().take(len).collect()
}

/// The status that a main sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    pub run: u64,
    pub by: u8,
    pub from: u8,
}

impl Mark {
    pub fn read(status: &str) -> Option<Mark> {
        let mut parts = status.strip_prefix("done.")?.split('.');
        let run = u64::from_str_radix(parts.next()?, 16).ok()?;
        let by = parts.next()?.parse().ok()?;
        let from = parts.next()?.parse().ok()?;
        Some(Mark { run, by, from })
    }
}

impl std::fmt::Display for Mark {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "done.{:x}.{}.{}", self.run, self.by, self.from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_and_what_was_changed_is_noticed() {
        let facts = Facts { run: u64::MAX, shop: 3, from: 1, due: u64::MAX, deal: true };
        for number in [0, 1, 7, 12_345] {
            let payload = Payload::new(number, facts);
            let data = serde_json::to_value(&payload).unwrap();
            assert_eq!(Payload::read(&data), Some(payload.clone()));
            assert!(payload.is_intact());
            assert!(!Payload { number: number + 1, ..payload }.is_intact());
        }
        assert_eq!(Payload::read(&serde_json::json!({"dishes": 7})), None);
        let mark = Mark { run: 0xabc, by: 2, from: 9 };
        assert_eq!(Mark::read(&mark.to_string()), Some(mark));
        assert_eq!(Mark::read("open"), None);
    }
}
