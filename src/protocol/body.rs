//! The JSON bodies of the HTTP API, read as the ops are that they stand for.

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::attrs::{Attrs, AttrsChange};
use crate::ids::{ConnId, MessageId, Name};
use crate::message::{Role, Value};
use crate::protocol::client::{from_json, status};
use crate::protocol::notify::{Notify, NotifyFields};
use crate::protocol::value::Captured;
use crate::protocol::{Deal, client};

/// A signal for every connected device of every shop.
#[derive(Debug)]
pub struct BroadcastBody {
    pub kind: Name,
    pub table: Option<Name>,
    pub data: Option<Value>,
    pub role: Option<Role>,
    pub except: Vec<ConnId>,
}

/// The body of a POST of a message: the fields of `notify`.
///
/// # Errors
/// What is wrong with it, with the field.
pub fn notify(body: &[u8]) -> Result<Notify, String> {
    object::<NotifyFields>(body)?.check()
}

/// The body of a PUT of a message's status.
///
/// # Errors
/// As [`notify`].
pub fn deal(id: MessageId, body: &[u8]) -> Result<Deal, String> {
    #[derive(Deserialize)]
    struct Fields {
        #[serde(deserialize_with = "status")]
        status: Name,
        #[serde(default, deserialize_with = "client::optional_status")]
        expect: Option<Name>,
    }
    let Fields { status, expect } = object(body)?;
    Ok(Deal { id, status, expect })
}

/// The body of a PUT or PATCH of attributes; `change` says which it was.
///
/// # Errors
/// As [`notify`].
pub fn attrs(change: impl Fn(Attrs) -> AttrsChange, body: &[u8]) -> Result<AttrsChange, String> {
    #[derive(Deserialize)]
    struct Fields {
        attrs: Captured,
    }
    let text = object::<Fields>(body)?.attrs.into_json().map_err(|error| error.to_string())?;
    Attrs::parse(&text).map(change).map_err(|_| "attrs: must be an object".into())
}

/// The body of a close, which may be empty: the data of a last signal.
///
/// # Errors
/// As [`notify`].
pub fn close(body: &[u8]) -> Result<Option<Value>, String> {
    #[derive(Deserialize)]
    struct Fields {
        #[serde(default)]
        data: Option<Captured>,
    }
    if body.is_empty() {
        return Ok(None);
    }
    Ok(object::<Fields>(body)?.data.map(Captured::into_value))
}

/// The body of a broadcast.
///
/// # Errors
/// As [`notify`].
pub fn broadcast(body: &[u8]) -> Result<BroadcastBody, String> {
    #[derive(Deserialize)]
    struct Fields {
        #[serde(rename = "type")]
        kind: Name,
        #[serde(default)]
        table: Option<Name>,
        #[serde(default)]
        data: Option<Captured>,
        #[serde(default)]
        role: Option<Role>,
        #[serde(default)]
        except: Option<Vec<ConnId>>,
    }
    let Fields { kind, table, data, role, except } = object(body)?;
    Ok(BroadcastBody { kind, table, data: data.map(Captured::into_value), role, except: except.unwrap_or_default() })
}

fn object<T: DeserializeOwned>(body: &[u8]) -> Result<T, String> {
    // Serde takes an array for a struct too.
    if body.iter().find(|byte| !byte.is_ascii_whitespace()) != Some(&b'{') {
        return Err("the body must be a JSON object".into());
    }
    from_json(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_names_the_field() {
        let wrong = |body: &str| notify(body.as_bytes()).unwrap_err();
        for (body, named) in [
            (r#"{"to":"mains"}"#, "`type`"),
            (r#"{"type":7}"#, "type: "),
            (r#"{"type":"a","ttl_s":"x"}"#, "ttl_s: "),
            (r#"{"type":"a","ttl_s":0}"#, "ttl_s: "),
            (r#"{"type":"a","ttl_s":1.5}"#, "ttl_s: "),
            (r#"{"type":"a","to":{"conns":["c"]},"durable":true}"#, "durable: "),
            (r#"{"type":"a"} x"#, "trailing"),
            (r#"{"type":"a","to":{"devices":[1]}}"#, "to"),
            (r#"{"type":"a","data":18446744073709551616}"#, "data: "),
            (r#"["a"]"#, "object"),
            ("", "object"),
            ("{", "EOF"),
        ] {
            assert!(wrong(body).contains(named), "{body}: {}", wrong(body));
        }
        assert!(attrs(AttrsChange::Set, br#"{"attrs":[]}"#).unwrap_err().contains("attrs"));
        assert!(deal(MessageId::ZERO, br#"{"status":"all"}"#).unwrap_err().contains("status"));
        assert!(close(b"[]").is_err());
        assert!(close(b"").unwrap().is_none());
    }
}
