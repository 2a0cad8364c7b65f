//! What is read from the file, each query in a view of its own.
//!
//! Owns the reading of rows into what the relay means by them. A row that cannot be read is left out
//! and noted. Never writes; called by [`super::engine`], off the threads that serve connections.

use std::collections::HashMap;
use std::ops::Bound;

use redb::{ReadTransaction, ReadableTable, TableError};

use crate::attrs::Attrs;
use crate::ids::{DeviceId, MessageId, NodeId, ShopId};
use crate::metrics;
use crate::store::embedded::tables::{
    ATTRS, CURSORS, DEVICES, DeviceRow, FATES, Failure, Fate, LOG, SHOPS, ShopRow, decode, device_key, entry_key,
    has_devices,
};
use crate::store::{Device, Online, Page, PageLimit, Stored, record};

/// Entries of one page, whatever the caller asks for; as on Redis.
const PAGE_ENTRIES_MAX: usize = 1000;

/// [`crate::store::Store::read`]
///
/// # Errors
/// [`Failure::File`]
pub fn read(view: &ReadTransaction, shop: &ShopId, after: MessageId, limit: PageLimit) -> Result<Page, Failure> {
    let log = view.open_table(LOG)?;
    let newest = MessageId { ms: u64::MAX, n: u64::MAX };
    let mut page = Page { entries: Vec::new(), last: after, is_end: true };
    if after == newest {
        return Ok(page);
    }
    let entries_max = limit.entries.clamp(1, PAGE_ENTRIES_MAX);
    let (mut count, mut bytes) = (0, 0);
    for row in log.range((Bound::Excluded(entry_key(shop, after)), Bound::Included(entry_key(shop, newest))))? {
        let (key, record) = row?;
        let (key, record) = (key.value(), record.value());
        if count == entries_max || (count > 0 && bytes + record.len() > limit.bytes) {
            page.is_end = false;
            break;
        }
        count += 1;
        bytes += record.len();
        page.last = MessageId { ms: key.1, n: key.2 };
        match record::decode_entry(record) {
            Ok(entry) => page.entries.push(Stored { id: page.last, entry, dealt: None, unseen_by: Vec::new() }),
            Err(error) => {
                metrics::record_unreadable();
                tracing::warn!(%shop, id = %page.last, %error, "a stored entry cannot be read and is left out");
            }
        }
    }
    add_fates(view, shop, &mut page)?;
    Ok(page)
}

/// Adds what has become of the entries of a page.
fn add_fates(view: &ReadTransaction, shop: &ShopId, page: &mut Page) -> Result<(), Failure> {
    let Some(first) = page.entries.first() else { return Ok(()) };
    let fates = view.open_table(FATES)?;
    let range = entry_key(shop, first.id)..=entry_key(shop, page.last);
    for row in fates.range(range)? {
        let (key, fate) = row?;
        let (_shop, ms, n) = key.value();
        let id = MessageId { ms, n };
        let found = page.entries.binary_search_by_key(&id, |entry| entry.id);
        // Not found is the fate of an entry that was left out.
        let Some(entry) = found.ok().and_then(|index| page.entries.get_mut(index)) else { continue };
        match decode::<Fate>("fates", fate.value()) {
            Ok(fate) => (entry.dealt, entry.unseen_by) = (fate.dealt(), fate.unseen_by),
            Err(_) => unreadable(shop, "fates", id),
        }
    }
    Ok(())
}

/// [`crate::store::Store::heads`]
///
/// # Errors
/// [`Failure::File`]
pub fn heads(view: &ReadTransaction, shops: &[ShopId]) -> Result<Vec<Option<MessageId>>, Failure> {
    let table = view.open_table(SHOPS)?;
    let row = |shop: &ShopId| Ok(table.get(shop.as_str())?.map(|row| ShopRow::from(row.value())).unwrap_or_default());
    shops.iter().map(|shop| row(shop).map(|row| Some(row.head))).collect()
}

/// [`crate::store::Store::log_len`]
///
/// # Errors
/// [`Failure::File`]
pub fn log_len(view: &ReadTransaction, shop: &ShopId) -> Result<u64, Failure> {
    let table = view.open_table(SHOPS)?;
    Ok(table.get(shop.as_str())?.map(|row| ShopRow::from(row.value())).unwrap_or_default().entries)
}

/// [`crate::store::Store::shops`]
///
/// # Errors
/// [`Failure::File`]
pub fn shops(view: &ReadTransaction) -> Result<Vec<ShopId>, Failure> {
    let table = view.open_table(SHOPS)?;
    let mut shops = Vec::new();
    for row in table.iter()? {
        shops.extend(row?.0.value().parse::<ShopId>());
    }
    Ok(shops)
}

/// Whether the shop is on the list of all shops.
///
/// # Errors
/// [`Failure::File`]
pub fn is_remembered(view: &ReadTransaction, shop: &ShopId) -> Result<bool, Failure> {
    Ok(view.open_table(SHOPS)?.get(shop.as_str())?.is_some())
}

