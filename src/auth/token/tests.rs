//! Tokens that are good, and every way in which one is not.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::hmac;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use serde_json::{Value, json};

use super::*;
use crate::auth::issue::{IssueError, NewToken, issue};

const NOW: u64 = 1_800_000_000;
const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";

/// Keys in files, under the names by which tests know them.
struct Keys {
    dir: tempfile::TempDir,
    files: TokenKeyFiles,
}

impl Keys {
    fn new() -> Keys {
        let files = TokenKeyFiles { secrets: Vec::new(), public_keys: Vec::new() };
        Keys { dir: tempfile::tempdir().unwrap(), files }
    }

    fn file(&self, kid: Option<&str>, content: &[u8]) -> KeyFile {
        let number = std::fs::read_dir(self.dir.path()).unwrap().count();
        let path = self.dir.path().join(number.to_string());
        std::fs::write(&path, content).unwrap();
        KeyFile { kid: kid.map(str::to_owned), path }
    }

    fn secret(mut self, kid: Option<&str>, secret: &[u8]) -> Keys {
        let file = self.file(kid, secret);
        self.files.secrets.push(file);
        self
    }

    fn public(mut self, kid: Option<&str>, pair: &Ed25519KeyPair) -> Keys {
        let file = self.file(kid, pem(&ED25519_PREFIX, pair).as_bytes());
        self.files.public_keys.push(file);
        self
    }

    fn door(&self) -> DeviceAuth {
        let keys = RwLock::new(Arc::new(TokenKeys::read(&self.files).unwrap()));
        DeviceAuth::Jwt(JwtAuth { files: self.files.clone(), keys })
    }
}

fn pem(prefix: &[u8], pair: &Ed25519KeyPair) -> String {
    let info = STANDARD.encode([prefix, pair.public_key().as_ref()].concat());
    format!("-----BEGIN PUBLIC KEY-----\n{info}\n-----END PUBLIC KEY-----\n")
}

fn pair(seed: u8) -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap()
}

fn claims() -> Value {
    json!({"shop": "s1", "device": "till-1", "role": "main", "exp": NOW + 60})
}

/// The usual claims with these in their place; null takes one away.
fn claims_with(change: Value) -> Value {
    let mut claims = claims();
    for (claim, value) in change.as_object().unwrap() {
        match value {
            Value::Null => claims.as_object_mut().unwrap().remove(claim),
            value => claims.as_object_mut().unwrap().insert(claim.clone(), value.clone()),
        };
    }
    claims
}

/// A token, put together without the library.
fn token(header: Value, claims: &Value, sign: impl Fn(&[u8]) -> Vec<u8>) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", part(&header), part(claims));
    let signature = URL_SAFE_NO_PAD.encode(sign(signed.as_bytes()));
    format!("{signed}.{signature}")
}

fn hs256(secret: &[u8]) -> impl Fn(&[u8]) -> Vec<u8> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    move |message| hmac::sign(&key, message).as_ref().to_vec()
}

fn ed25519(seed: u8) -> impl Fn(&[u8]) -> Vec<u8> {
    move |message| pair(seed).sign(message).as_ref().to_vec()
}

fn login(door: &DeviceAuth, token: &str) -> Result<Grant, Refusal> {
    door.check(Some(token), &"s1".parse().unwrap(), &"till-1".parse().unwrap(), Role::Main, NOW)
}

/// A login with these claims, well signed.
fn login_with(change: Value) -> Result<Grant, Refusal> {
    let door = Keys::new().secret(None, SECRET).door();
    login(&door, &token(json!({"alg": "HS256", "typ": "JWT"}), &claims_with(change), hs256(SECRET)))
}

#[test]
fn a_good_token_of_either_kind_lets_its_device_in() {
    let door = Keys::new().secret(Some("a"), SECRET).public(Some("b"), &pair(7)).door();
    let wanted = Grant { expires_at_s: Some(NOW + 60), ..Grant::default() };
    let by_secret = token(json!({"alg": "HS256", "kid": "a"}), &claims(), hs256(SECRET));
    assert_eq!(login(&door, &by_secret), Ok(wanted.clone()));
    let by_pair = token(json!({"alg": "EdDSA", "kid": "b"}), &claims(), ed25519(7));
    assert_eq!(login(&door, &by_pair), Ok(wanted));
}

