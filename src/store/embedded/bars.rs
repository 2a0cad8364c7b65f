//! The devices that an operator keeps out.
//!
//! Owns the changes and the query of their table. As [`super::changes`] and [`super::queries`], which these
//! belong to; called by [`super::writer`] and [`super::engine`].

use redb::{ReadTransaction, ReadableTable, TableError};

use crate::ids::{DeviceId, Name, ShopId};
use crate::message::Signal;
use crate::store::embedded::changes::{Change, Scene, unreadable_is_none};
use crate::store::embedded::queries::unreadable;
use crate::store::embedded::tables::{BARRED, Failure, Tables, device_key};
use crate::store::{Barred, FeedEvent};

/// [`crate::store::Store::bar`]
pub struct BarDevice {
    pub shop: ShopId,
    pub device: DeviceId,
    pub by: Name,
    pub last: Option<Signal>,
}

impl Change for BarDevice {
    type Outcome = bool;

    fn apply(&self, tables: &mut Tables<'_>, scene: &mut Scene<'_>) -> Result<bool, Failure> {
        // A row that cannot be read keeps nobody in.
        let known = tables.device(&self.shop, &self.device).or_else(unreadable_is_none)?;
        let conn = known.as_ref().and_then(|row| row.presence(scene.node)).map(|presence| presence.conn.clone());
        if let (Some(mut row), Some(_)) = (known, &conn) {
            row.end();
            row.last_seen = scene.now_ms;
            tables.put_device(&self.shop, &self.device, &row)?;
        }
        let key = device_key(&self.shop, &self.device);
        let is_new = tables.barred.get(key)?.is_none();
        if is_new {
            tables.barred.insert(key, (scene.now_ms, self.by.as_str()))?;
        }
        let (shop, device, last) = (self.shop.clone(), self.device.clone(), self.last.clone());
        scene.events.push(FeedEvent::Barred { shop, device, conn, last });
        Ok(is_new)
    }
}

/// [`crate::store::Store::unbar`]
pub struct UnbarDevice {
    pub shop: ShopId,
    pub device: DeviceId,
}

impl Change for UnbarDevice {
    type Outcome = bool;

    fn apply(&self, tables: &mut Tables<'_>, _scene: &mut Scene<'_>) -> Result<bool, Failure> {
        Ok(tables.barred.remove(device_key(&self.shop, &self.device))?.is_some())
    }
}

/// [`crate::store::Store::barred`]
///
/// # Errors
/// [`Failure::File`]
pub fn barred(view: &ReadTransaction, shop: &ShopId) -> Result<Vec<Barred>, Failure> {
    let table = match view.open_table(BARRED) {
        Err(TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
        table => table?,
    };
    let mut barred = Vec::new();
    for row in table.range((shop.as_str(), "")..)? {
        let (key, row) = row?;
        let (of, name) = key.value();
        if of != shop.as_str() {
            break;
        }
        let (since_ms, by) = row.value();
        match (name.parse(), by.parse()) {
            (Ok(device), Ok(by)) => barred.push(Barred { device, since_ms, by }),
            _ => unreadable(shop, "barred", name),
        }
    }
    Ok(barred)
}
