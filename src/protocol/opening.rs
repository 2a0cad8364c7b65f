//! The opening of a client's frame: its `op` and `ref`, before the op's own fields are looked at.
//!
//! What is wrong here makes the frame malformed, but for a `ref` that is none: that is a bad request.

use std::borrow::Cow;
use std::fmt;

use serde::de::{self, DeserializeOwned, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

use crate::protocol::notify::{Notify, NotifyFields};
use crate::protocol::{Encoding, ErrorCode, FrameKind, VALUE_DEPTH_MAX};

/// Longest `ref` text, in bytes.
const REF_BYTES_MAX: usize = 64;

/// A client's own mark on an op, which comes back on its answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Ref {
    Int(i64),
    UInt(u64),
    Text(Box<str>),
}

/// A frame that was refused, and what to answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    pub reference: Option<Ref>,
    pub code: ErrorCode,
    pub message: String,
    /// The frame is no object with an `op` in the connection's encoding: too many of these close it.
    pub malformed: bool,
}

/// What can be told of a frame before its op is looked at.
#[derive(Debug)]
pub struct Opening {
    pub reference: Option<Ref>,
    /// The op's name, which need not be one that exists.
    pub op: Cow<'static, str>,
    /// Where the frame could be read to its end at once: what is to be notified.
    pub notify: Option<Box<Notify>>,
}

/// Reads `op` and `ref` of one data frame of a client.
///
/// # Errors
/// [`Refused`] says what to answer.
pub fn open(encoding: Encoding, kind: FrameKind, frame: &[u8]) -> Result<Opening, Refused> {
    if encoding == Encoding::Json
        && kind == FrameKind::Text
        && let Some((reference, notify)) = plain_notify(frame)
    {
        return Ok(Opening { reference, op: "notify".into(), notify: Some(Box::new(notify)) });
    }
    open_any(encoding, kind, frame)
}

/// A `notify` that is written as encoders write it, `op` first and `ref`, if any, second: the most frequent frame
/// but for acknowledgements, and read once where others are read twice. None says nothing about the frame.
fn plain_notify(frame: &[u8]) -> Option<(Option<Ref>, Notify)> {
    let text = std::str::from_utf8(frame).ok()?;
    let rest = text.strip_prefix(r#"{"op":"notify","#)?;
    let (reference, rest) = match rest.strip_prefix(r#""ref":"#) {
        Some(rest) => plain_ref(rest).map(|(reference, rest)| (Some(reference), rest))?,
        None => (None, rest),
    };
    // Either may come again, also with its letters escaped.
    if rest.contains(r#""op""#) || rest.contains(r#""ref""#) || text.contains('\\') {
        return None;
    }
    let fields: NotifyFields = serde_json::from_str(text).ok()?;
    Some((reference, fields.check().ok()?))
}

/// The `ref` that a text begins with, and what follows it. Whether it is JSON at all is seen elsewhere.
fn plain_ref(text: &str) -> Option<(Ref, &str)> {
    if let Some(quoted) = text.strip_prefix('"') {
        let (inner, rest) = quoted.split_once('"')?;
        return (inner.len() <= REF_BYTES_MAX).then(|| (Ref::Text(inner.into()), rest));
    }
    let (digits, rest) = text.split_at(text.find(|c: char| !c.is_ascii_digit())?);
    if !rest.starts_with([',', '}']) {
        return None;
    }
    digits.parse().ok().map(|number| (Ref::UInt(number), rest))
}

/// As [`open`], however the frame is written.
pub(crate) fn open_any(encoding: Encoding, kind: FrameKind, frame: &[u8]) -> Result<Opening, Refused> {
    let malformed =
        |message: String| Refused { reference: None, code: ErrorCode::BadRequest, message, malformed: true };
    if kind != FrameKind::of(encoding) {
        return Err(malformed(match encoding {
            Encoding::Json => "shoprelay.v1.json takes text frames, this one is binary".into(),
            Encoding::MsgPack => "shoprelay.v1.msgpack takes binary frames, this one is text".into(),
        }));
    }
    if !is_map(encoding, frame) {
        return Err(malformed("the frame is no object with an op".into()));
    }
    let head: Head = match encoding {
        Encoding::Json => {
            serde_json::from_slice(frame).map_err(|cause| malformed(format!("no JSON object with an op: {cause}")))?
        }
        Encoding::MsgPack => {
            from_msgpack(frame).map_err(|cause| malformed(format!("no MessagePack map with an op: {cause}")))?
        }
    };
    let reference = match head.reference {
        RefField::Absent => None,
        RefField::Valid(reference) => Some(reference),
        RefField::Invalid => {
            let message = format!("ref must be an integer or a text of at most {REF_BYTES_MAX} bytes");
            return Err(Refused { reference: None, code: ErrorCode::BadRequest, message, malformed: false });
        }
    };
    Ok(Opening { reference, op: head.op.into(), notify: None })
}

/// Whether a frame begins as an object does. Serde takes an array for a struct too.
fn is_map(encoding: Encoding, frame: &[u8]) -> bool {
    match encoding {
        Encoding::Json => frame.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{'),
        Encoding::MsgPack => matches!(frame.first(), Some(0x80..=0x8f | 0xde | 0xdf)),
    }
}

/// Reads one MessagePack map, and nothing after it.
pub(super) fn from_msgpack<T: DeserializeOwned>(frame: &[u8]) -> Result<T, String> {
    let mut deserializer = rmp_serde::Deserializer::new(std::io::Cursor::new(frame));
    // One level for the frame itself.
    deserializer.set_max_depth(VALUE_DEPTH_MAX * 2);
    let read = T::deserialize(&mut deserializer).map_err(|cause| cause.to_string())?;
    if deserializer.position() != frame.len() as u64 {
        return Err("there are bytes after the map".into());
    }
    Ok(read)
}

struct Head {
    op: String,
    reference: RefField,
}

impl<'de> Deserialize<'de> for Head {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(HeadVisitor)
    }
}

/// Takes maps whose keys are strings, and nothing else that serde would take for a struct.
struct HeadVisitor;

impl<'de> Visitor<'de> for HeadVisitor {
    type Value = Head;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with an op")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Head, A::Error> {
        let (mut op, mut reference) = (None, RefField::default());
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "op" if op.is_some() => return Err(de::Error::duplicate_field("op")),
                "op" => op = Some(map.next_value()?),
                "ref" => reference = map.next_value()?,
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(Head { op: op.ok_or_else(|| de::Error::missing_field("op"))?, reference })
    }
}

