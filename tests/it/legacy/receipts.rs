//! Receipt proven by Pong: what was not proven comes again, what was does not.

use serde_json::{Value, json};

use super::{address, next_ping, next_text, number_of, on_every_legacy_world, raw_login, world};
use crate::harness::raw::PONG;
use crate::harness::{Device, Frame, LegacyDevice, Login, SOON, World, eventually, unique};

on_every_legacy_world!(
    what_was_not_answered_by_a_pong_comes_again,
    no_more_than_a_window_is_outstanding,
    hundreds_of_missed_messages_come_once_and_in_order,
    what_was_dealt_with_meanwhile_is_pushed_with_its_present_status,
);

/// Whether the newest message is delivered to a device, as a native main sees it.
async fn is_delivered(native: &mut Device, device: &str) -> bool {
    let listed = native.request(json!({"op": "list"})).await;
    let newest = listed["items"].as_array().and_then(|items| items.last()).expect("a message");
    newest["delivered"][device].as_bool().unwrap_or_else(|| panic!("{device} is not named in {newest}"))
}

async fn what_was_not_answered_by_a_pong_comes_again(world: &mut World) {
    let shop = unique("shop");
    let mut native = Login::main(&shop, "native").on(&world.url(0)).await;
    let mut silent = raw_login(address(world, 0), &shop, "till", "主").await;
    silent.send(&Frame::text("mark")).await;
    assert_eq!(next_text(&mut silent).await, "mark");
    let mut hand = LegacyDevice::log_in(address(world, 1), json!(shop), json!("hand"), "副").await;
    hand.say(r#"{"op":"notify","type":"加菜"}"#).await;
    let pushed = next_text(&mut silent).await;
    let id = native.expect("message").await["id"].as_str().unwrap().to_owned();
    assert_eq!(next_ping(&mut silent).await, id.as_bytes(), "the Ping asks for the message by its id");
    assert!(!is_delivered(&mut native, "till").await);
    drop(silent);
    let mut silent = raw_login(address(world, 1), &shop, "till", "主").await;
    assert_eq!(next_text(&mut silent).await, pushed, "the same, under the same number");
    let ping = next_ping(&mut silent).await;
    assert!(!is_delivered(&mut native, "till").await, "without the Pong it is not proven");
    silent.send(&Frame::new(PONG, ping)).await;
    eventually(SOON, "the Pong proves it", async || is_delivered(&mut native, "till").await).await;
    drop(silent);
    let mut till = LegacyDevice::log_in(address(world, 0), json!(shop), json!("till"), "主").await;
    till.expect_nothing().await;
    hand.say(r#"{"op":"notify","type":"退菜"}"#).await;
    assert_eq!(till.json().await["type"], "退菜", "what was proven does not come again");
}

async fn no_more_than_a_window_is_outstanding(world: &mut World) {
    // The default window.
    const WINDOW: usize = 256;
    let shop = unique("shop");
    drop(Login::main(&shop, "till").on(&world.url(0)).await);
    let mut hand = LegacyDevice::log_in(address(world, 1), json!(shop), json!("hand"), "副").await;
    for n in 0..WINDOW + 3 {
        hand.say(format!(r#"{{"op":"notify","type":"加菜","table_id":{n}}}"#)).await;
    }
    hand.expect_nothing().await;
    let mut till = raw_login(address(world, 0), &shop, "till", "主").await;
    for n in 0..WINDOW {
        let pushed: Value = serde_json::from_str(&next_text(&mut till).await).unwrap();
        assert_eq!(pushed["table_id"], n);
    }
    till.send(&Frame::text("mark")).await;
    // The last Ping before the mark asks for the newest message that was sent.
    let mut newest = Vec::new();
    loop {
        let frame = till.read_frame().await.expect("the connection lives");
        match frame.payload.as_slice() {
            b"mark" => break,
            _ if frame.opcode == crate::harness::raw::PING => newest = frame.payload,
            _ => panic!("more than the window came: {frame:?}"),
        }
    }
    till.send(&Frame::new(PONG, newest)).await;
    for n in WINDOW..WINDOW + 3 {
        let pushed: Value = serde_json::from_str(&next_text(&mut till).await).unwrap();
        assert_eq!(pushed["table_id"], n);
    }
}

async fn hundreds_of_missed_messages_come_once_and_in_order(world: &mut World) {
    const MISSED: usize = 700;
    let shop = unique("shop");
    drop(Login::main(&shop, "till").on(&world.url(0)).await);
    let mut hand = LegacyDevice::log_in(address(world, 1), json!(shop), json!("hand"), "副").await;
    for n in 0..MISSED {
        hand.say(format!(r#"{{"op":"notify","type":"加菜","table_id":{n}}}"#)).await;
    }
    hand.expect_nothing().await;
    let mut till = LegacyDevice::log_in(address(world, 0), json!(shop), json!("till"), "主").await;
    let mut last = 0;
    for n in 0..MISSED {
        let pushed = till.json().await;
        assert_eq!(pushed["table_id"], n, "{pushed}");
        let number = number_of(&pushed);
        assert!(number > last, "numbers go up with the messages of one shop: {number} after {last}");
        last = number;
        if n == MISSED / 2 {
            hand.say(format!(r#"{{"op":"notify","type":"加菜","table_id":{MISSED}}}"#)).await;
        }
    }
    assert_eq!(till.json().await["table_id"], MISSED);
    till.expect_nothing().await;
}

async fn what_was_dealt_with_meanwhile_is_pushed_with_its_present_status(world: &mut World) {
    let shop = unique("shop");
    drop(Login::main(&shop, "till").on(&world.url(0)).await);
    let mut native = Login::main(&shop, "native").on(&world.url(1)).await;
    let mut hand = LegacyDevice::log_in(address(world, 1), json!(shop), json!("hand"), "副").await;
    hand.say(r#"{"op":"notify","type":"加菜"}"#).await;
    let id = native.expect("message").await["id"].clone();
    assert_eq!(native.request(json!({"op": "deal", "id": id, "status": "done"})).await["op"], "dealt");
    let mut till = LegacyDevice::log_in(address(world, 0), json!(shop), json!("till"), "主").await;
    assert_eq!(till.json().await["status"], "done");
    till.expect_nothing().await;
    // The sender hears of no status either.
    hand.expect_nothing().await;
}

#[tokio::test]
async fn a_device_that_answers_no_ping_is_too_slow() {
    let world = World::with(1, &[("LEGACY", "true"), ("TIMEOUTS_ACK", "1s")]).await;
    let shop = unique("shop");
    let mut silent = raw_login(address(&world, 0), &shop, "till", "主").await;
    silent.send(&Frame::text("mark")).await;
    assert_eq!(next_text(&mut silent).await, "mark");
    let mut hand = LegacyDevice::log_in(address(&world, 0), json!(shop), json!("hand"), "副").await;
    hand.say(r#"{"op":"notify","type":"加菜"}"#).await;
    next_text(&mut silent).await;
    assert_eq!(silent.close_code().await.0, 4003);
    let mut till = LegacyDevice::log_in(address(&world, 0), json!(shop), json!("till"), "主").await;
    assert_eq!(till.json().await["type"], "加菜", "it comes again");
}

#[tokio::test]
async fn a_redeploy_loses_nothing() {
    let mut world = World::with(2, &[("LEGACY", "true"), ("DRAIN_WINDOW", "2s")]).await;
    let shop = unique("shop");
    let mut till = LegacyDevice::log_in(address(&world, 0), json!(shop), json!("till"), "主").await;
    till.expect_nothing().await;
    let mut hand = LegacyDevice::log_in(address(&world, 1), json!(shop), json!("hand"), "副").await;
    let mut sent = 0;
    let mut got = Vec::new();
    for _ in 0..20 {
        hand.say(format!(r#"{{"op":"notify","type":"加菜","table_id":{sent}}}"#)).await;
        sent += 1;
    }
    hand.expect_nothing().await;
    world.nodes[0].sigterm();
    for _ in 0..20 {
        hand.say(format!(r#"{{"op":"notify","type":"加菜","table_id":{sent}}}"#)).await;
        sent += 1;
    }
    let (code, reason) = loop {
        match till.next().await {
            tokio_tungstenite::tungstenite::Message::Text(text) => got.push(serde_json::from_str(&text).unwrap()),
            tokio_tungstenite::tungstenite::Message::Close(Some(close)) => {
                break (u16::from(close.code), close.reason.to_string());
            }
            other => panic!("{other:?} came"),
        }
    };
    assert_eq!(code, 1012);
    assert!(reason.starts_with("retry_after_ms="), "{reason}");
    hand.expect_nothing().await;
    let mut till = LegacyDevice::log_in(address(&world, 1), json!(shop), json!("till"), "主").await;
    while got.last().is_none_or(|last: &Value| last["table_id"] != sent - 1) {
        got.push(till.json().await);
    }
    till.expect_nothing().await;
    // What was on its way when the node left comes twice, under one number.
    let mut numbers: Vec<(u64, i64)> =
        got.iter().map(|push| (number_of(push), push["table_id"].as_i64().unwrap())).collect();
    numbers.sort_unstable();
    numbers.dedup();
    let tables: Vec<i64> = numbers.iter().map(|(_, table)| *table).collect();
    assert_eq!(tables, (0..sent).collect::<Vec<i64>>());
    assert!(world.nodes[0].wait_exit().await.success());
}

#[tokio::test]
async fn while_redis_is_paused_a_notify_and_a_login_are_refused_and_nothing_is_lost() {
    let world = world(1).await;
    let shop = unique("shop");
    let mut till = LegacyDevice::log_in(address(&world, 0), json!(shop), json!("till"), "主").await;
    till.expect_nothing().await;
    let mut hand = LegacyDevice::log_in(address(&world, 0), json!(shop), json!("hand"), "副").await;
    let mut late = LegacyDevice::connect(address(&world, 0)).await;
    for device in [&mut hand, &mut late] {
        device.expect_nothing().await;
    }
    hand.say(r#"{"op":"notify","type":"before"}"#).await;
    hand.expect_nothing().await;
    world.redis().pause();
    hand.say(r#"{"op":"notify","type":"during"}"#).await;
    assert!(!hand.refusal().await.is_empty());
    hand.expect_nothing().await;
    // A login that fails is closed: the device would not know that it has to try again.
    late.say(super::login_text(&shop, "late", "副")).await;
    late.refusal().await;
    assert_eq!(late.close_code().await.0, 4001);
    world.redis().resume();
    eventually(SOON, "the store takes a message again", async || {
        hand.say(r#"{"op":"notify","type":"after"}"#).await;
        hand.say("mark").await;
        let is_taken = hand.text().await == "mark";
        if !is_taken {
            assert_eq!(hand.text().await, "mark");
        }
        is_taken
    })
    .await;
    assert_eq!(till.json().await["type"], "before");
    // What was refused may be stored all the same: its outcome was unknown.
    while till.json().await["type"] != "after" {}
    till.expect_nothing().await;
}
