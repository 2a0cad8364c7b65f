//! What is told to nodes and stored nowhere: signals, receipts, broadcasts, texts for legacy connections.
//!
//! Owns which channel each goes to. Never waits for whoever hears it. Called by [`super::engine`].

use bytes::Bytes;
use fred::interfaces::{HashesInterface, KeysInterface, PubsubInterface};
use fred::types::Value;

use crate::ids::{DeviceId, ShopId};
use crate::message::{Audience, Broadcast, Origin, Signal};
use crate::store::record;
use crate::store::redis::reply::{PIPELINE_MAX, queued, store_error, unwritable};
use crate::store::redis::{RedisStore, payload};
use crate::store::{LegacyText, Receipt, Signalled, StoreError};

impl RedisStore {
    pub(super) async fn send_signal(&self, shop: &ShopId, signal: &Signal) -> Result<Signalled, StoreError> {
        let record = record::encode_signal(signal).map_err(|error| unwritable("signal", error))?;
        let client = self.commands()?;
        let keys = self.keys.shop(shop);
        let is_anyone_registered = match (&signal.content.to, &signal.content.from) {
            (Audience::Devices(devices), _) => {
                let names: Vec<&str> = devices.as_slice().iter().map(DeviceId::as_str).collect();
                let found: Value =
                    client.hmget(keys.devices(), names).await.map_err(|error| store_error("hmget", error))?;
                // fred makes a list of one its item.
                !found.into_array().iter().all(Value::is_null)
            }
            // A device is registered itself; a back end may have misspelled the shop.
            (_, Origin::Api { .. }) => {
                let found: i64 = client.exists(keys.devices()).await.map_err(|error| store_error("exists", error))?;
                found > 0
            }
            (_, Origin::Device { .. }) => true,
        };
        if !is_anyone_registered {
            return Ok(Signalled::NoSuchDevice);
        }
        let payload = Bytes::from(payload::signal(self.node.as_str(), &record));
        let _listeners: i64 =
            client.spublish(keys.channel(), payload).await.map_err(|error| store_error("spublish", error))?;
        Ok(Signalled::Sent)
    }

    pub(super) async fn send_all_receipts(&self, shop: &ShopId, receipts: &[Receipt]) -> Result<(), StoreError> {
        let channel = self.keys.channel(shop);
        for chunk in receipts.chunks(PIPELINE_MAX) {
            let pipeline = self.commands()?.pipeline();
            for receipt in chunk {
                let record = record::encode_receipt(receipt).map_err(|error| unwritable("receipts", error))?;
                let payload = Bytes::from(payload::receipt(&record));
                let _queued: Value = queued(pipeline.spublish(channel.as_str(), payload).await)?;
            }
            let _listeners: Value = pipeline.all().await.map_err(|error| store_error("spublish", error))?;
        }
        Ok(())
    }

    pub(super) async fn send_broadcast(&self, broadcast: &Broadcast) -> Result<(), StoreError> {
        let record = record::encode_broadcast(broadcast).map_err(|error| unwritable("broadcast", error))?;
        self.tell_all(payload::broadcast(&record)).await
    }

    pub(super) async fn send_legacy_text(&self, text: &LegacyText) -> Result<(), StoreError> {
        if text.conns.is_empty() {
            return Ok(());
        }
        self.tell_all(payload::legacy_text(text)).await
    }

    /// Publishes on the channel of all shops.
    async fn tell_all(&self, payload: Vec<u8>) -> Result<(), StoreError> {
        let (client, payload) = (self.commands()?, Bytes::from(payload));
        let _listeners: i64 =
            client.publish(self.keys.all(), payload).await.map_err(|error| store_error("publish", error))?;
        Ok(())
    }
}
