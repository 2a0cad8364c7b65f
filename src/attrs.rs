//! A device's attributes: a JSON object that belongs to it until somebody changes it.
//!
//! Owns what is taken for one, and how a patch is merged. Never bounds a size; who stores them does. Used
//! by `protocol` and the API to take them in, and by the store's engines to merge them.

use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;

/// White space, as JSON has it.
const JSON_BLANKS: [char; 4] = [' ', '\t', '\n', '\r'];

/// The text of a JSON object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attrs(Box<str>);

/// A text that is no JSON object, or none that can be merged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("attributes are a JSON object, nested less than 128 deep, of numbers that 64 bits can hold")]
pub struct NoObject;

/// How attributes are to change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AttrsChange {
    /// They become these.
    Set(Attrs),
    /// They are merged with these as RFC 7396 (JSON Merge Patch) says: objects member by member, at
    /// every level; a null removes.
    Patch(Attrs),
}

impl Attrs {
    /// The attributes of a device that has none.
    pub fn none() -> Attrs {
        Attrs("{}".into())
    }

    /// Takes the text of a JSON object.
    ///
    /// # Errors
    /// [`NoObject`]
    pub fn parse(text: &str) -> Result<Attrs, NoObject> {
        // Taken apart once here, for what only looks right (a number or a depth that no merge can hold)
        // would be lost with the first patch.
        match serde_json::from_str(text) {
            Ok(Value::Object(_)) => Ok(Attrs(text.trim_matches(JSON_BLANKS).into())),
            _ => Err(NoObject),
        }
    }

    /// Whether it has no members.
    pub fn is_empty(&self) -> bool {
        self.0.chars().all(|c| matches!(c, '{' | '}') || JSON_BLANKS.contains(&c))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What comes of a change.
    pub fn changed(&self, change: &AttrsChange) -> Attrs {
        let patch = match change {
            AttrsChange::Set(attrs) => return attrs.clone(),
            AttrsChange::Patch(patch) => patch,
        };
        let mut merged = self.value();
        merge(&mut merged, patch.value());
        Attrs(merged.to_string().into())
    }

    fn value(&self) -> Value {
        // Every way to make one has parsed it, or printed it.
        serde_json::from_str(&self.0).unwrap_or_else(|_| Value::Object(Default::default()))
    }
}

/// RFC 7396, section 2.
fn merge(target: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else {
        *target = patch;
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Default::default());
    }
    let Value::Object(members) = target else { return };
    for (name, value) in patch {
        if value.is_null() {
            members.remove(&name);
        } else {
            merge(members.entry(name).or_insert(Value::Null), value);
        }
    }
}

impl Serialize for Attrs {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let raw: &RawValue = serde_json::from_str(&self.0).map_err(serde::ser::Error::custom)?;
        raw.serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patched(attrs: &str, patch: &str) -> String {
        Attrs::parse(attrs).unwrap().changed(&AttrsChange::Patch(Attrs::parse(patch).unwrap())).as_str().to_owned()
    }

    #[test]
    fn a_patch_is_merged_as_rfc_7396_says() {
        assert_eq!(patched(r#"{"a":"b"}"#, r#"{"a":"c"}"#), r#"{"a":"c"}"#);
        assert_eq!(patched(r#"{"a":"b"}"#, r#"{"b":"c"}"#), r#"{"a":"b","b":"c"}"#);
        assert_eq!(patched(r#"{"a":"b","b":"c"}"#, r#"{"a":null}"#), r#"{"b":"c"}"#);
        assert_eq!(patched(r#"{"a":["b"]}"#, r#"{"a":"c"}"#), r#"{"a":"c"}"#);
        assert_eq!(patched(r#"{"a":{"b":"c"}}"#, r#"{"a":{"b":"d","c":null}}"#), r#"{"a":{"b":"d"}}"#);
        assert_eq!(patched(r#"{"e":null}"#, r#"{"a":1}"#), r#"{"a":1,"e":null}"#);
        assert_eq!(patched(r#"{}"#, r#"{"a":{"bb":{"ccc":null}}}"#), r#"{"a":{"bb":{}}}"#);
        assert_eq!(patched(r#"{}"#, r#"{"n":18446744073709551615}"#), r#"{"n":18446744073709551615}"#);
    }

    #[test]
    fn only_an_object_is_taken() {
        for bad in ["", "[]", "1", "null", "{", "{} x", "{\"a\":1,}"] {
            assert_eq!(Attrs::parse(bad), Err(NoObject), "{bad:?}");
        }
        assert_eq!(Attrs::parse(" { \"b\" : 1 } ").unwrap().as_str(), r#"{ "b" : 1 }"#, "it stays as it was written");
    }

    /// They were taken by their look, and a patch began with an empty object where they could not be read.
    #[test]
    fn what_a_patch_could_not_read_is_not_taken() {
        let deep = |levels: usize| format!("{{\"a\":{}1{}}}", "[".repeat(levels), "]".repeat(levels));
        assert_eq!(Attrs::parse(&deep(100_000)), Err(NoObject));
        assert_eq!(Attrs::parse(r#"{"a":1e999}"#), Err(NoObject));
        for taken in [deep(126), r#"{"a":-9223372036854775808}"#.to_owned()] {
            assert!(Attrs::parse(&taken).is_ok());
            assert_eq!(patched(&taken, r#"{"b":1}"#), format!(r#"{},"b":1}}"#, taken.strip_suffix('}').unwrap()));
        }
    }

    #[test]
    fn an_object_without_members_is_empty() {
        for (attrs, is_empty) in [("{}", true), ("\n{ \t}", true), (r#"{"":{}}"#, false), (r#"{"a":null}"#, false)] {
            assert_eq!(Attrs::parse(attrs).unwrap().is_empty(), is_empty, "{attrs:?}");
        }
        assert!(Attrs::none().is_empty());
    }
}
