//! What a client says: one frame, decoded into one [`ClientOp`].
//!
//! A frame is read twice: once for `op` and `ref`, so that a refusal can name the `ref`, and once
//! for the op's own fields. What is wrong in the first pass makes the frame malformed, what is wrong
//! in the second one is a bad request.

use std::fmt;
use std::str::FromStr;

use serde::de::{self, DeserializeOwned, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

use crate::attrs::{Attrs, AttrsChange};
use crate::ids::{DeviceId, MessageId, Name, ShopId};
use crate::message::Role;
use crate::protocol::notify::{Notify, NotifyFields};
use crate::protocol::value::Captured;
use crate::protocol::{Encoding, ErrorCode, FrameKind};

/// Longest `ref` text, in bytes.
const REF_BYTES_MAX: usize = 64;
/// Most messages in a page of a list.
const LIST_LIMIT_MAX: u16 = 500;
const LIST_LIMIT_DEFAULT: u16 = 100;

/// A client's own mark on an op, which comes back on its answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Ref {
    Int(i64),
    UInt(u64),
    Text(Box<str>),
}

/// A decoded frame.
#[derive(Debug)]
pub struct ClientFrame {
    pub reference: Option<Ref>,
    pub op: ClientOp,
}

/// What a client asks for.
#[derive(Debug)]
pub enum ClientOp {
    Login(Login),
    Notify(Box<Notify>),
    Ack(MessageId),
    Deal(Deal),
    List(List),
    Online(Option<Role>),
    Join(Name),
    Leave(Name),
    Bind(Name),
    Unbind,
    /// None asks what they are.
    Attrs(Option<AttrsChange>),
    Call(CallMethod),
    Ping,
    Logout,
}

/// A device's call of the back-end workers.
#[derive(Debug, Deserialize)]
pub struct CallMethod {
    pub method: Name,
    /// JSON text.
    #[serde(default, deserialize_with = "json_text")]
    pub data: Option<Box<str>>,
}

/// A device's request to be let in.
#[derive(Debug, Deserialize)]
pub struct Login {
    pub shop: ShopId,
    pub device: DeviceId,
    pub role: Role,
    #[serde(default)]
    pub ack: Option<AckMode>,
    #[serde(default)]
    pub token: Option<Token>,
    /// Kept in the registry, as JSON text.
    #[serde(default, deserialize_with = "meta")]
    pub meta: Option<Box<str>>,
}

/// What a device shows to be let in. Its `Debug` form does not.
#[derive(Clone, Deserialize)]
#[serde(transparent)]
pub struct Token(Box<str>);

impl Token {
    /// The token: never to be printed.
    pub fn secret(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(***)")
    }
}

/// How a device proves receipt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AckMode {
    /// By the `ack` op.
    #[default]
    Client,
    /// By the Pong to a Ping that carries the message id.
    Pong,
}

/// A main's claim that it dealt with a message.
#[derive(Debug, Deserialize)]
pub struct Deal {
    pub id: MessageId,
    #[serde(deserialize_with = "status")]
    pub status: Name,
    #[serde(default, deserialize_with = "optional_status")]
    pub expect: Option<Name>,
}

/// A request for a page of the shop's messages.
#[derive(Debug, Clone)]
pub struct List {
    pub status: ListStatus,
    /// Exclusive.
    pub after: MessageId,
    pub limit: usize,
}

/// Which messages a list shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListStatus {
    All,
    /// Nobody has dealt with it.
    Open,
    /// The present status is this one.
    Is(Name),
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
    pub op: String,
}

/// Reads `op` and `ref` of one data frame of a client.
///
/// # Errors
/// [`Refused`] says what to answer.
pub fn open(encoding: Encoding, kind: FrameKind, frame: &[u8]) -> Result<Opening, Refused> {
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
    Ok(Opening { reference, op: head.op })
}

