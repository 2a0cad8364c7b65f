//! Whom a notify reaches: every form of `to`, `except`, and the defaults by role.

use serde_json::{Value, json};

use super::on_one_and_two_nodes;
use crate::harness::{Device, Login, SOON, World, eventually, unique};

on_one_and_two_nodes!(
    each_form_of_to_reaches_its_audience_and_nobody_else,
    each_form_of_to_reaches_who_is_online_by_a_signal,
    a_signal_to_connections_reaches_only_those,
    the_default_audience_and_durability_follow_the_role,
);

/// Two mains and two subs, over the nodes in turn: `main-0`, `main-1`, `sub-0`, `sub-1`.
async fn four(world: &World, shop: &str) -> Vec<Device> {
    let mut devices = Vec::new();
    for n in 0..2 {
        devices.push(Login::main(shop, &format!("main-{n}")).on(&world.url(n)).await);
    }
    for n in 0..2 {
        devices.push(Login::sub(shop, &format!("sub-{n}")).on(&world.url(n + 1)).await);
    }
    devices
}

/// What `to` and `except` are, and who of the four gets it where `sub-0` sends.
fn cases() -> Vec<(Value, Value, Vec<usize>)> {
    vec![
        (json!("mains"), json!([]), vec![0, 1]),
        (json!("subs"), json!([]), vec![3]),
        (json!("all"), json!([]), vec![0, 1, 3]),
        (json!("all"), json!(["main-1", "sub-1", "nobody"]), vec![0]),
        (json!({"devices": ["main-1", "nobody"]}), json!([]), vec![1]),
        (json!({"devices": ["sub-0", "main-0"]}), json!([]), vec![0, 2]),
        (json!({"devices": ["main-0", "main-1"]}), json!(["main-0"]), vec![1]),
    ]
}

async fn each_form_of_to_reaches_its_audience_and_nobody_else(world: &mut World) {
    send_cases(world, true, "message").await;
}

async fn each_form_of_to_reaches_who_is_online_by_a_signal(world: &mut World) {
    send_cases(world, false, "signal").await;
}

async fn send_cases(world: &World, durable: bool, op: &str) {
    let shop = unique("shop");
    let mut devices = four(world, &shop).await;
    for (n, (to, except, reached)) in cases().into_iter().enumerate() {
        let fields = json!({"type": "case", "data": n, "to": to, "except": except, "durable": durable});
        let id = devices[2].notify(fields).await;
        assert_eq!(id.is_empty(), !durable, "an id is for messages, null for signals");
        // Everyone gets the mark, after the case where it is for them: nothing else may come first.
        let everyone = ["main-0", "main-1", "sub-0", "sub-1"];
        devices[2].notify(json!({"type": "mark", "to": {"devices": everyone}, "durable": durable})).await;
        for (index, device) in devices.iter_mut().enumerate() {
            if reached.contains(&index) {
                let came = device.expect(op).await;
                assert_eq!((&came["type"], &came["data"]), (&json!("case"), &json!(n)), "device {index}: {came}");
                if durable {
                    assert_eq!(came["to"], to, "{came}");
                }
                assert_eq!(came["from"], json!({"device": "sub-0", "role": "sub"}), "{came}");
            }
            let mark = device.expect(op).await;
            assert_eq!(mark["type"], "mark", "case {n} must not reach device {index}: {mark}");
        }
    }
}

async fn a_signal_to_connections_reaches_only_those(world: &mut World) {
    let shop = unique("shop");
    let other_shop = unique("other");
    let mut stranger = Login::main(&other_shop, "main-0").on(&world.url(0)).await;
    let mut devices = four(world, &shop).await;
    let conn = |device: &Device| device.welcome["conn"].clone();
    let conns = json!([conn(&devices[1]), conn(&stranger), "gone.1"]);
    let id = devices[2].notify(json!({"type": "close-up", "to": {"conns": conns}})).await;
    assert_eq!(id, "", "a notify to connections is a signal");
    devices[2].refused("notify", json!({"type": "x", "to": {"conns": conns}, "durable": true}), "bad_request").await;
    devices[2].refused("notify", json!({"type": "x", "to": {"conns": []}}), "bad_request").await;
    devices[2].notify(json!({"type": "mark", "to": "all", "durable": false})).await;
    assert_eq!(devices[1].expect("signal").await["type"], "close-up");
    for index in [0, 1, 3] {
        assert_eq!(devices[index].expect("signal").await["type"], "mark");
    }
    stranger.expect_nothing().await;
}

