//! Refusals that more than one op can meet, in the words that the caller reads.

use std::time::Duration;

use tracing::warn;

use crate::protocol::ErrorCode;
use crate::session::Failure;
use crate::store::StoreError;

/// When to try again after the store could not be reached.
const UNAVAILABLE_WAIT: Duration = Duration::from_millis(500);
/// When to try again after a log, or the store, was full.
pub const FULL_WAIT: Duration = Duration::from_secs(1);

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Failure {
        match error {
            StoreError::Unavailable(_) => {
                let text =
                    "the store cannot be reached; repeat a notify under its key, without one it may be stored already";
                Failure::new(ErrorCode::Unavailable, text).retry_after(UNAVAILABLE_WAIT)
            }
            StoreError::Full => {
                Failure::new(ErrorCode::Unavailable, "the store is full; nothing was stored").retry_after(FULL_WAIT)
            }
            StoreError::Nonsense { .. } => {
                warn!(%error, "the store answered nonsense");
                Failure::new(ErrorCode::Internal, "the store gave an answer that the relay does not understand")
            }
        }
    }
}

pub fn no_such_message() -> Failure {
    Failure::new(ErrorCode::NotFound, "no message with this id is in the shop's log")
}

pub fn no_such_device() -> Failure {
    Failure::new(ErrorCode::NotFound, "no device of this name is registered in this shop")
}

pub fn not_connected() -> Failure {
    Failure::new(ErrorCode::NotFound, "it is not connected")
}
