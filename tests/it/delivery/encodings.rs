//! Values on their way between the two encodings.

use serde_json::{Value, json};

use super::on_one_and_two_nodes;
use crate::harness::wire::{bin, msgpack};
use crate::harness::{Device, Encoding, Login, World, unique};
use tokio_tungstenite::tungstenite::Message;

on_one_and_two_nodes!(values_pass_between_the_encodings, bytes_become_base64_in_json_and_stay_bytes_in_msgpack);

async fn pair(world: &World, shop: &str) -> [Device; 2] {
    [
        Login::main(shop, "json").on(&world.url(0)).await,
        Login::main(shop, "msgpack").encoding(Encoding::MsgPack).on(&world.url(1)).await,
    ]
}

async fn values_pass_between_the_encodings(world: &mut World) {
    let shop = unique("shop");
    let mut mains = pair(world, &shop).await;
    let mut subs = [
        Login::sub(&shop, "sub-json").on(&world.url(1)).await,
        Login::sub(&shop, "sub-msgpack").encoding(Encoding::MsgPack).on(&world.url(0)).await,
    ];
    let values = [
        json!(u64::MAX),
        json!(i64::MIN),
        json!([0, -1, 127, 128, 255, 256, 65_535, 65_536, 4_294_967_296_u64]),
        json!(0.1),
        json!("菜\u{0}\u{1f600}\"\\"),
        json!(true),
        json!({"": {"nested": [[], {}, [null]]}, "op": "login", "id": "1-1"}),
        json!("x".repeat(20_000)),
    ];
    for value in &values {
        for sub in &mut subs {
            for durable in [true, false] {
                sub.notify(json!({"type": "t", "data": value, "user_info": [value], "durable": durable})).await;
                for main in &mut mains {
                    let came = main.expect(if durable { "message" } else { "signal" }).await;
                    assert_eq!((&came["data"], &came["user_info"]), (value, &json!([value])));
                }
            }
        }
    }
}

async fn bytes_become_base64_in_json_and_stay_bytes_in_msgpack(world: &mut World) {
    let shop = unique("shop");
    let [mut json_main, mut msgpack_main] = pair(world, &shop).await;
    let mut sub = Login::sub(&shop, "sub").encoding(Encoding::MsgPack).on(&world.url(0)).await;
    let bytes = bin(&[0xff, 0x00, 0x10, 0x7f]);
    for durable in [true, false] {
        sub.notify(json!({"type": "t", "data": {"picture": bytes}, "durable": durable})).await;
        let op = if durable { "message" } else { "signal" };
        assert_eq!(json_main.expect(op).await["data"], json!({"picture": "/wAQfw=="}));
        assert_eq!(msgpack_main.expect(op).await["data"], json!({"picture": bytes}));
    }
}

#[tokio::test]
async fn values_without_a_form_in_both_encodings_are_refused_and_are_no_malformed_frames() {
    let world = World::start(1).await;
    let shop = unique("shop");
    let mut main = Login::main(&shop, "till").on(&world.url(0)).await;
    let mut sub = Login::sub(&shop, "sub").encoding(Encoding::MsgPack).on(&world.url(0)).await;
    let values: [&[u8]; 6] = [
        &[0xd4, 1, 2],
        &[0xd6, 0xff, 0, 0, 0, 0],
        &[0xcb, 0x7f, 0xf8, 0, 0, 0, 0, 0, 0],
        &[0xca, 0x7f, 0x80, 0, 0],
        &[0x81, 1, 2],
        &[0x81, 0xc0, 2],
    ];
    // More of them than of malformed frames would close the connection.
    for value in values.iter().cycle().take(60) {
        let mut frame = vec![0x83];
        for part in [json!("op"), json!("notify"), json!("type"), json!("t"), json!("data")] {
            frame.extend(msgpack(&part));
        }
        frame.extend(*value);
        sub.send_raw(Message::binary(frame)).await;
        assert_eq!(sub.expect("error").await["code"], "bad_request", "{value:02x?}");
    }
    let mut json_sub = Login::sub(&shop, "json-sub").on(&world.url(0)).await;
    for number in ["18446744073709551616", "-9223372036854775809", "1e400"] {
        json_sub.send_raw(Message::text(format!(r#"{{"op":"notify","type":"t","data":[{number}],"ref":"r"}}"#))).await;
        let error = json_sub.expect("error").await;
        assert_eq!((&error["code"], &error["ref"]), (&json!("bad_request"), &json!("r")));
    }
    let id = sub.notify(json!({"type": "fine", "data": null})).await;
    assert_eq!(main.expect("message").await["id"], id.as_str());
}

#[tokio::test]
async fn a_client_that_names_no_subprotocol_gets_json_and_the_first_known_one_is_chosen() {
    let world = World::start(1).await;
    let mut plain = Device::try_connect(&world.url(0), None).await.expect("no subprotocol is fine");
    plain.expect_nothing().await;
    let mut packed = Device::connect(&world.url(0), Encoding::MsgPack).await;
    packed.expect_nothing().await;
}

#[tokio::test]
async fn a_ref_comes_back_as_it_was() {
    let world = World::start(1).await;
    for encoding in [Encoding::Json, Encoding::MsgPack] {
        let mut device = Login::sub(&unique("shop"), "hand").encoding(encoding).on(&world.url(0)).await;
        for reference in [json!(0), json!(-5), json!(u64::MAX), json!(""), json!("r".repeat(64)), json!("店")] {
            device.send(json!({"op": "ping", "ref": reference})).await;
            assert_eq!(device.expect("pong").await["ref"], reference);
        }
        device.send(json!({"op": "ping"})).await;
        let pong = device.expect("pong").await;
        assert!(pong.get("ref").is_none_or(Value::is_null), "{pong}");
        for reference in [json!("r".repeat(65)), json!(1.5), json!([1]), json!({"a": 1}), json!(true)] {
            device.send(json!({"op": "ping", "ref": reference})).await;
            assert_eq!(device.expect("error").await["code"], "bad_request", "{reference}");
        }
    }
}