#[test]
fn what_a_token_grants_is_what_it_says() {
    let grant = login_with(json!({
        "nbf": NOW, "groups": ["bar", "kitchen", "bar"], "user": "li", "ops": ["notify", "later"], "aud": "x", "iat": 0,
    }))
    .unwrap();
    let groups: Vec<&str> = grant.groups.iter().flatten().map(|group| group.as_str()).collect();
    assert_eq!(groups, ["bar", "kitchen"]);
    assert_eq!(grant.user, Some("li".parse().unwrap()));
    for op in ["login", "ack", "ping", "logout", "notify"] {
        assert!(grant.allows(op), "{op}");
    }
    assert!(!grant.allows("deal"));
    assert!(Grant::default().allows("deal"));
    assert_eq!(login_with(json!({"groups": []})).unwrap().groups, Some(Vec::new()));
    assert!(!login_with(json!({"ops": []})).unwrap().allows("notify"));
}

#[test]
fn a_token_is_good_from_nbf_until_exp_to_the_second() {
    assert!(login_with(json!({"exp": NOW + 1})).is_ok());
    assert!(login_with(json!({"exp": NOW as f64 + 1.5})).is_ok());
    assert_eq!(login_with(json!({"exp": NOW})), Err(Refusal::Expired { ago_s: 0 }));
    assert_eq!(login_with(json!({"exp": NOW as f64 + 0.9})), Err(Refusal::Expired { ago_s: 0 }));
    assert_eq!(login_with(json!({"exp": NOW - 1})), Err(Refusal::Expired { ago_s: 1 }));
    assert!(login_with(json!({"nbf": NOW})).is_ok());
    assert_eq!(login_with(json!({"nbf": NOW + 1})), Err(Refusal::NotYetValid { in_s: 1 }));
    assert_eq!(login_with(json!({"nbf": NOW as f64 + 0.1})), Err(Refusal::NotYetValid { in_s: 1 }));
}

#[test]
fn claims_that_are_missing_or_of_another_form_are_named() {
    for claim in ["exp", "shop", "device", "role"] {
        assert_eq!(login_with(json!({claim: null})), Err(Refusal::Absent { claim }));
    }
    let cases = [
        (json!({"exp": "soon"}), "exp is not a number of seconds"),
        (json!({"exp": -1}), "exp is not a number of seconds"),
        (json!({"nbf": true}), "nbf is not a number of seconds"),
        (json!({"shop": 1}), "shop is not a text"),
        (json!({"role": "boss"}), "role is not main or sub"),
        (json!({"groups": "bar"}), "groups is not a list of texts"),
        (json!({"groups": [1]}), "groups is not a list of texts"),
        (json!({"groups": ["bar", "b{a}r"]}), "a name in the token's groups contains a control character or a brace"),
        (json!({"groups": [""]}), "a name in the token's groups is empty"),
        (json!({"user": "u".repeat(65)}), "a name in the token's user has 65 bytes"),
        (json!({"ops": [1]}), "ops is not a list of texts"),
    ];
    for (change, wanted) in cases {
        let refusal = login_with(change).unwrap_err().to_string();
        assert!(refusal.contains(wanted), "{wanted}: {refusal}");
    }
}

#[test]
fn a_token_is_for_one_identity_only() {
    for (claim, other) in [("shop", "s2"), ("device", "till-2"), ("role", "sub")] {
        assert_eq!(login_with(json!({claim: other})), Err(Refusal::Other { claim }));
    }
}

#[test]
fn a_token_without_a_signature_of_a_known_key_is_refused() {
    let door = Keys::new().secret(None, SECRET).door();
    let none = token(json!({"alg": "none"}), &claims(), |_| Vec::new());
    assert_eq!(login(&door, &none), Err(Refusal::Malformed));
    let stripped = token(json!({"alg": "HS256"}), &claims(), |_| Vec::new());
    assert_eq!(login(&door, &stripped), Err(Refusal::Signature));
    let foreign = token(json!({"alg": "HS256"}), &claims(), hs256(b"another secret of thirty-two byte"));
    assert_eq!(login(&door, &foreign), Err(Refusal::Signature));
    let stronger = token(json!({"alg": "HS512"}), &claims(), hs256(SECRET));
    assert_eq!(login(&door, &stronger), Err(Refusal::Signature));
    // Its claims were changed after it was signed.
    let good = token(json!({"alg": "HS256"}), &claims(), hs256(SECRET));
    let forged = token(json!({"alg": "HS256"}), &claims_with(json!({"role": "sub"})), |_| Vec::new());
    let (_, signature) = good.rsplit_once('.').unwrap();
    assert_eq!(login(&door, &format!("{forged}{signature}")), Err(Refusal::Signature));
    let critical = token(json!({"alg": "HS256", "crit": ["x"], "x": 1}), &claims(), hs256(SECRET));
    assert_eq!(login(&door, &critical), Err(Refusal::Malformed));
    for nonsense in ["x", "a.b", "a.b.c", "....", "é.é.é"] {
        assert_eq!(login(&door, nonsense), Err(Refusal::Malformed), "{nonsense}");
    }
}

