//! Clients' own values: taken as they come, checked once, and carried into the other encoding only
//! for a device that speaks it.
//!
//! JSON stays the text it was, since most devices speak JSON to each other.

use std::cell::Cell;
use std::fmt;
use std::marker::PhantomData;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::ser::{self, SerializeMap, SerializeSeq, Serializer};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::message::Value;
use crate::protocol::VALUE_DEPTH_MAX;

/// A client's value, checked: no `ext`, NaN or infinity, no integer beyond 64 bits, no map key that
/// is no string, and no more than [`VALUE_DEPTH_MAX`] levels.
pub(super) struct Captured(Value);

impl Captured {
    pub(super) fn into_value(self) -> Value {
        self.0
    }

    /// As JSON text.
    pub(super) fn into_json(self) -> Result<Box<str>, serde_json::Error> {
        match self.0 {
            Value::Json(raw) => Ok(raw.get().into()),
            value => serde_json::to_string(&Embedded(&value)).map(Into::into),
        }
    }
}

impl<'de> Deserialize<'de> for Captured {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            let raw = Box::<RawValue>::deserialize(deserializer)?;
            check_json(raw.get()).map_err(de::Error::custom)?;
            Ok(Captured(Value::Json(raw)))
        } else {
            let mut bytes = Vec::new();
            let mut serializer = rmp_serde::Serializer::new(&mut bytes);
            let forward = Forward::new(deserializer, 0);
            forward.serialize(&mut serializer).map_err(de::Error::custom)?;
            Ok(Captured(Value::MsgPack(bytes.into())))
        }
    }
}

/// Digits in a row that any number has room for.
const DIGITS_PLAIN: usize = 18;

fn check_json(text: &str) -> Result<(), String> {
    if is_plain(text) {
        debug_assert!(check_closely(text).is_ok(), "{text}");
        return Ok(());
    }
    check_closely(text)
}

fn check_closely(text: &str) -> Result<(), String> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let mut nowhere = serde_json::Serializer::new(std::io::sink());
    Forward::new(&mut deserializer, 0).serialize(&mut nowhere).map_err(|cause| cause.to_string())?;
    match first_wide_integer(text) {
        Some(number) => Err(format!("the integer {number} does not fit into 64 bits")),
        None => Ok(()),
    }
}

/// Whether a valid JSON text holds nothing that has to be looked at closely: no escape, no number that may be too
/// wide, and no more brackets than levels are allowed. So are nearly all, and one look at each byte tells.
fn is_plain(text: &str) -> bool {
    let mut rest = text.as_bytes();
    let (mut opened, mut digits) = (0, 0);
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        match byte {
            b'"' => {
                digits = 0;
                match memchr::memchr2(b'"', b'\\', rest).and_then(|at| rest.split_at_checked(at)) {
                    Some((_, [b'"', after @ ..])) => rest = after,
                    _ => return false,
                }
            }
            b'0'..=b'9' => digits += 1,
            // A number with an exponent.
            b'e' | b'E' if digits > 0 => return false,
            b'[' | b'{' => (opened, digits) = (opened + 1, 0),
            _ => digits = 0,
        }
        if digits > DIGITS_PLAIN {
            return false;
        }
    }
    opened <= VALUE_DEPTH_MAX
}

/// The first integer of a valid JSON text that is beyond 64 bits; the parser would make it a float.
fn first_wide_integer(text: &str) -> Option<&str> {
    let bytes = text.as_bytes();
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'"' => {
                at += 1;
                while let Some(&byte) = bytes.get(at) {
                    at += if byte == b'\\' { 2 } else { 1 };
                    if byte == b'"' {
                        break;
                    }
                }
            }
            b'-' | b'0'..=b'9' => {
                let rest = text.get(at..)?;
                let end =
                    rest.find(|c: char| !matches!(c, '0'..='9' | '-' | '+' | '.' | 'e' | 'E')).unwrap_or(rest.len());
                let number = rest.get(..end)?;
                let is_integer = !number.contains(['.', 'e', 'E']);
                if is_integer && number.parse::<i64>().is_err() && number.parse::<u64>().is_err() {
                    return Some(number);
                }
                at += end;
            }
            _ => at += 1,
        }
    }
    None
}

/// A checked value inside an op of the relay, in whichever encoding the op is written.
pub(super) struct Embedded<'a>(pub(super) &'a Value);

