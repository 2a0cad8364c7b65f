//! What a client says: one frame, decoded into one [`ClientOp`].
//!
//! A frame is read twice: once for its [opening](super::open), so that a refusal can name the `ref`,
//! and once here for the op's own fields. What is wrong in the first pass makes the frame malformed,
//! what is wrong in the second one is a bad request.

use std::fmt;
use std::str::FromStr;

use serde::Deserialize;
use serde::de::{self, DeserializeOwned, Deserializer};

use crate::attrs::{Attrs, AttrsChange};
use crate::ids::{DeviceId, MessageId, Name, ShopId};
use crate::message::Role;
use crate::protocol::notify::{Notify, NotifyFields};
use crate::protocol::opening::{Opening, Ref, Refused, from_msgpack};
use crate::protocol::value::Captured;
use crate::protocol::{Encoding, ErrorCode, FrameKind};

/// Most messages in a page of a list.
const LIST_LIMIT_MAX: u16 = 500;
const LIST_LIMIT_DEFAULT: u16 = 100;

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

/// Reads the op's own fields of a frame whose [opening](super::open) has been read.
///
/// # Errors
/// [`Refused`] says what to answer; nothing of the frame was taken.
pub fn decode(encoding: Encoding, opening: Opening, frame: &[u8]) -> Result<ClientFrame, Refused> {
    let Opening { reference, op, notify } = opening;
    if let Some(notify) = notify {
        return Ok(ClientFrame { reference, op: ClientOp::Notify(notify) });
    }
    let refuse = |code, message| Refused { reference: reference.clone(), code, message, malformed: false };
    let bad = |message: String| refuse(ErrorCode::BadRequest, message);
    let op = match op.as_ref() {
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

/// The id of an `ack` that is written as encoders write it, without blanks or anything else in it. It is by far
/// the most frequent frame, and two readings of it would cost more than all else that it leads to. None says
/// nothing about the frame.
pub fn plain_ack(encoding: Encoding, kind: FrameKind, frame: &[u8]) -> Option<MessageId> {
    let id = match (encoding, kind) {
        (Encoding::Json, FrameKind::Text) => frame.strip_prefix(br#"{"op":"ack","id":""#)?.strip_suffix(br#""}"#)?,
        (Encoding::MsgPack, FrameKind::Binary) => {
            // A map of two, and a text of less than 32 bytes, which says how long it is.
            let (first, id) = frame.strip_prefix(b"\x82\xa2op\xa3ack\xa2id")?.split_first()?;
            Some(id).filter(|id| id.len() < 32 && usize::from(*first) == 0xa0 + id.len())?
        }
        _ => return None,
    };
    std::str::from_utf8(id).ok()?.parse().ok()
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::open;

    #[test]
    fn an_ack_as_encoders_write_it_is_taken_for_one_and_no_other_frame_is() {
        let id = MessageId { ms: 1_700_000_000_000, n: 2 };
        let json = br#"{"op":"ack","id":"1700000000000-2"}"#;
        let msgpack = b"\x82\xa2op\xa3ack\xa2id\xaf1700000000000-2";
        for (encoding, frame) in [(Encoding::Json, &json[..]), (Encoding::MsgPack, msgpack)] {
            let kind = FrameKind::of(encoding);
            assert_eq!(plain_ack(encoding, kind, frame), Some(id));
            let opening = open(encoding, kind, frame).unwrap();
            assert!(matches!(decode(encoding, opening, frame).unwrap().op, ClientOp::Ack(read) if read == id));
            for end in 0..frame.len() {
                assert_eq!(plain_ack(encoding, kind, &frame[..end]), None, "{end}");
            }
            assert_eq!(plain_ack(encoding, kind, &[frame, b" "].concat()), None);
        }
        assert_eq!(plain_ack(Encoding::Json, FrameKind::Binary, json), None);
        assert_eq!(plain_ack(Encoding::Json, FrameKind::Text, br#"{"op":"ack","id":"1-2","ref":"3"}"#), None);
    }
}
