//! The store's operations, one by one; see [`super`].

use std::time::{Duration, Instant};

use async_trait::async_trait;
use redb::ReadTransaction;
use tokio::time::timeout;

use crate::attrs::{Attrs, AttrsChange};
use crate::ids::{ConnId, DeviceId, MessageId, Name, NodeId, ShopId, unix_ms};
use crate::message::{Audience, Broadcast, MembershipChange, Origin, Signal};
use crate::metrics::StoreOp;
use crate::store::embedded::bars::{BarDevice, UnbarDevice, barred};
use crate::store::embedded::changes::{Change, DealWith, Look, MarkDelivered, PublishMessage, RememberShop, TrimLog};
use crate::store::embedded::numbers::GiveNumbers;
use crate::store::embedded::registry::{
    ChangeAttrs, ChangeMembership, ConnectDevice, DisconnectDevice, EvictDevice, ForgetDevice, RestorePresence,
};
use crate::store::embedded::tables::Failure;
use crate::store::embedded::writer::job;
use crate::store::embedded::{EmbeddedStore, numbers, queries};
use crate::store::record::{self, RecordError};
use crate::store::{
    Admission, AttrsChanged, Barred, Beat, Connect, Device, Event, Evicted, FeedEvent, Forget, LegacyText, Mark,
    Marked, MembershipChanged, NodeReport, Online, Page, PageLimit, Publish, Published, Receipt, Restored, SetStatus,
    Signalled, StatusSet, Store, StoreError, timed,
};

/// Marks of one change.
const MARKS_MAX: usize = 1000;
/// Messages that one change gives numbers to.
const NUMBERS_MAX: usize = 1000;
/// Entries that one change removes, so that it does not hold up everyone else.
const TRIM_ENTRIES_MAX: usize = 1000;
/// A node that was not heard of for so long is forgotten.
const BEAT_KEPT: Duration = Duration::from_secs(3600);

#[async_trait]
impl Store for EmbeddedStore {
    async fn publish(&self, shop: &ShopId, publish: &Publish) -> Result<Published, StoreError> {
        let Publish { message, key } = publish.clone();
        let record = record::encode_message(&message).map_err(|error| unwritable("publish", error))?;
        let change = PublishMessage { shop: shop.clone(), message, record, key };
        timed(StoreOp::Publish, self.change("publish", change)).await
    }

    async fn signal(&self, shop: &ShopId, signal: &Signal) -> Result<Signalled, StoreError> {
        timed(StoreOp::Signal, self.send_signal(shop, signal)).await
    }

    async fn send_receipts(&self, shop: &ShopId, receipts: &[Receipt]) -> Result<(), StoreError> {
        for receipt in receipts {
            self.feed.tell(FeedEvent::Receipt { shop: shop.clone(), receipt: receipt.clone() });
        }
        Ok(())
    }

    async fn mark_delivered(&self, shop: &ShopId, marks: &[Mark]) -> Result<Vec<Marked>, StoreError> {
        let mut outcomes = Vec::with_capacity(marks.len());
        for marks in marks.chunks(MARKS_MAX) {
            let change = MarkDelivered { shop: shop.clone(), marks: marks.to_vec() };
            outcomes.extend(timed(StoreOp::MarkDelivered, self.change("mark_delivered", change)).await?);
        }
        Ok(outcomes)
    }

    async fn connect(&self, shop: &ShopId, connect: &Connect) -> Result<Admission, StoreError> {
        let change = ConnectDevice { shop: shop.clone(), connect: connect.clone() };
        let admission = timed(StoreOp::Connect, self.change("connect", change)).await?;
        self.memory.lock().conns.insert(connect.conn.clone(), (shop.clone(), connect.device.clone()));
        Ok(admission)
    }

    async fn disconnect(
        &self,
        shop: &ShopId,
        device: &DeviceId,
        conn: &ConnId,
        settled: Option<MessageId>,
    ) -> Result<bool, StoreError> {
        self.memory.lock().conns.remove(conn);
        let change = DisconnectDevice { shop: shop.clone(), device: device.clone(), conn: conn.clone(), settled };
        timed(StoreOp::Disconnect, self.change("disconnect", change)).await
    }

    async fn restore(&self, shop: &ShopId, online: &Online) -> Result<Restored, StoreError> {
        let change = RestorePresence { shop: shop.clone(), online: online.clone() };
        timed(StoreOp::Restore, self.change("restore", change)).await
    }

