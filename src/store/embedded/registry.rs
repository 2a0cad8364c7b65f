//! The changes of the registry: who comes and goes, what a device is a member of, its attributes.
//!
//! Owns the outcome of every operation that writes a device's row. Never touches an entry that is in the
//! log already. As [`super::changes`], which these belong to; called by [`super::writer`].

use redb::ReadableTable;

use crate::attrs::{Attrs, AttrsChange};
use crate::ids::{ConnId, DeviceId, MessageId, ShopId};
use crate::message::{Entry, MembershipChange, MembershipStep, Signal};
use crate::store::embedded::changes::{Change, Scene};
use crate::store::embedded::tables::{DeviceRow, Failure, Tables, device_key};
use crate::store::{
    Admission, AttrsChanged, Connect, Connected, Evicted, FeedEvent, Forget, MembershipChanged, Online, Restored,
};

/// [`crate::store::Store::connect`]
pub struct ConnectDevice {
    pub shop: ShopId,
    pub connect: Connect,
}

impl Change for ConnectDevice {
    type Outcome = Admission;

    fn bytes(&self) -> usize {
        256 + self.connect.meta.as_ref().map_or(0, |meta| meta.len())
    }

    fn apply(&self, tables: &mut Tables<'_>, scene: &mut Scene<'_>) -> Result<Admission, Failure> {
        let (shop, connect) = (&self.shop, &self.connect);
        if tables.barred.get(device_key(shop, &connect.device))?.is_some() {
            return Ok(Admission::Barred);
        }
        let mut of_shop = tables.shop(shop)?.unwrap_or_default();
        let head = of_shop.head;
        let known = tables.device(shop, &connect.device)?;
        let cursor = tables.cursor(shop, &connect.device)?;
        let was_main = known.as_ref().is_some_and(DeviceRow::is_main);
        let mut row = known.unwrap_or_else(|| DeviceRow::new(connect.role, scene.now_ms, head));
        row.role = connect.role;
        row.last_seen = scene.now_ms;
        if let Some(meta) = connect.meta.as_ref().filter(|meta| !meta.is_empty()) {
            row.meta = Some(meta.clone());
        }
        let mut membership = row.membership();
        if let Some(groups) = &connect.groups {
            membership.groups = groups.clone();
        }
        if let Some(user) = &connect.user {
            membership.user = Some(user.clone());
        }
        row.set_membership(membership.clone());
        let mut since = scene.now_ms;
        let mut replaced = None;
        if let Some(presence) = row.presence(scene.node) {
            if presence.conn == connect.conn {
                since = presence.since;
            } else {
                replaced = Some(presence.conn.clone());
            }
        }
        row.come(scene.node, &connect.conn, &connect.node, since);
        tables.put_device(shop, &connect.device, &row)?;
        if was_main != row.is_main() {
            of_shop.mains = if was_main { of_shop.mains.saturating_sub(1) } else { of_shop.mains + 1 };
            tables.put_shop(shop, of_shop)?;
        }
        if cursor.is_none() {
            tables.put_cursor(shop, &connect.device, head)?;
        }
        if let Some(conn) = replaced.clone() {
            scene.events.push(FeedEvent::Replaced { shop: shop.clone(), device: connect.device.clone(), conn });
        }
        Ok(Admission::Admitted(Connected { cursor: cursor.unwrap_or(head), head, replaced, membership }))
    }
}

/// [`crate::store::Store::disconnect`]
pub struct DisconnectDevice {
    pub shop: ShopId,
    pub device: DeviceId,
    pub conn: ConnId,
    pub settled: Option<MessageId>,
}

impl Change for DisconnectDevice {
    type Outcome = bool;

    fn apply(&self, tables: &mut Tables<'_>, scene: &mut Scene<'_>) -> Result<bool, Failure> {
        let Some(mut row) = tables.device(&self.shop, &self.device)? else { return Ok(false) };
        if row.presence(scene.node).is_none_or(|presence| presence.conn != self.conn) {
            return Ok(false);
        }
        row.go();
        row.last_seen = scene.now_ms;
        tables.put_device(&self.shop, &self.device, &row)?;
        let cursor = tables.cursor(&self.shop, &self.device)?;
        if let Some(settled) = self.settled.filter(|settled| cursor.is_some_and(|cursor| cursor < *settled)) {
            tables.put_cursor(&self.shop, &self.device, settled)?;
        }
        Ok(true)
    }
}

/// [`crate::store::Store::restore`]
pub struct RestorePresence {
    pub shop: ShopId,
    pub online: Online,
}

impl Change for RestorePresence {
    type Outcome = Restored;

    fn apply(&self, tables: &mut Tables<'_>, scene: &mut Scene<'_>) -> Result<Restored, Failure> {
        let Online { device, conn, node, since_ms, .. } = &self.online;
        let is_barred = tables.barred.get(device_key(&self.shop, device))?.is_some();
        let known = tables.device(&self.shop, device)?.filter(|row| !is_barred && !row.was_ended(conn));
        let Some(mut row) = known else { return Ok(Restored::Refused) };
        match row.presence(scene.node) {
            Some(presence) if presence.conn == *conn => return Ok(Restored::Online),
            Some(_) => return Ok(Restored::Taken),
            None => row.come(scene.node, conn, node, *since_ms),
        }
        tables.put_device(&self.shop, device, &row)?;
        Ok(Restored::Online)
    }
}

