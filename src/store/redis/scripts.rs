//! The scripts of `lua/`, each behind one typed function.
//!
//! Owns how arguments become strings and how replies become outcomes; the contract of each script is
//! its header. Never spells a key: they come from [`super::keys`]. Called by [`super`].

use std::sync::Arc;
use std::time::Duration;

use fred::types::Value;

use crate::ids::{ConnId, DeviceId, MessageId, Name, NodeId};
use crate::message::{Membership, MembershipChange, MembershipStep};
use crate::store::redis::call::Call;
use crate::store::redis::fleet::{Fleet, Line};
use crate::store::redis::hashes;
use crate::store::redis::keys::ShopKeys;
use crate::store::redis::reply::{self, Reply};
use crate::store::redis::script::{Script, Way};
use crate::store::{
    Admission, Beat, Connect, Connected, Evicted, Forget, Mark, Marked, MembershipChanged, NodeReport, Online,
    PageLimit, Published, Restored, SetStatus, StatusSet, StoreError,
};

/// Marks of one call of the script.
pub const MARKS_MAX: usize = 100;
/// Entries of one page, whatever the caller asks for.
pub const PAGE_ENTRIES_MAX: usize = 1000;
/// Entries of one call of trim, so that it does not hold up everyone else.
pub const TRIM_ENTRIES_MAX: usize = 1000;

/// What a publish has to find registered.
pub enum Audience<'a> {
    Any,
    AMain,
    ADevice,
    OneOf(&'a [DeviceId]),
}

/// The arguments of [`Scripts::publish`].
pub struct PublishCall<'a> {
    pub keys: &'a ShopKeys,
    /// The key of the idempotency key, and how long it is kept.
    pub once: Option<(String, Duration)>,
    pub record: Vec<u8>,
    pub publisher: &'a NodeId,
    pub log_entries_max: u64,
    pub audience: Audience<'a>,
}

/// The arguments of [`Scripts::change_membership`].
pub struct MembershipCall<'a> {
    pub keys: &'a ShopKeys,
    pub change: &'a MembershipChange,
    pub groups_max: usize,
    pub record: Vec<u8>,
    pub publisher: &'a NodeId,
}

/// The arguments of [`Scripts::set_attrs`].
pub struct AttrsCall<'a> {
    pub keys: &'a ShopKeys,
    pub device: &'a DeviceId,
    /// The text that is there.
    pub expected: Option<&'a str>,
    /// The text to be there.
    pub attrs: Option<&'a str>,
}

/// What came of [`Scripts::set_attrs`].
pub enum AttrsSet {
    Set,
    /// Something else is there by now.
    Changed,
    NoSuchDevice,
}

/// What [`Scripts::read`] found.
pub struct RawPage {
    pub entries: Vec<RawEntry>,
    pub is_end: bool,
}

/// An entry as Redis holds it; see `read.lua`.
pub struct RawEntry {
    pub id: MessageId,
    pub record: Value,
    pub status: Value,
    pub expired: Value,
}

/// Every script, and the ways they take.
pub struct Scripts {
    commands: Way,
    reads: Way,
    /// For what a caller is promised to find again whatever fails.
    committed: Way,
    publish: Script,
    mark_delivered: Script,
    connect: Script,
    disconnect: Script,
    restore: Script,
    set_status: Script,
    read: Script,
    trim: Script,
    number: Script,
    forget: Script,
    membership: Script,
    set_attrs: Script,
    evict: Script,
    bar: Script,
    beat: Script,
    claim: Script,
    note_conn: Script,
}

impl Scripts {
    pub fn new(fleet: &Arc<Fleet>) -> Scripts {
        let way = |line| Way { fleet: fleet.clone(), line };
        Scripts {
            commands: way(Line::Commands),
            reads: way(Line::Reads),
            committed: way(Line::Committed),
            publish: Script::in_batches("publish", include_str!("../../../lua/publish.lua")),
            mark_delivered: Script::in_batches("mark_delivered", include_str!("../../../lua/mark_delivered.lua")),
            connect: Script::in_batches("connect", include_str!("../../../lua/connect.lua")),
            disconnect: Script::in_batches("disconnect", include_str!("../../../lua/disconnect.lua")),
            restore: Script::new("restore", include_str!("../../../lua/restore.lua")),
            set_status: Script::new("set_status", include_str!("../../../lua/set_status.lua")),
            read: Script::new("read", include_str!("../../../lua/read.lua")),
            trim: Script::new("trim", include_str!("../../../lua/trim.lua")),
            number: Script::new("number", include_str!("../../../lua/number.lua")),
            forget: Script::new("forget", include_str!("../../../lua/forget.lua")),
            membership: Script::new("membership", include_str!("../../../lua/membership.lua")),
            set_attrs: Script::new("set_attrs", include_str!("../../../lua/set_attrs.lua")),
            evict: Script::new("evict", include_str!("../../../lua/evict.lua")),
            bar: Script::new("bar", include_str!("../../../lua/bar.lua")),
            beat: Script::new("beat", include_str!("../../../lua/beat.lua")),
            claim: Script::new("claim", include_str!("../../../lua/claim.lua")),
            note_conn: Script::in_batches("note_conn", include_str!("../../../lua/note_conn.lua")),
        }
    }

