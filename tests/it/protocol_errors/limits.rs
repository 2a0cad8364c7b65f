//! The limits of frames and of rates, each from both sides.

use std::time::Duration;

use serde_json::json;
use tokio_tungstenite::tungstenite::Message;

use crate::harness::raw::{BINARY, TEXT};
use crate::harness::{Device, Frame, Login, RawSocket, SOON, World, eventually, unique};

const FRAME_BYTES: usize = 65_536;

/// A notify of exactly this many bytes.
fn notify_of(bytes: usize) -> String {
    let op = |fill: usize| json!({"op": "notify", "type": "t", "data": "x".repeat(fill)}).to_string();
    let text = op(bytes - op(0).len());
    assert_eq!(text.len(), bytes);
    text
}

async fn shop_with_a_main(world: &World) -> (String, Device) {
    let shop = unique("shop");
    let main = Login::main(&shop, "till").on(&world.url(0)).await;
    (shop, main)
}

#[tokio::test]
async fn a_frame_of_the_limit_is_taken_and_one_byte_more_is_closed_with_1009() {
    let world = World::start(1).await;
    let (shop, mut main) = shop_with_a_main(&world).await;
    let mut sub = Login::sub(&shop, "hand").on(&world.url(0)).await;
    sub.send_raw(Message::text(notify_of(FRAME_BYTES))).await;
    let id = sub.expect("accepted").await["id"].clone();
    let message = main.expect("message").await;
    assert_eq!(message["id"], id);
    assert!(message["data"].as_str().is_some_and(|data| data.len() > 65_000));
    sub.send_raw(Message::text(notify_of(FRAME_BYTES + 1))).await;
    assert_eq!(sub.close_code().await.0, 1009);
    main.expect_nothing().await;
    world.assert_serves().await;
}

#[tokio::test]
async fn a_header_that_announces_too_much_is_closed_before_the_payload_comes() {
    let world = World::start(1).await;
    for len in [FRAME_BYTES as u64 + 1, 1 << 32, i64::MAX as u64] {
        for opcode in [TEXT, BINARY] {
            let mut socket = RawSocket::open(&world.url(0)).await;
            let mut header = Frame::new(opcode, "").header(len);
            header.extend([1, 2, 3, 4]);
            socket.write(&header).await;
            assert_eq!(socket.close_code().await.0, 1009, "{len} bytes");
        }
    }
    // The highest bit of a length must be 0.
    let mut socket = RawSocket::open(&world.url(0)).await;
    let mut header = Frame::text("").header(u64::MAX);
    header.extend([1, 2, 3, 4]);
    socket.write(&header).await;
    let (code, _) = socket.close_code().await;
    assert!(matches!(code, 1009 | 4002), "{code}");
    world.assert_serves().await;
}

#[tokio::test]
async fn fragments_are_counted_together() {
    let world = World::start(1).await;
    let (shop, mut main) = shop_with_a_main(&world).await;
    for size in [FRAME_BYTES - 1, 10_000, 1_000] {
        let mut socket = RawSocket::open(&world.url(0)).await;
        socket.send_op(&Login::sub(&shop, "hand").op()).await;
        socket.expect("welcome").await;
        for frame in Frame::fragments(notify_of(FRAME_BYTES).as_bytes(), size) {
            socket.send(&frame).await;
        }
        socket.expect("accepted").await;
        main.take(1).await;
        for frame in Frame::fragments(notify_of(FRAME_BYTES + 1).as_bytes(), size) {
            socket.send(&frame).await;
        }
        assert_eq!(socket.close_code().await.0, 1009, "in fragments of {size}");
    }
    main.expect_nothing().await;
    world.assert_serves().await;
}

#[tokio::test]
async fn fragments_without_end_are_closed_at_the_limit() {
    let world = World::start(1).await;
    let mut socket = RawSocket::open(&world.url(0)).await;
    let endless = Frame { fin: false, ..Frame::fragments(&[b'x'; 4096], 1024).remove(0) };
    socket.send(&endless).await;
    let more = Frame { fin: false, opcode: crate::harness::raw::CONTINUATION, ..Frame::text("x".repeat(1024)) };
    for _ in 0..64 {
        socket.send(&more).await;
    }
    assert_eq!(socket.close_code().await.0, 1009);
    world.assert_serves().await;
}

#[tokio::test]
async fn the_frame_limit_is_a_setting_and_the_welcome_says_it() {
    let world = World::with(1, &[("LIMITS_FRAME_BYTES", "1024")]).await;
    let (shop, _main) = shop_with_a_main(&world).await;
    let mut sub = Login::sub(&shop, "hand").on(&world.url(0)).await;
    assert_eq!(sub.welcome["max_frame"], 1024);
    sub.send_raw(Message::text(notify_of(1024))).await;
    sub.expect("accepted").await;
    sub.send_raw(Message::text(notify_of(1025))).await;
    assert_eq!(sub.close_code().await.0, 1009);
}

