//! What the relay says: one [`ServerOp`], encoded once per wire encoding.

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

use crate::attrs::Attrs;
use crate::ids::{ConnId, DeviceId, MessageId, Name, NodeId, ShopId};
use crate::message::{Audience, Content, Message, Origin, Role, Signal, StatusChange, Value};
use crate::protocol::value::Embedded;
use crate::protocol::{Encoding, ErrorCode, Ref};

/// An answer to a client's op, or word of the relay's own, but for the pushes, which have functions
/// of their own: [`message_frame`], [`signal_frame`], [`status_frame`].
#[derive(Debug, Serialize)]
#[serde(tag = "op", rename_all = "lowercase")]
pub enum ServerOp<'a> {
    Welcome {
        #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
        reference: Option<Ref>,
        conn: &'a ConnId,
        #[serde(serialize_with = "as_text")]
        node: &'a NodeId,
        shop: &'a ShopId,
        device: &'a DeviceId,
        role: Role,
        cursor: Option<MessageId>,
        head: Option<MessageId>,
        server_time: u64,
        heartbeat_s: u64,
        window: usize,
        max_frame: usize,
    },
    Accepted {
        #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
        reference: Option<Ref>,
        /// None for a signal.
        id: Option<MessageId>,
        duplicate: bool,
    },
    Dealt {
        #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
        reference: Option<Ref>,
        id: MessageId,
        status: &'a Name,
    },
    Messages {
        #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
        reference: Option<Ref>,
        items: &'a [Item],
        next: Option<MessageId>,
    },
    Presence {
        #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
        reference: Option<Ref>,
        devices: &'a [Presence],
    },
    Attrs {
        #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
        reference: Option<Ref>,
        #[serde(serialize_with = "as_object")]
        attrs: &'a Attrs,
    },
    Ok {
        #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
        reference: Option<Ref>,
    },
    Pong {
        #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
        reference: Option<Ref>,
    },
    Receipt {
        message: MessageId,
        device: &'a DeviceId,
        at: u64,
    },
    /// Both count from now: when to log in elsewhere, and how long this connection serves.
    Goaway {
        reconnect_in_ms: u64,
        deadline_ms: u64,
    },
    Error {
        #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
        reference: Option<Ref>,
        code: ErrorCode,
        message: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        retry_after_ms: Option<u64>,
        /// Of a conflict: the present status.
        #[serde(skip_serializing_if = "Option::is_none")]
        status: Option<&'a Name>,
        /// Of a conflict: who set it; absent where nobody has dealt with the message.
        #[serde(skip_serializing_if = "Option::is_none")]
        by: Option<&'a Origin>,
    },
}

/// A connected device, as `presence` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Presence {
    pub device: DeviceId,
    pub role: Role,
    pub conn: ConnId,
    /// Milliseconds since 1970.
    pub since: u64,
    pub state: PresenceState,
}

/// Whether a device is there, as far as the relay can know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum PresenceState {
    Online,
    /// Its node's heartbeat is late.
    Unknown,
}

/// A message in a list.
#[derive(Debug)]
pub struct Item {
    pub id: MessageId,
    pub message: Message,
    /// The present status and who set it, where somebody dealt with it.
    pub dealt: Option<(Name, Origin)>,
    /// Each device of its audience that was registered before it was stored: whether it has it.
    pub delivered: Vec<(DeviceId, bool)>,
}

impl Item {
    /// How many bytes it takes in a list, with what separates it from the next.
    pub fn encoded_len(&self, encoding: Encoding) -> usize {
        encode(encoding, self).map_or(0, |bytes| bytes.len() + 1)
    }
}

/// What most answers and most messages have room in.
const ANSWER_BYTES: usize = 128;
const MESSAGE_BYTES: usize = 512;

/// Encodes an op.
///
/// # Errors
/// Only where a client's stored value cannot be carried into `encoding`, which its check at the
/// edge rules out.
pub fn encode(encoding: Encoding, op: &impl Serialize) -> Result<Vec<u8>, EncodeError> {
    encode_into(Vec::with_capacity(ANSWER_BYTES), encoding, op)
}

/// As [`encode`], at the end of `bytes`.
fn encode_into(mut bytes: Vec<u8>, encoding: Encoding, op: &impl Serialize) -> Result<Vec<u8>, EncodeError> {
    match encoding {
        Encoding::Json => {
            serde_json::to_writer(&mut bytes, op)?;
            Ok(bytes)
        }
        Encoding::MsgPack => {
            op.serialize(&mut rmp_serde::Serializer::new(&mut bytes).with_struct_map())?;
            Ok(bytes)
        }
    }
}

