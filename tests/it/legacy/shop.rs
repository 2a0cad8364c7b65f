//! Old and new devices in one shop: a legacy main, a native one, two legacy subs and a native one, on as
//! many nodes as there are.

use serde_json::{Value, json};

use super::http::{deal, message_list};
use super::{address, number_of, on_every_legacy_world};
use crate::harness::{Device, Encoding, LegacyDevice, Login, World, eventually, unique};

on_every_legacy_world!(
    each_subs_notify_reaches_both_mains_and_no_sub,
    each_mains_notify_reaches_every_sub_that_is_online_and_no_main,
    mains_that_were_away_get_the_same_in_the_same_order,
    subs_that_were_away_miss_signals_and_get_messages,
    what_is_dealt_with_over_http_is_told_to_native_devices_alone,
    what_is_dealt_with_by_a_native_main_is_gone_from_the_old_list,
    the_back_end_reaches_legacy_devices,
    a_group_and_a_user_and_a_device_may_be_legacy,
    values_pass_unchanged_both_ways,
    a_receipt_is_told_to_a_native_sender_of_a_legacy_main,
);

struct Shop {
    id: String,
    till: LegacyDevice,
    native: Device,
    hands: [LegacyDevice; 2],
    tablet: Device,
}

impl Shop {
    async fn open(world: &World) -> Shop {
        let id = unique("shop");
        let mut till = LegacyDevice::log_in(address(world, 0), json!(id), json!("till"), "主").await;
        till.expect_nothing().await;
        let native = Login::main(&id, "native").on(&world.url(1)).await;
        let mut hands = [
            LegacyDevice::log_in(address(world, 0), json!(id), json!("hand-1"), "副").await,
            LegacyDevice::log_in(address(world, 1), json!(id), json!("hand-2"), "副").await,
        ];
        for hand in &mut hands {
            hand.expect_nothing().await;
        }
        let tablet = Login::sub(&id, "tablet").on(&world.url(1)).await;
        Shop { id, till, native, hands, tablet }
    }

    /// Checks that nothing is on its way to anyone. What a node sent before, another has by now.
    async fn expect_nothing(&mut self) {
        self.till.expect_nothing().await;
        self.native.expect_nothing().await;
        for hand in &mut self.hands {
            hand.expect_nothing().await;
        }
        self.tablet.expect_nothing().await;
    }

    /// The next push of the legacy main and the next message of the native one, which are of one message.
    async fn both_mains(&mut self) -> (Value, Value) {
        let (pushed, message) = (self.till.json().await, self.native.expect("message").await);
        assert_eq!((&pushed["type"], &pushed["status"]), (&message["type"], &message["status"]));
        let id = message["id"].as_str().unwrap();
        self.native.ack(id).await;
        (pushed, message)
    }
}

async fn each_subs_notify_reaches_both_mains_and_no_sub(world: &mut World) {
    let mut shop = Shop::open(world).await;
    for n in 0..2 {
        let (client, table) = (format!("hand-{}", n + 1), n + 7);
        shop.hands[n]
            .say(format!(
                r#"{{"op":"notify","from_client_type":"副","shop_id":"{}","table_id":{table},"type":"加菜","data":{{"菜":["鱼",1.50]}},"user_info":{{"name":"李"}},"from_client_id":"{client}","status":"new"}}"#,
                shop.id
            ))
            .await;
        let (pushed, message) = shop.both_mains().await;
        assert_eq!((&pushed["table_id"], &pushed["status"]), (&json!(table), &json!("new")));
        assert_eq!(message["from"], json!({"device": client, "role": "sub"}));
        assert_eq!((&message["table"], &message["to"]), (&json!(table.to_string()), &json!("mains")));
        assert_eq!(message["data"], json!({"菜": ["鱼", 1.5]}));
        assert_eq!(message["user_info"], json!({"name": "李"}));
    }
    shop.tablet.notify(json!({"type": "退菜", "table": "A 3", "data": [1], "user_info": "u"})).await;
    let (pushed, message) = shop.both_mains().await;
    assert_eq!((&pushed["table_id"], &pushed["title"]), (&json!("A 3"), &json!("桌id:A 3 退菜")));
    assert_eq!(message["from"], json!({"device": "tablet", "role": "sub"}));
    // A signal to the mains is the object, for a legacy one.
    shop.tablet.notify(json!({"type": "ring", "to": "mains", "durable": false, "data": {"a": 1}})).await;
    let text = shop.till.text().await;
    let id = &shop.id;
    assert_eq!(
        text,
        format!(
            r#"{{"from_client_type":"副","shop_id":"{id}","table_id":"","type":"ring","data":{{"a":1}},"from_client_id":"tablet"}}"#
        )
    );
    assert_eq!(shop.native.expect("signal").await["type"], "ring");
    shop.expect_nothing().await;
}