impl Serialize for Embedded<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::Json(raw) if serializer.is_human_readable() => raw.serialize(serializer),
            Value::Json(raw) => {
                let mut deserializer = serde_json::Deserializer::from_str(raw.get());
                Forward::new(&mut deserializer, 0).serialize(serializer)
            }
            Value::MsgPack(bytes) => {
                let mut deserializer = rmp_serde::Deserializer::from_read_ref(bytes.as_ref());
                Forward::new(&mut deserializer, 0).serialize(serializer)
            }
        }
    }
}

/// Serializes what a deserializer reads, value by value, without building it in memory.
struct Forward<D> {
    deserializer: Cell<Option<D>>,
    depth: usize,
}

impl<D> Forward<D> {
    fn new(deserializer: D, depth: usize) -> Self {
        Forward { deserializer: Cell::new(Some(deserializer)), depth }
    }
}

impl<'de, D: Deserializer<'de>> Serialize for Forward<D> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let deserializer = self.deserializer.take().ok_or_else(|| ser::Error::custom("a value is read once"))?;
        let visitor = ForwardVisitor { serializer, depth: self.depth };
        deserializer.deserialize_any(visitor).map_err(ser::Error::custom)
    }
}

struct ForwardVisitor<S> {
    serializer: S,
    depth: usize,
}

impl<S> ForwardVisitor<S> {
    fn deeper<E: de::Error>(&self) -> Result<usize, E> {
        if self.depth >= VALUE_DEPTH_MAX {
            return Err(E::custom(format_args!("nested more than {VALUE_DEPTH_MAX} levels deep")));
        }
        Ok(self.depth + 1)
    }
}

impl<'de, S: Serializer> Visitor<'de> for ForwardVisitor<S> {
    type Value = S::Ok;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value without extension types")
    }
    fn visit_bool<E: de::Error>(self, value: bool) -> Result<S::Ok, E> {
        self.serializer.serialize_bool(value).map_err(E::custom)
    }
    fn visit_i64<E: de::Error>(self, value: i64) -> Result<S::Ok, E> {
        self.serializer.serialize_i64(value).map_err(E::custom)
    }
    fn visit_u64<E: de::Error>(self, value: u64) -> Result<S::Ok, E> {
        self.serializer.serialize_u64(value).map_err(E::custom)
    }
    fn visit_f32<E: de::Error>(self, value: f32) -> Result<S::Ok, E> {
        if !value.is_finite() {
            return Err(E::custom("NaN and infinities are no values"));
        }
        self.serializer.serialize_f32(value).map_err(E::custom)
    }
    fn visit_f64<E: de::Error>(self, value: f64) -> Result<S::Ok, E> {
        if !value.is_finite() {
            return Err(E::custom("NaN and infinities are no values"));
        }
        self.serializer.serialize_f64(value).map_err(E::custom)
    }
    fn visit_str<E: de::Error>(self, value: &str) -> Result<S::Ok, E> {
        self.serializer.serialize_str(value).map_err(E::custom)
    }
    fn visit_bytes<E: de::Error>(self, value: &[u8]) -> Result<S::Ok, E> {
        if self.serializer.is_human_readable() {
            return self.serializer.serialize_str(&BASE64.encode(value)).map_err(E::custom);
        }
        self.serializer.serialize_bytes(value).map_err(E::custom)
    }
    fn visit_unit<E: de::Error>(self) -> Result<S::Ok, E> {
        self.serializer.serialize_unit().map_err(E::custom)
    }
    fn visit_none<E: de::Error>(self) -> Result<S::Ok, E> {
        self.visit_unit()
    }
    fn visit_newtype_struct<D: Deserializer<'de>>(self, _: D) -> Result<S::Ok, D::Error> {
        Err(de::Error::custom("MessagePack extension types are not passed on"))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<S::Ok, A::Error> {
        let depth = self.deeper()?;
        let mut out = self.serializer.serialize_seq(seq.size_hint()).map_err(de::Error::custom)?;
        while seq.next_element_seed(Element::<_, S> { out: &mut out, depth, marker: PhantomData })?.is_some() {}
        out.end().map_err(de::Error::custom)
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<S::Ok, A::Error> {
        let depth = self.deeper()?;
        let mut out = self.serializer.serialize_map(map.size_hint()).map_err(de::Error::custom)?;
        while map.next_key_seed(Key::<_, S> { out: &mut out, marker: PhantomData })?.is_some() {
            map.next_value_seed(MapValue::<_, S> { out: &mut out, depth, marker: PhantomData })?;
        }
        out.end().map_err(de::Error::custom)
    }
}

