//! The changes that the engine knows, each against the open tables; those of the log and the cursors
//! here, those of the registry in [`super::registry`].
//!
//! Owns the outcome of every operation that writes. What a change finds out it finds out before it
//! writes: where a row cannot be read it has left nothing behind, so it fails alone and the rest of
//! its transaction goes on. Never commits and never waits; called by [`super::writer`].

use redb::ReadableTable;

use crate::ids::{DeviceId, MessageId, NodeId, OnceKey, ShopId};
use crate::message::{Audience, Entry, Message, Origin, StatusChange};
use crate::store::embedded::tables::{Failure, Tables, entry_key};
use crate::store::{FeedEvent, Mark, Marked, Published, SetStatus, StatusSet, StoreSettings, Stored};

/// What every change of one transaction goes by.
pub struct Scene<'a> {
    pub now_ms: u64,
    /// This process.
    pub node: &'a NodeId,
    pub settings: &'a StoreSettings,
    /// What the rooms are to be told once it is on disk.
    pub events: Vec<FeedEvent>,
}

impl Scene<'_> {
    /// Tells of an entry that was appended after `prev`.
    pub fn tell_entry(&mut self, shop: &ShopId, prev: MessageId, id: MessageId, entry: Entry) {
        let stored = Stored { id, entry, dealt: None, unseen_by: Vec::new() };
        self.events.push(FeedEvent::Entry { shop: shop.clone(), prev, stored, publisher: Some(self.node.clone()) });
    }
}

/// One operation that writes.
pub trait Change: Send + 'static {
    type Outcome: Send + 'static;
    /// Whether it is refused first where there is no room: what others can do without.
    const IS_REFUSED_WHEN_FULL: bool = false;
    /// Whether everything before it is to be shown to who reads before it is answered.
    const IS_LOOK: bool = false;

    /// Its share of a transaction's bytes, roughly.
    fn bytes(&self) -> usize {
        256
    }

    /// Does it; a second time on the same tables where the first transaction was lost.
    ///
    /// # Errors
    /// [`Failure`]
    fn apply(&self, tables: &mut Tables<'_>, scene: &mut Scene<'_>) -> Result<Self::Outcome, Failure>;
}

/// [`crate::store::Store::publish`]
pub struct PublishMessage {
    pub shop: ShopId,
    pub message: Message,
    pub record: Vec<u8>,
    pub key: Option<OnceKey>,
}

impl Change for PublishMessage {
    type Outcome = Published;
    const IS_REFUSED_WHEN_FULL: bool = true;

    fn bytes(&self) -> usize {
        self.record.len()
    }

    fn apply(&self, tables: &mut Tables<'_>, scene: &mut Scene<'_>) -> Result<Published, Failure> {
        let shop = &self.shop;
        let mut ended = None;
        if let Some(key) = &self.key
            && let Some(row) = tables.once.get((shop.as_str(), key.as_str()))?.map(|row| row.value())
        {
            let (ms, n, ends_ms) = row;
            if ends_ms > scene.now_ms {
                return Ok(Published::Duplicate(MessageId { ms, n }));
            }
            ended = Some(ends_ms);
        }
        let row = tables.shop(shop)?.unwrap_or_default();
        let is_of_back_end = matches!(self.message.content.from, Origin::Api { .. });
        match &self.message.content.to {
            Audience::Mains if row.mains == 0 => return Ok(Published::NoMainDevice),
            Audience::Devices(devices) if !is_any_registered(tables, shop, devices.as_slice())? => {
                return Ok(Published::NoSuchDevice);
            }
            Audience::Mains | Audience::Devices(_) => {}
            _ if is_of_back_end && !tables.has_devices(shop)? => return Ok(Published::NoSuchDevice),
            _ => {}
        }
        if row.entries >= scene.settings.log_entries_max {
            return Ok(Published::BacklogFull);
        }
        let (prev, id) = tables.append(shop, &self.record, scene.now_ms)?;
        if let Some(key) = &self.key {
            let (shop, key) = (shop.as_str(), key.as_str());
            if let Some(ended) = ended {
                tables.once_ends.remove((ended, shop, key))?;
            }
            let kept_ms = scene.settings.key_retention.as_millis().max(1) as u64;
            let ends_ms = scene.now_ms.saturating_add(kept_ms);
            tables.once.insert((shop, key), (id.ms, id.n, ends_ms))?;
            tables.once_ends.insert((ends_ms, shop, key), ())?;
        }
        scene.tell_entry(shop, prev, id, Entry::Message(self.message.clone()));
        Ok(Published::Stored(id))
    }
}

