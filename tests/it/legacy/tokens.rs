//! Tokens in the old dialect: under `auth = jwt`, and for shops that `legacy.require_token` names.

use std::process::Command;

use serde_json::json;

use super::address;
use crate::harness::{LegacyDevice, Login, World, eventually, unique};

const SECRET: &str = "a-secret-of-more-than-thirty-two-bytes";

struct Issuer {
    _dir: tempfile::TempDir,
    secret: String,
}

impl Issuer {
    fn new() -> Issuer {
        let dir = tempfile::TempDir::new().unwrap();
        let secret = dir.path().join("secret");
        std::fs::write(&secret, SECRET).unwrap();
        Issuer { secret: secret.to_str().unwrap().to_owned(), _dir: dir }
    }

    fn token(&self, shop: &str, device: &str, role: &str, more: &[&str]) -> String {
        let mut command = Command::new(env!("CARGO_BIN_EXE_shoprelay"));
        command.args(["token", "--shop", shop, "--device", device, "--role", role, "--jwt-secret-file", &self.secret]);
        let output = command.args(more).output().expect("the program runs");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }
}

/// Logs in with what follows the type, such as a token.
async fn log_in(world: &World, shop: &str, client: &str, rest: &str) -> LegacyDevice {
    let mut device = LegacyDevice::connect(address(world, 0)).await;
    device.say(format!(r#"{{"op":"login","shop_id":"{shop}","client_id":"{client}","type":"主"{rest}}}"#)).await;
    device
}

async fn assert_refused(mut device: LegacyDevice) {
    assert_eq!(device.refusal().await, "unauthorized");
    assert_eq!(device.close_code().await.0, 4001);
}

#[tokio::test]
async fn under_jwt_a_login_needs_a_token_for_itself() {
    let issuer = Issuer::new();
    let settings = [("LEGACY", "true"), ("AUTH", "jwt"), ("JWT_SECRET_FILE", issuer.secret.as_str())];
    let world = World::with(1, &settings).await;
    let shop = unique("shop");
    let token = issuer.token(&shop, "7", "main", &[]);
    for rest in ["", r#","token":"""#, r#","token":"x.y.z""#, r#","token":null"#] {
        assert_refused(log_in(&world, &shop, "7", rest).await).await;
    }
    let rest = format!(r#","token":"{token}""#);
    assert_refused(log_in(&world, &shop, "8", &rest).await).await;
    assert_refused(log_in(&world, "other", "7", &rest).await).await;
    let mut till = log_in(&world, &shop, "7", &rest).await;
    till.expect_nothing().await;
    // A token that does not allow it refuses the notify, and one that expires ends the connection.
    let dumb = issuer.token(&shop, "9", "main", &["--op", "list"]);
    let mut dumb = log_in(&world, &shop, "9", &format!(r#","token":"{dumb}""#)).await;
    dumb.say(r#"{"op":"notify","type":"x"}"#).await;
    dumb.refusal().await;
    let short = issuer.token(&shop, "5", "main", &["--ttl", "2s"]);
    let mut short = log_in(&world, &shop, "5", &format!(r#","token":"{short}""#)).await;
    assert_eq!(short.close_code().await.0, 4001);
}

#[tokio::test]
async fn a_shop_that_requires_tokens_asks_its_legacy_devices_and_nobody_else() {
    let issuer = Issuer::new();
    let (moved, second, other) = (unique("moved"), unique("second"), unique("other"));
    let required = format!("{moved},{second}");
    let settings =
        [("LEGACY", "true"), ("LEGACY_REQUIRE_TOKEN", required.as_str()), ("JWT_SECRET_FILE", issuer.secret.as_str())];
    let world = World::with(1, &settings).await;
    assert_refused(log_in(&world, &moved, "7", "").await).await;
    assert_refused(log_in(&world, &second, "7", "").await).await;
    let token = issuer.token(&moved, "7", "main", &[]);
    assert_refused(log_in(&world, &second, "7", &format!(r#","token":"{token}""#)).await).await;
    log_in(&world, &moved, "7", &format!(r#","token":"{token}""#)).await.expect_nothing().await;
    log_in(&world, &other, "7", "").await.expect_nothing().await;
    let mut native = Login::main(&moved, "native").on(&world.url(0)).await;
    native.expect_nothing().await;
    // The keys are read anew as those of `auth = jwt` are.
    std::fs::write(&issuer.secret, "another-secret-of-more-than-thirty-two").unwrap();
    world.nodes[0].sighup();
    eventually(crate::harness::SOON, "the older token is refused", async || {
        let mut device = log_in(&world, &moved, "7", &format!(r#","token":"{token}""#)).await;
        device.say("mark").await;
        device.text().await != "mark"
    })
    .await;
    let newer = issuer.token(&moved, "7", "main", &[]);
    log_in(&world, &moved, "7", &format!(r#","token":"{newer}""#)).await.expect_nothing().await;
    assert_eq!(json!(world.nodes[0].log_text().contains(&newer)), json!(false), "no token is logged");
}

#[tokio::test]
async fn a_star_requires_tokens_of_every_shop() {
    let issuer = Issuer::new();
    let settings = [("LEGACY", "true"), ("LEGACY_REQUIRE_TOKEN", "*"), ("JWT_SECRET_FILE", issuer.secret.as_str())];
    let world = World::with(1, &settings).await;
    assert_refused(log_in(&world, &unique("shop"), "7", "").await).await;
}

#[test]
fn check_shows_the_shops_and_the_start_stops_without_a_key() {
    let issuer = Issuer::new();
    let run = |args: &[&str], settings: &str| {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), settings).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_shoprelay"));
        command.args(args).args(["--store", "redis://127.0.0.1:1", "--config", file.path().to_str().unwrap()]);
        let output = command.output().expect("the program runs");
        let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
        (output.status.code(), text)
    };
    let legacy = "[legacy]\nenabled = true\nrequire_token = \"12,15\"\n";
    let with_key = format!("jwt_secret_file = {:?}\n{legacy}", issuer.secret);
    let (code, printed) = run(&["check"], &with_key);
    assert_eq!(code, Some(0), "{printed}");
    let line = printed.lines().find(|line| line.starts_with("legacy.require_token")).expect("the setting is shown");
    assert!(line.contains("12,15"), "{line}");
    for command in ["check", "serve"] {
        let (code, printed) = run(&[command], legacy);
        assert_eq!(code, Some(1), "{printed}");
        assert!(printed.contains("legacy.require_token is given and there is no key for tokens"), "{printed}");
        assert!(printed.contains("--jwt-secret-file"), "{printed}");
    }
    let (code, printed) = run(&["check"], &with_key.replace(&issuer.secret, "/nowhere"));
    assert_eq!(code, Some(1), "the key is opened: {printed}");
}
