//! The fields of a notify: keys, receipts, time to live, and who hears what of them.

use serde_json::{Value, json};

use super::on_one_and_two_nodes;
use crate::harness::{Device, Encoding, Id, Login, SOON, World, eventually, id_of, unique};

on_one_and_two_nodes!(
    a_receipt_comes_for_each_device_that_proves_it,
    a_key_is_the_shops_and_not_the_senders,
    what_is_sent_before_the_welcome_is_dealt_with_in_order,
);

async fn a_receipt_comes_for_each_device_that_proves_it(world: &mut World) {
    let shop = unique("shop");
    let mut mains =
        [Login::main(&shop, "till-0").on(&world.url(0)).await, Login::main(&shop, "till-1").on(&world.url(1)).await];
    let mut sub = Login::sub(&shop, "hand").on(&world.url(1)).await;
    let silent = sub.notify(json!({"type": "add"})).await;
    let id = sub.notify(json!({"type": "add", "receipt": true})).await;
    for (n, main) in mains.iter_mut().enumerate() {
        assert_eq!(main.expect("message").await["id"], silent.as_str());
        assert_eq!(main.expect("message").await["id"], id.as_str());
        // It proves both, and only one wants a receipt.
        main.ack(&id).await;
        let receipt = sub.expect("receipt").await;
        assert_eq!(receipt["message"], id.as_str());
        assert_eq!(receipt["device"], format!("till-{n}"));
        assert!(receipt["at"].as_u64().is_some_and(|at| at >= Id::of(&id).0), "{receipt}");
        main.ack(&id).await;
    }
    sub.expect_nothing().await;
}

async fn a_key_is_the_shops_and_not_the_senders(world: &mut World) {
    let shop = unique("shop");
    let mut main = Login::main(&shop, "till").on(&world.url(0)).await;
    let mut first = Login::sub(&shop, "hand-0").on(&world.url(0)).await;
    let mut second = Login::sub(&shop, "hand-1").on(&world.url(1)).await;
    let id = first.notify(json!({"type": "a", "key": "k"})).await;
    assert_eq!(main.expect("message").await["type"], "a");
    let answer = second.request(json!({"op": "notify", "type": "b", "data": "another", "key": "k"})).await;
    assert_eq!((&answer["op"], &answer["id"], &answer["duplicate"]), (&json!("accepted"), &json!(id), &json!(true)));
    let other = unique("other");
    let _main = Login::main(&other, "till").on(&world.url(1)).await;
    let mut stranger = Login::sub(&other, "hand-0").on(&world.url(1)).await;
    let answer = stranger.request(json!({"op": "notify", "type": "a", "key": "k"})).await;
    assert_eq!(answer["duplicate"], false, "another shop's key is another key");
    // On signals a key is ignored: both go out.
    for _ in 0..2 {
        let answer = first.request(json!({"op": "notify", "type": "s", "durable": false, "key": "k"})).await;
        assert_eq!((&answer["id"], &answer["duplicate"]), (&Value::Null, &json!(false)), "{answer}");
    }
    assert_eq!(main.expect("signal").await["type"], "s");
    assert_eq!(main.expect("signal").await["type"], "s");
    main.expect_nothing().await;
}

/// A client may send without waiting, its login included: each frame has its turn once the one before it is
/// answered. A node that took two of them in at once forgot the first.
async fn what_is_sent_before_the_welcome_is_dealt_with_in_order(world: &mut World) {
    const SENT: usize = 20;
    let shop = unique("shop");
    let mut main = Login::main(&shop, "till").on(&world.url(0)).await;
    let mut hand = Device::connect(&world.url(1), Encoding::Json).await;
    hand.send(Login::sub(&shop, "hand").op()).await;
    for n in 0..SENT {
        hand.send(json!({"op": "notify", "type": "add", "ref": n})).await;
    }
    hand.expect("welcome").await;
    let mut stored = Vec::new();
    for n in 0..SENT {
        let accepted = hand.expect("accepted").await;
        assert_eq!(accepted["ref"], n);
        stored.push(id_of(&accepted, "id"));
    }
    assert_eq!(main.take(SENT).await, stored);
}

