//! The store's operations, one by one; see [`super`].

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::attrs::{Attrs, AttrsChange};
use crate::ids::{ConnId, DeviceId, MessageId, Name, NodeId, ShopId, steady_ms};
use crate::message::{Audience, Broadcast, MembershipChange, Origin, Signal};
use crate::metrics::{self, StoreOp};
use crate::store::record;
use crate::store::redis::fleet::{Ask, Line};
use crate::store::redis::reply::{self, PIPELINE_MAX, Reply, unreadable, unwritable};
use crate::store::redis::scripts::{self, MARKS_MAX, MembershipCall, PublishCall, RawEntry, TRIM_ENTRIES_MAX};
use crate::store::redis::{RedisStore, hashes, survey};
use crate::store::{
    Admission, AttrsChanged, Barred, Beat, Connect, Device, Event, Evicted, Forget, LegacyText, Mark, Marked,
    MembershipChanged, NodeReport, Online, Page, PageLimit, Publish, Published, Receipt, Restored, SetStatus,
    Signalled, StatusSet, Store, StoreError, Stored, timed,
};
use async_trait::async_trait;

/// Members of one step of a scan.
const SCAN_COUNT: u32 = 1000;

#[async_trait]
impl Store for RedisStore {
    async fn publish(&self, shop: &ShopId, publish: &Publish) -> Result<Published, StoreError> {
        let content = &publish.message.content;
        let audience = match (&content.to, &content.from) {
            (Audience::Mains, _) => scripts::Audience::AMain,
            (Audience::Devices(devices), _) => scripts::Audience::OneOf(devices.as_slice()),
            // A device is registered itself; a back end may have misspelled the shop.
            (_, Origin::Api { .. }) => scripts::Audience::ADevice,
            (_, Origin::Device { .. }) => scripts::Audience::Any,
        };
        let keys = self.keys.shop(shop);
        let call = PublishCall {
            once: publish.key.as_ref().map(|key| (keys.once(key), self.settings.key_retention)),
            keys: &keys,
            record: record::encode_message(&publish.message).map_err(|error| unwritable("publish", error))?,
            publisher: &self.node,
            log_entries_max: self.settings.log_entries_max,
            audience,
        };
        timed(StoreOp::Publish, self.scripts.publish(call)).await
    }

    async fn signal(&self, shop: &ShopId, signal: &Signal) -> Result<Signalled, StoreError> {
        timed(StoreOp::Signal, self.send_signal(shop, signal)).await
    }

    async fn send_receipts(&self, shop: &ShopId, receipts: &[Receipt]) -> Result<(), StoreError> {
        timed(StoreOp::Receipts, self.send_all_receipts(shop, receipts)).await
    }

    async fn mark_delivered(&self, shop: &ShopId, marks: &[Mark]) -> Result<Vec<Marked>, StoreError> {
        let keys = self.keys.shop(shop);
        let mut outcomes = Vec::with_capacity(marks.len());
        for chunk in marks.chunks(MARKS_MAX) {
            outcomes.extend(timed(StoreOp::MarkDelivered, self.scripts.mark_delivered(&keys, chunk)).await?);
        }
        Ok(outcomes)
    }

    async fn connect(&self, shop: &ShopId, connect: &Connect) -> Result<Admission, StoreError> {
        // Whoever waits has given up by then, and the device may have logged in elsewhere.
        let not_after_ms = self.now_ms() + self.settings.deadline.as_millis() as u64;
        let keys = self.keys.shop(shop);
        let connecting = timed(StoreOp::Connect, self.scripts.connect(&keys, connect, not_after_ms));
        let (admission, ()) = tokio::join!(connecting, self.note_conn(shop, &connect.device, &connect.conn));
        admission
    }

    async fn disconnect(
        &self,
        shop: &ShopId,
        device: &DeviceId,
        conn: &ConnId,
        settled: Option<MessageId>,
    ) -> Result<bool, StoreError> {
        let keys = self.keys.shop(shop);
        let settled = settled.unwrap_or_default();
        let disconnecting = timed(StoreOp::Disconnect, self.scripts.disconnect(&keys, device, conn, settled));
        let (disconnected, ()) = tokio::join!(disconnecting, self.drop_conn(conn));
        disconnected
    }

