//! The stored form of an entry and of a signal: a MessagePack map, the same in every engine and on
//! the feed.
//!
//! Nodes of different versions read each other's records: a reader ignores keys it does not know,
//! and a key's meaning never changes.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::ids::{ConnId, DeviceId, MessageId, Name};
use crate::message::{Audience, Content, Entry, Message, Origin, Role, Signal, StatusChange, Value};
use crate::store::Receipt;

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
    Ok(rmp_serde::to_vec_named(&EntryRecord::Message(message.into()))?)
}

/// The bytes of a status change.
///
/// # Errors
/// [`RecordError::Encode`]
pub fn encode_status(change: &StatusChange) -> Result<Vec<u8>, RecordError> {
    Ok(rmp_serde::to_vec_named(&EntryRecord::Status(change.into()))?)
}

/// An entry from its bytes.
///
/// # Errors
/// [`RecordError`], also for a record of a later version that this one cannot read.
pub fn decode_entry(bytes: &[u8]) -> Result<Entry, RecordError> {
    match rmp_serde::from_slice(bytes)? {
        EntryRecord::Message(record) => Ok(Entry::Message(record.try_into()?)),
        EntryRecord::Status(record) => Ok(Entry::Status(record.into())),
    }
}

/// The bytes of a signal.
///
/// # Errors
/// [`RecordError::Encode`]
pub fn encode_signal(signal: &Signal) -> Result<Vec<u8>, RecordError> {
    Ok(rmp_serde::to_vec_named(&SignalRecord { at_ms: signal.at_ms, content: (&signal.content).into() })?)
}

/// A signal from its bytes.
///
/// # Errors
/// [`RecordError`]
pub fn decode_signal(bytes: &[u8]) -> Result<Signal, RecordError> {
    let record: SignalRecord<'_> = rmp_serde::from_slice(bytes)?;
    Ok(Signal { at_ms: record.at_ms, content: record.content.try_into()? })
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
    let record: ReceiptRecord = rmp_serde::from_slice(bytes)?;
    Ok(Receipt { sender: record.sender, message: record.message.into(), device: record.device, at_ms: record.at_ms })
}

#[derive(Serialize, Deserialize)]
enum EntryRecord<'a> {
    #[serde(rename = "m", borrow)]
    Message(MessageRecord<'a>),
    #[serde(rename = "s")]
    Status(StatusRecord),
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
struct ContentRecord<'a> {
    #[serde(rename = "f")]
    from: OriginRecord,
    #[serde(rename = "t")]
    to: AudienceRecord,
    #[serde(rename = "x", default, skip_serializing_if = "Vec::is_empty")]
    except: Vec<DeviceId>,
    #[serde(rename = "k")]
    kind: Name,
    #[serde(rename = "b", default, skip_serializing_if = "Option::is_none")]
    table: Option<Name>,
    #[serde(rename = "d", default, skip_serializing_if = "Option::is_none", borrow)]
    data: Option<ValueRecord<'a>>,
    #[serde(rename = "u", default, skip_serializing_if = "Option::is_none", borrow)]
    user_info: Option<ValueRecord<'a>>,
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

/// Milliseconds and number.
#[derive(Serialize, Deserialize)]
struct IdRecord(u64, u64);

#[derive(Serialize, Deserialize)]
enum OriginRecord {
    #[serde(rename = "d")]
    Device(DeviceId, Role),
    #[serde(rename = "a")]
    Api(Name),
}

#[derive(Serialize, Deserialize)]
enum AudienceRecord {
    #[serde(rename = "m")]
    Mains,
    #[serde(rename = "s")]
    Subs,
    #[serde(rename = "a")]
    All,
    #[serde(rename = "d")]
    Devices(Vec<DeviceId>),
    #[serde(rename = "g")]
    Group(Name),
    #[serde(rename = "u")]
    User(Name),
    #[serde(rename = "c")]
    Conns(Vec<ConnId>),
}

#[derive(Serialize, Deserialize)]
enum ValueRecord<'a> {
    #[serde(rename = "j")]
    Json(&'a str),
    #[serde(rename = "p", with = "bytes")]
    MsgPack(&'a [u8]),
}

/// Byte strings as MessagePack `bin`; serde's own form of a byte slice is an array of numbers.
mod bytes {
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(bytes: &&[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(bytes)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<&'de [u8], D::Error> {
        <&'de [u8]>::deserialize(deserializer)
    }
}

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

impl<'a> From<&'a Content> for ContentRecord<'a> {
    fn from(content: &'a Content) -> Self {
        ContentRecord {
            from: (&content.from).into(),
            to: (&content.to).into(),
            except: content.except.as_slice().to_vec(),
            kind: content.kind.clone(),
            table: content.table.clone(),
            data: content.data.as_ref().map(Into::into),
            user_info: content.user_info.as_ref().map(Into::into),
        }
    }
}

impl TryFrom<ContentRecord<'_>> for Content {
    type Error = RecordError;
    fn try_from(record: ContentRecord<'_>) -> Result<Self, RecordError> {
        Ok(Content {
            from: record.from.into(),
            to: record.to.into(),
            except: record.except.into(),
            kind: record.kind,
            table: record.table,
            data: record.data.map(Value::try_from).transpose()?,
            user_info: record.user_info.map(Value::try_from).transpose()?,
        })
    }
}

impl<'a> From<&'a Value> for ValueRecord<'a> {
    fn from(value: &'a Value) -> Self {
        match value {
            Value::Json(raw) => ValueRecord::Json(raw.get()),
            Value::MsgPack(bytes) => ValueRecord::MsgPack(bytes),
        }
    }
}

