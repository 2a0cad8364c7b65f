//! Secrets, recognisable and everywhere, and a node that logs all it can: none comes out again.

use std::process::Command;

use serde_json::json;
use tempfile::TempDir;

use crate::harness::token::signed;
use crate::harness::{
    Api, Device, Encoding, LegacyDevice, Login, NodeOptions, NodeProcess, SOON, eventually, unique, unix_ms,
};
use crate::redis_server::RedisServer;

const STORE_PASSWORD: &str = "hunter2-of-the-store";
const TOKEN_SECRET: &str = "hunter2-of-the-tokens-0123456789abcdef";
const API_KEY: &str = "hunter2-of-the-api";
const NO_KEY: &str = "hunter2-of-nobody";
const DATA: &str = "hunter2-of-a-message";
const META: &str = "hunter2-of-a-device";

/// Fails where a secret is in this text, as it is or as its bytes in decimal.
fn tells_nothing(of: &str, text: &str) {
    assert!(!text.contains("hunter2"), "{of}: {}", around(text, "hunter2"));
    let bytes: Vec<String> = b"hunter2-".iter().map(u8::to_string).collect();
    assert!(!text.contains(&bytes.join(", ")), "{of} has the bytes of a secret");
}

fn around<'a>(text: &'a str, found: &str) -> &'a str {
    text.lines().find(|line| line.contains(found)).unwrap_or_default()
}

