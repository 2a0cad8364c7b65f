//! The rows of "Sending".

use serde_json::json;

use super::scene::{Scene, conn};
use crate::harness::Device;

/// It was sent this signal.
async fn signalled(device: &mut Device, data: i64) {
    let signal = device.expect("signal").await;
    assert_eq!((&signal["data"], &signal["from"]), (&json!(data), &json!({"api": "local"})), "{signal}");
}

/// It was sent this message.
async fn told(device: &mut Device, data: i64) {
    let message = device.expect("message").await;
    assert_eq!((&message["data"], &message["from"]), (&json!(data), &json!({"api": "local"})), "{message}");
}

pub async fn send_to_all(scene: &mut Scene) {
    let mut stranger = scene.stranger().await;
    let sent = scene.ask("POST /v1/broadcast", &[], Some(json!({"type": "news", "data": 1}))).await;
    assert_eq!(sent.status, 202, "{}", sent.text);
    for device in [&mut scene.till, &mut scene.hand, &mut stranger] {
        signalled(device, 1).await;
    }
    scene.absent("away").await;
    scene.send(json!({"type": "news", "to": "all", "data": 2}), 201).await;
    scene.send(json!({"type": "news", "to": "all", "data": 3, "durable": false}), 202).await;
    for device in [&mut scene.till, &mut scene.hand] {
        // A message and a signal may overtake each other.
        let mut came = [device.next().await, device.next().await].map(|op| (op["op"].clone(), op["data"].clone()));
        came.sort_by_key(|(op, _)| op.to_string());
        assert_eq!(came, [(json!("message"), json!(2)), (json!("signal"), json!(3))]);
    }
    stranger.expect_nothing().await;
    told(&mut scene.another("away").await, 2).await;
    let other = scene.prepare("POST /v1/shops/nobody/messages", &[], Some(json!({"type": "news", "to": "all"}))).await;
    other.assert_problem(404, "not_found");
}

pub async fn send_to_all_of_a_list(scene: &mut Scene) {
    let mut stranger = scene.stranger().await;
    let mut third = scene.another("third").await;
    let conns = [conn(&scene.till), conn(&scene.hand), conn(&stranger), "nobody.1".to_owned()];
    scene.send(json!({"type": "news", "to": {"conns": conns}, "data": 1}), 202).await;
    signalled(&mut scene.till, 1).await;
    signalled(&mut scene.hand, 1).await;
    scene.assert_nothing_more(&mut [&mut third]).await;
    stranger.expect_nothing().await;
    scene.absent("away").await;
    scene.send(json!({"type": "news", "to": {"devices": ["hand", "away"]}, "data": 2}), 201).await;
    told(&mut scene.hand, 2).await;
    told(&mut scene.another("away").await, 2).await;
}

pub async fn send_to_all_but_some(scene: &mut Scene) {
    let except = [conn(&scene.hand)];
    for (data, except) in [(1, &except[..]), (2, &[])] {
        let body = json!({"type": "news", "data": data, "except": except});
        assert_eq!(scene.ask("POST /v1/broadcast", &[], Some(body)).await.status, 202);
    }
    signalled(&mut scene.till, 1).await;
    signalled(&mut scene.till, 2).await;
    signalled(&mut scene.hand, 2).await;
    scene.send(json!({"type": "news", "to": "all", "except": ["till"], "data": 3}), 201).await;
    told(&mut scene.hand, 3).await;
    scene.assert_nothing_more(&mut []).await;
}

pub async fn send_to_all_raw(scene: &mut Scene) {
    raw(scene, json!("all")).await;
}

pub async fn send_to_group_raw(scene: &mut Scene) {
    scene.join("hand", "bar").await;
    raw(scene, json!({"group": "bar"})).await;
}

/// Any value passes unchanged.
async fn raw(scene: &mut Scene, to: serde_json::Value) {
    for data in [json!("AAH/"), json!("{\"not\": \"looked at\"}"), json!([1, {"a": null}]), json!(null)] {
        scene.send(json!({"type": "raw", "to": to, "data": data}), 201).await;
        assert_eq!(scene.hand.expect("message").await["data"], data);
    }
}

