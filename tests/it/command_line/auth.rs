//! Keys and tokens as an operator meets them: what stops the start, what `check` finds, how a token is
//! made, and that bad keys do not replace good ones.

use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{STORE, path, refusal, settings_file, shoprelay, shown, stdout};
use crate::harness::{Device, Encoding, Login, NodeOptions, NodeProcess, SOON, eventually, unique};
use crate::redis_server::RedisServer;

const SECRET: &str = "a-secret-of-more-than-thirty-two-bytes";
const KEYS: &str =
    "[[keys]]\nname = \"back\"\nkey = \"hunter2-hunter2-hunter2\"\nshops = [\"*\"]\nscopes = [\"read\"]\n";

/// A directory with these files.
fn files(contents: &[(&str, &str)]) -> TempDir {
    let dir = TempDir::new().unwrap();
    for (name, content) in contents {
        std::fs::write(dir.path().join(name), content).unwrap();
    }
    dir
}

fn file(dir: &TempDir, name: &str) -> String {
    path(&dir.path().join(name)).to_owned()
}

#[test]
fn what_nobody_could_mean_stops_the_start_with_advice() {
    let dir = files(&[("secret", SECRET), ("empty", " \n"), ("bad.toml", &KEYS.replace("read", "admin"))]);
    let [secret, empty, missing, bad] = ["secret", "empty", "missing", "bad.toml"].map(|name| file(&dir, name));
    let cases: [(&[&str], &[&str]); 9] = [
        (&["--auth", "mtls"], &["auth is mtls", "--tls-listen", "--tls-client-ca"]),
        (&["--auth", "jwt"], &["auth is jwt", "--jwt-secret-file"]),
        (&["--jwt-secret-file", &secret], &["jwt_secret_file", "say --auth jwt"]),
        (&["--auth", "jwt", "--jwt-secret-file", &missing], &[&missing, "cannot be read"]),
        (&["--auth", "jwt", "--jwt-secret-file", &empty], &[&empty, "is empty", "openssl"]),
        (&["--auth", "jwt", "--jwt-public-key-file", &secret], &[&secret, "no Ed25519 public key"]),
        (&["--api-keys-file", &bad], &[&bad, "\"back\"", "there is no scope \"admin\"", "operate"]),
        (&["--api-listen", "0.0.0.0:0"], &["api_listen is 0.0.0.0:0", "a loopback address only", "--api-keys-file"]),
        (&["--events", "--store", "embedded:./nowhere"], &["events is on", "needs a Redis"]),
    ];
    for (args, parts) in cases {
        let listen = ["--listen", "127.0.0.1:0", "--metrics-listen", "none"];
        let line = refusal(shoprelay(&["serve"]).args(listen).args(args).env("SHOPRELAY_STORE", STORE[1]));
        for part in parts {
            assert!(line.contains(part), "{args:?}: {part} is not in {line}");
        }
        assert!(!line.contains("hunter2") && !line.contains(SECRET), "{line}");
    }
}

#[test]
fn check_opens_the_files_and_tells_no_secret() {
    let dir = files(&[
        ("secret", SECRET),
        ("pem", "-----BEGIN hunter2"),
        ("keys.toml", KEYS),
        ("bad.toml", "[[keys]]\nkey = 5\n"),
    ]);
    let jwt = ["check", "--auth", "jwt", "--listen", "0.0.0.0:8080", "--api-listen", "0.0.0.0:8081"];
    let good = settings_file(&format!(
        "api_keys_file = {:?}\njwt_secret_file = [\"a={}\"]\ncors_origins = [\"https://a\", \"https://b\"]\n",
        file(&dir, "keys.toml"),
        file(&dir, "secret"),
    ));
    let output = shoprelay(&jwt).args(STORE).args(["--config", path(good.path())]).output().unwrap();
    let printed = stdout(&output);
    assert_eq!(output.status.code(), Some(0), "{printed}");
    assert_eq!(shown(&printed, "jwt_secret_file").0, format!("a={}", file(&dir, "secret")));
    assert_eq!(shown(&printed, "cors_origins").0, "https://a,https://b");
    assert!(!printed.contains("hunter2") && !printed.contains(SECRET), "{printed}");

    let files = [format!("k1={}", file(&dir, "pem")), format!("k2={}", file(&dir, "secret"))];
    let output = shoprelay(&jwt)
        .args(STORE)
        .args([
            "--jwt-secret-file",
            &files[0],
            "--jwt-secret-file",
            &files[1],
            "--api-keys-file",
            &file(&dir, "bad.toml"),
        ])
        .output()
        .unwrap();
    let printed = stdout(&output);
    assert_eq!(output.status.code(), Some(1), "{printed}");
    assert_eq!(shown(&printed, "jwt_secret_file"), (files.join(","), "--jwt-secret-file".into()));
    for part in ["pem is a PEM file", "key number 1: name is missing", "2 problems"] {
        assert!(printed.contains(part), "{part}:\n{printed}");
    }
    assert!(!printed.contains("hunter2"), "{printed}");
}

/// Header and claims of a token.
fn opened(token: &str) -> (Value, Value) {
    let [header, claims, _] = token.trim_end().split('.').collect::<Vec<_>>()[..] else { panic!("no token: {token}") };
    let part = |part| serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap();
    (part(header), part(claims))
}