/// A value that cannot be written in an encoding.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    #[error("the op cannot be written as JSON")]
    Json(#[from] serde_json::Error),
    #[error("the op cannot be written as MessagePack")]
    MsgPack(#[from] rmp_serde::encode::Error),
}

/// The `message` op: an entry of the log for a device.
///
/// # Errors
/// As [`encode`].
pub fn message_frame(
    encoding: Encoding,
    id: MessageId,
    message: &Message,
    status: Option<&Name>,
) -> Result<Vec<u8>, EncodeError> {
    let op = MessageOp { op: Some("message"), id, message, status: status.unwrap_or(&message.status), item: None };
    encode_into(Vec::with_capacity(MESSAGE_BYTES), encoding, &op)
}

/// The `signal` op.
///
/// # Errors
/// As [`encode`].
pub fn signal_frame(encoding: Encoding, signal: &Signal) -> Result<Vec<u8>, EncodeError> {
    encode(encoding, &SignalOp(signal))
}

/// The `status` op: a message was dealt with.
///
/// # Errors
/// As [`encode`].
pub fn status_frame(encoding: Encoding, id: MessageId, change: &StatusChange) -> Result<Vec<u8>, EncodeError> {
    #[derive(Serialize)]
    struct StatusOp<'a> {
        op: &'static str,
        id: MessageId,
        message: MessageId,
        status: &'a Name,
        by: &'a Origin,
        at: u64,
    }
    encode(
        encoding,
        &StatusOp { op: "status", id, message: change.message, status: &change.status, by: &change.by, at: id.ms },
    )
}

struct MessageOp<'a> {
    op: Option<&'static str>,
    id: MessageId,
    message: &'a Message,
    status: &'a Name,
    item: Option<&'a Item>,
}

impl Serialize for MessageOp<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let content = &self.message.content;
        let dealt_by = self.item.and_then(|item| item.dealt.as_ref()).map(|(_, by)| by);
        let len = usize::from(self.op.is_some())
            + 3
            + content_len(content)
            + 1
            + usize::from(dealt_by.is_some())
            + usize::from(self.item.is_some());
        let mut map = serializer.serialize_map(Some(len))?;
        if let Some(op) = self.op {
            map.serialize_entry("op", op)?;
        }
        map.serialize_entry("id", &self.id)?;
        map.serialize_entry("at", &self.id.ms)?;
        map.serialize_entry("to", &content.to)?;
        serialize_content(&mut map, content)?;
        map.serialize_entry("status", self.status)?;
        if let Some(by) = dealt_by {
            map.serialize_entry("dealt_by", by)?;
        }
        if let Some(item) = self.item {
            map.serialize_entry("delivered", &Delivered(&item.delivered))?;
        }
        map.end()
    }
}

impl Serialize for Item {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let status = self.dealt.as_ref().map_or(&self.message.status, |(status, _)| status);
        MessageOp { op: None, id: self.id, message: &self.message, status, item: Some(self) }.serialize(serializer)
    }
}

struct SignalOp<'a>(&'a Signal);

impl Serialize for SignalOp<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let content = &self.0.content;
        let mut map = serializer.serialize_map(Some(2 + content_len(content)))?;
        map.serialize_entry("op", "signal")?;
        map.serialize_entry("at", &self.0.at_ms)?;
        serialize_content(&mut map, content)?;
        map.end()
    }
}

fn content_len(content: &Content) -> usize {
    2 + usize::from(content.table.is_some())
        + usize::from(content.data.is_some())
        + usize::from(content.user_info.is_some())
}

fn serialize_content<M: SerializeMap>(map: &mut M, content: &Content) -> Result<(), M::Error> {
    map.serialize_entry("from", &content.from)?;
    map.serialize_entry("type", &content.kind)?;
    if let Some(table) = &content.table {
        map.serialize_entry("table", table)?;
    }
    if let Some(data) = &content.data {
        map.serialize_entry("data", &Embedded(data))?;
    }
    if let Some(user_info) = &content.user_info {
        map.serialize_entry("user_info", &Embedded(user_info))?;
    }
    Ok(())
}

struct Delivered<'a>(&'a [(DeviceId, bool)]);

