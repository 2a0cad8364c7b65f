//! Identifiers: parse once at the edge, compare, print.
//!
//! Owns the bounds of every name on the wire. Never allocates more than the identifier itself and
//! knows nothing of messages or keys. Everyone uses it.

mod message;

use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::de::{self, Deserializer, Unexpected, Visitor};
use serde::{Deserialize, Serialize, Serializer};

pub use message::{IdText, MessageId};

/// Longest shop, device, group, user, type, table, status or method, in bytes of UTF-8.
pub const NAME_BYTES_MAX: usize = 64;
/// Longest idempotency key, in bytes of UTF-8.
pub const KEY_BYTES_MAX: usize = 128;

/// Why a text is no identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    #[error("is empty; give 1 to {limit} bytes")]
    Empty { limit: usize },
    #[error("has {size} bytes, the limit is {limit}")]
    TooLong { size: usize, limit: usize },
    #[error("contains a control character or a brace, which no name may")]
    Character,
    #[error("is no message id; the form is <milliseconds>-<n>")]
    MessageId,
    #[error("has a character outside A-Za-z0-9._-")]
    ConnId,
}

fn check_name(text: &str, limit: usize) -> Result<(), IdError> {
    if text.is_empty() {
        return Err(IdError::Empty { limit });
    }
    if text.len() > limit {
        return Err(IdError::TooLong { size: text.len(), limit });
    }
    if text.chars().any(|c| c.is_control() || c == '{' || c == '}') {
        return Err(IdError::Character);
    }
    Ok(())
}

/// Reads an id out of a text that it does not keep.
struct TextVisitor<T>(PhantomData<T>);

impl<T: FromStr<Err: fmt::Display>> Visitor<'_> for TextVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }
    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }
    fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<T, E> {
        let text = str::from_utf8(bytes).map_err(|_| E::invalid_value(Unexpected::Bytes(bytes), &self))?;
        self.visit_str(text)
    }
}

/// What an id that is held as text is wherever text is written.
macro_rules! text_form {
    ($name:ident) => {
        impl AsRef<[u8]> for $name {
            fn as_ref(&self) -> &[u8] {
                self.0.as_bytes()
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_str(TextVisitor(PhantomData))
            }
        }
    };
}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident, $limit:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The text, as it was given.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                check_name(text, $limit)?;
                Ok(Self(text.into()))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        text_form! { $name }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }
    };
}

name_type! {
    /// A shop, as the back office names it: 1 to 64 bytes of UTF-8 without controls or braces.
    ShopId, NAME_BYTES_MAX
}
name_type! {
    /// A device, unique in its shop: 1 to 64 bytes of UTF-8 without controls or braces.
    DeviceId, NAME_BYTES_MAX
}
name_type! {
    /// Any other name on the wire (type, table, status, group, user): bounds as for a device.
    Name, NAME_BYTES_MAX
}

impl Name {
    /// A name that the relay itself gives; `text` has to be within the bounds.
    pub fn constant(text: &'static str) -> Name {
        debug_assert!(check_name(text, NAME_BYTES_MAX).is_ok());
        Name(text.into())
    }
}

/// An idempotency key, the shop's: 1 to 128 bytes of UTF-8. Any character is allowed in it.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct OnceKey(Box<str>);

impl OnceKey {
    /// The text, as it was given.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for OnceKey {
    type Error = IdError;
    fn try_from(text: String) -> Result<Self, IdError> {
        match text.len() {
            0 => Err(IdError::Empty { limit: KEY_BYTES_MAX }),
            1..=KEY_BYTES_MAX => Ok(Self(text.into())),
            size => Err(IdError::TooLong { size, limit: KEY_BYTES_MAX }),
        }
    }
}

impl From<OnceKey> for String {
    fn from(key: OnceKey) -> String {
        key.0.into()
    }
}

/// One relay process; new at every start.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct NodeId(Arc<str>);

impl NodeId {
    /// A node id that no other process in the deployment has: start time and 64 random bits.
    pub fn fresh() -> NodeId {
        let now_ms = unix_ms();
        // `RandomState` is seeded from the system's randomness at every use of a new thread key;
        // with the time and the process it is unique where it matters.
        let random = {
            use std::hash::{BuildHasher, Hasher};
            let mut hasher = std::collections::hash_map::RandomState::new().build_hasher();
            hasher.write_u32(std::process::id());
            hasher.write_u64(now_ms);
            hasher.finish()
        };
        NodeId(format!("{now_ms:x}-{random:016x}").into())
    }