#[tokio::test]
async fn two_senders_race_with_one_key_and_one_message_is_stored() {
    let world = World::start(2).await;
    let shop = unique("shop");
    let mut main = Login::main(&shop, "till").on(&world.url(0)).await;
    let mut first = Login::sub(&shop, "hand-0").on(&world.url(0)).await;
    let mut second = Login::sub(&shop, "hand-1").on(&world.url(1)).await;
    for n in 0..30 {
        let notify = json!({"op": "notify", "type": "add", "key": format!("race-{n}")});
        let (a, b) = tokio::join!(first.request(notify.clone()), second.request(notify));
        assert_eq!(a["id"], b["id"], "{a} {b}");
        assert_ne!(a["duplicate"], b["duplicate"], "{a} {b}");
        assert_eq!(main.take(1).await, [id_of(&a, "id")]);
    }
}

#[tokio::test]
async fn an_expired_message_is_not_sent_and_is_counted_once_a_device() {
    let world = World::start(1).await;
    let shop = unique("shop");
    let till = Login::main(&shop, "till");
    till.on(&world.url(0)).await.close().await;
    let mut sub = Login::sub(&shop, "hand").on(&world.url(0)).await;
    let short = sub.notify(json!({"type": "short", "ttl_s": 1})).await;
    let long = sub.notify(json!({"type": "long", "ttl_s": 600})).await;
    // What it waits for is the clock itself.
    let stored = Id::of(&short).0;
    eventually(SOON, "the second of its life to pass", async || {
        let pong = sub.request(json!({"op": "ping"})).await;
        assert_eq!(pong["op"], "pong");
        crate::harness::unix_ms() > stored + 1_100
    })
    .await;
    let mut main = till.on(&world.url(0)).await;
    assert_eq!(main.take(1).await, [Id::of(&long)], "the expired one must not be sent");
    main.expect_nothing().await;
    eventually(SOON, "the expiry to be counted", async || {
        world.metric("shoprelay_messages_expired_total").await == 1.0
    })
    .await;
    eventually(SOON, "the long one to be delivered", async || {
        let list = sub.request(json!({"op": "list"})).await;
        let items = list["items"].as_array().expect("items");
        assert_eq!(items.len(), 2, "{list}");
        assert_eq!(items[0]["delivered"], json!({"till": false}), "it expired unseen: {list}");
        items[1]["delivered"] == json!({"till": true})
    })
    .await;
    // Another login passes over it again without counting it again.
    drop(till.on(&world.url(0)).await);
    assert_eq!(world.metric("shoprelay_messages_expired_total").await, 1.0);
}

#[tokio::test]
async fn a_message_that_was_received_in_time_is_not_expired_later() {
    let world = World::start(1).await;
    let shop = unique("shop");
    let mut main = Login::main(&shop, "till").on(&world.url(0)).await;
    let mut sub = Login::sub(&shop, "hand").on(&world.url(0)).await;
    let id = sub.notify(json!({"type": "short", "ttl_s": 1, "receipt": true})).await;
    main.take(1).await;
    sub.expect("receipt").await;
    eventually(SOON, "the second of its life to pass", async || crate::harness::unix_ms() > Id::of(&id).0 + 1_100)
        .await;
    let list = sub.request(json!({"op": "list"})).await;
    assert_eq!(list["items"][0]["delivered"], json!({"till": true}), "{list}");
    assert_eq!(world.metric("shoprelay_messages_expired_total").await, 0.0);
}

#[tokio::test]
async fn the_fields_of_a_notify_are_bounded() {
    let world = World::start(1).await;
    let shop = unique("shop");
    let mut main = Login::main(&shop, "till").on(&world.url(0)).await;
    let mut sub = Login::sub(&shop, "hand").on(&world.url(0)).await;
    let long = "x".repeat(65);
    let bad = [
        json!({}),
        json!({"type": ""}),
        json!({"type": 1}),
        json!({"type": long}),
        json!({"type": "a{b"}),
        json!({"type": "t", "table": long}),
        json!({"type": "t", "table": 12}),
        json!({"type": "t", "status": "all"}),
        json!({"type": "t", "status": ""}),
        json!({"type": "t", "key": ""}),
        json!({"type": "t", "key": "k".repeat(129)}),
        json!({"type": "t", "ttl_s": 0}),
        json!({"type": "t", "ttl_s": 604_801}),
        json!({"type": "t", "ttl_s": "1"}),
        json!({"type": "t", "receipt": "yes"}),
        json!({"type": "t", "durable": 1}),
        json!({"type": "t", "except": "till"}),
    ];
    for fields in bad {
        sub.refused("notify", fields, "bad_request").await;
    }
    let most = json!({"type": "x".repeat(64), "table": "店".repeat(21), "status": "new", "key": "k".repeat(128), "ttl_s": 604_800});
    let id = sub.notify(most).await;
    let message = main.expect("message").await;
    assert_eq!((&message["id"], &message["status"]), (&json!(id), &json!("new")));
}
