//! The tables of the database file, and what their rows hold.
//!
//! Owns the layout: a change that an older version would misread raises [`FORMAT`], and so does one that would
//! misread a journal. Everything of a shop is keyed by the shop first, so that a shop's rows lie together; what
//! the larger rows hold is in [`rows`]. Never decides anything; called by [`super::changes`], [`super::queries`] and [`super::disk`].

use std::io;

use redb::{ReadableTable, TableDefinition, WriteTransaction};
use serde::{Deserialize, Serialize};

use crate::ids::{DeviceId, MessageId, ShopId};
use crate::store::embedded::tables::noted::Noted;
use crate::store::{StoreError, record};

pub use noted::{Changes, take_change};
pub use rows::{DeviceRow, Fate, ShopRow};

mod noted;
mod rows;

/// The number of this layout. With 2 came the journal: what the tables hold for good is not all that was accepted.
pub const FORMAT: u64 = 2;
/// The oldest that is read, and made to be of this one.
pub const FORMAT_OLDEST: u64 = 1;
/// The row of [`META`] that holds [`FORMAT`].
pub const FORMAT_ROW: &str = "format";

/// The row of [`META`] that holds the newest number that any message was given; none before the first.
pub const NEWEST_NUMBER_ROW: &str = "newest_number";
/// The row of [`META`] that holds the number of the journal's record whose changes came last; none before the first.
pub const JOURNAL_ROW: &str = "journal";

/// Shop and the two numbers of an entry's id.
pub type EntryKey = (&'static str, u64, u64);
/// Shop and device.
pub type DeviceKey = (&'static str, &'static str);

/// Numbers about the file itself.
pub const META: TableDefinition<&str, u64> = TableDefinition::new("meta");
/// Shop -> the two numbers of the head, entries in the log, registered mains.
pub const SHOPS: TableDefinition<&str, (u64, u64, u64, u64)> = TableDefinition::new("shops");
/// Entry -> its record; see [`crate::store::record`].
pub const LOG: TableDefinition<EntryKey, &[u8]> = TableDefinition::new("log");
/// Entry -> [`Fate`]; only for entries that have one.
pub const FATES: TableDefinition<EntryKey, &[u8]> = TableDefinition::new("fates");
/// Device -> [`DeviceRow`].
pub const DEVICES: TableDefinition<DeviceKey, &[u8]> = TableDefinition::new("devices");
/// Device -> the two numbers of its cursor. Apart from the registry, for acknowledgements are by far
/// the most frequent change, and these rows are small.
pub const CURSORS: TableDefinition<DeviceKey, (u64, u64)> = TableDefinition::new("cursors");
/// Device -> its attributes, JSON text; only for devices that have some. Files of earlier versions have
/// no such table until something is written.
pub const ATTRS: TableDefinition<DeviceKey, &str> = TableDefinition::new("attrs");
/// Entry -> the number by which legacy peers know it; only for those that were shown to one. Files of
/// earlier versions have neither this table nor the next until something is written.
pub const NUMBERS: TableDefinition<EntryKey, u64> = TableDefinition::new("numbers");
/// The rows of [`NUMBERS`] by number.
pub const NUMBERED: TableDefinition<u64, EntryKey> = TableDefinition::new("numbered");
/// Barred device -> since when, in milliseconds since 1970, and the back end that barred it. Files of earlier
/// versions have no such table until something is written.
pub const BARRED: TableDefinition<DeviceKey, (u64, &str)> = TableDefinition::new("barred");
/// Shop and idempotency key -> the two numbers of the id stored under it, and when it ends, in
/// milliseconds since 1970.
pub const ONCE: TableDefinition<(&str, &str), (u64, u64, u64)> = TableDefinition::new("once");
/// The rows of [`ONCE`] in the order in which they end.
pub const ONCE_ENDS: TableDefinition<(u64, &str, &str), ()> = TableDefinition::new("once_ends");

/// Why a change or a query came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The file. A transaction that met it is lost, with everything in it.
    #[error(transparent)]
    File(Box<redb::Error>),
    /// A row that this version cannot read. Nothing was changed.
    #[error("a row of the table {table} cannot be read")]
    Row { table: &'static str },
    /// The file is closed, or could not be opened again yet.
    #[error("the store's file is closed")]
    Closed,
    /// redb found itself in a state that it holds for impossible. The transaction is lost.
    #[error("the database failed within itself")]
    Panic,
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        Failure::File(Box::new(redb::Error::Io(error)))
    }
}

/// redb has an error type for each step.
macro_rules! from_redb {
    ($($error:ty),+) => {
        $(impl From<$error> for Failure {
            fn from(error: $error) -> Failure {
                Failure::File(Box::new(error.into()))
            }
        })+
    };
}
from_redb!(
    redb::StorageError,
    redb::TableError,
    redb::TransactionError,
    redb::CommitError,
    redb::SetDurabilityError,
    redb::DatabaseError
);