    /// The text, as it was given.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for NodeId {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        check_token(text).map(|()| NodeId(text.into()))
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

text_form! { NodeId }

/// One WebSocket of one device, unique in the deployment: the node and a number it never re-issues.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct ConnId(Arc<str>);

impl ConnId {
    /// The `number`th connection of `node`.
    pub fn of(node: &NodeId, number: u64) -> ConnId {
        ConnId(format!("{node}.{number}").into())
    }

    /// The node that it is a connection of; None for an id that no node made.
    pub fn node(&self) -> Option<NodeId> {
        self.0.rsplit_once('.').and_then(|(node, _)| node.parse().ok())
    }

    /// Whether it began after the other one; None where they are not of one node, or of none.
    pub fn is_after(&self, other: &ConnId) -> Option<bool> {
        let (node, number) = self.0.rsplit_once('.')?;
        let (other_node, other_number) = other.0.rsplit_once('.')?;
        // A longer number is a greater one: none begins with a zero.
        let is_after = (number.len(), number) > (other_number.len(), other_number);
        (node == other_node).then_some(is_after)
    }

    /// The text, as it was given.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ConnId {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        check_token(text).map(|()| ConnId(text.into()))
    }
}

impl fmt::Display for ConnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

text_form! { ConnId }

fn check_token(text: &str) -> Result<(), IdError> {
    match text.len() {
        0 => return Err(IdError::Empty { limit: NAME_BYTES_MAX }),
        1..=NAME_BYTES_MAX => {}
        size => {
            return Err(IdError::TooLong { size, limit: NAME_BYTES_MAX });
        }
    }
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    if text.bytes().all(allowed) { Ok(()) } else { Err(IdError::ConnId) }
}

/// The wall clock, in milliseconds since 1970; 0 on a machine whose clock stands before that.
pub fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |age| age.as_millis() as u64)
}

/// What the wall clock would say if nobody had put it forward or back since the process first asked, in
/// milliseconds since 1970: for what is put right by another clock every so often, and must not jump in
/// between.
pub fn steady_ms() -> u64 {
    static FIRST: LazyLock<(Instant, Duration)> =
        LazyLock::new(|| (Instant::now(), SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()));
    let (at, age) = *FIRST;
    (age + at.elapsed()).as_millis() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_bounded_in_bytes_and_refuse_controls_and_braces() {
        assert!("店铺".parse::<ShopId>().is_ok());
        assert!("x".repeat(64).parse::<ShopId>().is_ok());
        assert_eq!("x".repeat(65).parse::<ShopId>(), Err(IdError::TooLong { size: 65, limit: 64 }));
        assert_eq!("".parse::<DeviceId>(), Err(IdError::Empty { limit: 64 }));
        for bad in ["a\nb", "a\u{7f}", "a\u{85}", "a{b", "}"] {
            assert_eq!(bad.parse::<Name>(), Err(IdError::Character), "{bad:?}");
        }
    }

    #[test]
    fn message_ids_compare_by_their_numbers() {
        let id = |text: &str| text.parse::<MessageId>().unwrap();
        assert!(id("9-0") < id("10-0"));
        assert!(id("10-9") < id("10-10"));
        assert_eq!(id("10-0").before(), MessageId { ms: 9, n: u64::MAX });
        assert_eq!(id("1700000000000-3").to_string(), "1700000000000-3");
        for bad in ["", "-", "1", "1-", "-1", "+1-2", "1-2-3", "1-x", "99999999999999999999-0", "1 -2"] {
            assert_eq!(bad.parse::<MessageId>(), Err(IdError::MessageId), "{bad:?}");
        }
    }

    #[test]
    fn a_connection_id_stays_within_its_bounds() {
        let node = NodeId::fresh();
        let conn = ConnId::of(&node, u64::MAX);
        assert!(conn.as_str().len() <= 64, "{conn}");
        assert_eq!(conn.as_str().parse(), Ok(conn.clone()));
        assert_ne!(NodeId::fresh(), NodeId::fresh());
    }
}
