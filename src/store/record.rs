//! The stored form of an entry, of a signal and of what else the feed carries: a MessagePack map, the
//! same in every engine.
//!
//! Nodes of different versions read each other's records: a reader ignores keys it does not know,
//! and a key's meaning never changes.

mod content;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::ids::{ConnId, DeviceId, MessageId, Name};
use crate::message::{Broadcast, Entry, MembershipChange, MembershipStep, Message, Signal, StatusChange};
use crate::store::Receipt;
use crate::store::record::content::{ContentRecord, OriginRecord};

/// Levels that a record may nest. Clients' values count for none: they are bytes in it.
const DEPTH_MAX: usize = 64;
/// What most messages have room in.
const MESSAGE_BYTES: usize = 512;

/// A record that cannot be read, or a value that cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    #[error("the record is not one that this version can read")]
    Decode(#[from] rmp_serde::decode::Error),
    #[error("the record cannot be written")]
    Encode(#[from] rmp_serde::encode::Error),
    #[error("the record holds JSON that is none")]
    Json(#[from] serde_json::Error),
}

/// The bytes of a message.
///
/// # Errors
/// [`RecordError::Encode`]
pub fn encode_message(message: &Message) -> Result<Vec<u8>, RecordError> {
    let mut bytes = Vec::with_capacity(MESSAGE_BYTES);
    rmp_serde::encode::write_named(&mut bytes, &EntryRecord::Message(message.into()))?;
    Ok(bytes)
}

/// The bytes of a status change.
///
/// # Errors
/// [`RecordError::Encode`]
pub fn encode_status(change: &StatusChange) -> Result<Vec<u8>, RecordError> {
    Ok(rmp_serde::to_vec_named(&EntryRecord::Status(change.into()))?)
}

/// The bytes of a change of membership.
///
/// # Errors
/// [`RecordError::Encode`]
pub fn encode_membership(change: &MembershipChange) -> Result<Vec<u8>, RecordError> {
    Ok(rmp_serde::to_vec_named(&EntryRecord::Membership(change.into()))?)
}

/// Any stored MessagePack from its bytes.
///
/// # Errors
/// It is no such thing, or is nested deeper than any that is stored, which would take more stack than there is.
pub fn read<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, rmp_serde::decode::Error> {
    let mut deserializer = rmp_serde::Deserializer::from_read_ref(bytes);
    deserializer.set_max_depth(DEPTH_MAX);
    T::deserialize(&mut deserializer)
}

/// An entry from its bytes.
///
/// # Errors
/// [`RecordError`], also for a record of a later version that this one cannot read.
pub fn decode_entry(bytes: &[u8]) -> Result<Entry, RecordError> {
    match read(bytes)? {
        EntryRecord::Message(record) => Ok(Entry::Message(record.try_into()?)),
        EntryRecord::Status(record) => Ok(Entry::Status(record.into())),
        EntryRecord::Membership(record) => Ok(Entry::Membership(record.into())),
    }
}

/// The bytes of a signal.
///
/// # Errors
/// [`RecordError::Encode`]
pub fn encode_signal(signal: &Signal) -> Result<Vec<u8>, RecordError> {
    Ok(rmp_serde::to_vec_named(&SignalRecord::from(signal))?)
}

/// A signal from its bytes.
///
/// # Errors
/// [`RecordError`]
pub fn decode_signal(bytes: &[u8]) -> Result<Signal, RecordError> {
    let record: SignalRecord<'_> = read(bytes)?;
    record.try_into()
}

/// The bytes of a broadcast.
///
/// # Errors
/// [`RecordError::Encode`]
pub fn encode_broadcast(broadcast: &Broadcast) -> Result<Vec<u8>, RecordError> {
    let except = broadcast.except.as_slice().to_vec();
    Ok(rmp_serde::to_vec_named(&BroadcastRecord { signal: (&broadcast.signal).into(), except })?)
}

/// A broadcast from its bytes.
///
/// # Errors
/// [`RecordError`]
pub fn decode_broadcast(bytes: &[u8]) -> Result<Broadcast, RecordError> {
    let record: BroadcastRecord<'_> = read(bytes)?;
    Ok(Broadcast { signal: record.signal.try_into()?, except: record.except.into() })
}

/// The bytes of a receipt.
///
/// # Errors
/// [`RecordError::Encode`]
pub fn encode_receipt(receipt: &Receipt) -> Result<Vec<u8>, RecordError> {
    Ok(rmp_serde::to_vec_named(&ReceiptRecord {
        sender: receipt.sender.clone(),
        message: receipt.message.into(),
        device: receipt.device.clone(),
        at_ms: receipt.at_ms,
    })?)
}

/// A receipt from its bytes.
///
/// # Errors
/// [`RecordError`]
pub fn decode_receipt(bytes: &[u8]) -> Result<Receipt, RecordError> {
    let record: ReceiptRecord = read(bytes)?;
    Ok(Receipt { sender: record.sender, message: record.message.into(), device: record.device, at_ms: record.at_ms })
}

#[derive(Serialize, Deserialize)]
enum EntryRecord<'a> {
    #[serde(rename = "m", borrow)]
    Message(MessageRecord<'a>),
    #[serde(rename = "s")]
    Status(StatusRecord),
    #[serde(rename = "g")]
    Membership(MembershipRecord),
}

#[derive(Serialize, Deserialize)]
struct MessageRecord<'a> {
    #[serde(rename = "c", borrow)]
    content: ContentRecord<'a>,
    #[serde(rename = "s")]
    status: Name,
    #[serde(rename = "l", default, skip_serializing_if = "Option::is_none")]
    ttl_s: Option<u32>,
    #[serde(rename = "r", default, skip_serializing_if = "std::ops::Not::not")]
    receipt: bool,
}

#[derive(Serialize, Deserialize)]
struct SignalRecord<'a> {
    #[serde(rename = "a")]
    at_ms: u64,
    #[serde(rename = "c", borrow)]
    content: ContentRecord<'a>,
}

