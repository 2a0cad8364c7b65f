//! Sockets that take their time, or all of it.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;

use crate::harness::{Frame, Login, RawSocket, SOON, World, eventually, unique};

/// Sockets that ask for nothing, ask without end, or ask and never log in.
const IDLE: usize = 2000;

#[tokio::test]
async fn two_thousand_sockets_that_never_log_in_are_gone_after_the_time_out_while_logins_go_on() {
    let world = World::with(1, &[("TIMEOUTS_HEADER", "4s"), ("TIMEOUTS_LOGIN", "6s")]).await;
    let url = world.url(0);
    let mut idle = Vec::new();
    for n in 0..IDLE {
        let mut socket = RawSocket::connect(&url).await;
        match n % 4 {
            0 => {}
            1 | 2 => socket.write(b"GET /ws HTTP/1.1\r\nHost: x\r\nX-Y: ").await,
            _ => socket = socket.ask(&url, &[]).await.expect("a handshake").1,
        }
        idle.push(socket);
        if n % 200 == 0 {
            world.assert_serves().await;
        }
    }
    world.assert_serves().await;
    join_all(idle.iter_mut().map(RawSocket::wait_end)).await;
    world.assert_serves().await;
    eventually(SOON, "the places to be free", async || {
        world.nodes[0].metrics().await.get("shoprelay_connections") == 0.0
    })
    .await;
    let metrics = world.nodes[0].metrics().await;
    let by_header = metrics.labelled("shoprelay_connections_refused_total", &[("reason", "header")]);
    let by_login = metrics.labelled("shoprelay_logins_total", &[("result", "timed_out")]);
    assert_eq!((by_header, by_login), (1500.0, 500.0));
}

#[tokio::test]
async fn a_slow_head_a_slow_frame_and_a_slow_reader_hold_nothing_up() {
    let world = World::start(1).await;
    let url = world.url(0);
    let shop = unique("shop");
    let mut till = Login::main(&shop, "till").on(&url).await;
    let mut hand = Login::sub(&shop, "hand").on(&url).await;
    let slow_heads = (0..20).map(|_| async {
        let mut socket = RawSocket::connect(&url).await;
        for byte in b"GET /ws HTTP/1.1\r\nHost: x\r\n".iter().cycle() {
            socket.write(&[*byte]).await;
            tokio::time::sleep(Duration::from_millis(50)).await; // it is slow
        }
    });
    let slow_frames = (0..20).map(|n| {
        let (url, login) = (&url, Login::sub(&shop, &format!("slow-{n}")));
        async move {
            let mut socket = RawSocket::open(url).await;
            socket.send_op(&login.op()).await;
            let notify = Frame::text(json!({"op": "notify", "type": "slow", "durable": false}).to_string());
            for byte in notify.bytes() {
                socket.write(&[byte]).await;
                tokio::time::sleep(Duration::from_millis(200)).await; // it is slow
            }
            std::future::pending::<()>().await;
        }
    });
    let slow_readers = (0..20).map(|n| {
        let (url, login) = (&url, Login::main(&shop, &format!("deaf-{n}")));
        async move {
            let mut socket = RawSocket::open(url).await;
            socket.send_op(&login.op()).await;
            // It reads nothing of what it is sent.
            std::future::pending::<()>().await;
        }
    });
    let service = async {
        let text = "x".repeat(30_000);
        for n in 0..60 {
            hand.notify(json!({"type": "add", "data": [n, text]})).await;
            assert_eq!(till.take(1).await.len(), 1);
        }
        world.assert_serves().await;
    };
    tokio::select! {
        () = service => {}
        _ = join_all(slow_heads) => panic!("a head without end ended"),
        _ = join_all(slow_frames) => panic!("a slow frame ended"),
        _ = join_all(slow_readers) => panic!("who does not read ended"),
    }
}

#[tokio::test]
async fn a_node_without_room_says_so_and_is_not_ready_until_there_is_some() {
    let world = World::with(1, &[("LIMITS_CONNECTIONS", "2")]).await;
    let url = world.url(0);
    let shop = unique("shop");
    let first = Login::main(&shop, "a").on(&url).await;
    // A socket that does not even ask takes a place, too.
    let silent = RawSocket::connect(&url).await;
    eventually(SOON, "the node to be unready", async || !world.nodes[0].is_ready().await).await;
    assert_eq!(RawSocket::handshake(&url, &[]).await.0, 503);
    assert_eq!(world.nodes[0].get("/healthz").await.0, 200);
    drop(silent);
    eventually(SOON, "the node to be ready", async || world.nodes[0].is_ready().await).await;
    first.close().await;
}