async fn the_default_audience_and_durability_follow_the_role(world: &mut World) {
    let shop = unique("shop");
    let mut devices = four(world, &shop).await;
    let id = devices[2].notify(json!({"type": "from-sub"})).await;
    assert_ne!(id, "", "a sub's notify is durable");
    for main in &mut devices[..2] {
        let message = main.expect("message").await;
        assert_eq!((&message["type"], &message["to"]), (&json!("from-sub"), &json!("mains")));
        assert_eq!(message["status"], "open");
        main.ack(&id).await;
    }
    let id = devices[0].notify(json!({"type": "from-main"})).await;
    assert_eq!(id, "", "a main's notify to the subs is a signal");
    let id = devices[0].notify(json!({"type": "from-main", "to": "subs"})).await;
    assert_eq!(id, "", "named or by default");
    let durable = devices[0].notify(json!({"type": "from-main", "durable": true})).await;
    for sub in &mut devices[2..] {
        for _ in 0..2 {
            let signal = sub.expect("signal").await;
            assert_eq!(signal["type"], "from-main");
            assert!(signal.get("id").is_none_or(Value::is_null), "{signal}");
        }
        assert_eq!(sub.expect("message").await["id"], durable.as_str());
    }
    for to in [json!("mains"), json!("all"), json!({"devices": ["sub-0"]})] {
        let id = devices[0].notify(json!({"type": "x", "to": to})).await;
        assert_ne!(id, "", "a main's notify to {to} is durable");
    }
    assert_eq!(devices[1].expect("message").await["to"], "mains");
}

#[tokio::test]
async fn the_refusals_of_an_audience_say_what_is_wrong_with_it() {
    let world = World::start(1).await;
    let shop = unique("shop");
    let mut sub = Login::sub(&shop, "sub-0").on(&world.url(0)).await;
    sub.refused("notify", json!({"type": "x"}), "no_main_device").await;
    let signal = sub.notify(json!({"type": "x", "durable": false})).await;
    assert_eq!(signal, "", "a signal to nobody is no error");
    sub.refused("notify", json!({"type": "x", "to": {"devices": []}}), "bad_request").await;
    sub.refused("notify", json!({"type": "x", "to": {"devices": ["a", "b"]}}), "not_found").await;
    for to in [json!("everyone"), json!({}), json!(7), json!({"devices": "a"}), json!({"devices": ["{"]}), json!(["a"])]
    {
        sub.refused("notify", json!({"type": "x", "to": to}), "bad_request").await;
    }
    drop(Login::main(&shop, "till").on(&world.url(0)).await);
    let id = sub.notify(json!({"type": "x"})).await;
    assert_ne!(id, "", "a main that is registered but away is no reason to refuse");
}

#[tokio::test]
async fn a_device_that_was_away_gets_its_messages_and_no_signals() {
    let world = World::start(2).await;
    let shop = unique("shop");
    let till = Login::main(&shop, "till");
    let away = till.on(&world.url(0)).await;
    let conn = away.welcome["conn"].clone();
    away.close().await;
    let mut sub = Login::sub(&shop, "hand").on(&world.url(1)).await;
    eventually(SOON, "the till to be away", async || {
        let online = sub.request(json!({"op": "online"})).await;
        online["devices"].as_array().is_some_and(|devices| devices.iter().all(|device| device["conn"] != conn))
    })
    .await;
    sub.notify(json!({"type": "lost", "durable": false})).await;
    let id = sub.notify(json!({"type": "kept"})).await;
    let mut back = till.on(&world.url(1)).await;
    assert_eq!(back.expect("message").await["id"], id.as_str());
    back.expect_nothing().await;
}