impl Serialize for Delivered<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(device, has_it)| (device, has_it)))
    }
}

impl Serialize for Origin {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Origin::Device { device, role } => {
                let mut map = serializer.serialize_map(Some(2))?;
                map.serialize_entry("device", device)?;
                map.serialize_entry("role", role)?;
                map.end()
            }
            Origin::Api { name } => {
                let mut map = serializer.serialize_map(Some(1))?;
                map.serialize_entry("api", name)?;
                map.end()
            }
        }
    }
}

impl Serialize for Audience {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        fn one<S: Serializer, T: Serialize>(serializer: S, key: &str, value: &T) -> Result<S::Ok, S::Error> {
            let mut map = serializer.serialize_map(Some(1))?;
            map.serialize_entry(key, value)?;
            map.end()
        }
        match self {
            Audience::Mains => serializer.serialize_str("mains"),
            Audience::Subs => serializer.serialize_str("subs"),
            Audience::All => serializer.serialize_str("all"),
            Audience::Devices(devices) => one(serializer, "devices", &devices.as_slice()),
            Audience::Group(group) => one(serializer, "group", group),
            Audience::User(user) => one(serializer, "user", user),
            Audience::Conns(conns) => one(serializer, "conns", &conns.as_slice()),
        }
    }
}

fn as_object<S: Serializer>(attrs: &&Attrs, serializer: S) -> Result<S::Ok, S::Error> {
    let raw: Box<RawValue> = serde_json::from_str(attrs.as_str()).map_err(serde::ser::Error::custom)?;
    Embedded(&Value::Json(raw)).serialize(serializer)
}

fn as_text<S: Serializer>(node: &&NodeId, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(node.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{ClientOp, FrameKind, decode, open};

    const ID: MessageId = MessageId { ms: 1_700_000_000_000, n: 2 };

    fn message(encoding: Encoding, frame: &[u8]) -> Message {
        let opening = open(encoding, FrameKind::of(encoding), frame).unwrap();
        let ClientOp::Notify(notify) = decode(encoding, opening, frame).unwrap().op else { panic!() };
        Message {
            content: Content {
                from: Origin::Device { device: "hand-1".parse().unwrap(), role: Role::Sub },
                to: notify.to.unwrap_or(Audience::Mains),
                except: notify.except,
                kind: notify.kind,
                table: notify.table,
                data: notify.data,
                user_info: notify.user_info,
                legacy: None,
            },
            status: "open".parse().unwrap(),
            ttl: None,
            receipt: false,
        }
    }

    #[test]
    fn a_message_reads_as_the_contract_says() {
        let message = message(Encoding::Json, br#"{"op":"notify","type":"add","table":"12","data":{"dishes": [1,2]}}"#);
        let frame = message_frame(Encoding::Json, ID, &message, None).unwrap();
        assert_eq!(
            String::from_utf8(frame).unwrap(),
            r#"{"op":"message","id":"1700000000000-2","at":1700000000000,"to":"mains","from":{"device":"hand-1","role":"sub"},"type":"add","table":"12","data":{"dishes": [1,2]},"status":"open"}"#
        );
    }

    #[test]
    fn both_encodings_say_the_same() {
        let sent = message(
            Encoding::Json,
            br#"{"op":"notify","type":"t","to":{"devices":["a"]},"data":[1,-2,"x",null,true,1.5]}"#,
        );
        let json = message_frame(Encoding::Json, ID, &sent, None).unwrap();
        let packed = message_frame(Encoding::MsgPack, ID, &sent, None).unwrap();
        let from_json: serde_json::Value = serde_json::from_slice(&json).unwrap();
        let from_packed: serde_json::Value = rmp_serde::from_slice(&packed).unwrap();
        assert_eq!(from_json, from_packed);
    }

    #[test]
    fn absent_and_null_follow_the_contract() {
        let accepted = ServerOp::Accepted { reference: None, id: None, duplicate: false };
        assert_eq!(encode(Encoding::Json, &accepted).unwrap(), br#"{"op":"accepted","id":null,"duplicate":false}"#);
        let pong = ServerOp::Pong { reference: Some(Ref::UInt(7)) };
        assert_eq!(encode(Encoding::Json, &pong).unwrap(), br#"{"op":"pong","ref":7}"#);
        assert_eq!(encode(Encoding::MsgPack, &pong).unwrap(), b"\x82\xa2op\xa4pong\xa3ref\x07");
    }
}
