//! Whether the registry and the connections of a room agree on who is online.
//!
//! Owns what is done where they do not: a connection whose takeover was not heard of goes, a presence that
//! the store lost is given back, and one that it kept of a connection that is gone is ended. A presence
//! is only ever put where there is none, so that no connection takes over from a newer one.

use std::sync::Arc;
use std::time::Duration;

use tracing::{debug, info};

use crate::feed::Feed;
use crate::hub::{Present, Room};
use crate::metrics;
use crate::store::{Online, Restored, StoreError};

/// A presence younger than this may be of a login that has not come to its room yet.
const LOGIN_MAX: Duration = Duration::from_secs(60);

impl Feed {
    /// Compares the connections of a room with the registered ones.
    pub(super) async fn check_presence(&self, room: &Arc<Room>) -> Result<(), StoreError> {
        let here = room.present();
        let online = self.store.online(room.shop()).await?;
        for present in &here {
            match online.iter().find(|entry| entry.device == present.device) {
                Some(entry) if entry.conn == present.conn => {}
                Some(entry) if is_newer(entry, present) => room.replaced(&present.conn),
                // The store has lost its login, and only a login takes over.
                Some(_) => room.forgotten(&present.conn),
                None => self.restore(room, present).await?,
            }
        }
        for entry in online.iter().filter(|entry| entry.node == self.node) {
            let is_here = here.iter().any(|present| present.conn == entry.conn);
            let age = Duration::from_millis(self.store.now_ms().saturating_sub(entry.since_ms));
            if !is_here && age > LOGIN_MAX {
                info!(shop = %room.shop(), device = %entry.device, conn = %entry.conn, "a connection that is gone was still online");
                metrics::presence_repaired();
                self.store.disconnect(room.shop(), &entry.device, &entry.conn, None).await?;
            }
        }
        Ok(())
    }

    async fn restore(&self, room: &Room, present: &Present) -> Result<(), StoreError> {
        let Present { device, conn, role, since_ms } = present.clone();
        let online = Online { device, role, conn, node: self.node.clone(), since_ms };
        match self.store.restore(room.shop(), &online).await? {
            Restored::Online => {
                info!(shop = %room.shop(), device = %online.device, conn = %online.conn, "the store had lost a presence");
                metrics::presence_repaired();
                // It may have ended meanwhile, and its departure have found no presence to end.
                if !room.present().iter().any(|present| present.conn == online.conn) {
                    self.store.disconnect(room.shop(), &online.device, &online.conn, None).await?;
                }
            }
            // The next audit finds out which is newer.
            Restored::Taken => debug!(shop = %room.shop(), conn = %online.conn, "the device logs in anew"),
            Restored::Refused => room.forgotten(&online.conn),
        }
        Ok(())
    }
}

/// Whether the registered connection began after this one. Those of one node are numbered.
fn is_newer(entry: &Online, present: &Present) -> bool {
    entry.conn.is_after(&present.conn).unwrap_or(entry.since_ms > present.since_ms)
}
