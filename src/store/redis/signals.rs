//! What is told to nodes and stored nowhere: signals, receipts, broadcasts, texts for legacy connections.
//!
//! Owns which channel each goes to. Never waits for whoever hears it. Called by [`super::engine`].

use crate::ids::{DeviceId, ShopId};
use crate::message::{Audience, Broadcast, Origin, Signal};
use crate::store::record;
use crate::store::redis::fleet::Ask;
use crate::store::redis::reply::{PIPELINE_MAX, unwritable};
use crate::store::redis::{RedisStore, payload};
use crate::store::{LegacyText, Receipt, Signalled, StoreError};
use bytes::Bytes;

impl RedisStore {
    pub(super) async fn send_signal(&self, shop: &ShopId, signal: &Signal) -> Result<Signalled, StoreError> {
        let record = record::encode_signal(signal).map_err(|error| unwritable("signal", error))?;
        let keys = self.keys.shop(shop);
        let is_anyone_registered = match (&signal.content.to, &signal.content.from) {
            (Audience::Devices(devices), _) => {
                let names = devices.as_slice().iter().map(DeviceId::as_str);
                let mut found = self.ask(Ask::new("HMGET", keys.devices(), names)).await?;
                let mut is_anyone = false;
                while !found.is_empty() {
                    is_anyone |= !found.value()?.is_null();
                }
                is_anyone
            }
            // A device is registered itself; a back end may have misspelled the shop.
            (_, Origin::Api { .. }) => self.ask(Ask::of("EXISTS", keys.devices())).await?.number()? > 0,
            (_, Origin::Device { .. }) => true,
        };
        if !is_anyone_registered {
            return Ok(Signalled::NoSuchDevice);
        }
        self.ask(spublish(&keys.channel(), payload::signal(self.node.as_str(), &record))).await?;
        Ok(Signalled::Sent)
    }

    pub(super) async fn send_all_receipts(&self, shop: &ShopId, receipts: &[Receipt]) -> Result<(), StoreError> {
        let channel = self.keys.channel(shop);
        for chunk in receipts.chunks(PIPELINE_MAX) {
            let mut asks = Vec::with_capacity(chunk.len());
            for receipt in chunk {
                let record = record::encode_receipt(receipt).map_err(|error| unwritable("receipts", error))?;
                asks.push(spublish(&channel, payload::receipt(&record)));
            }
            self.ask_all("receipts", asks).await?;
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
        self.ask(spublish(&self.keys.all(), payload)).await.map(drop)
    }
}

fn spublish(channel: &str, payload: Vec<u8>) -> Ask {
    Ask::new("SPUBLISH", channel, [Bytes::from(payload)])
}
