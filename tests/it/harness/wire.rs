//! The two encodings and the ids, as a client sees them.
//!
//! Both encodings decode to the same [`Value`]. JSON has no bytes, so a MessagePack `bin` is
//! `{"$bin": base64}` here, in both directions.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};
use serde_json::{Map, Value, json};
use tokio_tungstenite::tungstenite::Message;

/// How a device's frames are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    Json,
    MsgPack,
}

impl Encoding {
    /// The WebSocket subprotocol.
    pub fn subprotocol(self) -> &'static str {
        match self {
            Encoding::Json => "shoprelay.v1.json",
            Encoding::MsgPack => "shoprelay.v1.msgpack",
        }
    }

    /// The op as a frame of this encoding.
    pub fn frame(self, op: &Value) -> Message {
        match self {
            Encoding::Json => Message::text(op.to_string()),
            Encoding::MsgPack => Message::binary(msgpack(op)),
        }
    }

    /// What a data frame says.
    ///
    /// # Errors
    /// Where it is not of this encoding.
    pub fn read(self, frame: &Message) -> Result<Value, String> {
        match (self, frame) {
            (Encoding::Json, Message::Text(text)) => {
                serde_json::from_str(text.as_str()).map_err(|cause| format!("{cause}: {text}"))
            }
            (Encoding::MsgPack, Message::Binary(bytes)) => read_msgpack(bytes),
            _ => Err(format!("a frame of the wrong kind for {self:?}: {frame:?}")),
        }
    }
}

/// A value as MessagePack.
pub fn msgpack(value: &Value) -> Vec<u8> {
    rmp_serde::to_vec(&Packed(value)).expect("every JSON value can be MessagePack")
}

/// A MessagePack value.
///
/// # Errors
/// Where the bytes are no MessagePack.
pub fn read_msgpack(bytes: &[u8]) -> Result<Value, String> {
    rmp_serde::from_slice::<Unpacked>(bytes).map(|read| read.0).map_err(|cause| format!("{cause}: {bytes:02x?}"))
}

/// Bytes, as a [`Value`] of this harness.
pub fn bin(bytes: &[u8]) -> Value {
    json!({"$bin": BASE64.encode(bytes)})
}

struct Packed<'a>(&'a Value);

impl Serialize for Packed<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::Array(items) => {
                let mut seq = serializer.serialize_seq(Some(items.len()))?;
                for item in items {
                    seq.serialize_element(&Packed(item))?;
                }
                seq.end()
            }
            Value::Object(map) => match (map.len(), map.get("$bin")) {
                (1, Some(Value::String(text))) => {
                    let bytes = BASE64.decode(text).map_err(serde::ser::Error::custom)?;
                    serializer.serialize_bytes(&bytes)
                }
                _ => {
                    let mut out = serializer.serialize_map(Some(map.len()))?;
                    for (key, value) in map {
                        out.serialize_entry(key, &Packed(value))?;
                    }
                    out.end()
                }
            },
            plain => plain.serialize(serializer),
        }
    }
}

struct Unpacked(Value);

impl<'de> Deserialize<'de> for Unpacked {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(UnpackedVisitor).map(Unpacked)
    }
}

struct UnpackedVisitor;

impl<'de> Visitor<'de> for UnpackedVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a MessagePack value with a form in JSON")
    }
    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }
    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }
    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }
    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }
    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }
    fn visit_bytes<E>(self, value: &[u8]) -> Result<Value, E> {
        Ok(bin(value))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element::<Unpacked>()? {
            items.push(item.0);
        }
        Ok(Value::Array(items))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut out = Map::new();
        while let Some((key, value)) = map.next_entry::<String, Unpacked>()? {
            if out.insert(key.clone(), value.0).is_some() {
                return Err(de::Error::custom(format!("the key {key:?} comes twice")));
            }
        }
        Ok(Value::Object(out))
    }
}

/// A message id: two numbers, which ids compare by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id(pub u64, pub u64);

impl Id {
    /// Below every message.
    pub const ZERO: Id = Id(0, 0);

    /// Reads `<milliseconds>-<n>`.
    ///
    /// # Panics
    /// Where the text is no id.
    pub fn of(text: &str) -> Id {
        let read = || {
            let (ms, n) = text.split_once('-')?;
            Some(Id(ms.parse().ok()?, n.parse().ok()?))
        };
        read().unwrap_or_else(|| panic!("no message id: {text:?}"))
    }
}

impl std::fmt::Display for Id {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.0, self.1)
    }
}

/// The id in a field of an op; null is [`Id::ZERO`].
///
/// # Panics
/// Where the field is missing or holds something else.
pub fn id_of(op: &Value, field: &str) -> Id {
    match op.get(field) {
        Some(Value::String(text)) => Id::of(text),
        Some(Value::Null) => Id::ZERO,
        other => panic!("{field} is {other:?} in {op}"),
    }
}

#[test]
fn both_encodings_of_the_harness_read_what_they_write() {
    let op = json!({"op": "x", "data": [1, -2, u64::MAX, 0.5, null, true, "店", {"a": {}}]});
    for encoding in [Encoding::Json, Encoding::MsgPack] {
        assert_eq!(encoding.read(&encoding.frame(&op)).unwrap(), op);
    }
    assert_eq!(msgpack(&bin(&[1, 2, 255])), [0xc4, 3, 1, 2, 255]);
    assert_eq!(read_msgpack(&[0xc4, 3, 1, 2, 255]).unwrap(), bin(&[1, 2, 255]));
    assert!(Id::of("9-0") < Id::of("10-0") && Id::of("1-9") < Id::of("1-10"));
}
