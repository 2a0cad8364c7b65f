//! What must hold of the bytes of any row; see [`crate::properties`].

#![allow(clippy::unwrap_used, reason = "a property that does not hold panics")]

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::tables::{DeviceRow, Fate, decode, encode};

/// A row is refused, or is written as it was read.
pub fn row(bytes: &[u8]) {
    written_as_read::<DeviceRow>(bytes);
    written_as_read::<Fate>(bytes);
    if let Ok(fate) = decode::<Fate>("fates", bytes) {
        drop(fate.dealt());
    }
}

fn written_as_read<T: Serialize + DeserializeOwned>(bytes: &[u8]) {
    let Ok(row) = decode::<T>("row", bytes) else { return };
    let first = encode("row", &row).unwrap();
    assert_eq!(encode("row", &decode::<T>("row", &first).unwrap()).unwrap(), first);
}
