//! What the old clients are told: answers, pushes, and the list over HTTP.

use serde::Serialize;
use serde_json::{Map, Value as Json};

use crate::ids::{DeviceId, MessageId, Name, ShopId};
use crate::message::{Content, Message, Origin, Signal};
use crate::protocol::legacy::{TABLE_ID, role_name};
use crate::protocol::value::Embedded;
use crate::protocol::{Encoding, encode};

/// An answer in the old form.
#[derive(Debug)]
pub struct Answer<'a, T> {
    pub is_done: bool,
    pub msg: &'a str,
    pub data: T,
    /// The wall clock, in milliseconds since 1970.
    pub at_ms: u64,
    pub took: std::time::Duration,
}

impl<T: Serialize> Serialize for Answer<'_, T> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Fields<'a, T> {
            code: u8,
            msg: &'a str,
            time: String,
            data: &'a T,
            ttfb_time: String,
        }
        let fields = Fields {
            code: u8::from(!self.is_done),
            msg: self.msg,
            time: date_time(self.at_ms),
            data: &self.data,
            ttfb_time: format!("{:.6}s", self.took.as_secs_f64()),
        };
        fields.serialize(serializer)
    }
}

/// The push of a message: the body is fetched with the list.
pub fn push(number: u64, status: &Name, message: &Message) -> Vec<u8> {
    #[derive(Serialize)]
    struct Push<'a> {
        id: u64,
        status: &'a Name,
        table_id: &'a Json,
        r#type: &'a Name,
        title: String,
    }
    let content = &message.content;
    let table_id = table_id(content);
    let push =
        Push { id: number, status, table_id: &table_id, r#type: &content.kind, title: title(&table_id, content) };
    // Names and numbers can always be written.
    serde_json::to_vec(&push).unwrap_or_default()
}

/// The object of a signal: as a legacy main gave it, or made from a native one.
pub fn signal(shop: &ShopId, signal: &Signal) -> Option<Vec<u8>> {
    let content = &signal.content;
    if let Some(kept) = &content.legacy {
        return Some(kept.get().as_bytes().to_vec());
    }
    #[derive(Serialize)]
    struct Object<'a> {
        #[serde(skip_serializing_if = "Option::is_none")]
        from_client_type: Option<&'static str>,
        shop_id: &'a ShopId,
        table_id: &'a str,
        r#type: &'a Name,
        #[serde(skip_serializing_if = "Option::is_none")]
        data: Option<Embedded<'a>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        user_info: Option<Embedded<'a>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        from_client_id: Option<&'a DeviceId>,
    }
    let from_client_type = match &content.from {
        Origin::Device { role, .. } => Some(role_name(*role)),
        Origin::Api { .. } => None,
    };
    let object = Object {
        from_client_type,
        shop_id: shop,
        table_id: content.table.as_ref().map_or("", Name::as_str),
        r#type: &content.kind,
        data: content.data.as_ref().map(Embedded),
        user_info: content.user_info.as_ref().map(Embedded),
        from_client_id: content.from.device(),
    };
    encode(Encoding::Json, &object).ok()
}

/// A message as the list over HTTP shows it.
pub struct Listed<'a> {
    pub number: u64,
    pub id: MessageId,
    pub status: &'a Name,
    pub message: &'a Message,
    /// Whether every main that it was for has it.
    pub is_delivered: bool,
}

impl Serialize for Listed<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Fields<'a> {
            id: u64,
            status: &'a Name,
            table_id: &'a Json,
            r#type: &'a Name,
            title: String,
            data: Option<Embedded<'a>>,
            user_info: Option<Embedded<'a>>,
            from_client_id: Json,
            is_delivered: u8,
            time: String,
        }
        let content = &self.message.content;
        let table_id = table_id(content);
        let from = content.from.device().map(|device| Json::from(device.as_str()));
        let fields = Fields {
            id: self.number,
            status: self.status,
            table_id: &table_id,
            r#type: &content.kind,
            title: title(&table_id, content),
            data: content.data.as_ref().map(Embedded),
            user_info: content.user_info.as_ref().map(Embedded),
            from_client_id: from.or_else(|| kept_member(content, "from_client_id")).unwrap_or_else(|| "".into()),
            is_delivered: u8::from(self.is_delivered),
            time: date_time(self.id.ms),
        };
        fields.serialize(serializer)
    }
}

fn title(table_id: &Json, content: &Content) -> String {
    let table = match table_id {
        Json::String(text) => text.clone(),
        Json::Null => String::new(),
        other => other.to_string(),
    };
    format!("桌id:{table} {}", content.kind)
}

/// The table as a legacy device gave it, else as a native one did; an empty text for none.
fn table_id(content: &Content) -> Json {
    let native = || content.table.as_ref().map_or("", Name::as_str).into();
    kept_member(content, TABLE_ID).filter(|table| !table.is_null()).unwrap_or_else(native)
}

fn kept_member(content: &Content, name: &str) -> Option<Json> {
    let kept: Map<String, Json> = serde_json::from_str(content.legacy.as_ref()?.get()).ok()?;
    kept.get(name).cloned()
}

/// `Y-m-d H:i:s`, in UTC.
pub fn date_time(at_ms: u64) -> String {
    let at = std::time::UNIX_EPOCH + std::time::Duration::from_millis(at_ms);
    let text = humantime::format_rfc3339_seconds(at).to_string();
    text.trim_end_matches('Z').replace('T', " ")
}