#[derive(Serialize, Deserialize)]
struct BroadcastRecord<'a> {
    #[serde(rename = "s", borrow)]
    signal: SignalRecord<'a>,
    #[serde(rename = "x", default, skip_serializing_if = "Vec::is_empty")]
    except: Vec<ConnId>,
}

#[derive(Serialize, Deserialize)]
struct ReceiptRecord {
    #[serde(rename = "s")]
    sender: DeviceId,
    #[serde(rename = "m")]
    message: IdRecord,
    #[serde(rename = "d")]
    device: DeviceId,
    #[serde(rename = "a")]
    at_ms: u64,
}

#[derive(Serialize, Deserialize)]
struct StatusRecord {
    #[serde(rename = "m")]
    message: IdRecord,
    #[serde(rename = "s")]
    status: Name,
    #[serde(rename = "b")]
    by: OriginRecord,
    #[serde(rename = "f", default, skip_serializing_if = "Option::is_none")]
    sender: Option<DeviceId>,
}

#[derive(Serialize, Deserialize)]
struct MembershipRecord {
    #[serde(rename = "d", default, skip_serializing_if = "Option::is_none")]
    device: Option<DeviceId>,
    #[serde(rename = "s")]
    step: StepRecord,
}

#[derive(Serialize, Deserialize)]
enum StepRecord {
    #[serde(rename = "j")]
    Join(Name),
    #[serde(rename = "l")]
    Leave(Name),
    #[serde(rename = "b")]
    Bind(Name),
    #[serde(rename = "u")]
    Unbind(Option<Name>),
}

/// Milliseconds and number.
#[derive(Serialize, Deserialize)]
struct IdRecord(u64, u64);

impl From<MessageId> for IdRecord {
    fn from(id: MessageId) -> Self {
        IdRecord(id.ms, id.n)
    }
}

impl From<IdRecord> for MessageId {
    fn from(id: IdRecord) -> Self {
        MessageId { ms: id.0, n: id.1 }
    }
}

impl<'a> From<&'a Message> for MessageRecord<'a> {
    fn from(message: &'a Message) -> Self {
        MessageRecord {
            content: (&message.content).into(),
            status: message.status.clone(),
            ttl_s: message.ttl.map(|ttl| ttl.as_secs() as u32),
            receipt: message.receipt,
        }
    }
}

impl TryFrom<MessageRecord<'_>> for Message {
    type Error = RecordError;
    fn try_from(record: MessageRecord<'_>) -> Result<Self, RecordError> {
        Ok(Message {
            content: record.content.try_into()?,
            status: record.status,
            ttl: record.ttl_s.map(|ttl_s| Duration::from_secs(ttl_s.into())),
            receipt: record.receipt,
        })
    }
}

impl<'a> From<&'a Signal> for SignalRecord<'a> {
    fn from(signal: &'a Signal) -> Self {
        SignalRecord { at_ms: signal.at_ms, content: (&signal.content).into() }
    }
}

impl TryFrom<SignalRecord<'_>> for Signal {
    type Error = RecordError;
    fn try_from(record: SignalRecord<'_>) -> Result<Self, RecordError> {
        Ok(Signal { at_ms: record.at_ms, content: record.content.try_into()? })
    }
}

impl From<&StatusChange> for StatusRecord {
    fn from(change: &StatusChange) -> Self {
        StatusRecord {
            message: change.message.into(),
            status: change.status.clone(),
            by: (&change.by).into(),
            sender: change.sender.clone(),
        }
    }
}

impl From<StatusRecord> for StatusChange {
    fn from(record: StatusRecord) -> Self {
        StatusChange {
            message: record.message.into(),
            status: record.status,
            by: record.by.into(),
            sender: record.sender,
        }
    }
}

impl From<&MembershipChange> for MembershipRecord {
    fn from(change: &MembershipChange) -> Self {
        let step = match &change.step {
            MembershipStep::Join(group) => StepRecord::Join(group.clone()),
            MembershipStep::Leave(group) => StepRecord::Leave(group.clone()),
            MembershipStep::Bind(user) => StepRecord::Bind(user.clone()),
            MembershipStep::Unbind(user) => StepRecord::Unbind(user.clone()),
        };
        MembershipRecord { device: change.device.clone(), step }
    }
}

impl From<MembershipRecord> for MembershipChange {
    fn from(record: MembershipRecord) -> Self {
        let step = match record.step {
            StepRecord::Join(group) => MembershipStep::Join(group),
            StepRecord::Leave(group) => MembershipStep::Leave(group),
            StepRecord::Bind(user) => MembershipStep::Bind(user),
            StepRecord::Unbind(user) => MembershipStep::Unbind(user),
        };
        MembershipChange { device: record.device, step }
    }
}

#[cfg(test)]
mod tests;