struct Secretive {
    node: NodeProcess,
    options: NodeOptions,
    settings: Vec<(&'static str, String)>,
    redis: RedisServer,
    dir: TempDir,
}

async fn start() -> Secretive {
    let redis = RedisServer::start().await;
    let rule = format!(">{STORE_PASSWORD}");
    assert_eq!(redis.cli(&["ACL", "SETUSER", "relay", "on", &rule, "~*", "&*", "+@all"]), "OK");
    let dir = TempDir::new().unwrap();
    let file = |name: &str, content: String| {
        std::fs::write(dir.path().join(name), content).unwrap();
        dir.path().join(name).to_str().unwrap().to_owned()
    };
    let keys =
        format!("[[keys]]\nname = \"back\"\nkey = \"{API_KEY}\"\nshops = [\"*\"]\nscopes = [\"read\", \"write\"]\n");
    let settings = vec![
        ("AUTH", "jwt".to_owned()),
        ("JWT_SECRET_FILE", file("secret", TOKEN_SECRET.to_owned())),
        ("API_KEYS_FILE", file("keys.toml", keys)),
        ("LEGACY", "true".to_owned()),
        ("EVENTS", "true".to_owned()),
        ("LOG", "trace".to_owned()),
    ];
    let mut options = NodeOptions::new(format!("redis://relay:{STORE_PASSWORD}@127.0.0.1:{}", redis.port()));
    for (name, value) in &settings {
        options = options.set(name, value);
    }
    let node = NodeProcess::start(&options).await;
    Secretive { node, options, settings, redis, dir }
}

impl Secretive {
    /// The newest lines of the log; asked for after every few steps, so that none is missed.
    fn log_tells_nothing(&self) {
        tells_nothing("the log", &self.node.log_text());
    }
}

#[tokio::test]
async fn no_secret_comes_out_of_a_node_that_logs_all_it_can() {
    let secretive = start().await;
    let node = &secretive.node;
    secretive.log_tells_nothing();
    let tokens = devices(&secretive).await;
    secretive.log_tells_nothing();
    back_ends(&secretive).await;
    secretive.log_tells_nothing();
    old_clients(&secretive).await;
    secretive.log_tells_nothing();
    // Files that cannot be taken, and a password that is wrong from now on.
    std::fs::write(secretive.dir.path().join("keys.toml"), format!("[[keys]]\nkey = {API_KEY}")).unwrap();
    std::fs::write(secretive.dir.path().join("secret"), format!("-----BEGIN {TOKEN_SECRET}")).unwrap();
    node.sighup();
    eventually(SOON, "both files to be refused", async || node.log_text().matches("stay as they were").count() >= 2)
        .await;
    secretive.redis.cli(&["ACL", "SETUSER", "relay", "resetpass", ">another"]);
    secretive.redis.cli(&["CLIENT", "KILL", "USER", "relay"]);
    eventually(SOON, "the store to be away", async || !node.is_ready().await).await;
    secretive.log_tells_nothing();
    for path in ["/metrics", "/readyz", "/healthz"] {
        tells_nothing(path, &node.get(path).await.1);
    }
    let log = node.log_text();
    for token in tokens {
        assert!(!log.contains(&token), "the log has a token");
    }
    check_tells_nothing(&secretive);
}

/// Logins that are taken and refused; gives the tokens.
async fn devices(secretive: &Secretive) -> Vec<String> {
    let node = &secretive.node;
    let shop = unique("shop");
    let exp = unix_ms() / 1000 + 3600;
    let claims = json!({"shop": shop, "device": "till", "role": "main", "exp": exp});
    let good = signed(&claims, TOKEN_SECRET);
    let forged = signed(&claims, NO_KEY);
    let login = Login::main(&shop, "till").meta(json!({"pin": META}));
    let mut till = login.clone().token(&good).on(&node.ws_url()).await;
    till.request(json!({"op": "notify", "type": "a", "data": {"card": DATA}})).await;
    till.request(json!({"op": "attrs", "set": {"pin": META}})).await;
    till.request(json!({"op": "notify", "type": 5, "data": DATA})).await;
    for login in
        [login.clone(), login.clone().token(&forged), Login::sub(&shop, "till").token(&good), login.token("x.y.z")]
    {
        let mut stranger = Device::connect(&node.ws_url(), Encoding::Json).await;
        stranger.refused("login", login.op(), "unauthorized").await;
    }
    for frame in [
        format!("{{\"op\":\"login\",\"token\":\"{good}\""),
        json!({"op": "login", "shop": shop, "token": [good]}).to_string(),
        json!({"op": "login", "shop": format!("{{{DATA}}}"), "device": "d", "role": "main", "token": good}).to_string(),
    ] {
        let mut stranger = Device::connect(&node.ws_url(), Encoding::Json).await;
        stranger.send_raw(tokio_tungstenite::tungstenite::Message::text(frame)).await;
        assert_eq!(stranger.expect("error").await["op"], "error");
    }
    vec![good, forged]
}

async fn back_ends(secretive: &Secretive) {
    let api = Api::at(secretive.node.api_listen());
    let path = "/v1/shops/s1/messages";
    for (api, status) in [
        (api.clone(), 401),
        (api.key(NO_KEY), 401),
        (api.header("Authorization", &format!("Basic {API_KEY}")), 401),
        (api.header("Authorization", API_KEY), 401),
        (api.key(API_KEY), 404),
    ] {
        // The last of them to a device that is not there.
        let reply = api.put("/v1/shops/s1/devices/nobody/attrs", json!({"attrs": {"pin": DATA}})).await;
        assert_eq!(reply.status, status, "{}", reply.text);
        tells_nothing("an answer", &reply.text);
    }
    let wrong = api.key(API_KEY).post(path, json!({"type": 5, "data": DATA})).await;
    assert_eq!(wrong.status, 400, "{}", wrong.text);
    tells_nothing("an answer", &wrong.text);
    let forbidden = api.key(API_KEY).post("/v1/broadcast", json!({"type": "a", "data": DATA})).await;
    assert_eq!(forbidden.status, 403, "{}", forbidden.text);
    let not_there = api.key(API_KEY).get(&format!("/v1/nowhere?key={API_KEY}")).await;
    tells_nothing("an answer", &not_there.text);
}

/// The old clients give their key in the address or in a frame.
async fn old_clients(secretive: &Secretive) {
    let node = &secretive.node;
    for path in [
        format!("/api.php/index/index/messageList/shop_id/1?key={API_KEY}"),
        format!("/api.php/index/index/messageList/shop_id/1/key/{NO_KEY}"),
        format!("/api.php/index/index/nowhere?key={NO_KEY}"),
        format!("/nowhere?key={NO_KEY}"),
    ] {
        tells_nothing(&path, &node.get_public(&path).await.1);
    }
    let mut pad = LegacyDevice::connect(node.listen()).await;
    pad.say(format!("from_admin=1&op=get_connections&key={NO_KEY}")).await;
    pad.send(json!({"op": "login", "shop_id": 1, "client_id": 1, "type": "主", "token": NO_KEY})).await;
    pad.next().await;
}

/// What `check` prints of these settings, and why `serve` does not start with them.
fn check_tells_nothing(secretive: &Secretive) {
    for subcommand in ["check", "serve"] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_shoprelay"));
        command.arg(subcommand).env("SHOPRELAY_STORE", &secretive.options.store);
        for listen in ["LISTEN", "API_LISTEN", "METRICS_LISTEN"] {
            command.env(format!("SHOPRELAY_{listen}"), "127.0.0.1:0");
        }
        for (name, value) in &secretive.settings {
            command.env(format!("SHOPRELAY_{name}"), value);
        }
        let output = command.output().expect("the program can be started");
        assert!(!output.status.success(), "{subcommand}: the files cannot be taken");
        let printed = [output.stdout, output.stderr].concat();
        tells_nothing(subcommand, &String::from_utf8_lossy(&printed));
    }
}
