//! Signals to every connected device of every shop.

use serde_json::{Value, json};

use crate::delivery::on_one_and_two_nodes;
use crate::harness::{Device, Login, World, unique};

on_one_and_two_nodes!(
    a_broadcast_reaches_every_connected_device_of_every_shop,
    a_broadcast_is_for_a_role_or_spares_connections,
    what_is_no_broadcast_is_refused,
);

/// Whether a broadcast is for the n-th device.
type Meant = fn(usize) -> bool;

/// Two devices on each of two nodes, a main and a sub of three shops.
async fn crowd(world: &World) -> Vec<Device> {
    let mut devices = Vec::new();
    for n in 0..3 {
        let shop = unique("店");
        devices.push(Login::main(&shop, "till").on(&world.url(n)).await);
        devices.push(Login::sub(&shop, "hand").on(&world.url(n + 1)).await);
    }
    devices
}

async fn a_broadcast_reaches_every_connected_device_of_every_shop(world: &mut World) {
    let mut devices = crowd(world).await;
    let away = Login::sub(&unique("shop"), "away");
    away.on(&world.url(0)).await.close().await;
    let mut anonymous = Device::connect(&world.url(1), crate::harness::Encoding::Json).await;
    for n in 0..2 {
        let body = json!({"type": "公告", "table": "all", "data": {"n": n}});
        let sent = world.api(n).post("/v1/broadcast", body).await;
        assert_eq!(sent.status, 202, "{}", sent.text);
        for device in &mut devices {
            let signal = device.expect("signal").await;
            let wanted = json!({"op": "signal", "at": signal["at"], "from": {"api": "local"}, "type": "公告",
                "table": "all", "data": {"n": n}});
            assert_eq!(signal, wanted);
        }
    }
    anonymous.expect_nothing().await;
    let mut back = away.on(&world.url(1)).await;
    back.expect_nothing().await;
    for device in &mut devices {
        device.expect_nothing().await;
    }
}

async fn a_broadcast_is_for_a_role_or_spares_connections(world: &mut World) {
    let mut devices = crowd(world).await;
    let spared = [devices[0].welcome["conn"].clone(), devices[3].welcome["conn"].clone(), json!("nobody.1")];
    let broadcasts: [(Value, Meant); 5] = [
        (json!({"role": "main"}), |n| n % 2 == 0),
        (json!({"role": "sub"}), |n| n % 2 == 1),
        (json!({"except": spared}), |n| n != 0 && n != 3),
        (json!({"role": "main", "except": spared}), |n| n % 2 == 0 && n != 0),
        (json!({"role": null, "except": null, "table": null, "data": null}), |_| true),
    ];
    for (round, (mut body, is_meant)) in broadcasts.into_iter().enumerate() {
        body["type"] = format!("round-{round}").into();
        assert_eq!(world.api(round).post("/v1/broadcast", body.clone()).await.status, 202, "{body}");
        for (n, device) in devices.iter_mut().enumerate().filter(|(n, _)| is_meant(*n)) {
            assert_eq!(device.expect("signal").await["type"], body["type"], "device {n}");
        }
    }
}

async fn what_is_no_broadcast_is_refused(world: &mut World) {
    let mut devices = crowd(world).await;
    for (bad, field) in [
        (json!({}), "type"),
        (json!({"type": ""}), "type"),
        (json!({"type": "a", "role": "cook"}), "role"),
        (json!({"type": "a", "except": "x"}), "except"),
        (json!({"type": "a", "except": ["a b"]}), "except"),
        (json!({"type": "a", "table": 12}), "table"),
    ] {
        let refused = world.api(1).post("/v1/broadcast", bad.clone()).await;
        refused.assert_problem(400, "bad_request");
        assert!(refused.json["detail"].as_str().unwrap().contains(field), "{bad}: {}", refused.text);
    }
    for device in &mut devices {
        device.expect_nothing().await;
    }
}
