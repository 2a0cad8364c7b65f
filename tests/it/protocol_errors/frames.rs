//! WebSocket frames as no decent client sends them.

use std::time::Duration;

use serde_json::json;
use tokio::time::timeout;

use crate::harness::raw::{BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT};
use crate::harness::{Frame, Login, RawSocket, World, unique};

/// A raw connection that is logged in as a sub of a shop with a main.
async fn logged_in(world: &World) -> RawSocket {
    let shop = unique("shop");
    drop(Login::main(&shop, "till").on(&world.url(0)).await);
    let mut socket = RawSocket::open(&world.url(0)).await;
    socket.send_op(&Login::sub(&shop, "hand").op()).await;
    socket.expect("welcome").await;
    socket
}

const PING_OP: &str = r#"{"op":"ping","ref":"p"}"#;

#[tokio::test]
async fn an_unmasked_frame_is_closed_with_4002() {
    let world = World::start(1).await;
    for opcode in [TEXT, PING, CLOSE] {
        let mut socket = logged_in(&world).await;
        let payload = if opcode == TEXT { PING_OP } else { "" };
        socket.send(&Frame { masked: false, ..Frame::new(opcode, payload) }).await;
        assert_eq!(socket.close_code().await.0, 4002, "opcode {opcode}");
    }
    let mut before_login = RawSocket::open(&world.url(0)).await;
    before_login.send(&Frame { masked: false, ..Frame::text(PING_OP) }).await;
    assert_eq!(before_login.close_code().await.0, 4002);
    world.assert_serves().await;
}

#[tokio::test]
async fn reserved_bits_and_reserved_opcodes_are_closed_with_4002() {
    let world = World::start(1).await;
    for reserved in 1..8 {
        let mut socket = logged_in(&world).await;
        socket.send(&Frame { reserved, ..Frame::text(PING_OP) }).await;
        assert_eq!(socket.close_code().await.0, 4002, "reserved bits {reserved:03b}");
    }
    for opcode in [3, 7, 11, 15] {
        let mut socket = logged_in(&world).await;
        socket.send(&Frame::new(opcode, PING_OP)).await;
        assert_eq!(socket.close_code().await.0, 4002, "opcode {opcode}");
    }
    world.assert_serves().await;
}

#[tokio::test]
async fn broken_fragments_and_control_frames_are_closed_with_4002() {
    let world = World::start(1).await;
    let open = |opcode| Frame { fin: false, ..Frame::new(opcode, "{") };
    let cases = [
        vec![Frame::new(CONTINUATION, "x")],
        vec![open(TEXT), Frame::text("x")],
        vec![open(TEXT), Frame::new(BINARY, "x")],
        vec![open(PING)],
        vec![Frame::new(PING, vec![0; 126])],
    ];
    for frames in cases {
        let mut socket = logged_in(&world).await;
        for frame in &frames {
            socket.send(frame).await;
        }
        assert_eq!(socket.close_code().await.0, 4002, "{frames:?}");
    }
    world.assert_serves().await;
}

#[tokio::test]
async fn a_text_that_is_no_utf8_is_refused() {
    let world = World::start(1).await;
    let mut socket = logged_in(&world).await;
    socket.send(&Frame::new(TEXT, b"{\"op\":\"ping\",\"x\":\"\xff\xfe\"}".as_slice())).await;
    let answer = socket.read_frame().await.expect("an answer or a close");
    let is_refusal = match answer.opcode {
        TEXT => String::from_utf8_lossy(&answer.payload).contains("bad_request"),
        CLOSE => answer.payload.starts_with(&4002_u16.to_be_bytes()),
        _ => false,
    };
    assert!(is_refusal, "{answer:?}");
    world.assert_serves().await;
}

