//! Messages and signals from the back end, and dealing with them.

use serde_json::{Value, json};

use crate::delivery::on_one_and_two_nodes;
use crate::harness::{Login, World, unique};

on_one_and_two_nodes!(
    a_back_end_reaches_devices_on_every_node,
    a_message_is_stored_once_under_its_idempotency_key,
    a_back_end_deals_with_messages_as_a_main_does,
);

async fn a_back_end_reaches_devices_on_every_node(world: &mut World) {
    let shop = unique("shop");
    let mut tills = Vec::new();
    for n in 0..2 {
        tills.push(Login::main(&shop, &format!("till-{n}")).on(&world.url(n)).await);
    }
    for n in 0..2 {
        let posted = world.api(n).post(&format!("/v1/shops/{shop}/messages"), json!({"type": "add", "data": n})).await;
        assert_eq!((posted.status, &posted.json["duplicate"]), (201, &json!(false)), "{}", posted.text);
        let signal = json!({"type": "ring", "to": "all", "durable": false});
        let sent = world.api(n).post(&format!("/v1/shops/{shop}/messages"), signal).await;
        assert_eq!((sent.status, &sent.json["id"]), (202, &Value::Null), "{}", sent.text);
        for till in &mut tills {
            let message = till.expect("message").await;
            assert_eq!((&message["id"], &message["data"]), (&posted.json["id"], &json!(n)));
            assert_eq!((&message["from"], &message["to"]), (&json!({"api": "local"}), &json!("mains")));
            assert_eq!(till.expect("signal").await["type"], "ring");
        }
    }
}

async fn a_message_is_stored_once_under_its_idempotency_key(world: &mut World) {
    let shop = unique("shop");
    let mut till = Login::main(&shop, "till").on(&world.url(0)).await;
    let path = format!("/v1/shops/{shop}/messages");
    let key = unique("key");
    let first = world.api(0).header("Idempotency-Key", &key).post(&path, json!({"type": "a"})).await;
    let again = world.api(1).header("Idempotency-Key", &key).post(&path, json!({"type": "b", "key": key})).await;
    let by_field = world.api(1).post(&path, json!({"type": "c", "key": key})).await;
    assert_eq!((first.status, again.status, by_field.status), (201, 200, 200));
    for duplicate in [&again, &by_field] {
        assert_eq!(duplicate.json, json!({"id": first.json["id"], "duplicate": true}));
    }
    assert_eq!(till.expect("message").await["type"], "a");
    till.expect_nothing().await;
    let differs = world.api(0).header("Idempotency-Key", &key).post(&path, json!({"type": "d", "key": "other"})).await;
    differs.assert_problem(400, "bad_request");
}

async fn a_back_end_deals_with_messages_as_a_main_does(world: &mut World) {
    let shop = unique("shop");
    let mut till = Login::main(&shop, "till").on(&world.url(1)).await;
    let mut hand = Login::sub(&shop, "hand").on(&world.url(0)).await;
    let id = hand.notify(json!({"type": "add", "table": "12"})).await;
    till.expect("message").await;
    let path = format!("/v1/shops/{shop}/messages/{id}");
    let set = world.api(0).put(&format!("{path}/status"), json!({"status": "done"})).await;
    assert_eq!((set.status, set.text.as_str()), (204, ""));
    for device in [&mut till, &mut hand] {
        let status = device.expect("status").await;
        let told = (&status["message"], &status["status"], &status["by"]);
        assert_eq!(told, (&json!(id), &json!("done"), &json!({"api": "local"})));
    }
    let conflict = world.api(1).put(&format!("{path}/status"), json!({"status": "void"})).await;
    conflict.assert_problem(409, "conflict");
    assert_eq!((&conflict.json["present"], &conflict.json["by"]), (&json!("done"), &json!({"api": "local"})));
    let shown = world.api(1).get(&path).await.json;
    assert_eq!((&shown["status"], &shown["dealt_by"]), (&json!("done"), &json!({"api": "local"})), "{shown}");
    world
        .api(0)
        .put(&format!("/v1/shops/{shop}/messages/5-5/status"), json!({"status": "x"}))
        .await
        .assert_problem(404, "not_found");
}
