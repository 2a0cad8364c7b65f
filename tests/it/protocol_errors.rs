//! Peers that do not speak the protocol: each is told so, and the node serves everyone else on.

mod frames;
mod limits;

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::harness::raw::{BINARY, TEXT};
use crate::harness::{Device, Encoding, Frame, Login, RawSocket, World, unique};

/// Frames that are no object with an `op`.
const MALFORMED: [&str; 10] =
    ["", "{", "null", "[]", r#"["ping"]"#, "7", "\"login\"", "{}", r#"{"op":7}"#, r#"{"op":"ping"} x"#];

#[tokio::test]
async fn a_malformed_frame_gets_bad_request_and_the_connection_lives_on() {
    let world = World::start(1).await;
    let shop = unique("shop");
    let _main = Login::main(&shop, "till").on(&world.url(0)).await;
    let mut device = Login::sub(&shop, "hand").on(&world.url(0)).await;
    for frame in MALFORMED {
        device.send_raw(Message::text(frame)).await;
        assert_eq!(device.expect("error").await["code"], "bad_request", "{frame:?}");
    }
    device.send_raw(Message::binary(br#"{"op":"ping"}"#.to_vec())).await;
    assert_eq!(device.expect("error").await["code"], "bad_request", "a binary frame");
    device.notify(json!({"type": "still-here"})).await;
    let rejected =
        world.nodes[0].metrics().await.labelled("shoprelay_frames_rejected_total", &[("code", "bad_request")]);
    assert_eq!(rejected, MALFORMED.len() as f64 + 1.0);
    world.assert_serves().await;
}

#[tokio::test]
async fn a_malformed_msgpack_frame_gets_bad_request_and_the_connection_lives_on() {
    let world = World::start(1).await;
    let mut device = Login::sub(&unique("shop"), "hand").encoding(Encoding::MsgPack).on(&world.url(0)).await;
    let ping = b"\x81\xa2op\xa4ping";
    let frames: [&[u8]; 9] = [
        b"",
        b"\xc1",
        b"\xc0",
        b"\x90",
        b"\x80",
        b"\x81\xa2op",
        b"\x81\xa2op\xa4ping\x00",
        b"\x91\xa4ping",
        b"\x81\x00\xa4ping",
    ];
    for frame in frames {
        device.send_raw(Message::binary(frame.to_vec())).await;
        assert_eq!(device.expect("error").await["code"], "bad_request", "{frame:02x?}");
    }
    device.send_raw(Message::text(r#"{"op":"ping"}"#)).await;
    assert_eq!(device.expect("error").await["code"], "bad_request", "a text frame");
    device.send_raw(Message::binary(ping.to_vec())).await;
    device.expect("pong").await;
}

#[tokio::test]
async fn malformed_frames_in_a_row_are_closed_with_4002_after_32_of_them() {
    let world = World::start(1).await;
    let shop = unique("shop");
    let mut device = Login::sub(&shop, "hand").on(&world.url(0)).await;
    for _ in 0..32 {
        device.send_raw(Message::text("{")).await;
        assert_eq!(device.expect("error").await["code"], "bad_request", "up to 32 are answered");
    }
    // A good frame starts the row anew.
    device.expect_nothing().await;
    for _ in 0..33 {
        device.send_raw(Message::text("{")).await;
    }
    assert_eq!(device.close_code().await.0, 4002);
    world.assert_serves().await;
}

#[tokio::test]
async fn a_hundred_malformed_frames_in_all_are_the_most() {
    let world = World::start(1).await;
    let mut device = Login::sub(&unique("shop"), "hand").on(&world.url(0)).await;
    for _ in 0..100 {
        device.send_raw(Message::text("{")).await;
        assert_eq!(device.expect("error").await["code"], "bad_request");
        device.expect_nothing().await;
    }
    device.send_raw(Message::text("{")).await;
    assert_eq!(device.close_code().await.0, 4002);
    world.assert_serves().await;
}

#[tokio::test]
async fn an_unknown_op_is_named_and_is_no_malformed_frame() {
    let world = World::start(1).await;
    let mut device = Login::sub(&unique("shop"), "hand").on(&world.url(0)).await;
    for _ in 0..120 {
        device.refused("frobnicate", json!({}), "unknown_op").await;
        for op in ["jion", "Notify", "op"] {
            device.refused(op, json!({}), "unknown_op").await;
        }
    }
    device.refused("", json!({}), "unknown_op").await;
    device.expect_nothing().await;
}

#[tokio::test]
async fn before_a_login_everything_but_login_ping_and_logout_is_not_logged_in() {
    let world = World::start(1).await;
    let mut device = Device::connect(&world.url(0), Encoding::Json).await;
    device.refused("notify", json!({"type": 7}), "not_logged_in").await;
    device.refused("frobnicate", json!({}), "not_logged_in").await;
    device.refused("notify", json!({"type": "t"}), "not_logged_in").await;
    device.refused("deal", json!({"id": "1-1", "status": "done"}), "not_logged_in").await;
    device.refused("list", json!({}), "not_logged_in").await;
    device.refused("online", json!({}), "not_logged_in").await;
    device.send(json!({"op": "ack", "id": "1-1", "ref": "a"})).await;
    assert_eq!(device.expect("error").await["code"], "not_logged_in");
    assert_eq!(device.request(json!({"op": "ping"})).await["op"], "pong");
    let login = Login::main(&unique("shop"), "till");
    assert_eq!(device.request(login.op()).await["op"], "welcome");
    device.refused("login", login.op(), "already_logged_in").await;
    device.refused("login", Login::sub("other", "hand").op(), "already_logged_in").await;
    device.expect_nothing().await;
}

#[tokio::test]
async fn a_login_with_a_bad_field_is_a_bad_request_and_may_be_tried_again() {
    let world = World::start(1).await;
    let mut device = Device::connect(&world.url(0), Encoding::Json).await;
    let good = Login::main(&unique("shop"), "till").op();
    let with = |field: &str, value: Value| {
        let mut op = good.clone();
        op[field] = value;
        op
    };
    for field in ["shop", "device"] {
        let long = "x".repeat(65);
        for bad in [
            json!(""),
            json!(long),
            json!("a\nb"),
            json!("a\u{7f}"),
            json!("a\u{85}"),
            json!("{"),
            json!("}"),
            json!(12),
            json!(null),
        ] {
            device.refused("login", with(field, bad), "bad_request").await;
        }
        let mut missing = good.clone();
        missing.as_object_mut().expect("an object").remove(field);
        device.refused("login", missing, "bad_request").await;
    }
    for (field, bad) in [("role", json!("boss")), ("role", json!(null)), ("ack", json!("never")), ("meta", json!([]))] {
        device.refused("login", with(field, bad), "bad_request").await;
    }
    // A field that nobody knows is nobody's fault.
    assert_eq!(device.request(with("colour", json!("red"))).await["op"], "welcome");
}

#[tokio::test]
async fn an_unknown_subprotocol_is_refused_with_400_and_a_known_one_among_others_is_taken() {
    let world = World::start(1).await;
    let url = world.url(0);
    for offers in ["mqtt", "shoprelay.v2.json", "mqtt, soap"] {
        let (status, _) = RawSocket::handshake(&url, &[("Sec-WebSocket-Protocol", offers)]).await;
        assert_eq!(status, 400, "{offers}");
    }
    let (status, mut socket) =
        RawSocket::handshake(&url, &[("Sec-WebSocket-Protocol", "mqtt, shoprelay.v1.msgpack")]).await;
    assert_eq!(status, 101);
    socket.send(&Frame::new(BINARY, b"\x81\xa2op\xa4ping".as_slice())).await;
    let pong = socket.read_frame().await.expect("an answer");
    assert_eq!((pong.opcode, pong.payload.as_slice()), (BINARY, b"\x81\xa2op\xa4pong".as_slice()));
    let mut plain = RawSocket::open(&url).await;
    plain.send(&Frame::text(r#"{"op":"ping"}"#)).await;
    assert_eq!(plain.read_frame().await.expect("an answer").opcode, TEXT);
    world.assert_serves().await;
}

#[tokio::test]
async fn a_request_that_is_no_upgrade_gets_an_http_answer() {
    let world = World::start(1).await;
    let (status, _) = world.nodes[0].get_public("/ws").await;
    assert!((400..500).contains(&status), "GET /ws without an upgrade was answered {status}");
    let (status, _) = world.nodes[0].get_public("/nothing-here").await;
    assert_eq!(status, 404);
    world.assert_serves().await;
}
