//! Replies of Redis taken apart, and its errors sorted.
//!
//! Owns the decision which error is whose fault, and the wording of a reply that is none: kinds and
//! sizes, never contents, for a reply may hold payloads. Never sends anything. Called by
//! [`super::scripts`] and [`super`].

use std::str::FromStr;
use std::vec;

use fred::error::{Error, ErrorKind};
use fred::types::Value;

use crate::ids::{MessageId, ShopId};
use crate::metrics;
use crate::store::StoreError;
use crate::store::record::RecordError;

/// Commands of one pipeline, so that one call does not hold up everyone else.
pub const PIPELINE_MAX: usize = 256;

/// Server errors that mean "not now": nothing happened, or nothing is known, and later it may work.
const NOT_NOW: [&str; 12] = [
    "MOVED",
    "ASK",
    "LOADING",
    "READONLY",
    "MASTERDOWN",
    "BUSY",
    "CLUSTERDOWN",
    "TRYAGAIN",
    "NOREPLICAS",
    "UNBLOCKED",
    "NOAUTH",
    "LATE",
];
/// Server errors that mean "no room": out of memory, or unable to write to disk.
const NO_ROOM: [&str; 2] = ["OOM", "MISCONF"];

/// What an error of `call` means to the caller.
pub fn store_error(call: &'static str, error: Error) -> StoreError {
    let code = error_code(&error);
    match (error.kind(), code) {
        (_, Some(code)) if NO_ROOM.contains(&code) => StoreError::Full,
        (_, Some(code)) if NOT_NOW.contains(&code) => StoreError::Unavailable(Box::new(error)),
        (
            ErrorKind::Unknown | ErrorKind::InvalidArgument | ErrorKind::InvalidCommand | ErrorKind::NotFound,
            Some(_),
        )
        | (ErrorKind::Parse | ErrorKind::Protocol | ErrorKind::InvalidArgument, None) => {
            StoreError::Nonsense { call, seen: error.to_string() }
        }
        _ => StoreError::Unavailable(Box::new(error)),
    }
}

/// The error for a call that is known to lead nowhere now.
pub fn unavailable(why: &'static str) -> StoreError {
    StoreError::Unavailable(why.into())
}

/// Whether the server has forgotten a script, or never had it.
pub fn is_unknown_script(error: &Error) -> bool {
    error_code(error) == Some("NOSCRIPT")
}

/// A refusal of a server that is not the one to ask: it carried nothing out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The slot is another server's.
    Moved,
    /// The slot is on its way to another server.
    Moving,
    /// The server was a primary, and is one no more.
    Demoted,
}

/// Whether this is a refusal for having asked in the wrong place.
pub fn refusal(error: &Error) -> Option<Refusal> {
    match error_code(error)? {
        "MOVED" => Some(Refusal::Moved),
        "ASK" | "TRYAGAIN" => Some(Refusal::Moving),
        "READONLY" => Some(Refusal::Demoted),
        _ => None,
    }
}

/// The word in capitals that begins an error of the server; fred's own errors have none.
fn error_code(error: &Error) -> Option<&str> {
    let word = error.details().split(' ').next()?;
    (word.len() > 1 && word.bytes().all(|byte| byte.is_ascii_uppercase())).then_some(word)
}

/// The error for a record that cannot be written.
pub fn unwritable(call: &'static str, error: RecordError) -> StoreError {
    StoreError::Nonsense { call, seen: error.to_string() }
}

/// Notes that a field holds what this version cannot read.
pub fn unreadable(shop: &ShopId, hash: &'static str, field: impl std::fmt::Display) {
    metrics::record_unreadable();
    tracing::warn!(%shop, hash, %field, "a stored field cannot be read and is left out");
}

/// The items of a reply, one after the other.
pub struct Reply {
    call: &'static str,
    items: vec::IntoIter<Value>,
}

impl Reply {
    /// The reply to `call`. One that is no list is a list of one.
    pub fn new(call: &'static str, value: Value) -> Reply {
        let items = match value {
            Value::Array(items) => items,
            other => vec![other],
        };
        Reply { call, items: items.into_iter() }
    }

    /// The replies to several commands, as one item each.
    pub fn of_many(call: &'static str, replies: Vec<Value>) -> Reply {
        Reply { call, items: replies.into_iter() }
    }

    /// Whether there is nothing more.
    pub fn is_empty(&self) -> bool {
        self.items.len() == 0
    }

