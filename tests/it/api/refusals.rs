//! Messages that are not taken: for nobody, too many, or no room for them.

use serde_json::{Value, json};

use super::of_shop;
use crate::delivery::on_one_and_two_nodes;
use crate::harness::{Login, World, unique};

on_one_and_two_nodes!(what_is_for_nobody_is_refused, an_empty_list_is_for_nobody_and_a_mistake);

async fn what_is_for_nobody_is_refused(world: &mut World) {
    let shop = unique("shop");
    let path = of_shop(&shop, "/messages");
    let _hand = Login::sub(&shop, "hand").on(&world.url(0)).await;
    let refused = async |path: &str, notify: Value, status: u16, code: &str| {
        for n in 0..2 {
            world.api(n).post(path, notify.clone()).await.assert_problem(status, code);
        }
    };
    refused(&path, json!({"type": "a"}), 409, "no_main_device").await;
    refused(&path, json!({"type": "a", "to": "mains"}), 409, "no_main_device").await;
    refused(&path, json!({"type": "a", "to": {"devices": ["nobody", "none"]}}), 404, "not_found").await;
    let signal = json!({"type": "a", "to": {"devices": ["nobody"]}, "durable": false});
    refused(&path, signal, 404, "not_found").await;
    let nowhere = of_shop(&unique("nowhere"), "/messages");
    refused(&nowhere, json!({"type": "a"}), 409, "no_main_device").await;
    for to in [json!("all"), json!("subs"), json!({"group": "g"}), json!({"user": "u"}), json!({"devices": ["d"]})] {
        for durable in [true, false] {
            refused(&nowhere, json!({"type": "a", "to": to, "durable": durable}), 404, "not_found").await;
        }
    }
    // Nobody has to be there for a signal, nor to be in a group.
    for taken in [json!({"type": "a", "durable": false}), json!({"type": "a", "to": {"group": "g"}})] {
        let sent = world.api(1).post(&path, taken).await;
        assert!(matches!(sent.status, 201 | 202), "{}", sent.text);
    }
}

async fn an_empty_list_is_for_nobody_and_a_mistake(world: &mut World) {
    let shop = unique("shop");
    let mut till = Login::main(&shop, "till").on(&world.url(0)).await;
    for to in [json!({"devices": []}), json!({"conns": []}), json!({}), json!({"devices": ["a"], "group": "g"})] {
        let refused = world.api(1).post(&of_shop(&shop, "/messages"), json!({"type": "a", "to": to})).await;
        refused.assert_problem(400, "bad_request");
        assert!(refused.json["detail"].as_str().unwrap().starts_with("to"), "{}", refused.text);
    }
    till.expect_nothing().await;
}

#[tokio::test]
async fn a_shop_that_sends_too_much_is_told_when_to_try_again() {
    let world = World::with(1, &[("LIMITS_SHOP_PUBLISHES_PER_S", "1")]).await;
    let shop = unique("shop");
    let _till = Login::main(&shop, "till").on(&world.url(0)).await;
    let path = of_shop(&shop, "/messages");
    let mut taken = 0;
    let refused = loop {
        let signal = json!({"type": "ring", "durable": taken % 2 == 0});
        let reply = world.api(0).post(&path, signal).await;
        if reply.status == 429 {
            break reply;
        }
        assert!(matches!(reply.status, 201 | 202), "{}", reply.text);
        taken += 1;
        assert!(taken < 50, "it never ends");
    };
    assert!(taken >= 5, "{taken} were taken, and five at once should be");
    refused.assert_problem(429, "rate_limited");
    let wait: u64 = refused.header("retry-after").parse().expect("whole seconds");
    assert!((1..=2).contains(&wait), "{wait}");
    let other = unique("other");
    let _till = Login::main(&other, "till").on(&world.url(0)).await;
    let sent = world.api(0).post(&of_shop(&other, "/messages"), json!({"type": "a"})).await;
    assert_eq!(sent.status, 201, "the limit is each shop's own");
}

#[tokio::test]
async fn a_full_log_refuses_messages_and_takes_deals_and_signals() {
    let world = World::with(1, &[("LIMITS_LOG_ENTRIES", "3")]).await;
    let shop = unique("shop");
    Login::main(&shop, "till").on(&world.url(0)).await.close().await;
    let path = of_shop(&shop, "/messages");
    let mut id = Value::Null;
    for _ in 0..3 {
        let sent = world.api(0).post(&path, json!({"type": "a"})).await;
        assert_eq!(sent.status, 201, "{}", sent.text);
        id = sent.json["id"].clone();
    }
    world.api(0).post(&path, json!({"type": "a"})).await.assert_problem(503, "backlog_full");
    assert_eq!(world.api(0).post(&path, json!({"type": "a", "durable": false})).await.status, 202);
    let deal = world.api(0).put(&format!("{path}/{}/status", id.as_str().unwrap()), json!({"status": "done"})).await;
    assert_eq!(deal.status, 204, "{}", deal.text);
    // What everybody has makes room.
    let mut till = Login::main(&shop, "till").on(&world.url(0)).await;
    till.take(3).await;
    let status = till.expect("status").await;
    till.ack(status["id"].as_str().unwrap()).await;
    let taken = async || world.api(0).post(&path, json!({"type": "b"})).await.status == 201;
    crate::harness::eventually(crate::harness::SOON, "room in the log", taken).await;
}