#[test]
fn a_public_key_is_never_taken_for_a_secret() {
    let keys = Keys::new().public(None, &pair(7));
    let door = keys.door();
    let text = pem(&ED25519_PREFIX, &pair(7));
    let forms = [text.as_bytes(), text.trim().as_bytes(), pair(7).public_key().as_ref()].map(<[u8]>::to_vec);
    for form in forms {
        let confused = token(json!({"alg": "HS256"}), &claims(), hs256(&form));
        assert_eq!(login(&door, &confused), Err(Refusal::Signature));
    }
    let other = token(json!({"alg": "EdDSA"}), &claims(), ed25519(8));
    assert_eq!(login(&door, &other), Err(Refusal::Signature));
    let as_secret = TokenKeys::read(&Keys::new().secret(None, text.as_bytes()).files).unwrap_err();
    assert!(matches!(as_secret, TokenKeyError::PemSecret { .. }), "{as_secret}");
}

#[test]
fn the_kid_of_a_key_of_another_algorithm_opens_nothing() {
    let door = Keys::new().secret(Some("a"), SECRET).public(Some("b"), &pair(7)).door();
    let text = pem(&ED25519_PREFIX, &pair(7));
    let signed = |alg: &str, kid: &str, sign: &dyn Fn(&[u8]) -> Vec<u8>| {
        login(&door, &token(json!({"alg": alg, "kid": kid}), &claims(), sign))
    };
    assert_eq!(signed("HS256", "b", &hs256(SECRET)), Err(Refusal::Signature));
    assert_eq!(signed("HS256", "b", &hs256(text.as_bytes())), Err(Refusal::Signature));
    assert_eq!(signed("HS256", "b", &hs256(pair(7).public_key().as_ref())), Err(Refusal::Signature));
    assert_eq!(signed("EdDSA", "a", &ed25519(7)), Err(Refusal::Signature));
    // The algorithm is the key's, whatever the token says.
    assert_eq!(signed("EdDSA", "a", &hs256(SECRET)), Err(Refusal::Signature));
    assert_eq!(signed("HS256", "b", &ed25519(7)), Err(Refusal::Signature));
    assert!(signed("HS256", "a", &hs256(SECRET)).is_ok() && signed("EdDSA", "b", &ed25519(7)).is_ok());
}

#[test]
fn a_kid_picks_the_key_and_only_with_one_key_it_may_be_left_out() {
    let other: &[u8] = b"fedcba9876543210fedcba9876543210";
    let third: &[u8] = &b"0".repeat(32);
    let signed = |kid: Option<&str>, secret| {
        let header = kid.map_or(json!({"alg": "HS256"}), |kid| json!({"alg": "HS256", "kid": kid}));
        token(header, &claims(), hs256(secret))
    };
    let several = Keys::new().secret(Some("a"), SECRET).secret(None, other).secret(None, third).door();
    assert!(login(&several, &signed(Some("a"), SECRET)).is_ok());
    assert!(login(&several, &signed(None, other)).is_ok());
    assert!(login(&several, &signed(None, third)).is_ok());
    assert_eq!(login(&several, &signed(None, SECRET)), Err(Refusal::Signature));
    assert_eq!(login(&several, &signed(Some("a"), other)), Err(Refusal::Signature));
    assert_eq!(login(&several, &signed(Some("b"), other)), Err(Refusal::UnknownKey));
    let named = Keys::new().secret(Some("a"), SECRET).door();
    assert!(login(&named, &signed(None, SECRET)).is_ok());
    assert_eq!(login(&named, &signed(Some("b"), SECRET)), Err(Refusal::UnknownKey));
    let nameless = Keys::new().secret(None, SECRET).door();
    assert!(login(&nameless, &signed(Some("b"), SECRET)).is_ok());
    let all_named = Keys::new().secret(Some("a"), SECRET).secret(Some("b"), other).door();
    assert_eq!(login(&all_named, &signed(None, SECRET)), Err(Refusal::UnknownKey));
}

