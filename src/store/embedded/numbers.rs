//! The numbers by which legacy peers know messages.
//!
//! Owns the change that gives them and what is read of them; that they go with their messages is for
//! [`super::changes`]. A message's row and its number's row are written and removed together. Called by
//! [`super::engine`] and, for the change, by [`super::writer`].

use redb::{ReadTransaction, ReadableTable, TableError};

use crate::ids::{MessageId, ShopId};
use crate::store::embedded::changes::{Change, Scene};
use crate::store::embedded::tables::{Failure, NEWEST_NUMBER_ROW, NUMBERED, NUMBERS, Tables, entry_key};

/// [`crate::store::Store::numbers`], for a bounded number of messages.
pub struct GiveNumbers {
    pub shop: ShopId,
    pub messages: Vec<MessageId>,
}

impl Change for GiveNumbers {
    type Outcome = Vec<u64>;
    const IS_REFUSED_WHEN_FULL: bool = true;

    fn bytes(&self) -> usize {
        self.messages.len() * 128
    }

    fn apply(&self, tables: &mut Tables<'_>, _scene: &mut Scene<'_>) -> Result<Vec<u64>, Failure> {
        let mut newest = tables.meta.get(NEWEST_NUMBER_ROW)?.map_or(0, |row| row.value());
        let mut numbers = Vec::with_capacity(self.messages.len());
        for message in &self.messages {
            let key = entry_key(&self.shop, *message);
            if let Some(known) = tables.numbers.get(key)?.map(|row| row.value()) {
                numbers.push(known);
                continue;
            }
            newest += 1;
            if tables.is_in_log(&self.shop, *message)? {
                tables.numbers.insert(key, newest)?;
                tables.numbered.insert(newest, key)?;
            }
            numbers.push(newest);
        }
        tables.meta.insert(NEWEST_NUMBER_ROW, newest)?;
        Ok(numbers)
    }
}

/// The numbers that messages have already.
///
/// # Errors
/// [`Failure::File`]
pub fn known(view: &ReadTransaction, shop: &ShopId, messages: &[MessageId]) -> Result<Vec<Option<u64>>, Failure> {
    let table = match view.open_table(NUMBERS) {
        Err(TableError::TableDoesNotExist(_)) => return Ok(vec![None; messages.len()]),
        table => table?,
    };
    let number = |message: &MessageId| Ok(table.get(entry_key(shop, *message))?.map(|row| row.value()));
    messages.iter().map(number).collect()
}

/// [`crate::store::Store::numbered`]
///
/// # Errors
/// [`Failure`]
pub fn numbered(view: &ReadTransaction, number: u64) -> Result<Option<(ShopId, MessageId)>, Failure> {
    let table = match view.open_table(NUMBERED) {
        Err(TableError::TableDoesNotExist(_)) => return Ok(None),
        table => table?,
    };
    let Some(row) = table.get(number)? else { return Ok(None) };
    let (shop, ms, n) = row.value();
    let shop = shop.parse().map_err(|_| Failure::Row { table: "numbered" })?;
    Ok(Some((shop, MessageId { ms, n })))
}