#[tokio::test]
async fn fragments_are_put_together_with_a_ping_among_them() {
    let world = World::start(1).await;
    let mut socket = logged_in(&world).await;
    let op = json!({"op": "notify", "type": "t", "data": "x".repeat(5_000), "ref": "f"}).to_string();
    for frame in Frame::fragments(op.as_bytes(), 1_000) {
        socket.send(&frame).await;
        socket.send(&Frame::new(PING, "between")).await;
    }
    let mut pongs = 0;
    let mut accepted = false;
    while pongs < 6 || !accepted {
        let frame = socket.read_frame().await.expect("the connection lives");
        match frame.opcode {
            PONG => {
                assert_eq!(frame.payload, b"between");
                pongs += 1;
            }
            TEXT => {
                let text = String::from_utf8_lossy(&frame.payload).into_owned();
                assert!(text.contains("accepted") && text.contains("\"f\""), "{text}");
                accepted = true;
            }
            other => panic!("opcode {other} came"),
        }
    }
}

#[tokio::test]
async fn a_frame_that_comes_byte_by_byte_amid_pushes_is_read_whole() {
    let world = World::start(1).await;
    let shop = unique("shop");
    let mut slow = RawSocket::open(&world.url(0)).await;
    slow.send_op(&Login::main(&shop, "slow").op()).await;
    slow.expect("welcome").await;
    let mut sub = Login::sub(&shop, "hand").on(&world.url(0)).await;
    let op = json!({"op": "list", "status": "x".repeat(60), "ref": "slow"});
    let pushes = async {
        for n in 0..100 {
            sub.notify(json!({"type": "push", "data": n})).await;
        }
    };
    let frame = Frame::text(op.to_string());
    tokio::join!(slow.send_byte_by_byte(&frame), pushes);
    let (mut messages, mut answers) = (0, 0);
    while messages < 100 || answers < 1 {
        let came = slow.next().await;
        match came["op"].as_str() {
            Some("message") => {
                assert_eq!(came["data"], messages);
                messages += 1;
            }
            Some("messages") => {
                assert_eq!(came["ref"], "slow");
                answers += 1;
            }
            _ => panic!("{came} came"),
        }
    }
}

/// First more than a connection takes in at once, then some that need the store among some that do not.
#[tokio::test]
async fn what_comes_in_one_piece_is_answered_frame_by_frame_and_in_order() {
    let world = World::start(1).await;
    let mut socket = logged_in(&world).await;
    let mixed = ["ping", "notify", "ping", "online"].into_iter().cycle();
    let ops = std::iter::repeat_n("ping", 40).chain(mixed).take(100);
    let frames = ops.enumerate().map(|(n, op)| Frame::text(json!({"op": op, "ref": n, "type": "add"}).to_string()));
    let piece: Vec<u8> = frames.flat_map(|frame| frame.bytes()).collect();
    socket.write(&piece).await;
    let answers = async {
        for n in 0..100 {
            let answer = socket.next().await;
            assert!(answer["ref"] == n && answer["op"] != "error", "{n}: {answer}");
        }
    };
    // By then no heartbeat has woken a connection that forgot some of them.
    timeout(Duration::from_secs(15), answers).await.unwrap();
}

#[tokio::test]
async fn a_peer_that_ends_in_the_middle_of_a_frame_harms_nobody() {
    let world = World::start(1).await;
    let shop = unique("shop");
    for cut in 1..PING_OP.len() {
        let mut socket = RawSocket::open(&world.url(0)).await;
        socket.send_op(&Login::sub(&shop, "hand").op()).await;
        socket.expect("welcome").await;
        socket.write(&Frame::text(PING_OP).bytes()[..cut]).await;
    }
    world.assert_serves().await;
}

#[tokio::test]
async fn a_close_of_the_peer_is_answered() {
    let world = World::start(1).await;
    for payload in [&b""[..], &[0x03, 0xe8], b"\x03\xe8bye"] {
        let mut socket = logged_in(&world).await;
        socket.send(&Frame::new(CLOSE, payload)).await;
        let answer = socket.read_frame().await.expect("a close answers a close");
        assert_eq!(answer.opcode, CLOSE, "{answer:?}");
    }
    world.assert_serves().await;
}