struct Element<'a, Q, S> {
    out: &'a mut Q,
    depth: usize,
    marker: PhantomData<S>,
}

impl<'de, S: Serializer> DeserializeSeed<'de> for Element<'_, S::SerializeSeq, S> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        self.out.serialize_element(&Forward::new(deserializer, self.depth)).map_err(de::Error::custom)
    }
}

struct Key<'a, M, S> {
    out: &'a mut M,
    marker: PhantomData<S>,
}

impl<'de, S: Serializer> DeserializeSeed<'de> for Key<'_, S::SerializeMap, S> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        let key = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        self.out.serialize_key(&key).map_err(de::Error::custom)
    }
}

struct MapValue<'a, M, S> {
    out: &'a mut M,
    depth: usize,
    marker: PhantomData<S>,
}

impl<'de, S: Serializer> DeserializeSeed<'de> for MapValue<'_, S::SerializeMap, S> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        self.out.serialize_value(&Forward::new(deserializer, self.depth)).map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(text: &str) -> Result<Captured, serde_json::Error> {
        serde_json::from_str(text)
    }

    fn msgpack(bytes: &[u8]) -> Result<Captured, rmp_serde::decode::Error> {
        rmp_serde::from_slice(bytes)
    }

    fn as_msgpack(captured: &Captured) -> Vec<u8> {
        rmp_serde::to_vec(&Embedded(&captured.0)).unwrap()
    }

    #[test]
    fn json_passes_as_the_text_it_was() {
        let text = r#"{"b":1.0,"a":[1e2,-0,18446744073709551615,-9223372036854775808,"\u00e9"],"b":null}"#;
        assert_eq!(json(text).unwrap().into_json().unwrap().as_ref(), text);
    }

    #[test]
    fn integers_and_text_pass_through_both_encodings() {
        let text = r#"{"max":18446744073709551615,"min":-9223372036854775808,"half":0.5,"list":[true,null,"店"]}"#;
        let packed = as_msgpack(&json(text).unwrap());
        assert_eq!(msgpack(&packed).unwrap().into_json().unwrap().as_ref(), text);
    }

    #[test]
    fn msgpack_bin_becomes_base64_in_json_and_stays_bin_in_msgpack() {
        let bin = [0xc4, 3, 0xff, 0, 0x10];
        let captured = msgpack(&bin).unwrap();
        assert_eq!(as_msgpack(&captured), bin);
        assert_eq!(captured.into_json().unwrap().as_ref(), r#""/wAQ""#);
    }

    #[test]
    fn what_json_cannot_hold_is_refused() {
        assert!(json("18446744073709551616").is_err(), "an integer beyond 64 bits");
        assert!(json(r#"{"a":["\"",-9223372036854775809]}"#).is_err(), "a nested one");
        assert!(json(r#""18446744073709551616""#).is_ok(), "as text it passes");
        assert!(json("1e400").is_err(), "a float out of range");
        assert!(json("1e30").is_ok());
        assert!(json("[999999999999999999,0.123456789012345678,-1234567890123456789]").is_ok());
        assert!(json("[true,12345678901234567890123]").is_err());
        assert!(json(r#""\ud800""#).is_err(), "half a surrogate pair");
        assert!(msgpack(&[0xd4, 1, 2]).is_err(), "ext");
        assert!(msgpack(&[0x91, 0xd4, 1, 2]).is_err(), "ext within");
        assert!(msgpack(&[0x81, 1, 2]).is_err(), "a key that is no string");
        assert!(msgpack(&[0xcb, 0x7f, 0xf8, 0, 0, 0, 0, 0, 0]).is_err(), "NaN");
        assert!(msgpack(&[0xca, 0x7f, 0x80, 0, 0]).is_err(), "infinity");
    }

    #[test]
    fn depth_is_bounded() {
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        assert!(json(&nested(VALUE_DEPTH_MAX)).is_ok());
        assert!(json(&nested(VALUE_DEPTH_MAX + 1)).is_err());
        assert!(json(&nested(30_000)).is_err());
        let packed = |depth: usize| [vec![0x91; depth], vec![0xc0]].concat();
        assert!(msgpack(&packed(VALUE_DEPTH_MAX)).is_ok());
        assert!(msgpack(&packed(VALUE_DEPTH_MAX + 1)).is_err());
    }
}
