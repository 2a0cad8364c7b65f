//! Tables that note what is changed in them, so that it can be done again.
//!
//! Owns the bytes of a noted change. Never writes them to a disk: that is [`super::super::journal`].
//! Called by [`super`].

use std::borrow::Borrow;
use std::cell::RefCell;
use std::ops::Deref;

use redb::{AccessGuard, Key, StorageError, Table, TableDefinition, TableError, Value, WriteTransaction};

/// What was changed in one transaction, in order; as bytes: for each change the number of its table, the key, and the
/// value if one was put there, each of the two with its length before it.
#[derive(Debug, Default)]
pub struct Changes(RefCell<Vec<u8>>);

impl Changes {
    /// The bytes so far.
    pub fn into_bytes(self) -> Vec<u8> {
        self.0.into_inner()
    }

    fn note(&self, table: u8, key: &[u8], value: Option<&[u8]>) {
        let mut bytes = self.0.borrow_mut();
        bytes.push(table << 1 | u8::from(value.is_some()));
        for part in std::iter::once(key).chain(value) {
            // redb refuses what is longer, and before this.
            bytes.extend_from_slice(&(part.len() as u32).to_le_bytes());
            bytes.extend_from_slice(part);
        }
    }
}

/// One of them, read back.
#[derive(Debug, PartialEq, Eq)]
pub struct ChangeOf<'b> {
    pub table: u8,
    pub key: &'b [u8],
    pub value: Option<&'b [u8]>,
}

/// Takes the first change off the bytes; nothing where they are none.
pub fn take_change<'b>(bytes: &mut &'b [u8]) -> Option<ChangeOf<'b>> {
    let (tag, rest) = bytes.split_first()?;
    *bytes = rest;
    let key = take_part(bytes)?;
    let value = if tag & 1 == 1 { Some(take_part(bytes)?) } else { None };
    Some(ChangeOf { table: tag >> 1, key, value })
}

fn take_part<'b>(bytes: &mut &'b [u8]) -> Option<&'b [u8]> {
    let (len, rest) = bytes.split_first_chunk()?;
    let (part, rest) = rest.split_at_checked(u32::from_le_bytes(*len) as usize)?;
    *bytes = rest;
    Some(part)
}

/// A table that is read as any other, and notes what is changed in it.
pub struct Noted<'t, K: Key + 'static, V: Value + 'static> {
    table: Table<'t, K, V>,
    number: u8,
    changes: &'t Changes,
}

impl<'t, K: Key + 'static, V: Value + 'static> Noted<'t, K, V> {
    /// Opens the table; its number is its name in what is noted, for good.
    ///
    /// # Errors
    /// That of the file.
    pub fn open(
        transaction: &'t WriteTransaction,
        changes: &'t Changes,
        number: u8,
        definition: TableDefinition<'_, K, V>,
    ) -> Result<Self, TableError> {
        Ok(Noted { table: transaction.open_table(definition)?, number, changes })
    }

    pub fn insert<'k, 'v>(
        &mut self,
        key: impl Borrow<K::SelfType<'k>>,
        value: impl Borrow<V::SelfType<'v>>,
    ) -> Result<(), StorageError> {
        let (key, value) = (key.borrow(), value.borrow());
        self.table.insert(key, value)?;
        self.changes.note(self.number, K::as_bytes(key).as_ref(), Some(V::as_bytes(value).as_ref()));
        Ok(())
    }

    /// Removes a row; what it held, if it was there.
    pub fn remove<'k>(
        &mut self,
        key: impl Borrow<K::SelfType<'k>>,
    ) -> Result<Option<AccessGuard<'_, V>>, StorageError> {
        let key = key.borrow();
        let removed = self.table.remove(key)?;
        if removed.is_some() {
            self.changes.note(self.number, K::as_bytes(key).as_ref(), None);
        }
        Ok(removed)
    }

    /// Makes a change that was noted once more, and does not note it again.
    ///
    /// # Panics
    /// May, on bytes that were never noted.
    pub fn redo(&mut self, change: &ChangeOf<'_>) -> Result<(), StorageError> {
        let key = K::from_bytes(change.key);
        match change.value {
            Some(value) => drop(self.table.insert(&key, V::from_bytes(value))?),
            None => drop(self.table.remove(&key)?),
        }
        Ok(())
    }
}

impl<'t, K: Key + 'static, V: Value + 'static> Deref for Noted<'t, K, V> {
    type Target = Table<'t, K, V>;

    fn deref(&self) -> &Self::Target {
        &self.table
    }
}