impl Ref {
    /// As text, whichever it is.
    pub fn to_text(&self) -> Box<str> {
        match self {
            Ref::Int(number) => number.to_string().into(),
            Ref::UInt(number) => number.to_string().into(),
            Ref::Text(text) => text.clone(),
        }
    }
}

#[derive(Default)]
enum RefField {
    #[default]
    Absent,
    Valid(Ref),
    Invalid,
}

impl<'de> Deserialize<'de> for RefField {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RefVisitor)
    }
}

/// Takes anything, so that a wrong `ref` is a bad request and no malformed frame.
struct RefVisitor;

impl<'de> Visitor<'de> for RefVisitor {
    type Value = RefField;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an integer or a short text")
    }
    fn visit_i64<E>(self, number: i64) -> Result<RefField, E> {
        // One form for each number, however wide it was written.
        Ok(RefField::Valid(u64::try_from(number).map_or(Ref::Int(number), Ref::UInt)))
    }
    fn visit_u64<E>(self, number: u64) -> Result<RefField, E> {
        Ok(RefField::Valid(Ref::UInt(number)))
    }
    fn visit_str<E>(self, text: &str) -> Result<RefField, E> {
        if text.len() > REF_BYTES_MAX {
            return Ok(RefField::Invalid);
        }
        Ok(RefField::Valid(Ref::Text(text.into())))
    }
    fn visit_unit<E>(self) -> Result<RefField, E> {
        Ok(RefField::Absent)
    }
    fn visit_bool<E>(self, _: bool) -> Result<RefField, E> {
        Ok(RefField::Invalid)
    }
    fn visit_f64<E>(self, _: f64) -> Result<RefField, E> {
        Ok(RefField::Invalid)
    }
    fn visit_bytes<E>(self, _: &[u8]) -> Result<RefField, E> {
        Ok(RefField::Invalid)
    }
    fn visit_newtype_struct<D: Deserializer<'de>>(self, ext: D) -> Result<RefField, D::Error> {
        IgnoredAny::deserialize(ext).map(|_| RefField::Invalid)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<RefField, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(RefField::Invalid)
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RefField, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(RefField::Invalid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_notify_as_encoders_write_it_is_read_at_once_and_means_what_it_means_otherwise() {
        let open = |frame: &str| super::open(Encoding::Json, FrameKind::Text, frame.as_bytes());
        for (head, reference) in [
            (r#""ref":7,"#, Some(Ref::UInt(7))),
            (r#""ref":"~a","#, Some(Ref::Text("~a".into()))),
            (r#""ref":"","#, Some(Ref::Text("".into()))),
            ("", None),
        ] {
            let frame = format!(r#"{{"op":"notify",{head}"type":"add","data":{{"a":[1.5,null]}}}}"#);
            let opening = open(&frame).unwrap();
            assert!(opening.notify.is_some(), "{frame}");
            assert_eq!(opening.reference, reference);
            let any = open_any(Encoding::Json, FrameKind::Text, frame.as_bytes()).unwrap();
            assert_eq!((any.reference, any.op), (opening.reference, opening.op));
        }
        for frame in [
            r#"{"op":"notify","ref":-7,"type":"add"}"#,
            r#"{"op":"notify","ref":1e0,"type":"add"}"#,
            r#"{"op":"notify","ref":18446744073709551616,"type":"add"}"#,
            r#"{"op":"notify","type":"add","ref":7}"#,
            r#"{"op":"notify","ref":7,"type":"add","ref":8}"#,
            r#"{"op":"notify","ref":7,"type":"add","\u0072ef":8}"#,
            r#"{"op":"notify","ref":7}"#,
            r#"{"ref":7,"op":"notify","type":"add"}"#,
            r#" {"op":"notify","type":"add"}"#,
        ] {
            let is_read = open(frame).is_ok_and(|opening| opening.notify.is_some());
            assert!(!is_read, "{frame}");
        }
        for frame in [r#"{"op":"notify","ref":07,"type":"add"}"#, r#"{"op":"notify","type":"add","op":"ack"}"#] {
            assert!(open(frame).unwrap_err().malformed, "{frame}");
        }
    }

    /// Found by fuzzing: one number had two forms, by how wide it was written.
    #[test]
    fn a_ref_is_the_same_number_however_wide_it_is_written() {
        for wide in [&b"\xd3\0\0\0\0\0\0\0\x07"[..], b"\xcf\0\0\0\0\0\0\0\x07", b"\x07"] {
            let frame = [b"\x82\xa2op\xa4ping\xa3ref", wide].concat();
            let opening = open(Encoding::MsgPack, FrameKind::Binary, &frame).unwrap();
            assert_eq!(opening.reference, Some(Ref::UInt(7)), "{wide:02x?}");
        }
    }
}
