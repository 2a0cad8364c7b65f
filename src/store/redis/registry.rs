//! The devices of a shop: what is registered of them, their attributes, their presence.
//!
//! Owns the reading of a shop's hashes, and the merging of attributes. Never writes the registry itself;
//! only scripts do. Called by [`super::engine`].

use std::collections::HashMap;

use bytes::Bytes;

use crate::attrs::{Attrs, AttrsChange};
use crate::ids::{DeviceId, ShopId};
use crate::store::redis::fleet::{Ask, Line};
use crate::store::redis::reply::{self, Reply, store_error, unavailable, unreadable};
use crate::store::redis::scripts::{AttrsCall, AttrsSet};
use crate::store::redis::{RedisStore, hashes};
use crate::store::{AttrsChanged, Barred, Device, Online, StoreError};

/// How often a merge is begun anew because the attributes changed meanwhile. Of those who change them
/// at once one gets through each time.
const MERGES_MAX: usize = 16;

/// A device's attributes as they are stored, by their text.
struct Present {
    is_registered: bool,
    text: Option<String>,
}

impl RedisStore {
    pub(super) async fn all_devices(&self, shop: &ShopId) -> Result<Vec<Device>, StoreError> {
        let keys = self.keys.shop(shop);
        // Cursors after records: who is registered in between is left out, not shown without its cursor.
        let records = self.hash("devices", keys.devices()).await?;
        let cursors = self.hash("devices", keys.cursors()).await?;
        let mut devices = Vec::with_capacity(records.len());
        for (name, record) in &records {
            let cursor = cursors.get(name).and_then(|cursor| std::str::from_utf8(cursor).ok());
            match name.parse().ok().and_then(|device| hashes::device(device, record, cursor)) {
                Some(device) => devices.push(device),
                None => unreadable(shop, "devices", name),
            }
        }
        devices.sort_by(|a, b| a.device.cmp(&b.device));
        Ok(devices)
    }

    pub(super) async fn all_online(&self, shop: &ShopId) -> Result<Vec<Online>, StoreError> {
        let presences = self.hash("online", self.keys.shop(shop).online()).await?;
        let mut online = Vec::with_capacity(presences.len());
        for (name, presence) in &presences {
            let presence = std::str::from_utf8(presence).unwrap_or_default();
            match name.parse().ok().and_then(|device| hashes::online(device, presence)) {
                Some(present) => online.push(present),
                None => unreadable(shop, "online", name),
            }
        }
        online.sort_by(|a, b| a.device.cmp(&b.device));
        Ok(online)
    }

    pub(super) async fn all_barred(&self, shop: &ShopId) -> Result<Vec<Barred>, StoreError> {
        let bars = self.hash("barred", self.keys.shop(shop).barred()).await?;
        let mut barred = Vec::with_capacity(bars.len());
        for (name, text) in &bars {
            let text = std::str::from_utf8(text).unwrap_or_default();
            match name.parse().ok().and_then(|device| hashes::barred(device, text)) {
                Some(device) => barred.push(device),
                None => unreadable(shop, "barred", name),
            }
        }
        barred.sort_by(|a, b| a.device.cmp(&b.device));
        Ok(barred)
    }

    pub(super) async fn remove_bar(&self, shop: &ShopId, device: &DeviceId) -> Result<bool, StoreError> {
        let remove = Ask::new("HDEL", self.keys.shop(shop).barred(), [device.as_str()]);
        Ok(self.ask(remove).await?.number()? > 0)
    }

    async fn hash(&self, call: &'static str, key: String) -> Result<HashMap<String, Bytes>, StoreError> {
        let value = self.fleet.ask(Line::Reads, Ask::of("HGETALL", key)).await?.value()?;
        value.convert().map_err(|error| store_error(call, error))
    }

    async fn read_all(&self, call: &'static str, asks: Vec<Ask>) -> Result<Reply, StoreError> {
        self.fleet.ask_all(Line::Reads, asks).await.map(|replies| Reply::of_many(call, replies))
    }

    pub(super) async fn one_device(&self, shop: &ShopId, device: &DeviceId) -> Result<Option<Device>, StoreError> {
        let keys = self.keys.shop(shop);
        let asks = [keys.devices(), keys.cursors()].map(|key| Ask::new("HGET", key, [device.as_str()]));
        let mut reply = self.read_all("device", asks.into()).await?;
        let (record, cursor) = (reply.value()?, reply.value()?);
        let Some(bytes) = reply::bytes(&record) else { return Ok(None) };
        let device = hashes::device(device.clone(), bytes, reply::text(&cursor));
        device.map(Some).ok_or_else(|| reply.nonsense(&record))
    }

    pub(super) async fn read_attrs(&self, shop: &ShopId, device: &DeviceId) -> Result<Option<Attrs>, StoreError> {
        let present = self.present_attrs(shop, device).await?;
        Ok(present.is_registered.then(|| present.attrs(shop, device)))
    }

    pub(super) async fn merge_attrs(
        &self,
        shop: &ShopId,
        device: &DeviceId,
        change: &AttrsChange,
    ) -> Result<AttrsChanged, StoreError> {
        let keys = self.keys.shop(shop);
        for _ in 0..MERGES_MAX {
            let present = self.present_attrs(shop, device).await?;
            if !present.is_registered {
                return Ok(AttrsChanged::NoSuchDevice);
            }
            let attrs = present.attrs(shop, device).changed(change);
            let size = attrs.as_str().len();
            if size > self.settings.attrs_bytes_max {
                return Ok(AttrsChanged::TooLarge { size });
            }
            let text = (!attrs.is_empty()).then(|| attrs.as_str());
            let call = AttrsCall { keys: &keys, device, expected: present.text.as_deref(), attrs: text };
            match self.scripts.set_attrs(call).await? {
                AttrsSet::Set => return Ok(AttrsChanged::Now(attrs)),
                AttrsSet::NoSuchDevice => return Ok(AttrsChanged::NoSuchDevice),
                AttrsSet::Changed => {}
            }
        }
        Err(unavailable("the device's attributes were changed by others each time"))
    }

    async fn present_attrs(&self, shop: &ShopId, device: &DeviceId) -> Result<Present, StoreError> {
        let keys = self.keys.shop(shop);
        let is_registered = Ask::new("HEXISTS", keys.devices(), [device.as_str()]);
        let text = Ask::new("HGET", keys.attrs(), [device.as_str()]);
        let mut reply = self.read_all("attrs", vec![is_registered, text]).await?;
        Ok(Present { is_registered: reply.number()? == 1, text: reply.parsed_or_nil()? })
    }
}

impl Present {
    fn attrs(&self, shop: &ShopId, device: &DeviceId) -> Attrs {
        let Some(text) = &self.text else { return Attrs::none() };
        Attrs::parse(text).unwrap_or_else(|_| {
            unreadable(shop, "attrs", device);
            Attrs::none()
        })
    }
}