/// Whether a frame begins as an object does. Serde takes an array for a struct too.
fn is_map(encoding: Encoding, frame: &[u8]) -> bool {
    match encoding {
        Encoding::Json => frame.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{'),
        Encoding::MsgPack => matches!(frame.first(), Some(0x80..=0x8f | 0xde | 0xdf)),
    }
}

/// Reads the op's own fields of a frame that [`open`] has read.
///
/// # Errors
/// [`Refused`] says what to answer; nothing of the frame was taken.
pub fn decode(encoding: Encoding, opening: Opening, frame: &[u8]) -> Result<ClientFrame, Refused> {
    let Opening { reference, op } = opening;
    let refuse = |code, message| Refused { reference: reference.clone(), code, message, malformed: false };
    let bad = |message: String| refuse(ErrorCode::BadRequest, message);
    let op = match op.as_str() {
        "login" => ClientOp::Login(fields(encoding, frame).map_err(bad)?),
        "notify" => ClientOp::Notify(Box::new(
            fields::<NotifyFields>(encoding, frame).and_then(NotifyFields::check).map_err(bad)?,
        )),
        "ack" => ClientOp::Ack(fields::<AckFields>(encoding, frame).map_err(bad)?.id),
        "deal" => ClientOp::Deal(fields(encoding, frame).map_err(bad)?),
        "list" => ClientOp::List(fields::<ListFields>(encoding, frame).and_then(ListFields::check).map_err(bad)?),
        "online" => ClientOp::Online(fields::<OnlineFields>(encoding, frame).map_err(bad)?.role),
        "join" => ClientOp::Join(fields::<GroupFields>(encoding, frame).map_err(bad)?.group),
        "leave" => ClientOp::Leave(fields::<GroupFields>(encoding, frame).map_err(bad)?.group),
        "bind" => ClientOp::Bind(fields::<BindFields>(encoding, frame).map_err(bad)?.user),
        "unbind" => ClientOp::Unbind,
        "attrs" => ClientOp::Attrs(fields::<AttrsFields>(encoding, frame).and_then(AttrsFields::check).map_err(bad)?),
        "call" => ClientOp::Call(fields(encoding, frame).map_err(bad)?),
        "ping" => ClientOp::Ping,
        "logout" => ClientOp::Logout,
        unknown => {
            let shown: String = unknown.chars().take(32).collect();
            return Err(refuse(ErrorCode::UnknownOp, format!("no op is called {shown:?}")));
        }
    };
    Ok(ClientFrame { reference, op })
}

/// The fields of an op; what is wrong with them names the field.
fn fields<T: DeserializeOwned>(encoding: Encoding, frame: &[u8]) -> Result<T, String> {
    match encoding {
        Encoding::Json => from_json(frame),
        Encoding::MsgPack => from_msgpack(frame),
    }
}

/// Reads JSON; what is wrong with it names the field.
pub(super) fn from_json<T: DeserializeOwned>(text: &[u8]) -> Result<T, String> {
    serde_json::from_slice(text).or_else(|_| {
        // Only where something is wrong is it worth knowing where.
        let deserializer = &mut serde_json::Deserializer::from_slice(text);
        let read = serde_path_to_error::deserialize(&mut *deserializer);
        let read = read.map_err(|error| match error.path().to_string().as_str() {
            "." => error.inner().to_string(),
            path => format!("{path}: {}", error.inner()),
        })?;
        deserializer.end().map(|()| read).map_err(|error| error.to_string())
    })
}

fn from_msgpack<T: DeserializeOwned>(frame: &[u8]) -> Result<T, String> {
    let mut deserializer = rmp_serde::Deserializer::new(std::io::Cursor::new(frame));
    // One level for the frame itself.
    deserializer.set_max_depth(super::VALUE_DEPTH_MAX * 2);
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
        Ok(RefField::Valid(Ref::Int(number)))
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

#[derive(Deserialize)]
struct AckFields {
    id: MessageId,
}

#[derive(Deserialize)]
struct OnlineFields {
    #[serde(default)]
    role: Option<Role>,
}

#[derive(Deserialize)]
struct GroupFields {
    group: Name,
}

#[derive(Deserialize)]
struct BindFields {
    user: Name,
}

#[derive(Deserialize)]
struct AttrsFields {
    #[serde(default)]
    set: Option<Captured>,
    #[serde(default)]
    patch: Option<Captured>,
}

impl AttrsFields {
    fn check(self) -> Result<Option<AttrsChange>, String> {
        let attrs = |field: &str, value: Captured| {
            let json = value.into_json().map_err(|error| error.to_string())?;
            Attrs::parse(&json).map_err(|_| format!("{field} must be an object"))
        };
        match (self.set, self.patch) {
            (Some(_), Some(_)) => Err("give set or patch, not both".into()),
            (Some(set), None) => attrs("set", set).map(AttrsChange::Set).map(Some),
            (None, Some(patch)) => attrs("patch", patch).map(AttrsChange::Patch).map(Some),
            (None, None) => Ok(None),
        }
    }
}

#[derive(Deserialize)]
struct ListFields {
    #[serde(default)]
    status: Option<Name>,
    #[serde(default)]
    after: Option<MessageId>,
    #[serde(default)]
    limit: Option<u16>,
}

impl List {
    /// A page as a query asks for it, where everything is text.
    ///
    /// # Errors
    /// What is wrong with it, with the field.
    pub fn from_query(status: Option<&str>, after: Option<&str>, limit: Option<&str>) -> Result<List, String> {
        fn parsed<T: FromStr>(name: &str, text: Option<&str>) -> Result<Option<T>, String>
        where
            T::Err: fmt::Display,
        {
            text.map(|text| text.parse().map_err(|problem| format!("{name}: {problem}"))).transpose()
        }
        let status = parsed("status", status)?;
        ListFields { status, after: parsed("after", after)?, limit: Some(list_limit(limit)?) }.check()
    }
}

/// How many items a list is to hold, as a query asks for it.
///
/// # Errors
/// What is wrong with it, with the field.
pub fn list_limit(limit: Option<&str>) -> Result<u16, String> {
    let wrong = || format!("limit: it must be 1 to {LIST_LIMIT_MAX}");
    let Some(text) = limit else { return Ok(LIST_LIMIT_DEFAULT) };
    // A number's own parser takes a leading plus sign.
    let is_plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let limit = text.parse().ok().filter(|limit| is_plain && (1..=LIST_LIMIT_MAX).contains(limit));
    limit.ok_or_else(wrong)
}

impl ListFields {
    fn check(self) -> Result<List, String> {
        let limit = self.limit.unwrap_or(LIST_LIMIT_DEFAULT);
        if !(1..=LIST_LIMIT_MAX).contains(&limit) {
            return Err(format!("limit is {limit}, it must be 1 to {LIST_LIMIT_MAX}"));
        }
        let status = match self.status {
            None => ListStatus::All,
            Some(name) => match name.as_str() {
                "all" => ListStatus::All,
                crate::message::STATUS_OPEN => ListStatus::Open,
                _ => ListStatus::Is(name),
            },
        };
        Ok(List { status, after: self.after.unwrap_or(MessageId::ZERO), limit: usize::from(limit) })
    }
}

fn check_status<E: de::Error>(name: Name) -> Result<Name, E> {
    if name.as_str() == "all" {
        return Err(E::custom("no status is called \"all\""));
    }
    Ok(name)
}

/// A status that need not be there.
pub(super) fn optional_status<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Name>, D::Error> {
    Option::<Name>::deserialize(deserializer)?.map(check_status).transpose()
}

pub(super) fn status<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Name, D::Error> {
    Name::deserialize(deserializer).and_then(check_status)
}

fn json_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Box<str>>, D::Error> {
    let captured = Option::<Captured>::deserialize(deserializer)?;
    captured.map(|captured| captured.into_json().map_err(de::Error::custom)).transpose()
}

fn meta<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Box<str>>, D::Error> {
    match json_text(deserializer)? {
        Some(json) if !json.starts_with('{') => Err(de::Error::custom("meta must be an object")),
        json => Ok(json),
    }
}