    /// `publish.lua`
    pub async fn publish(&self, call: PublishCall<'_>) -> Result<Published, StoreError> {
        let shop = call.keys;
        let mut script = Call::new([shop.log(), shop.head(), shop.channel(), shop.mains(), shop.devices()]);
        let mut once_ms = 0;
        if let Some((key, kept)) = &call.once {
            script = script.key(key);
            once_ms = kept.as_millis().max(1);
        }
        let (check, devices) = match call.audience {
            Audience::Any => ("-", &[][..]),
            Audience::AMain => ("m", &[][..]),
            Audience::ADevice => ("r", &[][..]),
            Audience::OneOf(devices) => ("d", devices),
        };
        let script = script.arg(call.record).arg(call.publisher).number(call.log_entries_max).number(once_ms);
        let mut reply = self.publish.run(&self.committed, script.arg(check).args(devices)).await?;
        match reply.number()? {
            0 => Ok(Published::Stored(reply.parsed()?)),
            1 => Ok(Published::Duplicate(reply.parsed()?)),
            2 => Ok(Published::NoMainDevice),
            3 => Ok(Published::NoSuchDevice),
            4 => Ok(Published::BacklogFull),
            code => Err(reply.unknown(code)),
        }
    }

    /// `mark_delivered.lua`, for at most [`MARKS_MAX`] marks.
    pub async fn mark_delivered(&self, shop: &ShopKeys, marks: &[Mark]) -> Result<Vec<Marked>, StoreError> {
        let mut call = Call::new([shop.cursors(), shop.expired()]).number(marks.len());
        call = call.args(marks.iter().map(|mark| &mark.device));
        for mark in marks {
            call = call.arg(mark.through.text());
        }
        for (place, mark) in (1_usize..).zip(marks).filter(|(_, mark)| !mark.expired.is_empty()) {
            let expired: Vec<String> = mark.expired.iter().map(MessageId::to_string).collect();
            call = call.number(place).arg(expired.join(","));
        }
        let mut reply = self.mark_delivered.run(&self.commands, call).await?;
        let outcome = |from: Option<MessageId>| from.map_or(Marked::Before, |from| Marked::Advanced { from });
        marks.iter().map(|_| reply.parsed_or_nil().map(outcome)).collect()
    }

    /// `connect.lua`; `not_after_ms` is by Redis's clock.
    pub async fn connect(
        &self,
        shop: &ShopKeys,
        connect: &Connect,
        not_after_ms: u64,
    ) -> Result<Admission, StoreError> {
        let (devices, mains, cursors, online) = (shop.devices(), shop.mains(), shop.cursors(), shop.online());
        let call = Call::new([devices, mains, cursors, online, shop.head(), shop.channel(), shop.barred()])
            .args([connect.device.as_str(), connect.role.as_str(), connect.conn.as_str(), connect.node.as_str()])
            .arg(connect.meta.as_deref().unwrap_or_default())
            .number(not_after_ms)
            .arg(connect.user.as_ref().map_or("", |user| user.as_str()))
            .arg(if connect.groups.is_some() { "=" } else { "-" })
            .args(connect.groups.iter().flatten());
        let mut reply = self.connect.run(&self.commands, call).await?;
        let Some(cursor) = reply.parsed_or_nil()? else { return Ok(Admission::Barred) };
        let head = reply.parsed()?;
        let (replaced, user) = (reply.parsed_or_nil()?, reply.parsed_or_nil()?);
        let mut groups = Vec::new();
        while !reply.is_empty() {
            groups.push(reply.parsed()?);
        }
        Ok(Admission::Admitted(Connected { cursor, head, replaced, membership: Membership { groups, user } }))
    }

    /// `disconnect.lua`
    pub async fn disconnect(
        &self,
        shop: &ShopKeys,
        device: &DeviceId,
        conn: &ConnId,
        settled: MessageId,
    ) -> Result<bool, StoreError> {
        let call = Call::new([shop.devices(), shop.online(), shop.cursors()]).arg(device).arg(conn).arg(settled.text());
        yes_or_no(self.disconnect.run(&self.commands, call).await?)
    }

