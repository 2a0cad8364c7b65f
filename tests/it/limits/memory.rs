//! A node that is short of memory lets nobody in, and one that has none left closes those it can spare.

use futures_util::future::join_all;

use crate::harness::{Frame, Login, RawSocket, SOON, World, eventually, unique};

const FRAME_MIB: usize = 8;

#[tokio::test]
async fn a_node_short_of_memory_answers_503_and_one_without_closes_with_1013_and_serves_on() {
    let frame_bytes = (FRAME_MIB << 20).to_string();
    let settings = [
        ("LIMITS_MEMORY_MIB", "224"),
        ("LIMITS_FRAME_BYTES", &frame_bytes),
        ("LIMITS_SESSION_BYTES_PER_S", "1000000000"),
        ("TIMEOUTS_LOGIN", "60s"),
    ];
    let world = World::with(1, &settings).await;
    let (node, url) = (&world.nodes[0], world.url(0));
    let shop = unique("shop");
    let mut till = Login::main(&shop, "till").on(&url).await;
    let mut hand = Login::sub(&shop, "hand").on(&url).await;
    let mut hogs = join_all((0..40).map(|_| RawSocket::open(&url))).await;
    // The most that a message may have, less its end.
    let begun = Frame { fin: false, ..Frame::text("x".repeat((FRAME_MIB << 20) - 1)) }.bytes();
    let mut was_short = false;
    for (n, hog) in hogs.iter_mut().enumerate() {
        hog.write(&begun).await;
        if was_short {
            continue;
        }
        // It looks now and then: one piece more is not to come before it has seen this one.
        let held = (((n + 1) * FRAME_MIB) << 20) as f64;
        let sees_it = async || node.metrics().await.get("shoprelay_memory_bytes") >= held;
        eventually(SOON, "the node to see what it holds", sees_it).await;
        if !node.is_ready().await {
            was_short = true;
            assert_eq!(RawSocket::handshake(&url, &[]).await.0, 503);
        }
    }
    assert!(was_short, "{} MiB are not short", node.rss_mib());
    eventually(2 * SOON, "connections to be closed with 1013", async || {
        node.metrics().await.labelled("shoprelay_closes_total", &[("code", "1013")]) >= 1.0
    })
    .await;
    let refused = node.metrics().await.labelled("shoprelay_connections_refused_total", &[("reason", "memory")]);
    assert!(refused >= 1.0);
    // Who holds little and came first is served all the while.
    let id = hand.notify(serde_json::json!({"type": "add"})).await;
    assert_eq!(till.expect("message").await["id"], id.as_str());
    drop(hogs);
    eventually(6 * SOON, "memory to be there again", async || node.is_ready().await).await;
    world.assert_serves().await;
}