    /// The next item, whatever it is.
    ///
    /// # Errors
    /// [`StoreError::Nonsense`] where there is none.
    pub fn value(&mut self) -> Result<Value, StoreError> {
        self.items.next().ok_or_else(|| StoreError::Nonsense { call: self.call, seen: "too few items".to_owned() })
    }

    /// The next item as a number.
    ///
    /// # Errors
    /// [`StoreError::Nonsense`]
    pub fn number(&mut self) -> Result<i64, StoreError> {
        match self.value()? {
            Value::Integer(number) => Ok(number),
            other => Err(self.nonsense(&other)),
        }
    }

    /// The next item as the text of something.
    ///
    /// # Errors
    /// [`StoreError::Nonsense`]
    pub fn parsed<T: FromStr>(&mut self) -> Result<T, StoreError> {
        let value = self.value()?;
        text(&value).and_then(|text| text.parse().ok()).ok_or_else(|| self.nonsense(&value))
    }

    /// The next item as the text of something, or as nil.
    ///
    /// # Errors
    /// [`StoreError::Nonsense`]
    pub fn parsed_or_nil<T: FromStr>(&mut self) -> Result<Option<T>, StoreError> {
        if matches!(self.items.as_slice().first(), Some(Value::Null)) {
            self.items.next();
            return Ok(None);
        }
        self.parsed().map(Some)
    }

    /// The next item as an id, nil being the id before all.
    ///
    /// # Errors
    /// [`StoreError::Nonsense`]
    pub fn id_or_zero(&mut self) -> Result<MessageId, StoreError> {
        Ok(self.parsed_or_nil()?.unwrap_or(MessageId::ZERO))
    }

    /// The error for an item that is none.
    pub fn nonsense(&self, seen: &Value) -> StoreError {
        StoreError::Nonsense { call: self.call, seen: describe(seen) }
    }

    /// The error for a code that is none.
    pub fn unknown(&self, code: i64) -> StoreError {
        StoreError::Nonsense { call: self.call, seen: format!("the unknown code {code}") }
    }
}

/// The text of a value, where it is one.
pub fn text(value: &Value) -> Option<&str> {
    std::str::from_utf8(bytes(value)?).ok()
}

/// The bytes of a value, where it has some.
pub fn bytes(value: &Value) -> Option<&[u8]> {
    match value {
        Value::String(text) => Some(text.as_bytes()),
        Value::Bytes(bytes) => Some(bytes),
        _ => None,
    }
}

fn describe(value: &Value) -> String {
    match value {
        Value::Integer(number) => format!("the number {number}"),
        Value::Null => "nil".to_owned(),
        Value::Array(items) => format!("a list of {}", items.len()),
        other => match bytes(other) {
            Some(bytes) => format!("a string of {} bytes", bytes.len()),
            None => format!("a value of kind {:?}", other.kind()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sorted(kind: ErrorKind, details: &'static str) -> StoreError {
        store_error("publish", Error::new(kind, details))
    }

    #[test]
    fn an_error_is_sorted_by_what_the_caller_can_do() {
        assert!(matches!(sorted(ErrorKind::Unknown, "OOM command not allowed"), StoreError::Full));
        for details in ["LOADING Redis is loading", "READONLY You can't write", "BUSY Redis is busy", "MASTERDOWN Link"]
        {
            assert!(matches!(sorted(ErrorKind::Unknown, details), StoreError::Unavailable(_)), "{details}");
        }
        assert!(matches!(sorted(ErrorKind::Timeout, "Request timed out."), StoreError::Unavailable(_)));
        assert!(matches!(sorted(ErrorKind::IO, "Connection closed."), StoreError::Unavailable(_)));
        assert!(matches!(sorted(ErrorKind::Unknown, "channel closed"), StoreError::Unavailable(_)));
        assert!(matches!(sorted(ErrorKind::Unknown, "ERR user_script:3: x"), StoreError::Nonsense { .. }));
        assert!(matches!(sorted(ErrorKind::InvalidArgument, "WRONGTYPE Operation"), StoreError::Nonsense { .. }));
    }

    #[test]
    fn a_reply_that_is_none_is_told_by_kind_and_never_by_content() {
        let mut reply = Reply::new("read", Value::Array(vec![Value::from("secret")]));
        let error = reply.number().unwrap_err().to_string();
        assert_eq!(error, "the store answered a string of 6 bytes to read");
        assert!(reply.number().is_err(), "nothing is left");
    }
}