    /// `restore.lua`
    pub async fn restore(&self, shop: &ShopKeys, online: &Online) -> Result<Restored, StoreError> {
        let Online { device, role, conn, node, since_ms } = online;
        let call = Call::new([shop.devices(), shop.online(), shop.barred()]).arg(device).arg(conn).arg(node);
        let mut reply = self.restore.run(&self.commands, call.number(*since_ms).arg(role.as_str())).await?;
        match reply.number()? {
            0 => Ok(Restored::Online),
            1 => Ok(Restored::Taken),
            2 => Ok(Restored::Refused),
            code => Err(reply.unknown(code)),
        }
    }

    /// `set_status.lua`, given the record of the entry that tells the others.
    pub async fn set_status(
        &self,
        shop: &ShopKeys,
        change: &SetStatus,
        record: Vec<u8>,
        publisher: &NodeId,
    ) -> Result<StatusSet, StoreError> {
        let call = Call::new([shop.log(), shop.head(), shop.status(), shop.channel()])
            .arg(change.message.text())
            .arg(&change.status)
            .arg(change.expect.as_ref().map_or("", |expect| expect.as_str()))
            .arg(hashes::origin_text(&change.by))
            .arg(&change.initial)
            .arg(record)
            .arg(publisher);
        let mut reply = self.set_status.run(&self.committed, call).await?;
        match reply.number()? {
            0 => Ok(StatusSet::Set(reply.parsed()?)),
            1 => Ok(StatusSet::Unchanged),
            2 => {
                let status = reply.parsed()?;
                let by = match reply.value()? {
                    Value::Null => None,
                    by => Some(reply::text(&by).and_then(hashes::origin).ok_or_else(|| reply.nonsense(&by))?),
                };
                Ok(StatusSet::Conflict { status, by })
            }
            3 => Ok(StatusSet::NotFound),
            code => Err(reply.unknown(code)),
        }
    }

    /// `read.lua`
    pub async fn read(&self, shop: &ShopKeys, after: MessageId, limit: PageLimit) -> Result<RawPage, StoreError> {
        let call = Call::new([shop.log(), shop.status(), shop.expired()]);
        let call = call.arg(after.text()).number(limit.entries.clamp(1, PAGE_ENTRIES_MAX)).number(limit.bytes);
        let mut reply = self.read.run(&self.reads, call).await?;
        let is_end = match reply.number()? {
            0 => false,
            1 => true,
            code => return Err(reply.unknown(code)),
        };
        let mut entries = Vec::new();
        while !reply.is_empty() {
            let id = reply.parsed()?;
            let (record, status, expired) = (reply.value()?, reply.value()?, reply.value()?);
            entries.push(RawEntry { id, record, status, expired });
        }
        Ok(RawPage { entries, is_end })
    }

    /// `trim.lua`, for at most [`TRIM_ENTRIES_MAX`] entries.
    pub async fn trim(&self, shop: &ShopKeys, through: MessageId, entries_max: usize) -> Result<usize, StoreError> {
        let call = Call::new([shop.log(), shop.status(), shop.expired(), shop.numbers()]);
        let mut reply = self.trim.run(&self.commands, call.arg(through.text()).number(entries_max)).await?;
        let removed = reply.number()?;
        usize::try_from(removed).map_err(|_| reply.unknown(removed))
    }

    /// `number.lua`, for a bounded number of pairs: what each message has now.
    pub async fn number(&self, shop: &ShopKeys, offers: &[(MessageId, u64)]) -> Result<Vec<Option<u64>>, StoreError> {
        let call = Call::new([shop.log(), shop.numbers()]);
        let call = offers.iter().fold(call, |call, (message, offered)| call.arg(message.text()).number(*offered));
        let mut reply = self.number.run(&self.commands, call).await?;
        offers.iter().map(|_| reply.parsed_or_nil()).collect()
    }

    /// `forget.lua`
    pub async fn forget(&self, shop: &ShopKeys, device: &DeviceId, which: Forget) -> Result<bool, StoreError> {
        let (devices, mains, cursors, online) = (shop.devices(), shop.mains(), shop.cursors(), shop.online());
        let call = Call::new([devices, mains, cursors, online, shop.attrs(), shop.channel()]).arg(device);
        let call = match which {
            Forget::UnseenSince(seen_before_ms) => call.number(seen_before_ms),
            Forget::ByOperator => call.arg(""),
        };
        yes_or_no(self.forget.run(&self.commands, call).await?)
    }