async fn each_mains_notify_reaches_every_sub_that_is_online_and_no_main(world: &mut World) {
    let mut shop = Shop::open(world).await;
    let object = format!(
        r#"{{"from_client_type":"主","shop_id":"{}","table_id":12,"type":"打折","data":{{"b":1.0,"a":[null]}},"user_info":7,"from_client_id":"till","status":"x","more":"kept"}}"#,
        shop.id
    );
    shop.till.say(object.replacen('{', r#"{"op":"notify","#, 1)).await;
    for hand in &mut shop.hands {
        assert_eq!(hand.text().await, object);
    }
    let signal = shop.tablet.expect("signal").await;
    assert_eq!(signal["from"], json!({"device": "till", "role": "main"}));
    assert_eq!((&signal["type"], &signal["table"]), (&json!("打折"), &json!("12")));
    assert_eq!((&signal["data"], &signal["user_info"]), (&json!({"b": 1.0, "a": [null]}), &json!(7)));

    shop.native.notify(json!({"type": "结账", "table": "9", "data": {"sum": 8}, "user_info": {"n": "王"}})).await;
    let expected = format!(
        r#"{{"from_client_type":"主","shop_id":"{}","table_id":"9","type":"结账","data":{{"sum":8}},"user_info":{{"n":"王"}},"from_client_id":"native"}}"#,
        shop.id
    );
    for hand in &mut shop.hands {
        assert_eq!(hand.text().await, expected);
    }
    assert_eq!(shop.tablet.expect("signal").await["from"], json!({"device": "native", "role": "main"}));
    let listed = shop.native.request(json!({"op": "list"})).await;
    assert_eq!(listed["items"], json!([]), "nothing of it is stored");
    shop.expect_nothing().await;
}

async fn mains_that_were_away_get_the_same_in_the_same_order(world: &mut World) {
    let Shop { id, till, native, mut hands, mut tablet } = Shop::open(world).await;
    drop(till);
    native.close().await;
    for n in 0..5 {
        hands[n % 2].say(format!(r#"{{"op":"notify","type":"加菜","table_id":"{n}"}}"#)).await;
        hands[n % 2].expect_nothing().await;
        tablet.notify(json!({"type": "退菜", "table": n.to_string()})).await;
    }
    let mut till = LegacyDevice::log_in(address(world, 1), json!(id), json!("till"), "主").await;
    let mut native = Login::main(&id, "native").on(&world.url(0)).await;
    for n in 0..5 {
        for kind in ["加菜", "退菜"] {
            let (pushed, message) = (till.json().await, native.expect("message").await);
            assert_eq!((&pushed["type"], &pushed["table_id"]), (&json!(kind), &json!(n.to_string())));
            assert_eq!((&message["type"], &message["table"]), (&json!(kind), &json!(n.to_string())));
        }
    }
    till.expect_nothing().await;
    native.expect_nothing().await;
    hands[0].say(r#"{"op":"notify","type":"live"}"#).await;
    assert_eq!(till.json().await["type"], "live");
    assert_eq!(native.expect("message").await["type"], "live");
}

async fn subs_that_were_away_miss_signals_and_get_messages(world: &mut World) {
    let Shop { id, mut till, mut native, hands, tablet } = Shop::open(world).await;
    drop(hands);
    tablet.close().await;
    till.say(r#"{"op":"notify","type":"missed"}"#).await;
    till.expect_nothing().await;
    native.notify(json!({"type": "missed"})).await;
    native.notify(json!({"type": "kept", "to": "subs", "durable": true, "table": "5"})).await;
    native.notify(json!({"type": "for-all", "to": "all", "data": 1})).await;
    assert_eq!(till.json().await["type"], "for-all");
    for n in 0..2 {
        let client = format!("hand-{}", n + 1);
        let mut hand = LegacyDevice::log_in(address(world, n), json!(id), json!(client), "副").await;
        let kept = hand.json().await;
        let number = number_of(&kept);
        let expected = json!({"id": number, "status": "open", "table_id": "5", "type": "kept", "title": "桌id:5 kept"});
        assert_eq!(kept, expected);
        assert_eq!(hand.json().await["type"], "for-all");
        hand.expect_nothing().await;
    }
    let mut tablet = Login::sub(&id, "tablet").on(&world.url(0)).await;
    assert_eq!(tablet.expect("message").await["type"], "kept");
    assert_eq!(tablet.expect("message").await["type"], "for-all");
    tablet.expect_nothing().await;
}

async fn what_is_dealt_with_over_http_is_told_to_native_devices_alone(world: &mut World) {
    let mut shop = Shop::open(world).await;
    shop.tablet.notify(json!({"type": "加菜", "table": "1"})).await;
    let (pushed, message) = shop.both_mains().await;
    shop.hands[0].say(r#"{"op":"notify","type":"退菜","table_id":2}"#).await;
    let (other, _) = shop.both_mains().await;
    let number = number_of(&pushed);
    assert_eq!(deal(world, 0, number, "done").await, Ok(()));
    for device in [&mut shop.native, &mut shop.tablet] {
        let status = device.expect("status").await;
        assert_eq!((&status["message"], &status["status"]), (&message["id"], &json!("done")));
        assert_eq!(status["by"], json!({"api": "legacy"}));
    }
    for n in 0..2 {
        let numbers: Vec<u64> = message_list(world, n, &shop.id).await.iter().map(number_of).collect();
        assert_eq!(numbers, [number_of(&other)], "what was dealt with is not open any more");
    }
    // The first wins; the same once more changes nothing.
    assert!(deal(world, 1, number, "refused").await.is_err());
    assert_eq!(deal(world, 1, number, "done").await, Ok(()));
    let late = shop.native.refused("deal", json!({"id": message["id"], "status": "mine"}), "conflict").await;
    assert_eq!((&late["status"], &late["by"]), (&json!("done"), &json!({"api": "legacy"})));
    // The sender is legacy: only the native main hears of it.
    assert_eq!(deal(world, 1, number_of(&other), "seen").await, Ok(()));
    assert_eq!(shop.native.expect("status").await["status"], "seen");
    shop.expect_nothing().await;
}

async fn what_is_dealt_with_by_a_native_main_is_gone_from_the_old_list(world: &mut World) {
    let mut shop = Shop::open(world).await;
    let mut second = Login::main(&shop.id, "second").on(&world.url(0)).await;
    shop.hands[1].say(r#"{"op":"notify","type":"加菜","table_id":"1"}"#).await;
    let (pushed, message) = shop.both_mains().await;
    second.expect("message").await;
    let dealt = shop.native.request(json!({"op": "deal", "id": message["id"], "status": "done"})).await;
    assert_eq!(dealt["op"], "dealt");
    let status = second.expect("status").await;
    assert_eq!(status["by"], json!({"device": "native", "role": "main"}));
    assert!(message_list(world, 0, &shop.id).await.is_empty());
    for status in ["done", "other"] {
        let msg = deal(world, 0, number_of(&pushed), status).await.expect_err("another was first");
        assert!(msg.contains("done"), "{msg}");
    }
    second.close().await;
    shop.expect_nothing().await;
}

async fn the_back_end_reaches_legacy_devices(world: &mut World) {
    let mut shop = Shop::open(world).await;
    let path = format!("/v1/shops/{}/messages", shop.id);
    let posted = world.api(0).post(&path, json!({"type": "order", "table": "8", "data": {"n": 1}})).await;
    assert_eq!(posted.status, 201, "{}", posted.text);
    let (pushed, message) = shop.both_mains().await;
    assert_eq!(pushed["title"], "桌id:8 order");
    assert_eq!(message["from"], json!({"api": "local"}));
    let signal = json!({"type": "hint", "to": "all", "durable": false, "data": "d", "table": "8"});
    assert_eq!(world.api(1).post(&path, signal).await.status, 202);
    let expected = format!(r#"{{"shop_id":"{}","table_id":"8","type":"hint","data":"d"}}"#, shop.id);
    assert_eq!(shop.till.text().await, expected);
    for hand in &mut shop.hands {
        assert_eq!(hand.text().await, expected);
    }
    for native in [&mut shop.native, &mut shop.tablet] {
        assert_eq!(native.expect("signal").await["type"], "hint");
    }
    assert_eq!(world.api(0).post("/v1/broadcast", json!({"type": "closing", "role": "sub"})).await.status, 202);
    let expected = format!(r#"{{"shop_id":"{}","table_id":"","type":"closing"}}"#, shop.id);
    for hand in &mut shop.hands {
        assert_eq!(hand.text().await, expected);
    }
    assert_eq!(shop.tablet.expect("signal").await["type"], "closing");
    shop.expect_nothing().await;
    // A back end sees legacy devices as it sees the others, and may close them.
    let device = format!("/v1/shops/{}/devices/hand-2", shop.id);
    assert_eq!(world.api(0).get(&device).await.json["role"], "sub");
    // Of a node that started a moment ago the other may not have heard yet.
    eventually(crate::harness::SOON, "the nodes know each other", async || {
        world.api(0).get("/v1/nodes").await.items().len() == world.nodes.len()
    })
    .await;
    let closed = world.api(0).post(&format!("{device}/close"), json!({"data": "bye"})).await;
    assert_eq!(closed.status, 204, "{}", closed.text);
    let last = shop.hands[1].json().await;
    assert_eq!((&last["type"], &last["data"]), (&json!("close"), &json!("bye")));
    assert_eq!(shop.hands[1].close_code().await.0, 4005);
}

async fn a_group_and_a_user_and_a_device_may_be_legacy(world: &mut World) {
    let mut shop = Shop::open(world).await;
    for member in ["groups/bar/devices/hand-1", "users/li/devices/hand-1"] {
        let put = world.api(0).put(&format!("/v1/shops/{}/{member}", shop.id), json!({})).await;
        assert_eq!(put.status, 204, "{}", put.text);
    }
    for to in [json!({"group": "bar"}), json!({"user": "li"}), json!({"devices": ["hand-1", "tablet"]})] {
        shop.native.notify(json!({"type": "stored", "to": to, "durable": true})).await;
        let pushed = shop.hands[0].json().await;
        assert_eq!((&pushed["type"], number_of(&pushed) > 0), (&json!("stored"), true), "{to}");
        shop.native.notify(json!({"type": "shown", "to": to, "durable": false, "data": 1})).await;
        let shown = shop.hands[0].json().await;
        assert_eq!((&shown["type"], &shown["from_client_id"]), (&json!("shown"), &json!("native")), "{to}");
    }
    assert_eq!(shop.tablet.expect("message").await["type"], "stored");
    assert_eq!(shop.tablet.expect("signal").await["type"], "shown");
    shop.expect_nothing().await;
    // Joined or left later, it is what counts when a message is passed.
    let left = world.api(0).delete(&format!("/v1/shops/{}/groups/bar/devices/hand-1", shop.id)).await;
    assert_eq!(left.status, 204);
    let joined = world.api(0).put(&format!("/v1/shops/{}/groups/bar/devices/hand-2", shop.id), json!({})).await;
    assert_eq!(joined.status, 204);
    shop.native.notify(json!({"type": "later", "to": {"group": "bar"}, "durable": true})).await;
    assert_eq!(shop.hands[1].json().await["type"], "later");
    shop.expect_nothing().await;
}

async fn values_pass_unchanged_both_ways(world: &mut World) {
    let mut shop = Shop::open(world).await;
    let mut packed = Login::main(&shop.id, "packed").encoding(Encoding::MsgPack).on(&world.url(0)).await;
    let values = [
        json!(null),
        json!(false),
        json!(0),
        json!(-1.5),
        json!(u64::MAX),
        json!(i64::MIN),
        json!(""),
        json!("\"\\\n\u{1F41F} 鱼 </script>"),
        json!([[], {}, [[1]]]),
        json!({"": {"op": "login"}, "a b": null, "op": "notify"}),
    ];
    for value in values {
        let notify = json!({"op": "notify", "type": "t", "data": value, "user_info": [value]});
        shop.hands[0].send(notify.clone()).await;
        for native in [&mut shop.native, &mut packed] {
            let message = native.expect("message").await;
            assert_eq!((message.get("data").unwrap_or(&Value::Null), &message["user_info"]), (&value, &json!([value])));
        }
        let number = number_of(&shop.till.json().await);
        let listed = message_list(world, 1, &shop.id).await;
        let item = listed.iter().find(|item| item["id"] == number).expect("it is listed");
        assert_eq!((&item["data"], &item["user_info"]), (&value, &json!([value])));
        shop.till.send(notify).await;
        let signal = shop.tablet.expect("signal").await;
        assert_eq!((signal.get("data").unwrap_or(&Value::Null), &signal["user_info"]), (&value, &json!([value])));
        for hand in &mut shop.hands {
            let object = hand.json().await;
            assert_eq!((&object["data"], &object["user_info"]), (&value, &json!([value])));
        }
        packed.notify(json!({"type": "s", "data": value, "user_info": [value]})).await;
        for hand in &mut shop.hands {
            let object = hand.json().await;
            assert_eq!((object.get("data").unwrap_or(&Value::Null), &object["user_info"]), (&value, &json!([value])));
        }
        shop.tablet.expect("signal").await;
    }
}

async fn a_receipt_is_told_to_a_native_sender_of_a_legacy_main(world: &mut World) {
    let mut shop = Shop::open(world).await;
    let id = shop.tablet.notify(json!({"type": "加菜", "receipt": true})).await;
    let pushed = shop.till.json().await;
    // Reading on lets the library answer the Ping.
    shop.till.expect_nothing().await;
    let receipt = shop.tablet.expect("receipt").await;
    assert_eq!((&receipt["message"], &receipt["device"]), (&json!(id), &json!("till")));
    shop.native.expect("message").await;
    shop.native.ack(&id).await;
    assert_eq!(shop.tablet.expect("receipt").await["device"], "native");
    eventually(crate::harness::SOON, "both mains have it", async || {
        let listed = message_list(world, 0, &shop.id).await;
        listed.len() == 1 && listed[0]["id"] == pushed["id"] && listed[0]["is_delivered"] == 1
    })
    .await;
}