impl TryFrom<ValueRecord<'_>> for Value {
    type Error = RecordError;
    fn try_from(record: ValueRecord<'_>) -> Result<Self, RecordError> {
        Ok(match record {
            ValueRecord::Json(text) => Value::Json(RawValue::from_string(text.to_owned())?),
            ValueRecord::MsgPack(bytes) => Value::MsgPack(bytes.into()),
        })
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

impl From<&Origin> for OriginRecord {
    fn from(origin: &Origin) -> Self {
        match origin {
            Origin::Device { device, role } => OriginRecord::Device(device.clone(), *role),
            Origin::Api { name } => OriginRecord::Api(name.clone()),
        }
    }
}

impl From<OriginRecord> for Origin {
    fn from(record: OriginRecord) -> Self {
        match record {
            OriginRecord::Device(device, role) => Origin::Device { device, role },
            OriginRecord::Api(name) => Origin::Api { name },
        }
    }
}

impl From<&Audience> for AudienceRecord {
    fn from(audience: &Audience) -> Self {
        match audience {
            Audience::Mains => AudienceRecord::Mains,
            Audience::Subs => AudienceRecord::Subs,
            Audience::All => AudienceRecord::All,
            Audience::Devices(devices) => AudienceRecord::Devices(devices.as_slice().to_vec()),
            Audience::Group(group) => AudienceRecord::Group(group.clone()),
            Audience::User(user) => AudienceRecord::User(user.clone()),
            Audience::Conns(conns) => AudienceRecord::Conns(conns.as_slice().to_vec()),
        }
    }
}

impl From<AudienceRecord> for Audience {
    fn from(record: AudienceRecord) -> Self {
        match record {
            AudienceRecord::Mains => Audience::Mains,
            AudienceRecord::Subs => Audience::Subs,
            AudienceRecord::All => Audience::All,
            AudienceRecord::Devices(devices) => Audience::Devices(devices.into()),
            AudienceRecord::Group(group) => Audience::Group(group),
            AudienceRecord::User(user) => Audience::User(user),
            AudienceRecord::Conns(conns) => Audience::Conns(conns.into()),
        }
    }
}

#[cfg(test)]
mod tests;