    /// `membership.lua`, given the record of the entry that tells the sessions.
    pub async fn change_membership(&self, call: MembershipCall<'_>) -> Result<MembershipChanged, StoreError> {
        let shop = call.keys;
        let (step, name) = match &call.change.step {
            MembershipStep::Join(group) => ("join", Some(group)),
            MembershipStep::Leave(group) => ("leave", Some(group)),
            MembershipStep::Bind(user) => ("bind", Some(user)),
            MembershipStep::Unbind(user) => ("unbind", user.as_ref()),
        };
        let script = Call::new([shop.log(), shop.head(), shop.devices(), shop.channel()])
            .arg(step)
            .arg(name.map_or("", |name| name.as_str()))
            .arg(call.change.device.as_ref().map_or("", |device| device.as_str()))
            .number(call.groups_max)
            .arg(call.record)
            .arg(call.publisher);
        let mut reply = self.membership.run(&self.committed, script).await?;
        match reply.number()? {
            0 => Ok(MembershipChanged::Changed(reply.parsed()?)),
            1 => Ok(MembershipChanged::Unchanged),
            2 => Ok(MembershipChanged::NoSuchDevice),
            3 => Ok(MembershipChanged::TooManyGroups),
            code => Err(reply.unknown(code)),
        }
    }

    /// `set_attrs.lua`
    pub async fn set_attrs(&self, call: AttrsCall<'_>) -> Result<AttrsSet, StoreError> {
        let script = Call::new([call.keys.devices(), call.keys.attrs()]).arg(call.device);
        let script = script.arg(call.expected.unwrap_or_default()).arg(call.attrs.unwrap_or_default());
        let mut reply = self.set_attrs.run(&self.committed, script).await?;
        match reply.number()? {
            0 => Ok(AttrsSet::Set),
            1 => Ok(AttrsSet::Changed),
            2 => Ok(AttrsSet::NoSuchDevice),
            code => Err(reply.unknown(code)),
        }
    }

    /// `evict.lua`, given the record of the last signal.
    pub async fn evict(
        &self,
        shop: &ShopKeys,
        device: &DeviceId,
        conn: Option<&ConnId>,
        last: Option<Vec<u8>>,
    ) -> Result<Evicted, StoreError> {
        let call = Call::new([shop.devices(), shop.online(), shop.channel()]).arg(device);
        let call = call.arg(conn.map_or("", |conn| conn.as_str())).arg(last.unwrap_or_default());
        let mut reply = self.evict.run(&self.commands, call).await?;
        match reply.number()? {
            0 => Ok(Evicted::Closing(reply.parsed()?)),
            1 => Ok(Evicted::Away),
            code => Err(reply.unknown(code)),
        }
    }

    /// `bar.lua`, given the record of the last signal.
    pub async fn bar(
        &self,
        shop: &ShopKeys,
        device: &DeviceId,
        by: &Name,
        last: Option<Vec<u8>>,
    ) -> Result<bool, StoreError> {
        let call = Call::new([shop.barred(), shop.devices(), shop.online(), shop.channel()]);
        let call = call.arg(device).arg(by).arg(last.unwrap_or_default());
        yes_or_no(self.bar.run(&self.commands, call).await?)
    }

    /// `beat.lua`
    pub async fn beat(&self, nodes: String, node: &NodeId, report: &NodeReport) -> Result<Vec<Beat>, StoreError> {
        let call = Call::new([nodes]).arg(node).arg(hashes::report_text(report));
        let mut reply = self.beat.run(&self.commands, call).await?;
        let now_ms: u64 = reply.parsed()?;
        let mut beats = Vec::new();
        while !reply.is_empty() {
            let (node, field) = (reply.parsed()?, reply.value()?);
            let beat = reply::text(&field).and_then(hashes::beat);
            let (at_ms, report) = beat.ok_or_else(|| reply.nonsense(&field))?;
            beats.push(Beat { node, at_ms, age: Duration::from_millis(now_ms.saturating_sub(at_ms)), report });
        }
        Ok(beats)
    }

    /// `claim.lua`
    pub async fn claim(&self, lease_key: String, node: &NodeId, lease: Duration) -> Result<bool, StoreError> {
        let call = Call::new([lease_key]).arg(node).number(lease.as_millis().max(1));
        yes_or_no(self.claim.run(&self.commands, call).await?)
    }

    /// `note_conn.lua`; without `whose` the connection is gone.
    pub async fn note_conn(
        &self,
        conns_key: String,
        conn: &ConnId,
        whose: Option<String>,
        kept: Duration,
    ) -> Result<(), StoreError> {
        let call = Call::new([conns_key]).arg(conn).arg(whose.unwrap_or_default()).number(kept.as_secs());
        self.note_conn.run(&self.commands, call).await.map(drop)
    }
}

fn yes_or_no(mut reply: Reply) -> Result<bool, StoreError> {
    match reply.number()? {
        0 => Ok(false),
        1 => Ok(true),
        code => Err(reply.unknown(code)),
    }
}
