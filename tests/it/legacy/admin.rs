//! What operators say on a legacy connection: read as a query, behind a key, and echoed first.

use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::{address, login_text};
use crate::harness::legacy::assert_answer;
use crate::harness::{Api, LegacyDevice, SOON, World, eventually, unique};

const OPERATOR: &str = "operator-operator-operator";
const KEYS: &str = r#"
[[keys]]
name = "operator"
key = "operator-operator-operator"
shops = ["*"]
scopes = ["operate"]

[[keys]]
name = "reader"
key = "reader-reader-reader"
shops = ["*"]
scopes = ["read", "write"]

[[keys]]
name = "one"
key = "one-one-one-one-one"
shops = ["one"]
scopes = ["read", "write", "operate"]
"#;

/// A directory with the keys, and nodes that serve legacy devices with them.
async fn keyed(count: usize) -> (TempDir, World) {
    let dir = TempDir::new().unwrap();
    let keys = dir.path().join("keys.toml");
    std::fs::write(&keys, KEYS).unwrap();
    let settings = [("LEGACY", "true"), ("API_KEYS_FILE", keys.to_str().unwrap()), ("LOG", "debug")];
    let world = World::with(count, &settings).await;
    (dir, world)
}

/// Says an operator's word, which is echoed.
async fn say(device: &mut LegacyDevice, word: &str) {
    device.say(word).await;
    assert_eq!(device.text().await, word, "it is echoed first");
}

async fn connections(device: &mut LegacyDevice) -> Vec<String> {
    say(device, &format!("from_admin=1&op=get_connections&key={OPERATOR}")).await;
    serde_json::from_str(&device.text().await).expect("a list of texts and nothing else")
}

/// The `conn` of a device, as the API tells it.
async fn conn_of(world: &World, shop: &str, device: &str) -> String {
    let api = Api::at(world.nodes[0].api_listen()).key("reader-reader-reader");
    crate::harness::eventually_get(SOON, "it is online", async || {
        let online = api.get(&format!("/v1/shops/{shop}/online")).await;
        let found = online.items().iter().find(|it| it["device"] == device)?;
        Some(found["conn"].as_str()?.to_owned())
    })
    .await
}

