//! The `notify` op: a message or a signal, and whom it is for.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{self, Deserializer, IgnoredAny, MapAccess, Visitor};

use crate::ids::{ConnId, DeviceId, Name, OnceKey};
use crate::message::{Audience, Listed, Value};
use crate::protocol::client::optional_status;
use crate::protocol::value::Captured;

/// Longest time to live of a message, in seconds: a week.
const TTL_S_MAX: u32 = 604_800;

/// A message or a signal, as its sender gives it: what is left out depends on who sends it.
#[derive(Debug)]
pub struct Notify {
    pub to: Option<Audience>,
    pub except: Listed<DeviceId>,
    pub kind: Name,
    pub table: Option<Name>,
    pub data: Option<Value>,
    pub user_info: Option<Value>,
    pub status: Option<Name>,
    pub durable: Option<bool>,
    pub key: Option<OnceKey>,
    pub receipt: bool,
    pub ttl: Option<Duration>,
}

/// The wire form of a [`Notify`].
#[derive(Deserialize)]
pub(super) struct NotifyFields {
    #[serde(default)]
    to: Option<To>,
    #[serde(default)]
    except: Option<Vec<DeviceId>>,
    #[serde(rename = "type")]
    kind: Name,
    #[serde(default)]
    table: Option<Name>,
    #[serde(default)]
    data: Option<Captured>,
    #[serde(default)]
    user_info: Option<Captured>,
    #[serde(default, deserialize_with = "optional_status")]
    status: Option<Name>,
    #[serde(default)]
    durable: Option<bool>,
    #[serde(default)]
    key: Option<OnceKey>,
    #[serde(default)]
    receipt: Option<bool>,
    #[serde(default)]
    ttl_s: Option<Seconds>,
}

/// A whole number of seconds. One that is written as a fraction, `60.0`, is whole too: some languages
/// write every number so, and JSON Schema calls it an integer.
struct Seconds(u32);

impl<'de> Deserialize<'de> for Seconds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SecondsVisitor)
    }
}

struct SecondsVisitor;

impl Visitor<'_> for SecondsVisitor {
    type Value = Seconds;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a whole number of seconds, 1 to {TTL_S_MAX}")
    }

    fn visit_u64<E: de::Error>(self, seconds: u64) -> Result<Seconds, E> {
        let in_range = u32::try_from(seconds).ok().filter(|seconds| (1..=TTL_S_MAX).contains(seconds));
        in_range.map(Seconds).ok_or_else(|| E::invalid_value(de::Unexpected::Unsigned(seconds), &self))
    }

    fn visit_i64<E: de::Error>(self, seconds: i64) -> Result<Seconds, E> {
        match u64::try_from(seconds) {
            Ok(seconds) => self.visit_u64(seconds),
            Err(_) => Err(E::invalid_value(de::Unexpected::Signed(seconds), &self)),
        }
    }

    fn visit_f64<E: de::Error>(self, seconds: f64) -> Result<Seconds, E> {
        if seconds.fract() == 0.0 && (1.0..=f64::from(TTL_S_MAX)).contains(&seconds) {
            return Ok(Seconds(seconds as u32));
        }
        Err(E::invalid_value(de::Unexpected::Float(seconds), &self))
    }
}

impl NotifyFields {
    pub(super) fn check(self) -> Result<Notify, String> {
        let to = self.to.map(|to| to.0);
        match &to {
            Some(Audience::Devices(devices)) if devices.as_slice().is_empty() => {
                return Err("to.devices is empty; name at least one device".into());
            }
            Some(Audience::Conns(conns)) if conns.as_slice().is_empty() => {
                return Err("to.conns is empty; name at least one connection".into());
            }
            Some(Audience::Conns(_)) if self.durable == Some(true) => {
                return Err("durable: a notify to conns can't be; name devices instead".into());
            }
            _ => {}
        }
        Ok(Notify {
            to,
            except: self.except.unwrap_or_default().into(),
            kind: self.kind,
            table: self.table,
            data: self.data.map(Captured::into_value),
            user_info: self.user_info.map(Captured::into_value),
            status: self.status,
            durable: self.durable,
            key: self.key,
            receipt: self.receipt.unwrap_or(false),
            ttl: self.ttl_s.map(|Seconds(ttl_s)| Duration::from_secs(ttl_s.into())),
        })
    }
}

/// The wire form of an [`Audience`]: a word, or an object with one list or name.
struct To(Audience);

impl<'de> Deserialize<'de> for To {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ToVisitor)
    }
}

struct ToVisitor;

impl<'de> Visitor<'de> for ToVisitor {
    type Value = To;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(r#""mains", "subs", "all", or an object with devices, group, user or conns"#)
    }

    fn visit_str<E: de::Error>(self, word: &str) -> Result<To, E> {
        match word {
            "mains" => Ok(To(Audience::Mains)),
            "subs" => Ok(To(Audience::Subs)),
            "all" => Ok(To(Audience::All)),
            _ => Err(E::invalid_value(de::Unexpected::Str(word), &self)),
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<To, A::Error> {
        let mut found = None;
        while let Some(key) = map.next_key::<Cow<'de, str>>()? {
            let audience = match key.as_ref() {
                "devices" => Audience::Devices(map.next_value::<Vec<DeviceId>>()?.into()),
                "group" => Audience::Group(map.next_value()?),
                "user" => Audience::User(map.next_value()?),
                "conns" => Audience::Conns(map.next_value::<Vec<ConnId>>()?.into()),
                _ => {
                    map.next_value::<IgnoredAny>()?;
                    continue;
                }
            };
            if found.replace(audience).is_some() {
                return Err(de::Error::custom("to names more than one audience"));
            }
        }
        found.map(To).ok_or_else(|| de::Error::custom("to names no audience; give devices, group, user or conns"))
    }
}
