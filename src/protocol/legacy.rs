//! The dialect of the hand-made server's clients, pure: what they say and what they are told.
//!
//! Owns its names, its answers and its two forms of a push. Where an old client sends a number or a
//! text for the same thing both are taken; natively it is text. Never decides who may do what.

mod told;

use std::fmt;

use serde::Deserialize;
use serde::de::{self, Deserializer, Visitor};
use serde_json::Value as Json;
use serde_json::value::RawValue;

use crate::ids::{DeviceId, Name, ShopId};
use crate::message::{Role, Value};
use crate::protocol::FrameKind;
use crate::protocol::client::{Token, from_json};
use crate::protocol::value::Captured;

pub use told::{Answer, Listed, date_time, push, signal};

/// What a notify to a shop without a registered main is answered.
pub const NO_MAIN_DEVICE: &str = "店铺主设备未记录,请先联系商家完成主设备初始化";
/// What makes a raw frame a word of an operator.
const ADMIN_MARK: &[u8] = b"from_admin";
/// The member of a kept object that holds the table as it was given.
const TABLE_ID: &str = "table_id";

/// A frame of a legacy client.
#[derive(Debug)]
pub enum Frame {
    Login(Result<LegacyLogin, String>),
    Notify(Box<Result<LegacyNotify, String>>),
    Logout,
    /// Anything else: it is echoed, and an operator's word is heeded too.
    Raw(Option<Admin>),
}

/// A legacy device's request to be let in.
#[derive(Debug)]
pub struct LegacyLogin {
    pub shop: ShopId,
    pub device: DeviceId,
    pub role: Role,
    pub token: Option<Token>,
}

/// A notify of a legacy device, or of who calls `notify_main`; what is None was left out.
#[derive(Debug)]
pub struct LegacyNotify {
    pub shop: Option<ShopId>,
    pub device: Option<DeviceId>,
    pub kind: Name,
    pub table: Option<Name>,
    pub status: Option<Name>,
    pub data: Option<Value>,
    pub user_info: Option<Value>,
    /// What legacy peers are to see of it that the rest cannot tell, for a message and for a signal.
    pub kept_of_message: Box<RawValue>,
    pub kept_of_signal: Box<RawValue>,
}

/// An operator's word, with the API key that it needs.
#[derive(Clone, PartialEq, Eq)]
pub struct Admin {
    pub key: String,
    pub op: AdminOp,
}

/// See [`Admin`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AdminOp {
    GetConnections,
    SendMessages {
        content: String,
        to: Vec<String>,
    },
    Reload,
    /// No op that there is.
    Unknown,
}

impl fmt::Debug for Admin {
    // A key is never printed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Admin({:?})", self.op)
    }
}

/// Reads a frame.
pub fn read(kind: FrameKind, frame: &[u8]) -> Frame {
    if kind == FrameKind::Binary {
        return Frame::Raw(None);
    }
    #[derive(Deserialize)]
    struct Opening<'a> {
        #[serde(borrow)]
        op: std::borrow::Cow<'a, str>,
    }
    let is_object = frame.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{');
    let opening = serde_json::from_slice::<Opening<'_>>(frame).ok().filter(|_| is_object);
    match opening.as_ref().map(|opening| opening.op.as_ref()) {
        Some("login") => Frame::Login(login(frame)),
        Some("notify") => Frame::Notify(Box::new(notify(frame))),
        Some("logout") => Frame::Logout,
        _ => Frame::Raw(admin(frame)),
    }
}

