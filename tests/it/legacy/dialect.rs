//! Transcripts: what an old client says, and what it is told.

use serde_json::json;
use tokio_tungstenite::tungstenite::Message;

use super::{address, login_text, next_text, on_every_legacy_world, raw, raw_login, world};
use crate::harness::raw::{PING, PONG};
use crate::harness::{Frame, LegacyDevice, Login, World, unique};

const NO_MAIN: &str = "店铺主设备未记录,请先联系商家完成主设备初始化";

on_every_legacy_world!(
    a_subs_notify_is_pushed_to_each_main_and_a_mains_is_shown_to_the_subs,
    a_main_that_was_away_is_pushed_what_it_missed,
    a_login_takes_numbers_and_texts_and_is_not_answered,
    the_same_login_again_is_ignored,
    a_login_as_another_is_refused_and_closed,
    a_login_that_cannot_be_read_is_refused_and_closed,
    a_notify_that_names_another_shop_or_client_is_refused,
    what_a_notify_leaves_out_is_the_logins,
    a_notify_to_a_shop_without_a_main_gets_the_old_words,
    a_table_is_pushed_as_it_was_given,
    a_type_and_a_status_may_be_any_text_or_number,
    names_out_of_bounds_are_refused_and_the_connection_lives_on,
    a_newer_login_of_the_same_client_replaces_the_older,
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

async fn a_login_takes_numbers_and_texts_and_is_not_answered(world: &mut World) {
    let shop = rand::random::<u32>();
    let mut till = LegacyDevice::connect(address(world, 0)).await;
    till.say(format!(r#"{{"op":"login","shop_id":{shop},"client_id":"7","type":"主"}}"#)).await;
    till.expect_nothing().await;
    let mut hand = LegacyDevice::connect(address(world, 1)).await;
    hand.say(format!(r#"{{"op":"login","shop_id":"{shop}","client_id":8,"type":"副","token":null,"more":[]}}"#)).await;
    hand.expect_nothing().await;
    let mut native = Login::main(&shop.to_string(), "native").on(&world.url(1)).await;
    let online = native.request(json!({"op": "online"})).await;
    let devices: Vec<_> = online["devices"].as_array().unwrap().iter().map(|it| (&it["device"], &it["role"])).collect();
    let (main, sub) = (json!("main"), json!("sub"));
    assert_eq!(devices, [(&json!("7"), &main), (&json!("8"), &sub), (&json!("native"), &main)]);
}

async fn the_same_login_again_is_ignored(world: &mut World) {
    let shop = unique("shop");
    let mut till = LegacyDevice::log_in(address(world, 0), json!(shop), json!(1), "主").await;
    till.say(login_text(&shop, "1", "主")).await;
    till.expect_nothing().await;
    let mut hand = LegacyDevice::log_in(address(world, 1), json!(shop), json!(2), "副").await;
    hand.say(r#"{"op":"notify","type":"加菜"}"#).await;
    assert_eq!(till.json().await["type"], "加菜");
    till.say(login_text(&shop, "1", "主")).await;
    till.expect_nothing().await;
}

async fn a_login_as_another_is_refused_and_closed(world: &mut World) {
    let shop = unique("shop");
    for other in [login_text(&shop, "2", "主"), login_text(&shop, "1", "副"), login_text("other", "1", "主")] {
        let mut till = LegacyDevice::log_in(address(world, 0), json!(shop), json!(1), "主").await;
        till.expect_nothing().await;
        till.say(other).await;
        till.refusal().await;
        assert_eq!(till.close_code().await.0, 4001);
    }
}

async fn a_login_that_cannot_be_read_is_refused_and_closed(world: &mut World) {
    let long = "x".repeat(65);
    for fields in [
        r#""shop_id":"s","client_id":"c","type":"x""#.to_owned(),
        r#""shop_id":"s","client_id":"c""#.to_owned(),
        r#""shop_id":"s","type":"主""#.to_owned(),
        r#""client_id":"c","type":"主""#.to_owned(),
        r#""shop_id":"","client_id":"c","type":"主""#.to_owned(),
        r#""shop_id":"s","client_id":null,"type":"主""#.to_owned(),
        r#""shop_id":["s"],"client_id":"c","type":"主""#.to_owned(),
        r#""shop_id":"a{b","client_id":"c","type":"主""#.to_owned(),
        r#""shop_id":"s","client_id":"a\u0000b","type":"主""#.to_owned(),
        format!(r#""shop_id":"{long}","client_id":"c","type":"主""#),
        r#""shop_id":"s","client_id":"c","type":"主","token":7"#.to_owned(),
    ] {
        let mut device = LegacyDevice::connect(address(world, 0)).await;
        device.say(format!(r#"{{"op":"login",{fields}}}"#)).await;
        let msg = device.refusal().await;
        assert!(!msg.is_empty(), "{fields}");
        assert_eq!(device.close_code().await.0, 4001, "{fields}");
    }
    world.assert_serves().await;
}

async fn a_notify_that_names_another_shop_or_client_is_refused(world: &mut World) {
    let shop = unique("shop");
    let mut till = LegacyDevice::log_in(address(world, 0), json!(shop), json!("till"), "主").await;
    till.expect_nothing().await;
    let mut hand = LegacyDevice::connect(address(world, 1)).await;
    hand.say(format!(r#"{{"op":"notify","shop_id":"{shop}","type":"加菜","from_client_id":"hand"}}"#)).await;
    hand.refusal().await;
    hand.say(login_text(&shop, "hand", "副")).await;
    for fields in [
        r#""shop_id":"other","from_client_id":"hand""#.to_owned(),
        format!(r#""shop_id":"{shop}","from_client_id":"till""#),
        r#""from_client_id":7"#.to_owned(),
    ] {
        hand.say(format!(r#"{{"op":"notify",{fields},"type":"加菜"}}"#)).await;
        hand.refusal().await;
    }
    hand.expect_nothing().await;
    hand.say(format!(r#"{{"op":"notify","shop_id":"{shop}","from_client_id":"hand","type":"last"}}"#)).await;
    assert_eq!(till.json().await["type"], "last", "nothing of what was refused is pushed");
}

async fn what_a_notify_leaves_out_is_the_logins(world: &mut World) {
    let shop = unique("shop");
    let mut native = Login::main(&shop, "native").on(&world.url(0)).await;
    let mut hand = LegacyDevice::log_in(address(world, 1), json!(shop), json!(42), "副").await;
    // The role is the login's, whatever the object says.
    hand.say(r#"{"op":"notify","type":"结账","from_client_type":"主"}"#).await;
    let message = native.expect("message").await;
    assert_eq!(message["from"], json!({"device": "42", "role": "sub"}));
    assert_eq!((&message["to"], &message["status"]), (&json!("mains"), &json!("open")));
    for absent in ["table", "data", "user_info"] {
        assert!(message.get(absent).is_none_or(serde_json::Value::is_null), "{message}");
    }
    hand.expect_nothing().await;
}

async fn a_notify_to_a_shop_without_a_main_gets_the_old_words(world: &mut World) {
    let shop = unique("shop");
    let mut hand = LegacyDevice::log_in(address(world, 0), json!(shop), json!(1), "副").await;
    hand.say(r#"{"op":"notify","type":"加菜"}"#).await;
    assert_eq!(hand.refusal().await, NO_MAIN);
    let till = LegacyDevice::log_in(address(world, 1), json!(shop), json!(2), "主").await;
    till_is_known(world, &shop).await;
    drop(till);
    hand.say(r#"{"op":"notify","type":"加菜"}"#).await;
    hand.expect_nothing().await;
}

async fn till_is_known(world: &World, shop: &str) {
    crate::harness::eventually(crate::harness::SOON, "the till is registered", async || {
        let devices = world.api(0).get(&format!("/v1/shops/{shop}/devices")).await;
        devices.items().iter().any(|device| device["role"] == "main")
    })
    .await;
}

async fn a_table_is_pushed_as_it_was_given(world: &mut World) {
    let shop = unique("shop");
    let mut till = LegacyDevice::log_in(address(world, 0), json!(shop), json!("till"), "主").await;
    till.expect_nothing().await;
    let mut native = Login::main(&shop, "native").on(&world.url(1)).await;
    let mut hand = LegacyDevice::log_in(address(world, 1), json!(shop), json!("hand"), "副").await;
    for (given, shown, title, text) in [
        (r#""table_id":12,"#, "12", "12", json!("12")),
        (r#""table_id":"12","#, r#""12""#, "12", json!("12")),
        (r#""table_id":"大厅 3","#, r#""大厅 3""#, "大厅 3", json!("大厅 3")),
        (r#""table_id":"","#, r#""""#, "", json!(null)),
        ("", r#""""#, "", json!(null)),
    ] {
        hand.say(format!(r#"{{"op":"notify",{given}"type":"赠送"}}"#)).await;
        let pushed = till.text().await;
        let number = super::number_of(&serde_json::from_str(&pushed).unwrap());
        assert_eq!(
            pushed,
            format!(
                r#"{{"id":{number},"status":"open","table_id":{shown},"type":"赠送","title":"桌id:{title} 赠送"}}"#
            )
        );
        let message = native.expect("message").await;
        assert_eq!(message.get("table").cloned().unwrap_or_default(), text, "{given}");
    }
}

async fn a_type_and_a_status_may_be_any_text_or_number(world: &mut World) {
    let shop = unique("shop");
    let mut till = LegacyDevice::log_in(address(world, 0), json!(shop), json!("till"), "主").await;
    till.expect_nothing().await;
    let mut native = Login::main(&shop, "native").on(&world.url(1)).await;
    let mut hand = LegacyDevice::log_in(address(world, 1), json!(shop), json!("hand"), "副").await;
    for (given, kind, status) in [
        (r#""type":"称重 & <b>","status":"new""#, "称重 & <b>", "new"),
        (r#""type":5,"status":0"#, "5", "0"),
        (r#""type":"退菜","status":"""#, "退菜", "open"),
        (r#""type":"打折","status":null"#, "打折", "open"),
    ] {
        hand.say(format!(r#"{{"op":"notify",{given}}}"#)).await;
        let pushed = till.json().await;
        assert_eq!((&pushed["type"], &pushed["status"]), (&json!(kind), &json!(status)), "{given}");
        assert_eq!(pushed["title"], format!("桌id: {kind}"));
        let message = native.expect("message").await;
        assert_eq!((&message["type"], &message["status"]), (&json!(kind), &json!(status)), "{given}");
    }
}

async fn names_out_of_bounds_are_refused_and_the_connection_lives_on(world: &mut World) {
    let shop = unique("shop");
    let mut till = LegacyDevice::log_in(address(world, 0), json!(shop), json!("till"), "主").await;
    till.expect_nothing().await;
    let mut hand = LegacyDevice::log_in(address(world, 1), json!(shop), json!("hand"), "副").await;
    let (most, more) = ("x".repeat(64), "x".repeat(65));
    for fields in [
        r#""type":"""#.to_owned(),
        r#""data":1"#.to_owned(),
        r#""type":null"#.to_owned(),
        r#""type":["加菜"]"#.to_owned(),
        format!(r#""type":"{more}""#),
        r#""type":"a{b""#.to_owned(),
        format!(r#""type":"t","table_id":"{more}""#),
        r#""type":"t","table_id":"a\nb""#.to_owned(),
        r#""type":"t","table_id":true"#.to_owned(),
        format!(r#""type":"t","status":"{more}""#),
        r#""type":"t","status":"all""#.to_owned(),
        r#""type":"t","status":{}"#.to_owned(),
    ] {
        hand.say(format!(r#"{{"op":"notify",{fields}}}"#)).await;
        assert!(!hand.refusal().await.is_empty(), "{fields}");
    }
    hand.say(format!(r#"{{"op":"notify","type":"{most}","table_id":"{most}","status":"{most}"}}"#)).await;
    let pushed = till.json().await;
    assert_eq!((&pushed["type"], &pushed["status"], &pushed["table_id"]), (&json!(most), &json!(most), &json!(most)));
    hand.expect_nothing().await;
}

async fn a_newer_login_of_the_same_client_replaces_the_older(world: &mut World) {
    let shop = unique("shop");
    let mut older = LegacyDevice::log_in(address(world, 0), json!(shop), json!(1), "主").await;
    older.expect_nothing().await;
    let mut newer = LegacyDevice::log_in(address(world, 1), json!(shop), json!("1"), "主").await;
    assert_eq!(older.close_code().await.0, 4000);
    newer.expect_nothing().await;
}

#[tokio::test]
async fn without_the_setting_there_is_no_old_server() {
    let world = World::start(1).await;
    let (status, _) = crate::harness::RawSocket::handshake(&format!("ws://{}/", address(&world, 0)), &[]).await;
    assert_eq!(status, 404);
    let (status, _) = world.nodes[0].get_public("/api.php/index/index/messageList/shop_id/1").await;
    assert_eq!(status, 404);
}

#[tokio::test]
async fn the_login_time_out_does_not_hold_and_the_heartbeat_does() {
    let settings = [("LEGACY", "true"), ("TIMEOUTS_LOGIN", "1s"), ("HEARTBEAT", "1s")];
    let world = World::with(1, &settings).await;
    let mut lively = raw(address(&world, 0)).await;
    let mut pings = 0;
    while pings < 4 {
        let frame = lively.read_frame().await.expect("it is not closed");
        assert_eq!(frame.opcode, PING, "{frame:?}");
        lively.send(&Frame::new(PONG, frame.payload)).await;
        pings += 1;
    }
    lively.send(&Frame::text("still here")).await;
    assert_eq!(next_text(&mut lively).await, "still here");
    // It answers no Ping.
    let mut silent = raw(address(&world, 0)).await;
    assert_eq!(silent.close_code().await.0, 4006);
    let mut silent = raw_login(address(&world, 0), &unique("shop"), "1", "主").await;
    assert_eq!(silent.close_code().await.0, 4006);
}

#[tokio::test]
async fn logout_closes_with_1000_logged_in_or_not() {
    let world = world(1).await;
    let mut stranger = LegacyDevice::connect(address(&world, 0)).await;
    stranger.say(r#"{"op":"logout"}"#).await;
    assert_eq!(stranger.close_code().await.0, 1000);
    let mut till = LegacyDevice::log_in(address(&world, 0), json!(unique("shop")), json!(1), "主").await;
    till.say(r#" {"shop_id":1,"op":"logout"} "#).await;
    assert_eq!(till.close_code().await.0, 1000);
}

#[tokio::test]
async fn what_is_no_op_comes_back_as_it_went() {
    let world = world(1).await;
    let mut device = LegacyDevice::connect(address(&world, 0)).await;
    for raw in [
        "",
        "ping",
        "{",
        r#"{"op":"dance"}"#,
        r#"["op","login"]"#,
        r#"{"op":7}"#,
        r#"{"a":{"op":"logout"}}"#,
        r#"{"op":"logout"} x"#,
        r#"{"OP":"logout"}"#,
        "{\"op\" : \"Login\" }",
    ] {
        device.say(raw).await;
        assert_eq!(device.text().await, raw);
    }
    for raw in [&b""[..], b"\x00\xff\xfe", br#"{"op":"logout"}"#, b"from_admin=1&op=reload"] {
        device.send_raw(Message::binary(raw.to_vec())).await;
        assert_eq!(device.next().await, Message::binary(raw.to_vec()));
    }
    device.expect_nothing().await;
}

#[tokio::test]
async fn too_many_frames_are_answered_rate_limited_and_then_closed_with_4004() {
    let world = World::with(1, &[("LEGACY", "true"), ("LIMITS_SESSION_OPS_PER_S", "1")]).await;
    let mut socket = raw(address(&world, 0)).await;
    let frames: Vec<u8> = (0..600).flat_map(|_| Frame::text("raw").bytes()).collect();
    socket.write(&frames).await;
    for _ in 0..5 {
        assert_eq!(next_text(&mut socket).await, "raw");
    }
    let answer: serde_json::Value = serde_json::from_str(&next_text(&mut socket).await).unwrap();
    crate::harness::legacy::assert_answer(&answer);
    assert_eq!((&answer["code"], &answer["msg"]), (&json!(1), &json!("rate_limited")));
    assert_eq!(socket.close_code().await.0, 4004);
}

#[tokio::test]
async fn a_shop_that_sends_too_much_hears_rate_limited() {
    let world = World::with(1, &[("LEGACY", "true"), ("LIMITS_SHOP_PUBLISHES_PER_S", "1")]).await;
    let shop = unique("shop");
    let mut till = LegacyDevice::log_in(address(&world, 0), json!(shop), json!("till"), "主").await;
    till.expect_nothing().await;
    let mut hand = LegacyDevice::log_in(address(&world, 0), json!(shop), json!("hand"), "副").await;
    for _ in 0..20 {
        hand.say(r#"{"op":"notify","type":"加菜"}"#).await;
    }
    assert_eq!(hand.refusal().await, "rate_limited");
}
