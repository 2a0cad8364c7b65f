//! Logins, and who is online.

use serde_json::{Value, json};

use super::on_one_and_two_nodes;
use crate::harness::{Device, Encoding, Id, Login, SOON, World, eventually, id_of, unique};

on_one_and_two_nodes!(
    of_many_logins_of_a_device_at_once_exactly_one_stays,
    a_first_login_starts_at_the_head,
    who_is_online_is_seen_from_every_node
);

async fn a_first_login_starts_at_the_head(world: &mut World) {
    let shop = unique("shop");
    let mut first = Login::main(&shop, "till-0").on(&world.url(0)).await;
    assert_eq!((&first.welcome["cursor"], &first.welcome["head"]), (&Value::Null, &Value::Null), "the log is empty");
    let mut sub = Login::sub(&shop, "hand").on(&world.url(0)).await;
    let old = sub.notify(json!({"type": "before"})).await;
    let mut second = Login::main(&shop, "till-1").on(&world.url(1)).await;
    assert_eq!((&second.welcome["cursor"], &second.welcome["head"]), (&json!(old), &json!(old)));
    let new = sub.notify(json!({"type": "after"})).await;
    assert_eq!(second.take(1).await, [Id::of(&new)], "nothing older");
    assert_eq!(first.take(2).await, [Id::of(&old), Id::of(&new)]);
}

async fn who_is_online_is_seen_from_every_node(world: &mut World) {
    let shop = unique("shop");
    let mut main = Login::main(&shop, "till").meta(json!({"model": "x"})).on(&world.url(0)).await;
    let mut sub = Login::sub(&shop, "hand").on(&world.url(1)).await;
    for device in [&mut main, &mut sub] {
        let online = device.request(json!({"op": "online"})).await;
        assert_eq!(online["op"], "presence", "{online}");
        let mut devices = online["devices"].as_array().expect("devices").clone();
        devices.sort_by_key(|device| device["device"].to_string());
        let seen: Vec<_> =
            devices.iter().map(|device| (&device["device"], &device["role"], &device["state"])).collect();
        let (hand, till, online) = (json!("hand"), json!("till"), json!("online"));
        assert_eq!(seen, [(&hand, &json!("sub"), &online), (&till, &json!("main"), &online)]);
        assert!(devices.iter().all(|device| device["since"].is_u64()), "{devices:?}");
    }
    let mains = sub.request(json!({"op": "online", "role": "main"})).await;
    assert_eq!(mains["devices"][0]["conn"], main.welcome["conn"]);
    assert_eq!(mains["devices"].as_array().map(Vec::len), Some(1));
    sub.refused("online", json!({"role": "cook"}), "bad_request").await;
    main.close().await;
    eventually(SOON, "the main to be gone", async || {
        sub.request(json!({"op": "online", "role": "main"})).await["devices"] == json!([])
    })
    .await;
}

#[tokio::test]
async fn a_welcome_says_all_that_a_device_needs() {
    let world = World::start(1).await;
    let shop = unique("店铺");
    let device = Login::main(&shop, "till").on(&world.url(0)).await;
    let welcome = &device.welcome;
    assert_eq!(
        (&welcome["shop"], &welcome["device"], &welcome["role"]),
        (&json!(shop), &json!("till"), &json!("main"))
    );
    assert_eq!(
        (&welcome["heartbeat_s"], &welcome["window"], &welcome["max_frame"]),
        (&json!(25), &json!(256), &json!(65_536))
    );
    let clock = welcome["server_time"].as_u64().expect("a time");
    assert!(clock.abs_diff(crate::harness::unix_ms()) < 10_000);
    for field in ["conn", "node"] {
        let text = welcome[field].as_str().expect("a text");
        let is_plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
        assert!((1..=64).contains(&text.len()) && is_plain, "{field}: {text:?}");
    }
    assert_eq!(id_of(welcome, "cursor"), Id::ZERO);
}

#[tokio::test]
async fn a_logout_closes_with_1000_and_ends_the_presence() {
    let world = World::start(1).await;
    let shop = unique("shop");
    let mut watcher = Login::sub(&shop, "hand").on(&world.url(0)).await;
    let mut device = Login::main(&shop, "till").on(&world.url(0)).await;
    device.send(json!({"op": "logout"})).await;
    assert_eq!(device.close_code().await.0, 1000);
    eventually(SOON, "the main to be gone", async || {
        watcher.request(json!({"op": "online", "role": "main"})).await["devices"] == json!([])
    })
    .await;
    let mut stranger = Device::connect(&world.url(0), Encoding::Json).await;
    stranger.send(json!({"op": "logout"})).await;
    assert_eq!(stranger.close_code().await.0, 1000, "before a login too");
}

#[tokio::test]
async fn a_login_that_does_not_come_in_time_is_closed_with_4001() {
    let world = World::with(1, &[("TIMEOUTS_LOGIN", "1s")]).await;
    let mut silent = Device::connect(&world.url(0), Encoding::Json).await;
    // A ping is a sign of life, but no login.
    silent.expect_nothing().await;
    assert_eq!(silent.close_code().await.0, 4001);
    let metrics = world.nodes[0].metrics().await;
    assert_eq!(metrics.labelled("shoprelay_closes_total", &[("code", "4001")]), 1.0);
    world.assert_serves().await;
}

#[tokio::test]
async fn a_tcp_connection_that_never_becomes_a_websocket_is_ended_in_time() {
    use tokio::io::AsyncReadExt;
    let world = World::with(1, &[("TIMEOUTS_LOGIN", "1s")]).await;
    let mut stream = tokio::net::TcpStream::connect(world.nodes[0].listen()).await.expect("it listens");
    let ended = tokio::time::timeout(SOON, stream.read_to_end(&mut Vec::new())).await;
    assert!(ended.is_ok(), "a connection without a request is still open after {SOON:?}");
    world.assert_serves().await;
}

/// A takeover that was heard before the older login had joined its room was lost, and both stayed.
async fn of_many_logins_of_a_device_at_once_exactly_one_stays(world: &mut World) {
    let shop = unique("shop");
    let login = Login::main(&shop, "till");
    for _ in 0..5 {
        let urls: Vec<String> = (0..16).map(|n| world.url(n)).collect();
        let logins = urls.iter().map(|url| login.on(url));
        let devices = futures_util::future::join_all(logins).await;
        let mut watcher = Login::sub(&shop, "hand").on(&world.url(0)).await;
        let online = watcher.request(json!({"op": "online", "role": "main"})).await;
        let conn = online["devices"][0]["conn"].clone();
        let mut stayed = 0;
        for mut device in devices {
            if device.welcome["conn"] == conn {
                assert_eq!(device.request(json!({"op": "ping"})).await["op"], "pong");
                stayed += 1;
            } else {
                assert_eq!(device.close_code().await.0, 4000);
            }
        }
        assert_eq!(stayed, 1, "{online}");
    }
}