#[test]
fn token_prints_a_token_with_its_claims() {
    let dir = files(&[("secret", SECRET)]);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let secret = format!("2026={}", file(&dir, "secret"));
    let who = ["token", "--shop", "s1", "--device", "till-1", "--role", "main"];
    let output = shoprelay(&who)
        .args(["--ttl", "30m", "--group", "bar", "--group", "kitchen", "--user", "li", "--op", "notify"])
        .env("SHOPRELAY_JWT_SECRET_FILE", &secret)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let (header, mut claims) = opened(&stdout(&output));
    assert_eq!(header, json!({"typ": "JWT", "alg": "HS256", "kid": "2026"}));
    let exp = claims.as_object_mut().unwrap().remove("exp").unwrap().as_u64().unwrap();
    assert!((now + 1800..now + 1860).contains(&exp), "{exp} against {now}");
    let wanted = json!({
        "shop": "s1", "device": "till-1", "role": "main", "groups": ["bar", "kitchen"], "user": "li", "ops": ["notify"],
    });
    assert_eq!(claims, wanted);

    let output = shoprelay(&who).args(["--jwt-secret-file", &secret]).output().unwrap();
    let (_, claims) = opened(&stdout(&output));
    let mut names: Vec<&String> = claims.as_object().unwrap().keys().collect();
    names.sort();
    assert_eq!(names, ["device", "exp", "role", "shop"]);
    assert!(claims["exp"].as_u64().unwrap() >= now + 86_400);
}

#[test]
fn token_says_in_one_line_why_there_is_none() {
    let dir = files(&[("secret", SECRET), ("pem", "-----BEGIN hunter2")]);
    let [secret, pem] = ["secret", "pem"].map(|name| file(&dir, name));
    let two = format!("a={secret},b={secret}");
    let who = ["--shop", "s1", "--device", "till-1", "--role", "main"];
    let cases: [(&[&str], &[&str], &str); 9] = [
        (&["--shop", "s1", "--device", "d"], &["--jwt-secret-file", &secret], "say --role"),
        (&["--shop", "s{1}", "--device", "d", "--role", "sub"], &["--jwt-secret-file", &secret], "--shop"),
        (&["--shop", "s1", "--device", "d", "--role", "boss"], &["--jwt-secret-file", &secret], "main or sub"),
        (&who, &["--jwt-secret-file", &secret, "--ttl", "soon"], "--ttl"),
        (&who, &["--jwt-secret-file", &secret, "--group", ""], "--group"),
        (&who, &[], "--jwt-secret-file"),
        (&who, &["--jwt-secret-file", &pem], "is a PEM file"),
        (&who, &["--jwt-secret-file", &two], "--kid, out of a, b"),
        (&who, &["--jwt-secret-file", &two, "--kid", "c"], "no secret has the kid \"c\""),
    ];
    for (who, args, wanted) in cases {
        let line = refusal(shoprelay(&["token"]).args(who).args(args));
        assert!(line.contains(wanted) && !line.contains("hunter2"), "{wanted} is not in {line}");
    }
}

#[tokio::test]
async fn a_hangup_reads_the_keys_anew_and_bad_ones_do_not_replace_good_ones() {
    let dir = files(&[("secret", SECRET), ("keys.toml", KEYS)]);
    let options = NodeOptions::new(RedisServer::shared().url())
        .set("AUTH", "jwt")
        .set("JWT_SECRET_FILE", &file(&dir, "secret"))
        .set("API_KEYS_FILE", &file(&dir, "keys.toml"));
    let node = NodeProcess::start(&options).await;
    let logs = async |part: &str| eventually(SOON, part, async || node.log_text().contains(part)).await;
    node.sighup();
    logs("the API's keys were read anew").await;
    logs("the keys for device tokens were read anew").await;
    let keys: PathBuf = dir.path().join("keys.toml");
    std::fs::write(&keys, KEYS.replace("scopes", "scope")).unwrap();
    std::fs::write(dir.path().join("secret"), "-----BEGIN hunter2").unwrap();
    node.sighup();
    logs("the API's keys stay as they were").await;
    logs("the keys for device tokens stay as they were").await;
    assert!(node.log_text().contains("there is no field"), "{}", node.log_text());
    assert!(!node.log_text().contains("hunter2") && node.is_ready().await);
}

#[tokio::test]
async fn a_key_is_rotated_without_closing_anybody_and_the_old_one_opens_nothing_more() {
    let dir = files(&[("old", SECRET), ("new", "another-secret-of-more-than-thirty-two-bytes")]);
    let keys = format!("2025={},2026={}", file(&dir, "old"), file(&dir, "new"));
    let options = NodeOptions::new(RedisServer::shared().url()).set("AUTH", "jwt").set("JWT_SECRET_FILE", &keys);
    let node = NodeProcess::start(&options).await;
    let shop = unique("shop");
    let login = |device: &str, kid: &str| {
        let who = ["token", "--shop", &shop, "--device", device, "--role", "sub", "--kid", kid];
        let token = stdout(&shoprelay(&who).args(["--jwt-secret-file", &keys]).output().unwrap());
        Login::sub(&shop, device).token(token.trim())
    };
    let (old, new) = (login("a", "2025"), login("b", "2026"));
    let mut first = old.clone().on(&node.ws_url()).await;
    let mut second = new.clone().on(&node.ws_url()).await;
    // The old key goes: what stands in its file from now on signed no token.
    std::fs::write(dir.path().join("old"), "nobody-has-this-secret-of-more-than-32-bytes").unwrap();
    node.sighup();
    let reread = "the keys for device tokens were read anew";
    eventually(SOON, reread, async || node.log_text().contains(reread)).await;
    for device in [&mut first, &mut second] {
        assert_eq!(device.request(json!({"op": "ping"})).await["op"], "pong", "it stays logged in");
    }
    let mut stranger = Device::connect(&node.ws_url(), Encoding::Json).await;
    stranger.refused("login", old.op(), "unauthorized").await;
    assert_eq!(stranger.close_code().await.0, 4001);
    let again = new.on(&node.ws_url()).await;
    assert_eq!(again.welcome["device"], "b");
    assert_eq!(second.close_code().await.0, 4000, "the newer connection replaces it");
}