    async fn restore(&self, shop: &ShopId, online: &Online) -> Result<Restored, StoreError> {
        let keys = self.keys.shop(shop);
        let restoring = timed(StoreOp::Restore, self.scripts.restore(&keys, online));
        let (restored, ()) = tokio::join!(restoring, self.note_conn(shop, &online.device, &online.conn));
        restored
    }

    async fn set_status(&self, shop: &ShopId, change: &SetStatus) -> Result<StatusSet, StoreError> {
        let entry = change.entry();
        let record = record::encode_status(&entry).map_err(|error| unwritable("set_status", error))?;
        let keys = self.keys.shop(shop);
        timed(StoreOp::SetStatus, self.scripts.set_status(&keys, change, record, &self.node)).await
    }

    async fn read(&self, shop: &ShopId, after: MessageId, limit: PageLimit) -> Result<Page, StoreError> {
        if after == MessageId::MAX {
            // Redis takes no id that nothing can follow.
            return Ok(Page { entries: Vec::new(), last: after, is_end: true });
        }
        let raw = timed(StoreOp::Read, self.scripts.read(&self.keys.shop(shop), after, limit)).await?;
        let last = raw.entries.last().map_or(after, |entry| entry.id);
        let entries = raw.entries.into_iter().filter_map(|entry| stored(shop, entry)).collect();
        Ok(Page { entries, last, is_end: raw.is_end })
    }

    async fn heads(&self, shops: &[ShopId]) -> Result<Vec<Option<MessageId>>, StoreError> {
        timed(StoreOp::Heads, self.all_heads(shops)).await
    }

    async fn has_lost(&self, shop: &ShopId, id: MessageId) -> Result<bool, StoreError> {
        let args = [id.to_string(), "-".to_owned(), "COUNT".to_owned(), "1".to_owned()];
        let ask = Ask::new("XREVRANGE", self.keys.shop(shop).log(), args);
        let mut reply = timed(StoreOp::Heads, self.fleet.ask(Line::Reads, ask)).await?;
        if reply.is_empty() {
            return Ok(false);
        }
        let newest: MessageId = Reply::new("xrevrange", reply.value()?).parsed()?;
        Ok(newest < id)
    }

    async fn devices(&self, shop: &ShopId) -> Result<Vec<Device>, StoreError> {
        timed(StoreOp::Devices, self.all_devices(shop)).await
    }

    async fn online(&self, shop: &ShopId) -> Result<Vec<Online>, StoreError> {
        timed(StoreOp::Online, self.all_online(shop)).await
    }

    async fn trim(&self, shop: &ShopId, through: MessageId, entries_max: usize) -> Result<usize, StoreError> {
        let keys = self.keys.shop(shop);
        let mut removed = 0;
        while removed < entries_max {
            let step = (entries_max - removed).min(TRIM_ENTRIES_MAX);
            let count = timed(StoreOp::Trim, self.scripts.trim(&keys, through, step)).await?;
            removed += count;
            if count < step {
                break;
            }
        }
        Ok(removed)
    }

    async fn log_len(&self, shop: &ShopId) -> Result<u64, StoreError> {
        let mut reply = timed(StoreOp::Other, self.ask(Ask::of("XLEN", self.keys.shop(shop).log()))).await?;
        let count = reply.number()?;
        u64::try_from(count).map_err(|_| reply.unknown(count))
    }

    async fn forget(&self, shop: &ShopId, device: &DeviceId, which: Forget) -> Result<bool, StoreError> {
        timed(StoreOp::Forget, self.scripts.forget(&self.keys.shop(shop), device, which)).await
    }

    async fn device(&self, shop: &ShopId, device: &DeviceId) -> Result<Option<Device>, StoreError> {
        timed(StoreOp::Devices, self.one_device(shop, device)).await
    }

    async fn change_membership(
        &self,
        shop: &ShopId,
        change: &MembershipChange,
    ) -> Result<MembershipChanged, StoreError> {
        let keys = self.keys.shop(shop);
        let call = MembershipCall {
            keys: &keys,
            change,
            groups_max: self.settings.device_groups_max,
            record: record::encode_membership(change).map_err(|error| unwritable("membership", error))?,
            publisher: &self.node,
        };
        timed(StoreOp::Membership, self.scripts.change_membership(call)).await
    }

    async fn attrs(&self, shop: &ShopId, device: &DeviceId) -> Result<Option<Attrs>, StoreError> {
        timed(StoreOp::Attrs, self.read_attrs(shop, device)).await
    }

