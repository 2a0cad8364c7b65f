//! Device tokens, made by hand, and nodes that want them.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{Login, World, unix_ms};

pub const SECRET: &str = "a-secret-of-more-than-thirty-two-bytes";

/// Two nodes that want tokens, and the secret they are signed with.
pub async fn world() -> (World, TempDir) {
    world_with(&[]).await
}

/// The same with these settings.
pub async fn world_with(settings: &[(&str, &str)]) -> (World, TempDir) {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("secret");
    std::fs::write(&path, format!(" {SECRET}\n")).unwrap();
    let wanted = [("AUTH", "jwt"), ("JWT_SECRET_FILE", path.to_str().unwrap())];
    let world = World::with(2, &[&wanted[..], settings].concat()).await;
    (world, dir)
}

/// A token by hand (RFC 7515), signed with this secret.
pub fn signed(claims: &Value, secret: &str) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let text = format!("{}.{}", part(&json!({"alg": "HS256", "typ": "JWT"})), part(claims));
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()), text.as_bytes());
    format!("{text}.{}", URL_SAFE_NO_PAD.encode(tag))
}

/// The login with a token of its own identity, an hour to live, and these claims beside or instead.
pub fn with_token(login: Login, more: Value) -> Login {
    let mut claims = json!({
        "shop": login.shop, "device": login.device, "role": login.role, "exp": unix_ms() / 1000 + 3600,
    });
    for (name, value) in more.as_object().expect("claims") {
        claims[name] = value.clone();
    }
    login.token(&signed(&claims, SECRET))
}
