//! More than a node can do: it does what it can, and stays itself.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::json;

use crate::harness::raw::TEXT;
use crate::harness::{Frame, Login, RawSocket, SOON, World, unique};

const SHOPS: usize = 4;
const LOUD_PER_SHOP: usize = 10;
/// Notifies that a loud device sends before it looks at an answer.
const AT_ONCE: usize = 200;
const LASTS: Duration = Duration::from_secs(6);

/// Sends as fast as the relay takes it; how many were accepted, and how many refused.
async fn shout(url: &str, login: &Login, until: Instant) -> (usize, usize) {
    let mut socket = RawSocket::open(url).await;
    socket.send_op(&login.op()).await;
    socket.expect("welcome").await;
    let notify = Frame::text(json!({"op": "notify", "type": "add", "data": "x".repeat(500)}).to_string()).bytes();
    let volley = notify.repeat(AT_ONCE);
    let (mut accepted, mut refused) = (0, 0);
    while Instant::now() < until {
        socket.write(&volley).await;
        for _ in 0..AT_ONCE {
            let answer = socket.next().await;
            if answer["op"] == "accepted" {
                accepted += 1;
            } else {
                assert!(answer["retry_after_ms"].is_u64(), "{answer}");
                refused += 1;
            }
        }
    }
    (accepted, refused)
}

/// Reads and acknowledges until it was silent for a while after `until`; how many came.
async fn listen(url: &str, login: &Login, until: Instant) -> usize {
    let mut socket = RawSocket::open(url).await;
    socket.send_op(&login.op()).await;
    socket.expect("welcome").await;
    let mut count = 0;
    loop {
        let frame = match tokio::time::timeout(SOON, socket.read_frame()).await {
            Ok(frame) => frame.expect("the connection stays"),
            Err(_) => {
                assert!(Instant::now() > until, "nothing came for {SOON:?} while others sent");
                return count;
            }
        };
        if frame.opcode != TEXT {
            continue;
        }
        let message: serde_json::Value = serde_json::from_slice(&frame.payload).unwrap();
        assert_eq!(message["op"], "message", "{message}");
        count += 1;
        if count % 50 == 0 {
            socket.send_op(&json!({"op": "ack", "id": message["id"]})).await;
        }
        if message["type"] == "last" {
            return count;
        }
    }
}

#[tokio::test]
async fn far_more_than_a_node_can_do_takes_no_more_memory_and_loses_nothing_that_was_accepted() {
    let settings = [("LIMITS_SESSION_OPS_PER_S", "100000"), ("LIMITS_SHOP_PUBLISHES_PER_S", "1000000")];
    let world = World::with(1, &settings).await;
    let (node, url) = (&world.nodes[0], world.url(0));
    let shops: Vec<String> = (0..SHOPS).map(|_| unique("shop")).collect();
    // They are registered before the first message.
    for shop in &shops {
        Login::main(shop, "till").on(&url).await.close().await;
    }
    let before = node.rss_mib();
    let until = Instant::now() + LASTS;
    let shout = async {
        let loud =
            shops.iter().flat_map(|shop| (0..LOUD_PER_SHOP).map(move |n| Login::sub(shop, &format!("loud-{n}"))));
        let shouts = join_all(loud.map(|login| {
            let url = &url;
            async move { shout(url, &login, until).await }
        }));
        let (shouts, most) = tokio::join!(shouts, async {
            let mut most = 0;
            while Instant::now() < until {
                most = most.max(node.rss_mib());
                tokio::time::sleep(Duration::from_millis(200)).await; // between two looks
            }
            most
        });
        for shop in &shops {
            let mut hand = Login::sub(shop, "last").on(&url).await;
            hand.notify(json!({"type": "last"})).await;
        }
        (shouts, most)
    };
    let listening = shops.iter().map(|shop| {
        let (login, url) = (Login::main(shop, "till"), &url);
        async move { listen(url, &login, until).await }
    });
    let ((shouts, most), came) = tokio::join!(shout, join_all(listening));
    let accepted: usize = shouts.iter().map(|(accepted, _)| accepted).sum();
    assert!(shouts.iter().all(|(accepted, _)| *accepted > 0), "everyone has a share: {shouts:?}");
    assert_eq!(came.iter().sum::<usize>(), accepted + SHOPS, "each that was accepted came once");
    assert!(most < before + 100, "memory went from {before} to {most} MiB");
    world.assert_serves().await;
}
