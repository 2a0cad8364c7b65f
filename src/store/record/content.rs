//! What messages and signals have in common, as it is stored.
//!
//! Owns the stored forms of content, origin, audience and values. Called by [`super`].

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::ids::{ConnId, DeviceId, Name};
use crate::message::{Audience, Content, Origin, Role, Value};
use crate::store::record::RecordError;

/// Of a [`Content`].
#[derive(Serialize, Deserialize)]
pub struct ContentRecord<'a> {
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
    /// JSON text.
    #[serde(rename = "g", default, skip_serializing_if = "Option::is_none", borrow)]
    legacy: Option<&'a str>,
}

/// Of an [`Origin`].
#[derive(Serialize, Deserialize)]
pub enum OriginRecord {
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
            legacy: content.legacy.as_ref().map(|text| text.get()),
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
            legacy: record.legacy.map(|text| RawValue::from_string(text.to_owned())).transpose()?,
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