/// [`crate::store::Store::forget`]
pub struct ForgetDevice {
    pub shop: ShopId,
    pub device: DeviceId,
    pub which: Forget,
}

impl Change for ForgetDevice {
    type Outcome = bool;

    fn apply(&self, tables: &mut Tables<'_>, scene: &mut Scene<'_>) -> Result<bool, Failure> {
        let Some(row) = tables.device(&self.shop, &self.device)? else { return Ok(false) };
        let conn = row.presence(scene.node).map(|presence| presence.conn.clone());
        if let Forget::UnseenSince(seen_before_ms) = self.which
            && (conn.is_some() || row.last_seen >= seen_before_ms)
        {
            return Ok(false);
        }
        let key = device_key(&self.shop, &self.device);
        tables.devices.remove(key)?;
        tables.cursors.remove(key)?;
        tables.attrs.remove(key)?;
        if row.is_main() {
            let mut of_shop = tables.shop(&self.shop)?.unwrap_or_default();
            of_shop.mains = of_shop.mains.saturating_sub(1);
            tables.put_shop(&self.shop, of_shop)?;
        }
        if let Some(conn) = conn {
            scene.events.push(FeedEvent::Evicted { shop: self.shop.clone(), conn, last: None });
        }
        Ok(true)
    }
}

/// [`crate::store::Store::change_membership`]
pub struct ChangeMembership {
    pub shop: ShopId,
    pub change: MembershipChange,
    pub record: Vec<u8>,
}

impl Change for ChangeMembership {
    type Outcome = MembershipChanged;
    const IS_REFUSED_WHEN_FULL: bool = true;

    fn apply(&self, tables: &mut Tables<'_>, scene: &mut Scene<'_>) -> Result<MembershipChanged, Failure> {
        let (shop, MembershipChange { device, step }) = (&self.shop, &self.change);
        let rows = match device {
            None => tables.devices(shop)?,
            Some(device) => match tables.device(shop, device)? {
                None => return Ok(MembershipChanged::NoSuchDevice),
                Some(row) => vec![(device.clone(), row)],
            },
        };
        let mut changed = Vec::new();
        for (device, mut row) in rows {
            let mut membership = row.membership();
            if !membership.take(step) {
                continue;
            }
            let is_join = matches!(step, MembershipStep::Join(_));
            if is_join && membership.groups.len() > scene.settings.device_groups_max {
                return Ok(MembershipChanged::TooManyGroups);
            }
            row.set_membership(membership);
            changed.push((device, row));
        }
        if changed.is_empty() {
            return Ok(MembershipChanged::Unchanged);
        }
        for (device, row) in &changed {
            tables.put_device(shop, device, row)?;
        }
        let (prev, id) = tables.append(shop, &self.record, scene.now_ms)?;
        scene.tell_entry(shop, prev, id, Entry::Membership(self.change.clone()));
        Ok(MembershipChanged::Changed(id))
    }
}

/// [`crate::store::Store::change_attrs`]
pub struct ChangeAttrs {
    pub shop: ShopId,
    pub device: DeviceId,
    pub change: AttrsChange,
}

impl Change for ChangeAttrs {
    type Outcome = AttrsChanged;
    const IS_REFUSED_WHEN_FULL: bool = true;

    fn bytes(&self) -> usize {
        let (AttrsChange::Set(attrs) | AttrsChange::Patch(attrs)) = &self.change;
        256 + attrs.as_str().len()
    }

    fn apply(&self, tables: &mut Tables<'_>, scene: &mut Scene<'_>) -> Result<AttrsChanged, Failure> {
        if tables.device(&self.shop, &self.device)?.is_none() {
            return Ok(AttrsChanged::NoSuchDevice);
        }
        let key = device_key(&self.shop, &self.device);
        let present = tables.attrs.get(key)?.and_then(|text| Attrs::parse(text.value()).ok());
        let attrs = present.unwrap_or_else(Attrs::none).changed(&self.change);
        let size = attrs.as_str().len();
        if size > scene.settings.attrs_bytes_max {
            return Ok(AttrsChanged::TooLarge { size });
        }
        if attrs.is_empty() {
            tables.attrs.remove(key)?;
        } else {
            tables.attrs.insert(key, attrs.as_str())?;
        }
        Ok(AttrsChanged::Now(attrs))
    }
}

/// [`crate::store::Store::evict`]
pub struct EvictDevice {
    pub shop: ShopId,
    pub device: DeviceId,
    pub conn: Option<ConnId>,
    pub last: Option<Signal>,
}

impl Change for EvictDevice {
    type Outcome = Evicted;

    fn apply(&self, tables: &mut Tables<'_>, scene: &mut Scene<'_>) -> Result<Evicted, Failure> {
        let Some(mut row) = tables.device(&self.shop, &self.device)? else { return Ok(Evicted::Away) };
        let Some(conn) = row.presence(scene.node).map(|presence| presence.conn.clone()) else {
            return Ok(Evicted::Away);
        };
        if self.conn.as_ref().is_some_and(|expected| *expected != conn) {
            return Ok(Evicted::Away);
        }
        row.end();
        row.last_seen = scene.now_ms;
        tables.put_device(&self.shop, &self.device, &row)?;
        let (shop, last) = (self.shop.clone(), self.last.clone());
        scene.events.push(FeedEvent::Evicted { shop, conn: conn.clone(), last });
        Ok(Evicted::Closing(conn))
    }
}
