//! What must hold of any token, any claims and any keys file; see [`crate::properties`].

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a property that does not hold panics"
)]

use std::path::Path;
use std::sync::{Arc, OnceLock};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use serde_json::Value;

use super::keys::ApiKeys;
use super::token::{DeviceAuth, Refusal};
use crate::config::{Auth, Config, KeyFile, Layers, TokenKeyFiles};
use crate::message::Role;
use crate::session::Grant;

const NOW_S: u64 = 1_800_000_000;
const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";
/// Whose private key nobody has kept.
const PUBLIC_KEY: &str = "-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=
-----END PUBLIC KEY-----
";

/// No text is a token unless its maker has a key.
pub fn token(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let refusal = login(&text).expect_err("nobody signed it");
    assert!(refusal.to_string().len() <= 256, "{refusal}");
}

/// Claims that are well signed let in whom they name and nobody else, and not before or after their time.
pub fn claims(bytes: &[u8]) {
    let outcome = login(&signed(bytes));
    let Ok(grant) = outcome else { return };
    let claims: Value = serde_json::from_slice(bytes).expect("claims");
    for (claim, wanted) in [("shop", "s1"), ("device", "till-1"), ("role", "main")] {
        assert_eq!(claims[claim], wanted);
    }
    let ends = claims["exp"].as_f64().unwrap();
    assert!(ends > NOW_S as f64 && grant.expires_at_s.is_some_and(|at| at > NOW_S && at as f64 <= ends));
    assert!(claims["nbf"].is_null() || claims["nbf"].as_f64().unwrap() <= NOW_S as f64);
    let is_named = |claim: &str, name: &str| claims[claim].as_array().unwrap().iter().any(|named| named == name);
    assert!(grant.groups.iter().flatten().all(|group| is_named("groups", group.as_str())));
    assert!(grant.user.is_none_or(|user| claims["user"] == user.as_str()));
    assert_eq!(grant.ops.is_some(), claims["ops"].is_array());
}

/// A keys file is refused without repeating a key, or its keys are found by themselves and by nothing else.
pub fn api_keys(bytes: &[u8]) {
    let table = std::str::from_utf8(bytes).ok().and_then(|text| text.parse::<toml::Table>().ok());
    let entries = table.as_ref().and_then(|table| table.get("keys")).and_then(toml::Value::as_array);
    let given: Vec<&str> = entries.into_iter().flatten().filter_map(|entry| entry.get("key")?.as_str()).collect();
    match ApiKeys::of_bytes(Path::new("keys.toml"), bytes.to_vec()) {
        Ok(keys) => {
            assert!(!keys.is_empty() && given.iter().all(|key| keys.find(key).is_some()));
            assert!(keys.find("").is_none() && keys.find("nobody-has-this-key").is_none());
        }
        Err(error) => {
            let (shown, text) = (error.to_string(), String::from_utf8_lossy(bytes));
            // What stands elsewhere too, as a name does, may be shown.
            let is_secret = |key: &&&str| key.len() >= KEY_CHARS && text.matches(**key).count() == 1;
            let leaked = given.iter().find(|key| is_secret(key) && shown.contains(**key));
            assert!(leaked.is_none(), "{shown}");
            assert!(shown.len() <= 1024, "{} bytes", shown.len());
        }
    }
}

/// Shorter keys are part of any text.
const KEY_CHARS: usize = 12;

/// A token with these claims, well signed.
pub fn signed(claims: &[u8]) -> String {
    let header = URL_SAFE_NO_PAD.encode(br#"{"alg":"HS256","kid":"a"}"#);
    let text = format!("{header}.{}", URL_SAFE_NO_PAD.encode(claims));
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, SECRET), text.as_bytes());
    format!("{text}.{}", URL_SAFE_NO_PAD.encode(tag))
}

fn login(token: &str) -> Result<Grant, Refusal> {
    let (shop, device) = ("s1".parse().unwrap(), "till-1".parse().unwrap());
    door().check(Some(token), &shop, &device, Role::Main, NOW_S)
}

/// The door with one key of each kind.
fn door() -> &'static DeviceAuth {
    static DOOR: OnceLock<Arc<DeviceAuth>> = OnceLock::new();
    DOOR.get_or_init(|| {
        let dir = tempfile::tempdir().expect("a directory");
        let file = |kid: &str, content: &[u8]| {
            let path = dir.path().join(kid);
            std::fs::write(&path, content).expect("a file");
            KeyFile { kid: Some(kid.to_owned()), path }
        };
        let (secrets, public_keys) = (vec![file("a", SECRET)], vec![file("b", PUBLIC_KEY.as_bytes())]);
        let config = Layers::read([], []).check().expect("the defaults");
        let config = Config { auth: Auth::Jwt(TokenKeyFiles { secrets, public_keys }), ..config };
        Arc::new(DeviceAuth::open(&config).expect("the keys"))
    })
}
