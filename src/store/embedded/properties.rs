//! What must hold of the bytes of any row; see [`crate::properties`].

#![allow(clippy::unwrap_used, reason = "a property that does not hold panics")]

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::journal;
use super::tables::{self, DeviceRow, Fate, decode, encode};

/// A row is refused, or is written as it was read.
pub fn row(bytes: &[u8]) {
    written_as_read::<DeviceRow>(bytes);
    written_as_read::<Fate>(bytes);
    if let Ok(fate) = decode::<Fate>("fates", bytes) {
        drop(fate.dealt());
    }
}

/// The bytes are no journal, or it is read to its end; and so are any as the changes of a record.
pub fn journal(bytes: &[u8]) {
    let records = journal::read(bytes, 0).map(|found| found.records).unwrap_or_default();
    for mut changes in records.into_iter().chain([bytes]) {
        while tables::take_change(&mut changes).is_some() {}
    }
}

/// A journal of two records, the first of which holds these changes.
pub fn a_journal(changes: &[u8]) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal");
    journal::create(&path).unwrap();
    let (mut journal, bytes) = journal::Journal::open(&path).unwrap();
    journal.go_on(&journal::read(&bytes, 0).unwrap());
    journal.append(changes).unwrap();
    journal.append(b"").unwrap();
    // As far as there is something in it.
    let mut bytes = std::fs::read(path).unwrap();
    bytes.truncate(bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1);
    bytes
}

fn written_as_read<T: Serialize + DeserializeOwned>(bytes: &[u8]) {
    let Ok(row) = decode::<T>("row", bytes) else { return };
    let first = encode("row", &row).unwrap();
    assert_eq!(encode("row", &decode::<T>("row", &first).unwrap()).unwrap(), first);
}
