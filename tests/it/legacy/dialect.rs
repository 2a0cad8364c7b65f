//! Transcripts: what an old client says, and what it is told.

use serde_json::json;
use tokio_tungstenite::tungstenite::Message;

use super::{address, on_every_legacy_world};
use crate::harness::{LegacyDevice, Login, World, unique};

on_every_legacy_world!(
    a_subs_notify_is_pushed_to_each_main_and_a_mains_is_shown_to_the_subs,
    a_main_that_was_away_is_pushed_what_it_missed,
);

async fn a_subs_notify_is_pushed_to_each_main_and_a_mains_is_shown_to_the_subs(world: &mut World) {
    let shop = unique("shop");
    let mut till = LegacyDevice::log_in(address(world, 0), json!(shop), json!(1), "主").await;
    till.expect_nothing().await;
    let mut native = Login::main(&shop, "native").on(&world.url(1)).await;
    let mut hand = LegacyDevice::log_in(address(world, 1), json!(shop), json!("2"), "副").await;
    let order = json!({"op": "notify", "from_client_type": "副", "shop_id": shop, "table_id": 12, "type": "加菜", "data": {"dishes": ["鱼"]}, "from_client_id": "2"});
    hand.send(order.clone()).await;
    let text = till.text().await;
    let pushed: serde_json::Value = serde_json::from_str(&text).unwrap();
    let number = pushed["id"].as_u64().expect("a number");
    assert_eq!(
        text,
        format!(r#"{{"id":{number},"status":"open","table_id":12,"type":"加菜","title":"桌id:12 加菜"}}"#)
    );
    let message = native.expect("message").await;
    assert_eq!((&message["type"], &message["table"], &message["data"]), (&json!("加菜"), &json!("12"), &order["data"]));
    assert_eq!(message["from"], json!({"device": "2", "role": "sub"}));

    let object = r#"{"op":"notify","type":"打折","table_id":"12","data":9,"extra":[1]}"#;
    till.send_raw(Message::text(object)).await;
    assert_eq!(hand.text().await, r#"{"type":"打折","table_id":"12","data":9,"extra":[1]}"#);
    hand.expect_nothing().await;
    till.expect_nothing().await;
}

async fn a_main_that_was_away_is_pushed_what_it_missed(world: &mut World) {
    let shop = unique("shop");
    let mut till = LegacyDevice::log_in(address(world, 0), json!(shop), json!("till"), "主").await;
    till.expect_nothing().await;
    till.send(json!({"op": "logout"})).await;
    assert_eq!(till.close_code().await.0, 1000);
    let mut hand = LegacyDevice::log_in(address(world, 1), json!(shop), json!("hand"), "副").await;
    for table in 1..=3 {
        hand.send(json!({"op": "notify", "type": "退菜", "table_id": table})).await;
    }
    hand.expect_nothing().await;
    let mut till = LegacyDevice::log_in(address(world, 1), json!(shop), json!("till"), "主").await;
    let mut numbers = Vec::new();
    for table in 1..=3 {
        let pushed = till.json().await;
        assert_eq!(pushed["table_id"], table, "{pushed}");
        numbers.push(pushed["id"].as_u64().expect("a number"));
    }
    assert!(numbers.is_sorted() && numbers[0] < numbers[2], "{numbers:?}");
    till.expect_nothing().await;
}