pub async fn send_to_client(scene: &mut Scene) {
    scene.send(json!({"type": "hello", "to": {"devices": ["hand"]}, "data": 1}), 201).await;
    told(&mut scene.hand, 1).await;
    let gone = conn(&scene.hand);
    scene.send(json!({"type": "hello", "to": {"conns": [gone]}, "data": 2}), 202).await;
    signalled(&mut scene.hand, 2).await;
    scene.hand_leaves().await;
    scene.send(json!({"type": "hello", "to": {"conns": [gone]}, "data": 3}), 202).await;
    scene.send(json!({"type": "hello", "to": {"devices": ["hand"]}, "data": 4}), 201).await;
    scene.hand_returns().await;
    told(&mut scene.hand, 1).await;
    told(&mut scene.hand, 4).await;
    scene.assert_nothing_more(&mut []).await;
}

pub async fn send_to_current_client(scene: &mut Scene) {
    let called = scene.hand.request(json!({"op": "call", "method": "price"})).await;
    assert_eq!(called["op"], "ok", "{called}");
    let event = scene.own_event("call").await;
    let send = json!({"type": "price", "to": {"conns": [event["conn"]]}, "data": 7});
    scene.send(send, 202).await;
    signalled(&mut scene.hand, 7).await;
    scene.assert_nothing_more(&mut []).await;
}

pub async fn send_to_uid(scene: &mut Scene) {
    let mut second = scene.another("second").await;
    scene.absent("away").await;
    for device in ["hand", "second", "away"] {
        scene.bind(device, "ann").await;
    }
    scene.send(json!({"type": "hello", "to": {"user": "ann"}, "data": 1}), 201).await;
    told(&mut scene.hand, 1).await;
    told(&mut second, 1).await;
    scene.assert_nothing_more(&mut [&mut second]).await;
    told(&mut scene.another("away").await, 1).await;
}

pub async fn send_to_uids(scene: &mut Scene) {
    scene.bind("hand", "ann").await;
    scene.bind("till", "bob").await;
    for user in ["ann", "bob"] {
        // Tried again, it is stored once.
        for status in [201, 200] {
            let key = format!("news-for-{user}");
            scene.send(json!({"type": "hello", "to": {"user": user}, "data": 1, "key": key}), status).await;
        }
    }
    told(&mut scene.hand, 1).await;
    told(&mut scene.till, 1).await;
    scene.assert_nothing_more(&mut []).await;
}

pub async fn send_to_group(scene: &mut Scene) {
    scene.absent("away").await;
    scene.join("hand", "bar").await;
    scene.join("away", "bar").await;
    scene.send(json!({"type": "hello", "to": {"group": "bar"}, "data": 1}), 201).await;
    told(&mut scene.hand, 1).await;
    scene.join("till", "bar").await;
    scene.assert_nothing_more(&mut []).await;
    told(&mut scene.another("away").await, 1).await;
}

pub async fn send_to_groups(scene: &mut Scene) {
    scene.join("hand", "bar").await;
    scene.join("hand", "kitchen").await;
    scene.join("till", "kitchen").await;
    for (group, data) in [("bar", 1), ("kitchen", 2)] {
        scene.send(json!({"type": "hello", "to": {"group": group}, "data": data}), 201).await;
    }
    told(&mut scene.hand, 1).await;
    told(&mut scene.hand, 2).await;
    told(&mut scene.till, 2).await;
    scene.assert_nothing_more(&mut []).await;
}

pub async fn send_to_group_but_some(scene: &mut Scene) {
    scene.join("hand", "bar").await;
    scene.join("till", "bar").await;
    scene.send(json!({"type": "hello", "to": {"group": "bar"}, "except": ["till"], "data": 1}), 201).await;
    told(&mut scene.hand, 1).await;
    scene.assert_nothing_more(&mut []).await;
}