#[test]
fn a_token_is_needed_and_an_oversized_one_is_not_looked_at() {
    let door = Keys::new().secret(None, SECRET).door();
    let without = |token| door.check(token, &"s1".parse().unwrap(), &"d".parse().unwrap(), Role::Sub, NOW);
    assert_eq!(without(None), Err(Refusal::Missing));
    assert_eq!(without(Some("")), Err(Refusal::Missing));
    let groups: Vec<String> = (0..1000).map(|number| format!("group-{number}")).collect();
    let large = token(json!({"alg": "HS256"}), &claims_with(json!({"groups": groups})), hs256(SECRET));
    assert_eq!(login(&door, &large), Err(Refusal::TooLarge { size: large.len() }));
    assert_eq!(login(&DeviceAuth::None, &large), Ok(Grant::default()));
}

#[test]
fn white_space_around_a_secret_is_cut_and_what_is_no_key_is_refused() {
    let door = Keys::new().secret(None, &[b" \n", SECRET, b"\r\n"].concat()).door();
    assert!(login(&door, &token(json!({"alg": "HS256"}), &claims(), hs256(SECRET))).is_ok());
    let refused = |keys: Keys| TokenKeys::read(&keys.files).unwrap_err();
    let empty = refused(Keys::new().secret(None, b" \n "));
    assert!(matches!(empty, TokenKeyError::Empty { .. }), "{empty}");
    let short = Keys::new().secret(None, b" short ").door();
    assert!(login(&short, &token(json!({"alg": "HS256"}), &claims(), hs256(b"short"))).is_ok());
    let mut keys = Keys::new();
    for content in [
        "",
        "no PEM",
        &pem(b"another prefix", &pair(7)),
        "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----",
    ] {
        keys.files.public_keys = vec![keys.file(None, content.as_bytes())];
        let error = TokenKeys::read(&keys.files).unwrap_err();
        assert!(matches!(error, TokenKeyError::PublicKey { .. }), "{error}");
    }
    keys.files.public_keys = vec![KeyFile { kid: None, path: "/no/key.pem".into() }];
    assert!(matches!(TokenKeys::read(&keys.files), Err(TokenKeyError::Unreadable { .. })));
}

#[test]
fn a_bad_file_leaves_the_old_keys_in_force_and_a_good_one_replaces_them() {
    let keys = Keys::new().secret(None, SECRET);
    let door = keys.door();
    let path = &keys.files.secrets[0].path;
    let old = token(json!({"alg": "HS256"}), &claims(), hs256(SECRET));
    std::fs::write(path, "\n").unwrap();
    assert!(door.reload().is_err());
    assert!(login(&door, &old).is_ok());
    std::fs::write(path, b"1".repeat(32)).unwrap();
    assert_eq!(door.reload().unwrap(), Some(1));
    assert_eq!(login(&door, &old), Err(Refusal::Signature));
    assert_eq!(DeviceAuth::None.reload().unwrap(), None);
}

#[test]
fn no_form_of_a_key_shows_it() {
    let shown = format!("{:?}", Keys::new().secret(None, SECRET).door());
    let bytes: Vec<String> = SECRET.iter().map(u8::to_string).collect();
    assert!(!shown.contains("0123456789abcdef") && !shown.contains(&bytes.join(", ")), "{shown}");
}

#[test]
fn a_token_that_was_issued_lets_its_device_in() {
    let keys = Keys::new().secret(Some("a"), SECRET).secret(None, b"1".repeat(32).as_slice());
    let door = keys.door();
    let new = NewToken {
        shop: "s1".parse().unwrap(),
        device: "till-1".parse().unwrap(),
        role: Role::Main,
        expires_at_s: NOW + 5,
        groups: Some(vec!["bar".parse().unwrap()]),
        user: None,
        ops: None,
    };
    for kid in [None, Some("a")] {
        let grant = login(&door, &issue(&keys.files.secrets, kid, &new).unwrap()).unwrap();
        assert_eq!(grant.expires_at_s, Some(NOW + 5));
        assert_eq!(grant.groups, new.groups);
        assert_eq!((grant.user, grant.ops), (None, None));
    }
    assert!(matches!(issue(&keys.files.secrets, Some("b"), &new), Err(IssueError::UnknownKid { .. })));
    assert!(matches!(issue(&[], None, &new), Err(IssueError::NoSecret)));
    let two = Keys::new().secret(Some("a"), SECRET).secret(Some("b"), SECRET);
    let unsaid = issue(&two.files.secrets, None, &new).unwrap_err();
    assert!(unsaid.to_string().contains("a, b"), "{unsaid}");
    let groups = (0..900).map(|number| format!("group-{number}").parse().unwrap()).collect();
    let large = issue(&two.files.secrets, Some("a"), &NewToken { groups: Some(groups), ..new });
    assert!(matches!(large, Err(IssueError::TooLarge { .. })));
}