    async fn set_status(&self, shop: &ShopId, change: &SetStatus) -> Result<StatusSet, StoreError> {
        let entry = change.entry();
        let record = record::encode_status(&entry).map_err(|error| unwritable("set_status", error))?;
        let change = DealWith { shop: shop.clone(), change: change.clone(), entry, record };
        timed(StoreOp::SetStatus, self.change("set_status", change)).await
    }

    async fn read(&self, shop: &ShopId, after: MessageId, limit: PageLimit) -> Result<Page, StoreError> {
        let shop = shop.clone();
        timed(StoreOp::Read, self.query("read", move |view| queries::read(view, &shop, after, limit))).await
    }

    async fn heads(&self, shops: &[ShopId]) -> Result<Vec<Option<MessageId>>, StoreError> {
        let shops = shops.to_vec();
        timed(StoreOp::Heads, self.query("heads", move |view| queries::heads(view, &shops))).await
    }

    /// Never: what is in the file stays there until it is trimmed.
    async fn has_lost(&self, _: &ShopId, _: MessageId) -> Result<bool, StoreError> {
        Ok(false)
    }

    async fn devices(&self, shop: &ShopId) -> Result<Vec<Device>, StoreError> {
        let shop = shop.clone();
        timed(StoreOp::Devices, self.query("devices", move |view| queries::devices(view, &shop))).await
    }

    async fn online(&self, shop: &ShopId) -> Result<Vec<Online>, StoreError> {
        let (shop, holder) = (shop.clone(), self.node.clone());
        timed(StoreOp::Online, self.query("online", move |view| queries::online(view, &shop, &holder))).await
    }

    async fn trim(&self, shop: &ShopId, through: MessageId, entries_max: usize) -> Result<usize, StoreError> {
        let mut removed = 0;
        while removed < entries_max {
            let entries_max = (entries_max - removed).min(TRIM_ENTRIES_MAX);
            let change = TrimLog { shop: shop.clone(), through, entries_max };
            let count = timed(StoreOp::Trim, self.change("trim", change)).await?;
            removed += count;
            if count < entries_max {
                break;
            }
        }
        Ok(removed)
    }

    async fn log_len(&self, shop: &ShopId) -> Result<u64, StoreError> {
        let shop = shop.clone();
        timed(StoreOp::Other, self.query("log_len", move |view| queries::log_len(view, &shop))).await
    }

    async fn forget(&self, shop: &ShopId, device: &DeviceId, which: Forget) -> Result<bool, StoreError> {
        let change = ForgetDevice { shop: shop.clone(), device: device.clone(), which };
        timed(StoreOp::Forget, self.change("forget", change)).await
    }

    async fn device(&self, shop: &ShopId, device: &DeviceId) -> Result<Option<Device>, StoreError> {
        let (shop, device) = (shop.clone(), device.clone());
        timed(StoreOp::Devices, self.query("device", move |view| queries::device(view, &shop, &device))).await
    }

    async fn change_membership(
        &self,
        shop: &ShopId,
        change: &MembershipChange,
    ) -> Result<MembershipChanged, StoreError> {
        let record = record::encode_membership(change).map_err(|error| unwritable("membership", error))?;
        let change = ChangeMembership { shop: shop.clone(), change: change.clone(), record };
        timed(StoreOp::Membership, self.change("membership", change)).await
    }

    async fn attrs(&self, shop: &ShopId, device: &DeviceId) -> Result<Option<Attrs>, StoreError> {
        let (shop, device) = (shop.clone(), device.clone());
        timed(StoreOp::Attrs, self.query("attrs", move |view| queries::attrs(view, &shop, &device))).await
    }

    async fn change_attrs(
        &self,
        shop: &ShopId,
        device: &DeviceId,
        change: &AttrsChange,
    ) -> Result<AttrsChanged, StoreError> {
        let change = ChangeAttrs { shop: shop.clone(), device: device.clone(), change: change.clone() };
        timed(StoreOp::Attrs, self.change("change_attrs", change)).await
    }

    async fn evict(
        &self,
        shop: &ShopId,
        device: &DeviceId,
        conn: Option<&ConnId>,
        last: Option<&Signal>,
    ) -> Result<Evicted, StoreError> {
        let change =
            EvictDevice { shop: shop.clone(), device: device.clone(), conn: conn.cloned(), last: last.cloned() };
        timed(StoreOp::Evict, self.change("evict", change)).await
    }

    async fn bar(
        &self,
        shop: &ShopId,
        device: &DeviceId,
        by: &Name,
        last: Option<&Signal>,
    ) -> Result<bool, StoreError> {
        let change = BarDevice { shop: shop.clone(), device: device.clone(), by: by.clone(), last: last.cloned() };
        timed(StoreOp::Bar, self.change("bar", change)).await
    }