    async fn change_attrs(
        &self,
        shop: &ShopId,
        device: &DeviceId,
        change: &AttrsChange,
    ) -> Result<AttrsChanged, StoreError> {
        timed(StoreOp::Attrs, self.merge_attrs(shop, device, change)).await
    }

    async fn evict(
        &self,
        shop: &ShopId,
        device: &DeviceId,
        conn: Option<&ConnId>,
        last: Option<&Signal>,
    ) -> Result<Evicted, StoreError> {
        let last = last.map(record::encode_signal).transpose().map_err(|error| unwritable("evict", error))?;
        timed(StoreOp::Evict, self.scripts.evict(&self.keys.shop(shop), device, conn, last)).await
    }

    async fn bar(
        &self,
        shop: &ShopId,
        device: &DeviceId,
        by: &Name,
        last: Option<&Signal>,
    ) -> Result<bool, StoreError> {
        let last = last.map(record::encode_signal).transpose().map_err(|error| unwritable("bar", error))?;
        timed(StoreOp::Bar, self.scripts.bar(&self.keys.shop(shop), device, by, last)).await
    }

    async fn unbar(&self, shop: &ShopId, device: &DeviceId) -> Result<bool, StoreError> {
        timed(StoreOp::Bar, self.remove_bar(shop, device)).await
    }

    async fn barred(&self, shop: &ShopId) -> Result<Vec<Barred>, StoreError> {
        timed(StoreOp::Bar, self.all_barred(shop)).await
    }

    async fn locate(&self, conn: &ConnId) -> Result<Option<(ShopId, Online)>, StoreError> {
        timed(StoreOp::Locate, self.find_conn(conn)).await
    }

    async fn broadcast(&self, broadcast: &Broadcast) -> Result<(), StoreError> {
        timed(StoreOp::Broadcast, self.send_broadcast(broadcast)).await
    }

    async fn numbers(&self, shop: &ShopId, messages: &[MessageId]) -> Result<Vec<u64>, StoreError> {
        timed(StoreOp::Other, self.all_numbers(shop, messages)).await
    }

    async fn numbered(&self, number: u64) -> Result<Option<(ShopId, MessageId)>, StoreError> {
        timed(StoreOp::Other, self.find_numbered(number)).await
    }

    async fn note_legacy(&self, conn: &ConnId, is_there: bool) -> Result<(), StoreError> {
        timed(StoreOp::Other, self.note_legacy_conn(conn, is_there)).await
    }

    async fn legacy_conns(&self) -> Result<Vec<ConnId>, StoreError> {
        timed(StoreOp::Other, self.all_legacy_conns()).await
    }

    async fn send_text(&self, text: &LegacyText) -> Result<(), StoreError> {
        timed(StoreOp::Broadcast, self.send_legacy_text(text)).await
    }

    async fn add_events(&self, events: &[Event]) -> Result<(), StoreError> {
        timed(StoreOp::Events, self.add_all_events(events)).await
    }

    async fn shops(&self) -> Result<Vec<ShopId>, StoreError> {
        timed(StoreOp::Other, self.all_shops()).await
    }

    async fn claim(&self, task: &str, node: &NodeId, lease: Duration) -> Result<bool, StoreError> {
        timed(StoreOp::Other, self.scripts.claim(self.keys.claim(task), node, lease)).await
    }

    async fn beat(&self, node: &NodeId, report: &NodeReport) -> Result<Vec<Beat>, StoreError> {
        let asked_ms = steady_ms();
        let beating = timed(StoreOp::Beat, self.scripts.beat(self.keys.nodes(), node, report));
        let (beats, ()) = tokio::join!(beating, self.keep_conns(node));
        let beats = beats?;
        if let Some(own) = beats.iter().find(|beat| beat.node == *node) {
            // It was stamped somewhere between the question and the answer. What is known from a faster answer
            // stays as long as that can be, so that a slow one does not move the clock.
            let stamped_ms = own.at_ms as i64;
            let (least, most) = (stamped_ms - steady_ms() as i64, stamped_ms - asked_ms as i64);
            let known = self.ahead_ms.load(Ordering::Relaxed);
            self.ahead_ms.store(known.clamp(least, most), Ordering::Relaxed);
        }
        Ok(beats)
    }

    async fn leave(&self, node: &NodeId) -> Result<(), StoreError> {
        let leaving = timed(StoreOp::Other, self.ask(Ask::new("HDEL", self.keys.nodes(), [node.as_str()])));
        let (removed, ()) = tokio::join!(leaving, self.drop_conns(node));
        let removed = removed?.number()?;
        tracing::debug!(%node, removed, "the node left");
        Ok(())
    }