/// Whether one of the devices is registered.
///
/// # Errors
/// [`Failure::File`]
pub fn is_any_registered(view: &ReadTransaction, shop: &ShopId, devices: &[DeviceId]) -> Result<bool, Failure> {
    let table = view.open_table(DEVICES)?;
    for device in devices {
        if table.get((shop.as_str(), device.as_str()))?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether any device of the shop is registered.
///
/// # Errors
/// [`Failure::File`]
pub fn is_anyone_registered(view: &ReadTransaction, shop: &ShopId) -> Result<bool, Failure> {
    has_devices(&view.open_table(DEVICES)?, shop)
}

/// [`crate::store::Store::devices`]
///
/// # Errors
/// [`Failure::File`]
pub fn devices(view: &ReadTransaction, shop: &ShopId) -> Result<Vec<Device>, Failure> {
    let mut cursors = HashMap::new();
    for row in view.open_table(CURSORS)?.range((shop.as_str(), "")..)? {
        let (key, cursor) = row?;
        let ((of, device), (ms, n)) = (key.value(), cursor.value());
        if of != shop.as_str() {
            break;
        }
        cursors.insert(device.to_owned(), MessageId { ms, n });
    }
    let known = rows(view, shop)?.into_iter().map(|(device, row)| {
        let cursor = cursors.get(device.as_str()).copied().unwrap_or_default();
        registered(device, row, cursor)
    });
    Ok(known.collect())
}

/// [`crate::store::Store::device`]
///
/// # Errors
/// [`Failure`]
pub fn device(view: &ReadTransaction, shop: &ShopId, device: &DeviceId) -> Result<Option<Device>, Failure> {
    let Some(row) = row(view, shop, device)? else { return Ok(None) };
    let cursor = view.open_table(CURSORS)?.get(device_key(shop, device))?;
    let cursor = cursor.map(|cursor| cursor.value()).map(|(ms, n)| MessageId { ms, n });
    Ok(Some(registered(device.clone(), row, cursor.unwrap_or_default())))
}

fn registered(device: DeviceId, row: DeviceRow, cursor: MessageId) -> Device {
    Device {
        device,
        role: row.role,
        membership: row.membership(),
        meta: row.meta,
        first_seen_ms: row.first_seen,
        last_seen_ms: row.last_seen,
        registered_at: row.registered_at,
        cursor,
    }
}

fn row(view: &ReadTransaction, shop: &ShopId, device: &DeviceId) -> Result<Option<DeviceRow>, Failure> {
    let row = view.open_table(DEVICES)?.get(device_key(shop, device))?;
    row.map(|row| decode("devices", row.value())).transpose()
}

/// [`crate::store::Store::attrs`]
///
/// # Errors
/// [`Failure`]
pub fn attrs(view: &ReadTransaction, shop: &ShopId, device: &DeviceId) -> Result<Option<Attrs>, Failure> {
    if row(view, shop, device)?.is_none() {
        return Ok(None);
    }
    let table = match view.open_table(ATTRS) {
        Err(TableError::TableDoesNotExist(_)) => return Ok(Some(Attrs::none())),
        table => table?,
    };
    let Some(text) = table.get(device_key(shop, device))? else { return Ok(Some(Attrs::none())) };
    let attrs = Attrs::parse(text.value()).unwrap_or_else(|_| {
        unreadable(shop, "attrs", device);
        Attrs::none()
    });
    Ok(Some(attrs))
}

/// [`crate::store::Store::online`], of the connections that `holder` has.
///
/// # Errors
/// [`Failure::File`]
pub fn online(view: &ReadTransaction, shop: &ShopId, holder: &NodeId) -> Result<Vec<Online>, Failure> {
    let mut online = Vec::new();
    for (device, row) in rows(view, shop)? {
        online.extend(present(device, &row, holder));
    }
    Ok(online)
}

/// One of [`online`].
///
/// # Errors
/// [`Failure`]
pub fn presence(
    view: &ReadTransaction,
    shop: &ShopId,
    device: &DeviceId,
    holder: &NodeId,
) -> Result<Option<Online>, Failure> {
    Ok(row(view, shop, device)?.and_then(|row| present(device.clone(), &row, holder)))
}

fn present(device: DeviceId, row: &DeviceRow, holder: &NodeId) -> Option<Online> {
    let presence = row.presence(holder)?;
    let node = presence.node.parse().ok()?;
    Some(Online { role: row.role, conn: presence.conn.clone(), node, since_ms: presence.since, device })
}

fn rows(view: &ReadTransaction, shop: &ShopId) -> Result<Vec<(DeviceId, DeviceRow)>, Failure> {
    let mut rows = Vec::new();
    for row in view.open_table(DEVICES)?.range((shop.as_str(), "")..)? {
        let (key, row) = row?;
        let (of, name) = key.value();
        if of != shop.as_str() {
            break;
        }
        match (name.parse(), decode("devices", row.value())) {
            (Ok(device), Ok(row)) => rows.push((device, row)),
            _ => unreadable(shop, "devices", name),
        }
    }
    Ok(rows)
}

/// Notes that a row is left out, as this version cannot read it.
pub fn unreadable(shop: &ShopId, table: &'static str, row: impl std::fmt::Display) {
    metrics::record_unreadable();
    tracing::warn!(%shop, table, %row, "a stored row cannot be read and is left out");
}