    async fn unbar(&self, shop: &ShopId, device: &DeviceId) -> Result<bool, StoreError> {
        let change = UnbarDevice { shop: shop.clone(), device: device.clone() };
        timed(StoreOp::Bar, self.change("unbar", change)).await
    }

    async fn barred(&self, shop: &ShopId) -> Result<Vec<Barred>, StoreError> {
        let shop = shop.clone();
        timed(StoreOp::Bar, self.query("barred", move |view| barred(view, &shop))).await
    }

    async fn locate(&self, conn: &ConnId) -> Result<Option<(ShopId, Online)>, StoreError> {
        let noted = self.memory.lock().conns.get(conn).cloned();
        let Some((shop, device)) = noted else { return Ok(None) };
        let (of, holder) = (shop.clone(), self.node.clone());
        let presence = self.query("locate", move |view| queries::presence(view, &of, &device, &holder));
        let online = timed(StoreOp::Locate, presence).await?;
        Ok(online.filter(|online| online.conn == *conn).map(|online| (shop, online)))
    }

    async fn broadcast(&self, broadcast: &Broadcast) -> Result<(), StoreError> {
        self.feed.tell(FeedEvent::Broadcast(broadcast.clone()));
        Ok(())
    }

    async fn numbers(&self, shop: &ShopId, messages: &[MessageId]) -> Result<Vec<u64>, StoreError> {
        let mut all = Vec::with_capacity(messages.len());
        for messages in messages.chunks(NUMBERS_MAX) {
            all.extend(timed(StoreOp::Other, self.give_numbers(shop, messages)).await?);
        }
        Ok(all)
    }

    async fn numbered(&self, number: u64) -> Result<Option<(ShopId, MessageId)>, StoreError> {
        timed(StoreOp::Other, self.query("numbered", move |view| numbers::numbered(view, number))).await
    }

    async fn note_legacy(&self, conn: &ConnId, is_there: bool) -> Result<(), StoreError> {
        let legacy = &mut self.memory.lock().legacy;
        if is_there {
            legacy.insert(conn.clone());
        } else {
            legacy.remove(conn);
        }
        Ok(())
    }

    async fn legacy_conns(&self) -> Result<Vec<ConnId>, StoreError> {
        Ok(self.memory.lock().legacy.iter().cloned().collect())
    }

    async fn send_text(&self, text: &LegacyText) -> Result<(), StoreError> {
        if !text.conns.is_empty() {
            self.feed.tell(FeedEvent::LegacyText(text.clone()));
        }
        Ok(())
    }

    async fn add_events(&self, events: &[Event]) -> Result<(), StoreError> {
        // The setting stops the start; see the protocol's page.
        let seen = format!("that it has no stream for {} events", events.len());
        Err(StoreError::Nonsense { call: "add_events", seen })
    }

    async fn shops(&self) -> Result<Vec<ShopId>, StoreError> {
        timed(StoreOp::Other, self.query("shops", queries::shops)).await
    }

    async fn claim(&self, task: &str, node: &NodeId, lease: Duration) -> Result<bool, StoreError> {
        let now = Instant::now();
        let claims = &mut self.memory.lock().claims;
        claims.retain(|_, (_, until)| *until > now);
        let (holder, until) = claims.entry(task.to_owned()).or_insert_with(|| (node.clone(), now));
        if holder != node {
            return Ok(false);
        }
        *until = now + lease;
        Ok(true)
    }

    async fn beat(&self, node: &NodeId, report: &NodeReport) -> Result<Vec<Beat>, StoreError> {
        if !self.slot.is_open() {
            // Where nobody asks for anything else, nothing else makes the writer try again.
            return self.change("beat", Look).await.map(|()| Vec::new());
        }
        let now = Instant::now();
        let own = Beat { node: node.clone(), at_ms: unix_ms(), age: Duration::ZERO, report: report.clone() };
        let beats = &mut self.memory.lock().beats;
        beats.retain(|_, (_, heard)| now.saturating_duration_since(*heard) < BEAT_KEPT);
        beats.insert(node.clone(), (own, now));
        let aged =
            |(beat, heard): &(Beat, Instant)| Beat { age: now.saturating_duration_since(*heard), ..beat.clone() };
        Ok(beats.values().map(aged).collect())
    }

    async fn leave(&self, node: &NodeId) -> Result<(), StoreError> {
        let mut memory = self.memory.lock();
        memory.beats.remove(node);
        memory.conns.retain(|conn, _| conn.node().as_ref() != Some(node));
        memory.legacy.retain(|conn| conn.node().as_ref() != Some(node));
        Ok(())
    }