    async fn subscribe(&self, shop: &ShopId) -> Result<(), StoreError> {
        timed(StoreOp::Subscribe, async {
            self.remember(shop).await?;
            self.subscriptions.join(self.keys.channel(shop)).await
        })
        .await
    }

    async fn unsubscribe(&self, shop: &ShopId) -> Result<(), StoreError> {
        timed(StoreOp::Subscribe, self.subscriptions.leave(self.keys.channel(shop))).await
    }

    fn now_ms(&self) -> u64 {
        steady_ms().saturating_add_signed(self.ahead_ms.load(Ordering::Relaxed))
    }

    fn is_hearing(&self) -> bool {
        self.fleet.is_hearing()
    }

    async fn close(&self) {
        self.subscriptions.close().await;
        if let Some(keeper) = &self.keeper {
            keeper.abort();
        }
        survey::close(&self.fleet).await;
    }
}

impl RedisStore {
    /// Sends a command to whoever has its key.
    pub(super) async fn ask(&self, ask: Ask) -> Result<Reply, StoreError> {
        self.fleet.ask(Line::Commands, ask).await
    }

    /// Sends commands, each to whoever has its key, and gives the replies in order.
    pub(super) async fn ask_all(&self, call: &'static str, asks: Vec<Ask>) -> Result<Reply, StoreError> {
        self.fleet.ask_all(Line::Commands, asks).await.map(|replies| Reply::of_many(call, replies))
    }

    async fn all_heads(&self, shops: &[ShopId]) -> Result<Vec<Option<MessageId>>, StoreError> {
        let mut heads = Vec::with_capacity(shops.len());
        for chunk in shops.chunks(PIPELINE_MAX) {
            let asks = chunk.iter().map(|shop| Ask::of("GET", self.keys.shop(shop).head())).collect();
            for value in self.fleet.ask_each(Line::Commands, asks).await? {
                let id = value.map(|value| Reply::of_many("heads", vec![value]).id_or_zero());
                heads.push(id.transpose()?);
            }
        }
        Ok(heads)
    }

    async fn all_shops(&self) -> Result<Vec<ShopId>, StoreError> {
        let names = self.members(self.keys.shops()).await?;
        Ok(names.iter().filter_map(|name| name.parse().ok()).collect())
    }

    /// What a set holds, asked for a piece at a time.
    pub(super) async fn members(&self, key: String) -> Result<BTreeSet<String>, StoreError> {
        let mut members = BTreeSet::new();
        let mut cursor = "0".to_owned();
        loop {
            let args = [cursor, "COUNT".to_owned(), SCAN_COUNT.to_string()];
            let mut reply = self.ask(Ask::new("SSCAN", key.as_str(), args)).await?;
            cursor = reply.parsed()?;
            let names = reply.value()?.into_array();
            members.extend(names.iter().filter_map(reply::text).map(str::to_owned));
            if cursor == "0" {
                return Ok(members);
            }
        }
    }

    /// Puts a shop on the list of all shops.
    async fn remember(&self, shop: &ShopId) -> Result<(), StoreError> {
        match self.ask(Ask::new("SADD", self.keys.shops(), [shop.as_str()])).await {
            // A shop with messages is on the list already, and its devices are to empty the store.
            Ok(_) | Err(StoreError::Full) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// An entry as the relay means it; None, and a note in the log, where this version cannot read it.
fn stored(shop: &ShopId, raw: RawEntry) -> Option<Stored> {
    let entry = match record::decode_entry(reply::bytes(&raw.record).unwrap_or_default()) {
        Ok(entry) => entry,
        Err(error) => {
            metrics::record_unreadable();
            tracing::warn!(%shop, id = %raw.id, %error, "a stored entry cannot be read and is left out");
            return None;
        }
    };
    let dealt = match reply::text(&raw.status) {
        Some(text) => hashes::dealt(text).or_else(|| {
            unreadable(shop, "status", raw.id);
            None
        }),
        None => None,
    };
    let unseen_by = match reply::text(&raw.expired) {
        Some(text) => hashes::unseen_by(text).unwrap_or_else(|| {
            unreadable(shop, "expired", raw.id);
            Vec::new()
        }),
        None => Vec::new(),
    };
    Some(Stored { id: raw.id, entry, dealt, unseen_by })
}
