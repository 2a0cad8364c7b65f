//! The id of a message: parsed and printed more often than anything else.
//!
//! Never allocates. Called by [`super`], which hands it on.

use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;

use serde::de::Deserializer;
use serde::{Deserialize, Serialize, Serializer};

use crate::ids::{IdError, TextVisitor};

/// The id of an entry in a shop's log: the Redis stream id `<milliseconds>-<n>`, compared by the
/// two numbers. [`MessageId::ZERO`] stands before every entry.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MessageId {
    /// When the store took the entry, in milliseconds since 1970.
    pub ms: u64,
    /// Counts entries of one millisecond.
    pub n: u64,
}

impl MessageId {
    /// Before every entry: the position of an empty log.
    pub const ZERO: MessageId = MessageId { ms: 0, n: 0 };

    /// After every entry.
    pub const MAX: MessageId = MessageId { ms: u64::MAX, n: u64::MAX };

    /// This id, or nothing where it is [`MessageId::ZERO`]: the wire's `id|null`.
    pub fn non_zero(self) -> Option<MessageId> {
        (self != Self::ZERO).then_some(self)
    }

    /// The id right before this one in the order of ids: what to read "after" to get this entry.
    pub fn before(self) -> MessageId {
        match (self.ms, self.n) {
            (0, 0) => Self::ZERO,
            (ms, 0) => MessageId { ms: ms - 1, n: u64::MAX },
            (ms, n) => MessageId { ms, n: n - 1 },
        }
    }

    /// Its text.
    pub fn text(self) -> IdText {
        let mut text = IdText { bytes: [0; IdText::BYTES_MAX], len: 0 };
        let mut digits = itoa::Buffer::new();
        text.push(digits.format(self.ms));
        text.push("-");
        text.push(digits.format(self.n));
        text
    }
}

impl FromStr for MessageId {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        /// What `u64::from_str` gives, but for a leading plus sign, which an id does not have.
        fn number(digits: &[u8]) -> Option<u64> {
            if digits.is_empty() {
                return None;
            }
            digits.iter().try_fold(0_u64, |number, digit| {
                let digit = digit.wrapping_sub(b'0');
                if digit > 9 { None } else { number.checked_mul(10)?.checked_add(digit.into()) }
            })
        }
        // Every ack is one: this is read more often than anything else.
        let bytes = text.as_bytes();
        let dash = bytes.iter().position(|&byte| byte == b'-').ok_or(IdError::MessageId)?;
        let (ms, n) = bytes.split_at(dash);
        let id = number(ms).zip(number(n.get(1..).unwrap_or_default()));
        id.map(|(ms, n)| MessageId { ms, n }).ok_or(IdError::MessageId)
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text().as_str())
    }
}

impl fmt::Debug for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for MessageId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.text().as_str())
    }
}

/// A [`MessageId`] as it is printed, without an allocation.
pub struct IdText {
    bytes: [u8; IdText::BYTES_MAX],
    len: usize,
}

impl IdText {
    /// Two numbers of 20 digits, and what stands between.
    const BYTES_MAX: usize = 41;

    fn push(&mut self, text: &str) {
        if let Some(room) = self.bytes.get_mut(self.len..self.len + text.len()) {
            room.copy_from_slice(text.as_bytes());
            self.len += text.len();
        }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        self.bytes.get(..self.len).and_then(|bytes| str::from_utf8(bytes).ok()).unwrap_or_default()
    }
}

impl AsRef<[u8]> for IdText {
    fn as_ref(&self) -> &[u8] {
        self.as_str().as_bytes()
    }
}

impl<'de> Deserialize<'de> for MessageId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(TextVisitor(PhantomData))
    }
}