/// Whether an error of the disk says that there is no room for more.
pub fn is_no_room(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::FileTooLarge | io::ErrorKind::QuotaExceeded)
}

impl Failure {
    /// Whether it says that there is no room for more.
    pub fn is_full(&self) -> bool {
        matches!(self, Failure::File(error) if matches!(&**error, redb::Error::Io(cause) if is_no_room(cause)))
    }

    /// What it means to who called.
    pub fn of_call(self, call: &'static str) -> StoreError {
        match self {
            full if full.is_full() => StoreError::Full,
            Failure::Row { table } => StoreError::Nonsense { call, seen: format!("a broken row of {table}") },
            Failure::File(error) => StoreError::Unavailable(error),
            gone @ (Failure::Closed | Failure::Panic) => StoreError::Unavailable(Box::new(gone)),
        }
    }
}

/// A row from its bytes.
///
/// # Errors
/// [`Failure::Row`]
pub fn decode<'a, T: Deserialize<'a>>(table: &'static str, bytes: &'a [u8]) -> Result<T, Failure> {
    record::read(bytes).map_err(|_| Failure::Row { table })
}

/// The bytes of a row.
///
/// # Errors
/// [`Failure::Row`]
pub fn encode<T: Serialize>(table: &'static str, row: &T) -> Result<Vec<u8>, Failure> {
    rmp_serde::to_vec_named(row).map_err(|_| Failure::Row { table })
}

/// The key of an entry.
pub fn entry_key(shop: &ShopId, id: MessageId) -> (&str, u64, u64) {
    (shop.as_str(), id.ms, id.n)
}

/// The key of a device.
pub fn device_key<'a>(shop: &'a ShopId, device: &'a DeviceId) -> (&'a str, &'a str) {
    (shop.as_str(), device.as_str())
}

/// The tables, open for one transaction that changes them, and notes how.
pub struct Tables<'t> {
    pub meta: Noted<'t, &'static str, u64>,
    pub shops: Noted<'t, &'static str, (u64, u64, u64, u64)>,
    pub log: Noted<'t, EntryKey, &'static [u8]>,
    pub fates: Noted<'t, EntryKey, &'static [u8]>,
    pub devices: Noted<'t, DeviceKey, &'static [u8]>,
    pub cursors: Noted<'t, DeviceKey, (u64, u64)>,
    pub attrs: Noted<'t, DeviceKey, &'static str>,
    pub numbers: Noted<'t, EntryKey, u64>,
    pub numbered: Noted<'t, u64, EntryKey>,
    pub barred: Noted<'t, DeviceKey, (u64, &'static str)>,
    pub once: Noted<'t, (&'static str, &'static str), (u64, u64, u64)>,
    pub once_ends: Noted<'t, (u64, &'static str, &'static str), ()>,
}

