//! The protocol as a client reads it.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use crate::ids::MessageId;

/// Characters of a stranger's text that are shown.
const TEXT_CHARS_MAX: usize = 60;

/// What the relay says.
#[derive(Debug, Deserialize)]
#[serde(tag = "op", rename_all = "lowercase")]
pub enum Heard {
    Welcome(Welcome),
    Accepted {
        #[serde(rename = "ref")]
        reference: Option<String>,
        id: Option<MessageId>,
    },
    Message(Pushed),
    Status(StatusNews),
    Signal {
        #[serde(default)]
        data: Value,
    },
    Receipt {},
    Dealt {
        id: MessageId,
        status: String,
    },
    Messages {
        #[serde(rename = "ref")]
        reference: Option<String>,
        items: Vec<Item>,
        next: Option<MessageId>,
    },
    Presence {},
    Ok {
        #[serde(rename = "ref")]
        reference: Option<String>,
    },
    Pong {},
    Error(Refusal),
    Goaway {
        reconnect_in_ms: u64,
    },
    /// A Ping of the WebSocket that asks for the proof of everything up to this entry.
    #[serde(skip)]
    Ping(MessageId),
    #[serde(other)]
    Other,
}

/// The answer to a login.
#[derive(Debug, Clone, Deserialize)]
pub struct Welcome {
    pub conn: String,
    pub cursor: Option<MessageId>,
    pub window: usize,
}

/// A message of the log.
#[derive(Debug, Deserialize)]
pub struct Pushed {
    pub id: MessageId,
    pub from: Peer,
    #[serde(default)]
    pub table: Option<String>,
    #[serde(rename = "type")]
    pub kind: String,
    #[serde(default)]
    pub data: Value,
    pub status: String,
}

impl Pushed {
    /// What it says, in a form that may be printed: others than the program's own devices send messages
    /// too.
    pub fn text(&self) -> String {
        let text = match &self.data {
            Value::String(text) => text.clone(),
            Value::Null => self.kind.clone(),
            other => other.to_string(),
        };
        // A stranger's escape sequences are not for our terminal.
        text.chars().filter(|c| !c.is_control()).take(TEXT_CHARS_MAX).collect()
    }
}

/// A message was dealt with.
#[derive(Debug, Deserialize)]
pub struct StatusNews {
    pub id: MessageId,
    pub message: MessageId,
    pub status: String,
    pub by: Peer,
}

/// A message as a list shows it.
#[derive(Debug, Deserialize)]
pub struct Item {
    pub id: MessageId,
    #[serde(default)]
    pub data: Value,
    #[serde(default)]
    pub dealt_by: Option<Peer>,
    #[serde(default)]
    pub delivered: BTreeMap<String, bool>,
}

/// A device, or a back end by its name.
#[derive(Debug, Clone, Deserialize)]
pub struct Peer {
    #[serde(alias = "api")]
    pub device: String,
}

/// An op that was refused.
#[derive(Debug, Deserialize)]
pub struct Refusal {
    #[serde(rename = "ref", default)]
    pub reference: Option<String>,
    pub code: String,
    pub message: String,
    #[serde(default)]
    pub retry_after_ms: Option<u64>,
    /// Of a conflict: the present status.
    #[serde(default)]
    pub status: Option<String>,
    /// Of a conflict: who set it.
    #[serde(default)]
    pub by: Option<Peer>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pushed(json: &str) -> Pushed {
        match serde_json::from_str(json).unwrap() {
            Heard::Message(pushed) => pushed,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_a_stranger_sends_is_printable() {
        let head = r#"{"op":"message","id":"1-2","at":1,"to":"mains","from":{"device":"me","role":"main"},"type":"hi","status":"open""#;
        assert_eq!(pushed(&format!("{head}}}")).text(), "hi");
        assert_eq!(pushed(&format!(r#"{head},"data":"a\u001b[2Jb"}}"#)).text(), "a[2Jb");
        assert_eq!(pushed(&format!(r#"{head},"data":{{"x":1}}}}"#)).text(), r#"{"x":1}"#);
    }

    #[test]
    fn what_later_versions_say_is_passed_over() {
        assert!(matches!(serde_json::from_str(r#"{"op":"weather","is":"fine"}"#).unwrap(), Heard::Other));
        let welcome = r#"{"op":"welcome","conn":"c","node":"n","cursor":null,"head":null,"window":256,"news":[]}"#;
        assert!(matches!(serde_json::from_str(welcome).unwrap(), Heard::Welcome(Welcome { cursor: None, .. })));
    }

    #[test]
    fn both_encodings_read_alike() {
        let op = serde_json::json!({
            "op": "messages", "ref": "l1", "next": null,
            "items": [{"id": "1-2", "data": {"n": u64::MAX}, "delivered": {"till": true}, "dealt_by": {"api": "local"}}],
        });
        let bytes = rmp_serde::to_vec_named(&op).unwrap();
        for heard in [serde_json::from_value(op).unwrap(), rmp_serde::from_slice(&bytes).unwrap()] {
            let Heard::Messages { reference, items, next: None } = heard else { panic!("{heard:?}") };
            let [item] = &items[..] else { panic!("{items:?}") };
            assert_eq!(reference.as_deref(), Some("l1"));
            assert_eq!((item.data["n"].as_u64(), item.delivered["till"]), (Some(u64::MAX), true));
            assert_eq!(item.dealt_by.as_ref().unwrap().device, "local");
        }
    }
}