#[tokio::test]
async fn too_many_ops_are_rate_limited_and_going_on_is_closed_with_4004() {
    // One a second, so that no op in the flood finds its place between two refusals.
    let world = World::with(1, &[("LIMITS_SESSION_OPS_PER_S", "1")]).await;
    let mut device = Login::sub(&unique("shop"), "hand").on(&world.url(0)).await;
    for n in 0..2_000 {
        if device.try_send_op(json!({"op": "ping", "ref": n})).await.is_err() {
            break;
        }
    }
    let mut refused_in_a_row = 0;
    let mut answered = 0;
    loop {
        match device.event_within(SOON).await {
            Some(crate::harness::Event::Op(op)) if op["op"] == "pong" => {
                answered += 1;
                refused_in_a_row = 0;
            }
            Some(crate::harness::Event::Op(op)) => {
                assert_eq!(op["code"], "rate_limited", "{op}");
                assert!(op["retry_after_ms"].as_u64().is_some_and(|wait| wait > 0), "{op}");
                refused_in_a_row += 1;
            }
            Some(crate::harness::Event::Closed(code, _)) => {
                assert_eq!(code, 4004);
                break;
            }
            Some(crate::harness::Event::Ping(_)) => {}
            other => panic!("{other:?}"),
        }
    }
    assert!(
        (4..=7).contains(&answered),
        "the burst is five times the rate and the login one of it, {answered} were answered"
    );
    assert!((199..=200).contains(&refused_in_a_row), "closed after {refused_in_a_row} refusals in a row");
    world.assert_serves().await;
}

#[tokio::test]
async fn acks_do_not_count_towards_the_rate() {
    let world = World::with(1, &[("LIMITS_SESSION_OPS_PER_S", "10")]).await;
    let (_shop, mut main) = shop_with_a_main(&world).await;
    for _ in 0..1_000 {
        main.ack("1-1").await;
    }
    main.expect_nothing().await;
}

#[tokio::test]
async fn a_shop_that_publishes_too_much_is_rate_limited_over_all_its_devices() {
    let world = World::with(2, &[("LIMITS_SHOP_PUBLISHES_PER_S", "10")]).await;
    let (shop, mut main) = shop_with_a_main(&world).await;
    let mut subs =
        [Login::sub(&shop, "hand-0").on(&world.url(0)).await, Login::sub(&shop, "hand-1").on(&world.url(1)).await];
    let (mut accepted, mut refused) = (0, 0);
    let mut n = 0;
    eventually(SOON, "a refusal on both nodes", async || {
        let answer = subs[n % 2].request(json!({"op": "notify", "type": "t"})).await;
        n += 1;
        if answer["op"] == "accepted" {
            accepted += 1;
        } else {
            assert_eq!(answer["code"], "rate_limited", "{answer}");
            assert!(answer["retry_after_ms"].is_u64(), "{answer}");
            refused += 1;
        }
        refused >= 2
    })
    .await;
    main.take(accepted).await;
    main.expect_nothing().await;
    let (other, _main) = shop_with_a_main(&world).await;
    Login::sub(&other, "hand").on(&world.url(1)).await.notify(json!({"type": "t"})).await;
}

#[tokio::test]
async fn connections_beyond_the_limit_are_refused_with_503() {
    let world = World::with(1, &[("LIMITS_CONNECTIONS", "3")]).await;
    let url = world.url(0);
    let mut devices = Vec::new();
    for n in 0..3 {
        devices.push(Login::sub("shop", &format!("hand-{n}")).on(&url).await);
    }
    assert_eq!(RawSocket::handshake(&url, &[]).await.0, 503);
    devices.pop().expect("three of them").close().await;
    eventually(SOON, "room for one more", async || RawSocket::handshake(&url, &[]).await.0 == 101).await;
}

/// Pings were answered without a limit, each with a write of its own.
#[tokio::test]
async fn a_flood_of_pings_is_told_to_slow_down_and_then_closed() {
    let world = World::with(1, &[("LIMITS_SESSION_OPS_PER_S", "1")]).await;
    let mut device = Login::sub(&unique("shop"), "hand").on(&world.url(0)).await;
    for _ in 0..230 {
        if device.try_send_raw(Message::Ping("x".into())).await.is_err() {
            break;
        }
    }
    let refused = device.next().await;
    assert_eq!(refused["code"], "rate_limited", "{refused}");
    assert_eq!(device.close_code().await.0, 4004);
    world.assert_serves().await;
}

/// A connection that was blocked in a write looked at nothing else: neither its own time-outs, nor
/// whether a newer login had taken over.
#[tokio::test]
async fn a_device_that_does_not_read_is_closed_when_it_is_replaced() {
    let world = World::start(1).await;
    let shop = unique("shop");
    let mut till = Login::main(&shop, "till").on(&world.url(0)).await;
    let mut hand = Login::sub(&shop, "hand").on(&world.url(0)).await;
    let text = "x".repeat(60_000);
    for _ in 0..20 {
        hand.notify(json!({"type": "add", "data": text})).await;
        let message = till.expect("message").await;
        till.ack(message["id"].as_str().unwrap()).await;
    }
    let mut deaf = RawSocket::open(&world.url(0)).await;
    deaf.send_op(&Login::main(&shop, "deaf").op()).await;
    deaf.expect("welcome").await;
    // Each answer is a megabyte, and none is read; what the buffers take is soon full.
    for _ in 0..60 {
        deaf.send_op(&json!({"op": "list"})).await;
    }
    let mut lists = -1.0;
    eventually(SOON, "the relay to be unable to write any more", async || {
        let before = lists;
        tokio::time::sleep(Duration::from_millis(300)).await; // between two looks
        lists = world.nodes[0].metrics().await.labelled("shoprelay_store_seconds_count", &[("op", "devices")]);
        lists == before
    })
    .await;
    assert!(lists < 60.0, "everything was written, so nothing was held up");
    let _newer = Login::main(&shop, "deaf").on(&world.url(0)).await;
    eventually(SOON, "the connection that does not read to be closed as replaced", async || {
        world.nodes[0].metrics().await.labelled("shoprelay_closes_total", &[("code", "4000")]) >= 1.0
    })
    .await;
    hand.notify(json!({"type": "add"})).await;
    till.expect("message").await;
}