    async fn subscribe(&self, shop: &ShopId) -> Result<(), StoreError> {
        timed(StoreOp::Subscribe, self.join(shop)).await
    }

    async fn unsubscribe(&self, shop: &ShopId) -> Result<(), StoreError> {
        self.feed.leave(shop);
        Ok(())
    }

    fn now_ms(&self) -> u64 {
        unix_ms()
    }

    fn is_hearing(&self) -> bool {
        self.queue.lock().is_some()
    }

    async fn close(&self) {
        // The writer ends when it has done what was asked of it before.
        drop(self.queue.lock().take());
        let Some(tasks) = self.tasks.lock().take() else { return };
        // It ends in no other way than by returning.
        let _ = tokio::task::spawn_blocking(move || tasks.writer.join()).await;
        tasks.gaps.abort();
        // It was ended just now, and says so.
        let _ = tasks.gaps.await;
    }
}

impl EmbeddedStore {
    /// Hands a change to the writer, and waits until it is on disk.
    async fn change<C: Change>(&self, call: &'static str, change: C) -> Result<C::Outcome, StoreError> {
        let closed = || StoreError::Unavailable("the store is closed".into());
        let queue = self.queue.lock().clone().ok_or_else(closed)?;
        let (job, outcome) = job(call, change);
        let asking = async {
            queue.send(job).await.map_err(|_| closed())?;
            drop(queue);
            outcome.await.unwrap_or_else(|_| Err(closed()))
        };
        within(self.settings.deadline, asking).await
    }

    /// Reads everything that was answered, on a thread that may wait for the disk.
    async fn query<T: Send + 'static>(
        &self,
        call: &'static str,
        query: impl FnOnce(&ReadTransaction) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, StoreError> {
        let slot = self.slot.clone();
        let asking = async {
            if slot.is_behind() {
                self.change(call, Look).await?;
            }
            let asking = tokio::task::spawn_blocking(move || query(&slot.begin_read()?));
            let answer = asking.await.map_err(|error| StoreError::Unavailable(Box::new(error)))?;
            answer.map_err(|failure| failure.of_call(call))
        };
        within(self.settings.deadline, asking).await
    }

    async fn give_numbers(&self, shop: &ShopId, messages: &[MessageId]) -> Result<Vec<u64>, StoreError> {
        let (of, asked) = (shop.clone(), messages.to_vec());
        let known = self.query("numbers", move |view| numbers::known(view, &of, &asked)).await?;
        // Mostly they were all shown before, and nothing has to be written.
        if let Some(known) = known.into_iter().collect() {
            return Ok(known);
        }
        self.change("numbers", GiveNumbers { shop: shop.clone(), messages: messages.to_vec() }).await
    }

    async fn send_signal(&self, shop: &ShopId, signal: &Signal) -> Result<Signalled, StoreError> {
        let of = shop.clone();
        let is_anyone_registered = match (&signal.content.to, &signal.content.from) {
            (Audience::Devices(devices), _) => {
                let devices = devices.clone();
                self.query("signal", move |view| queries::is_any_registered(view, &of, devices.as_slice())).await?
            }
            // A device is registered itself; a back end may have misspelled the shop.
            (_, Origin::Api { .. }) => {
                self.query("signal", move |view| queries::is_anyone_registered(view, &of)).await?
            }
            (_, Origin::Device { .. }) => true,
        };
        if !is_anyone_registered {
            return Ok(Signalled::NoSuchDevice);
        }
        let (shop, signal, publisher) = (shop.clone(), signal.clone(), Some(self.node.clone()));
        self.feed.tell(FeedEvent::Signal { shop, signal, publisher });
        Ok(Signalled::Sent)
    }

    async fn join(&self, shop: &ShopId) -> Result<(), StoreError> {
        let of = shop.clone();
        if !self.query("subscribe", move |view| queries::is_remembered(view, &of)).await? {
            match self.change("subscribe", RememberShop { shop: shop.clone() }).await {
                // A shop with messages is on the list already, and its devices are to empty the store.
                Ok(()) | Err(StoreError::Full) => {}
                Err(error) => return Err(error),
            }
        }
        self.feed.join(shop);
        Ok(())
    }
}

async fn within<T>(deadline: Duration, asking: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    let late = || StoreError::Unavailable(format!("no answer from the store's disk in {deadline:?}").into());
    timeout(deadline, asking).await.unwrap_or_else(|_| Err(late()))
}

fn unwritable(call: &'static str, error: RecordError) -> StoreError {
    StoreError::Nonsense { call, seen: error.to_string() }
}