fn login(frame: &[u8]) -> Result<LegacyLogin, String> {
    #[derive(Deserialize)]
    struct Fields {
        shop_id: Text,
        client_id: Text,
        r#type: Text,
        #[serde(default)]
        token: Option<Token>,
    }
    let Fields { shop_id, client_id, r#type, token } = from_json(frame)?;
    Ok(LegacyLogin {
        shop: shop_id.0.parse().map_err(|problem| format!("shop_id {problem}"))?,
        device: client_id.0.parse().map_err(|problem| format!("client_id {problem}"))?,
        role: role(&r#type.0).ok_or("type must be 主 or 副")?,
        token,
    })
}

/// Reads a notify from the text of a JSON object.
///
/// # Errors
/// What is wrong with it.
pub fn notify(object: &[u8]) -> Result<LegacyNotify, String> {
    #[derive(Deserialize)]
    struct Fields {
        #[serde(default)]
        shop_id: Option<Text>,
        #[serde(default)]
        from_client_id: Option<Text>,
        r#type: Text,
        #[serde(default)]
        table_id: Option<Text>,
        #[serde(default)]
        status: Option<Text>,
        #[serde(default)]
        data: Option<Captured>,
        #[serde(default)]
        user_info: Option<Captured>,
    }
    let fields: Fields = from_json(object)?;
    let given = |text: Option<Text>| text.map(|text| text.0).filter(|text| !text.is_empty());
    let status: Option<Name> = parsed("status", given(fields.status))?;
    if status.as_ref().is_some_and(|status| status.as_str() == "all") {
        return Err("no status is called \"all\"".into());
    }
    let (kept_of_message, kept_of_signal) = kept(object)?;
    Ok(LegacyNotify {
        shop: parsed("shop_id", given(fields.shop_id))?,
        device: parsed("from_client_id", given(fields.from_client_id))?,
        kind: fields.r#type.0.parse().map_err(|problem| format!("type {problem}"))?,
        table: parsed(TABLE_ID, given(fields.table_id))?,
        status,
        data: fields.data.map(Captured::into_value),
        user_info: fields.user_info.map(Captured::into_value),
        kept_of_message,
        kept_of_signal,
    })
}

fn parsed<T: std::str::FromStr<Err: fmt::Display>>(name: &str, text: Option<String>) -> Result<Option<T>, String> {
    text.map(|text| text.parse().map_err(|problem| format!("{name} {problem}"))).transpose()
}

/// The table as it was given with who sent it, and the whole object without its op.
fn kept(object: &[u8]) -> Result<(Box<RawValue>, Box<RawValue>), String> {
    let members: Members = serde_json::from_slice(object).map_err(|problem| problem.to_string())?;
    let of_message = members.only(&[TABLE_ID, "from_client_id"]);
    let raw = |text: String| RawValue::from_string(text).map_err(|problem| problem.to_string());
    Ok((raw(of_message)?, raw(members.without("op"))?))
}

/// The members of an object in the order in which they stand, each as the text that it is.
struct Members(Vec<(String, Box<RawValue>)>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Members, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Members;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}

impl Members {
    fn without(&self, left_out: &str) -> String {
        self.text(|name| name != left_out)
    }

    fn only(&self, names: &[&str]) -> String {
        self.text(|name| names.contains(&name))
    }

    fn text(&self, is_wanted: impl Fn(&str) -> bool) -> String {
        let wanted = self.0.iter().filter(|(name, _)| is_wanted(name));
        let members: Vec<String> =
            wanted.map(|(name, value)| format!("{}:{}", Json::from(name.as_str()), value.get())).collect();
        format!("{{{}}}", members.join(","))
    }
}

fn admin(frame: &[u8]) -> Option<Admin> {
    if !frame.windows(ADMIN_MARK.len()).any(|window| window == ADMIN_MARK) {
        return None;
    }
    let (mut key, mut op, mut content, mut to) = (String::new(), String::new(), String::new(), String::new());
    for (name, value) in form_urlencoded::parse(frame) {
        match name.as_ref() {
            "key" => key = value.into_owned(),
            "op" => op = value.into_owned(),
            "content" => content = value.into_owned(),
            "to_fds" => to = value.into_owned(),
            _ => {}
        }
    }
    let op = match op.as_str() {
        "get_connections" => AdminOp::GetConnections,
        "send_messages" => {
            let to = to.split(',').map(str::trim).filter(|conn| !conn.is_empty());
            AdminOp::SendMessages { content, to: to.map(str::to_owned).collect() }
        }
        "reload" => AdminOp::Reload,
        _ => AdminOp::Unknown,
    };
    Some(Admin { key, op })
}

/// A text or a number, as text.
#[derive(Debug)]
struct Text(String);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Text, D::Error> {
        match Json::deserialize(deserializer)? {
            Json::String(text) => Ok(Text(text)),
            Json::Number(number) => Ok(Text(number.to_string())),
            _ => Err(de::Error::custom("must be a text or a number")),
        }
    }
}

/// The role by the name that the old clients give it.
fn role(name: &str) -> Option<Role> {
    [Role::Main, Role::Sub].into_iter().find(|role| role_name(*role) == name)
}

/// The name that the old clients give a role.
pub fn role_name(role: Role) -> &'static str {
    match role {
        Role::Main => "主",
        Role::Sub => "副",
    }
}

#[cfg(test)]
mod tests;