fn is_any_registered(tables: &Tables<'_>, shop: &ShopId, devices: &[DeviceId]) -> Result<bool, Failure> {
    for device in devices {
        if tables.devices.get((shop.as_str(), device.as_str()))?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// [`crate::store::Store::mark_delivered`], for a bounded number of marks.
pub struct MarkDelivered {
    pub shop: ShopId,
    pub marks: Vec<Mark>,
}

impl Change for MarkDelivered {
    type Outcome = Vec<Marked>;

    fn bytes(&self) -> usize {
        self.marks.len() * 64
    }

    fn apply(&self, tables: &mut Tables<'_>, _scene: &mut Scene<'_>) -> Result<Vec<Marked>, Failure> {
        let shop = &self.shop;
        let mut outcomes = Vec::with_capacity(self.marks.len());
        for mark in &self.marks {
            let moved = tables.cursor(shop, &mark.device)?.filter(|from| mark.through > *from);
            let Some(from) = moved else {
                outcomes.push(Marked::Before);
                continue;
            };
            for id in mark.expired.iter().filter(|id| **id > from && **id <= mark.through) {
                // Of an entry that is gone nothing is remembered; nobody would ever remove it.
                if tables.is_in_log(shop, *id)? {
                    // A fate that cannot be read is written anew, so that it holds up no cursor.
                    let mut fate = tables.fate(shop, *id).or_else(unreadable_is_none)?;
                    fate.unseen_by.push(mark.device.clone());
                    tables.put_fate(shop, *id, &fate)?;
                }
            }
            tables.put_cursor(shop, &mark.device, mark.through)?;
            outcomes.push(Marked::Advanced { from });
        }
        Ok(outcomes)
    }
}

/// What a row that cannot be read counts as where the change must not fail for it.
///
/// # Errors
/// Any other [`Failure`].
pub fn unreadable_is_none<T: Default>(failure: Failure) -> Result<T, Failure> {
    match failure {
        Failure::Row { .. } => Ok(T::default()),
        lost => Err(lost),
    }
}

/// [`crate::store::Store::set_status`]
pub struct DealWith {
    pub shop: ShopId,
    pub change: SetStatus,
    pub entry: StatusChange,
    pub record: Vec<u8>,
}

impl Change for DealWith {
    type Outcome = StatusSet;
    const IS_REFUSED_WHEN_FULL: bool = true;

    fn apply(&self, tables: &mut Tables<'_>, scene: &mut Scene<'_>) -> Result<StatusSet, Failure> {
        let (shop, change) = (&self.shop, &self.change);
        if !tables.is_in_log(shop, change.message)? {
            return Ok(StatusSet::NotFound);
        }
        let mut fate = tables.fate(shop, change.message)?;
        let dealt = fate.dealt();
        let present = dealt.as_ref().map_or(&change.initial, |dealt| &dealt.status);
        let by = dealt.as_ref().map(|dealt| &dealt.by);
        let conflict = || Ok(StatusSet::Conflict { status: present.clone(), by: by.cloned() });
        match &change.expect {
            Some(expected) if present != expected => return conflict(),
            None if by == Some(&change.by) && *present == change.status => return Ok(StatusSet::Unchanged),
            None if dealt.is_some() => return conflict(),
            _ => {}
        }
        fate.deal(&change.status, &change.by);
        tables.put_fate(shop, change.message, &fate)?;
        let (prev, id) = tables.append(shop, &self.record, scene.now_ms)?;
        scene.tell_entry(shop, prev, id, Entry::Status(self.entry.clone()));
        Ok(StatusSet::Set(id))
    }
}

/// [`crate::store::Store::trim`], for a bounded number of entries.
pub struct TrimLog {
    pub shop: ShopId,
    pub through: MessageId,
    pub entries_max: usize,
}

impl Change for TrimLog {
    type Outcome = usize;

    fn bytes(&self) -> usize {
        self.entries_max * 256
    }

    fn apply(&self, tables: &mut Tables<'_>, _scene: &mut Scene<'_>) -> Result<usize, Failure> {
        let mut ids = Vec::new();
        let range = entry_key(&self.shop, MessageId::ZERO)..=entry_key(&self.shop, self.through);
        for row in tables.log.range(range)?.take(self.entries_max) {
            let (key, _record) = row?;
            let (_shop, ms, n) = key.value();
            ids.push(MessageId { ms, n });
        }
        for id in &ids {
            tables.log.remove(entry_key(&self.shop, *id))?;
            tables.fates.remove(entry_key(&self.shop, *id))?;
            if let Some(number) = tables.numbers.remove(entry_key(&self.shop, *id))? {
                tables.numbered.remove(number.value())?;
            }
        }
        if let Some(mut row) = tables.shop(&self.shop)?.filter(|_| !ids.is_empty()) {
            row.entries = row.entries.saturating_sub(ids.len() as u64);
            tables.put_shop(&self.shop, row)?;
        }
        Ok(ids.len())
    }
}

/// Puts a shop on the list of all shops.
pub struct RememberShop {
    pub shop: ShopId,
}

impl Change for RememberShop {
    type Outcome = ();

    fn apply(&self, tables: &mut Tables<'_>, _scene: &mut Scene<'_>) -> Result<(), Failure> {
        if tables.shop(&self.shop)?.is_none() {
            tables.put_shop(&self.shop, Default::default())?;
        }
        Ok(())
    }
}

/// Nothing; when it is answered, who reads sees everything that was answered before. Also wakes the writer,
/// which then opens a file that it could not open before.
pub struct Look;

impl Change for Look {
    type Outcome = ();
    const IS_LOOK: bool = true;

    fn apply(&self, _tables: &mut Tables<'_>, _scene: &mut Scene<'_>) -> Result<(), Failure> {
        Ok(())
    }
}

/// Removes idempotency keys whose time is over, at most `count_max` of them.
///
/// # Errors
/// [`Failure::File`]
pub fn remove_ended_keys(tables: &mut Tables<'_>, now_ms: u64, count_max: usize) -> Result<(), Failure> {
    for _ in 0..count_max {
        let Some((end, _)) = tables.once_ends.first()? else { return Ok(()) };
        let (ends_ms, shop, key) = end.value();
        if ends_ms > now_ms {
            return Ok(());
        }
        let (shop, key) = (shop.to_owned(), key.to_owned());
        drop(end);
        tables.once.remove((shop.as_str(), key.as_str()))?;
        tables.once_ends.remove((ends_ms, shop.as_str(), key.as_str()))?;
    }
    Ok(())
}