impl<'t> Tables<'t> {
    /// Opens them all, and makes those that are not there.
    ///
    /// # Errors
    /// [`Failure::File`]
    pub fn open(transaction: &'t WriteTransaction, changes: &'t Changes) -> Result<Tables<'t>, Failure> {
        // A journal names them by these numbers, as does `redo`.
        Ok(Tables {
            meta: Noted::open(transaction, changes, 0, META)?,
            shops: Noted::open(transaction, changes, 1, SHOPS)?,
            log: Noted::open(transaction, changes, 2, LOG)?,
            fates: Noted::open(transaction, changes, 3, FATES)?,
            devices: Noted::open(transaction, changes, 4, DEVICES)?,
            cursors: Noted::open(transaction, changes, 5, CURSORS)?,
            attrs: Noted::open(transaction, changes, 6, ATTRS)?,
            numbers: Noted::open(transaction, changes, 7, NUMBERS)?,
            numbered: Noted::open(transaction, changes, 8, NUMBERED)?,
            barred: Noted::open(transaction, changes, 9, BARRED)?,
            once: Noted::open(transaction, changes, 10, ONCE)?,
            once_ends: Noted::open(transaction, changes, 11, ONCE_ENDS)?,
        })
    }

    /// Makes changes once more that were noted in a transaction before.
    ///
    /// # Errors
    /// [`Failure::File`], and [`Failure::Row`] where the bytes are no changes.
    pub fn redo(&mut self, mut changes: &[u8]) -> Result<(), Failure> {
        let unknown = || Failure::Row { table: "journal" };
        while !changes.is_empty() {
            let change = take_change(&mut changes).ok_or_else(unknown)?;
            match change.table {
                0 => self.meta.redo(&change)?,
                1 => self.shops.redo(&change)?,
                2 => self.log.redo(&change)?,
                3 => self.fates.redo(&change)?,
                4 => self.devices.redo(&change)?,
                5 => self.cursors.redo(&change)?,
                6 => self.attrs.redo(&change)?,
                7 => self.numbers.redo(&change)?,
                8 => self.numbered.redo(&change)?,
                9 => self.barred.redo(&change)?,
                10 => self.once.redo(&change)?,
                11 => self.once_ends.redo(&change)?,
                _ => return Err(unknown()),
            }
        }
        Ok(())
    }

    pub fn shop(&self, shop: &ShopId) -> Result<Option<ShopRow>, Failure> {
        Ok(self.shops.get(shop.as_str())?.map(|row| row.value().into()))
    }

    pub fn put_shop(&mut self, shop: &ShopId, row: ShopRow) -> Result<(), Failure> {
        self.shops.insert(shop.as_str(), (row.head.ms, row.head.n, row.entries, row.mains))?;
        Ok(())
    }

    pub fn device(&self, shop: &ShopId, device: &DeviceId) -> Result<Option<DeviceRow>, Failure> {
        let row = self.devices.get(device_key(shop, device))?;
        row.map(|row| decode("devices", row.value())).transpose()
    }

    /// Every device of the shop.
    pub fn devices(&self, shop: &ShopId) -> Result<Vec<(DeviceId, DeviceRow)>, Failure> {
        let mut devices = Vec::new();
        for row in self.devices.range((shop.as_str(), "")..)? {
            let (key, row) = row?;
            let (of, name) = key.value();
            if of != shop.as_str() {
                break;
            }
            let device = name.parse().map_err(|_| Failure::Row { table: "devices" })?;
            devices.push((device, decode("devices", row.value())?));
        }
        Ok(devices)
    }

    /// Whether any device of the shop is registered.
    pub fn has_devices(&self, shop: &ShopId) -> Result<bool, Failure> {
        has_devices(&*self.devices, shop)
    }

    pub fn put_device(&mut self, shop: &ShopId, device: &DeviceId, row: &DeviceRow) -> Result<(), Failure> {
        self.devices.insert(device_key(shop, device), encode("devices", row)?.as_slice())?;
        Ok(())
    }

    pub fn cursor(&self, shop: &ShopId, device: &DeviceId) -> Result<Option<MessageId>, Failure> {
        let row = self.cursors.get(device_key(shop, device))?;
        Ok(row.map(|row| row.value()).map(|(ms, n)| MessageId { ms, n }))
    }

    pub fn put_cursor(&mut self, shop: &ShopId, device: &DeviceId, cursor: MessageId) -> Result<(), Failure> {
        self.cursors.insert(device_key(shop, device), (cursor.ms, cursor.n))?;
        Ok(())
    }

    pub fn fate(&self, shop: &ShopId, id: MessageId) -> Result<Fate, Failure> {
        let row = self.fates.get(entry_key(shop, id))?;
        row.map_or_else(|| Ok(Fate::default()), |row| decode("fates", row.value()))
    }

    pub fn put_fate(&mut self, shop: &ShopId, id: MessageId, fate: &Fate) -> Result<(), Failure> {
        self.fates.insert(entry_key(shop, id), encode("fates", fate)?.as_slice())?;
        Ok(())
    }

    pub fn is_in_log(&self, shop: &ShopId, id: MessageId) -> Result<bool, Failure> {
        Ok(self.log.get(entry_key(shop, id))?.is_some())
    }

    /// Appends an entry, whose id is above every id that this shop ever had, and says what stood
    /// before it.
    pub fn append(&mut self, shop: &ShopId, record: &[u8], now_ms: u64) -> Result<(MessageId, MessageId), Failure> {
        let mut row = self.shop(shop)?.unwrap_or_default();
        let prev = row.head;
        row.head = next_id(prev, now_ms);
        row.entries += 1;
        self.log.insert(entry_key(shop, row.head), record)?;
        self.put_shop(shop, row)?;
        Ok((prev, row.head))
    }
}

/// Whether the table holds any device of the shop.
///
/// # Errors
/// [`Failure::File`]
pub fn has_devices(devices: &impl ReadableTable<DeviceKey, &'static [u8]>, shop: &ShopId) -> Result<bool, Failure> {
    let first = devices.range((shop.as_str(), "")..)?.next().transpose()?;
    Ok(first.is_some_and(|(key, _row)| key.value().0 == shop.as_str()))
}

/// The id after `head`. A clock that was put back does not put ids back.
fn next_id(head: MessageId, now_ms: u64) -> MessageId {
    if now_ms > head.ms {
        return MessageId { ms: now_ms, n: 0 };
    }
    match head.n.checked_add(1) {
        Some(n) => MessageId { ms: head.ms, n },
        None => MessageId { ms: head.ms.saturating_add(1), n: 0 },
    }
}

#[cfg(test)]
mod tests;