#[tokio::test]
async fn the_connections_of_the_deployment_are_listed_and_gone_ones_vanish() {
    let (_keys, world) = keyed(2).await;
    let shop = unique("shop");
    let mut operator = LegacyDevice::connect(address(&world, 0)).await;
    assert_eq!(connections(&mut operator).await.len(), 1, "itself, not logged in");
    let mut till = LegacyDevice::log_in(address(&world, 1), json!(shop), json!("till"), "主").await;
    till.expect_nothing().await;
    let mut stranger = LegacyDevice::connect(address(&world, 1)).await;
    stranger.expect_nothing().await;
    let _native = crate::harness::Login::main(&shop, "native").on(&world.url(1)).await;
    let conn = conn_of(&world, &shop, "till").await;
    eventually(SOON, "the three are listed", async || {
        let listed = connections(&mut operator).await;
        listed.len() == 3 && listed.contains(&conn)
    })
    .await;
    till.say(r#"{"op":"logout"}"#).await;
    assert_eq!(till.close_code().await.0, 1000);
    drop(stranger);
    eventually(SOON, "only the operator is left", async || connections(&mut operator).await.len() == 1).await;
}

#[tokio::test]
async fn the_connections_of_a_killed_node_vanish_in_time() {
    let (_keys, world) = keyed(2).await;
    let mut operator = LegacyDevice::connect(address(&world, 0)).await;
    let _stranger = LegacyDevice::connect(address(&world, 1)).await;
    eventually(SOON, "both are listed", async || connections(&mut operator).await.len() == 2).await;
    world.nodes[1].sigkill();
    let within = Duration::from_secs(15);
    eventually(within, "the dead node's is gone", async || connections(&mut operator).await.len() == 1).await;
}

#[tokio::test]
async fn a_text_is_sent_to_connections_on_every_node_as_it_is() {
    let (_keys, world) = keyed(2).await;
    let shop = unique("shop");
    let mut operator = LegacyDevice::connect(address(&world, 0)).await;
    let mut devices = Vec::new();
    let mut conns = Vec::new();
    for n in 0..4 {
        let name = format!("device-{n}");
        let mut device = LegacyDevice::log_in(address(&world, n), json!(shop), json!(name), "副").await;
        device.expect_nothing().await;
        conns.push(conn_of(&world, &shop, &name).await);
        devices.push(device);
    }
    let native = crate::harness::Login::sub(&shop, "native").on(&world.url(0)).await;
    let native_conn = native.welcome["conn"].as_str().unwrap().to_owned();
    let to = [conns[0].as_str(), "gone.1", " ", conns[1].as_str(), &native_conn].join(",");
    let word = format!(
        "key={OPERATOR}&from_admin=1&op=send_messages&to_fds={to}&content=%7B%22op%22%3A%22%E4%BD%A0%E5%A5%BD%22%7D+%26+x"
    );
    say(&mut operator, &word).await;
    let answer: Value = serde_json::from_str(&operator.text().await).unwrap();
    assert_answer(&answer);
    assert_eq!(answer["code"], 0);
    for (n, device) in devices.iter_mut().enumerate() {
        if n < 2 {
            assert_eq!(device.text().await, r#"{"op":"你好"} & x"#);
        }
        device.expect_nothing().await;
    }
    // A connection that is not logged in may be sent something too.
    let own = connections(&mut operator).await.into_iter().find(|conn| !conns.contains(conn)).expect("its own");
    let word = format!("from_admin=1&op=send_messages&content=hello&to_fds={own}&key={OPERATOR}");
    say(&mut operator, &word).await;
    let mut told = [operator.text().await, operator.text().await];
    told.sort();
    assert!(told.contains(&"hello".to_owned()), "{told:?}");
}

#[tokio::test]
async fn without_a_key_that_may_nothing_is_done_and_the_connection_stays() {
    let (_keys, world) = keyed(1).await;
    let shop = unique("shop");
    let mut stranger = LegacyDevice::connect(address(&world, 0)).await;
    let mut till = LegacyDevice::log_in(address(&world, 0), json!(shop), json!("till"), "主").await;
    till.expect_nothing().await;
    let conn = conn_of(&world, &shop, "till").await;
    for device in [&mut stranger, &mut till] {
        for key in
            ["", "&key=", "&key=wrong-wrong-wrong-wrong", "&key=reader-reader-reader", "&key=one-one-one-one-one"]
        {
            for op in ["get_connections", &format!("send_messages&content=x&to_fds={conn}"), "reload", "nothing"] {
                say(device, &format!("from_admin=1&op={op}{key}")).await;
                assert_eq!(device.refusal().await, "unauthorized", "{op} with {key:?}");
            }
        }
        device.expect_nothing().await;
    }
    // With the key, an op that there is not is told to be none.
    say(&mut stranger, &format!("from_admin&key={OPERATOR}")).await;
    assert_ne!(stranger.refusal().await, "unauthorized");
    stranger.say(login_text(&shop, "hand", "副")).await;
    stranger.say(r#"{"op":"notify","type":"加菜"}"#).await;
    assert_eq!(till.json().await["type"], "加菜", "it may log in all the same");
}

#[tokio::test]
async fn without_a_keys_file_nobody_is_an_operator() {
    let world = super::world(1).await;
    let mut device = LegacyDevice::connect(address(&world, 0)).await;
    for op in ["get_connections", "reload"] {
        say(&mut device, &format!("from_admin=1&op={op}&key={OPERATOR}")).await;
        assert_eq!(device.refusal().await, "unauthorized");
    }
    device.expect_nothing().await;
}

#[tokio::test]
async fn reload_reads_the_keys_anew_and_no_key_is_ever_logged() {
    let (dir, world) = keyed(1).await;
    let mut operator = LegacyDevice::connect(address(&world, 0)).await;
    let newer = "newer-newer-newer-newer";
    std::fs::write(dir.path().join("keys.toml"), KEYS.replace(OPERATOR, newer)).unwrap();
    say(&mut operator, &format!("from_admin=1&op=reload&key={newer}")).await;
    assert_eq!(operator.refusal().await, "unauthorized", "it is not read yet");
    say(&mut operator, &format!("from_admin=1&op=reload&key={OPERATOR}")).await;
    let answer: Value = serde_json::from_str(&operator.text().await).unwrap();
    assert_answer(&answer);
    assert_eq!(answer["code"], 0);
    say(&mut operator, &format!("from_admin=1&op=reload&key={OPERATOR}")).await;
    assert_eq!(operator.refusal().await, "unauthorized", "the older key is not in force any more");
    say(&mut operator, &format!("from_admin=1&op=get_connections&key={newer}")).await;
    operator.text().await;
    let path = "/api.php/index/index/check_online_main/shop_id/1";
    for key in [newer, OPERATOR] {
        Api::at(address(&world, 0)).get(&format!("{path}/key/{key}")).await;
    }
    eventually(SOON, "the reload is logged", async || world.nodes[0].log_text().contains("read anew")).await;
    let log = world.nodes[0].log_text();
    assert!(!log.contains(newer) && !log.contains(OPERATOR), "{log}");
}
