//! What a shop and a session may take: connections, bytes, and one reading of the log for many.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::json;
use tokio_tungstenite::tungstenite::Message;

use crate::harness::{Device, Encoding, Login, NodeOptions, NodeProcess, RedisProxy, SOON, World, eventually, unique};
use crate::redis_server::RedisServer;

#[tokio::test]
async fn a_shop_with_as_many_sessions_as_it_may_is_rate_limited_and_others_are_not() {
    let world = World::with(1, &[("LIMITS_SHOP_CONNECTIONS", "2")]).await;
    let url = world.url(0);
    let shop = unique("shop");
    let _till = Login::main(&shop, "till").on(&url).await;
    let hand = Login::sub(&shop, "hand").on(&url).await;
    let mut third = Device::connect(&url, Encoding::Json).await;
    let refused = third.refused("login", Login::sub(&shop, "third").op(), "rate_limited").await;
    assert!(refused["retry_after_ms"].as_u64().is_some_and(|wait| wait >= 5000), "{refused}");
    let logins = world.nodes[0].metrics().await.labelled("shoprelay_logins_total", &[("result", "shop_full")]);
    assert_eq!(logins, 1.0);
    Login::main(&unique("shop"), "till").on(&url).await;
    // A device that lost its connection takes over from it, although that counts until it is closed.
    let newer = Login::sub(&shop, "hand").on(&url).await;
    drop(hand);
    newer.close().await;
    // The connection has stayed for another try.
    eventually(SOON, "room for the third", async || {
        third.request(Login::sub(&shop, "third").op()).await["op"] == "welcome"
    })
    .await;
}

#[tokio::test]
async fn a_session_that_sends_too_many_bytes_is_read_more_slowly_and_loses_nothing() {
    let world = World::with(1, &[("LIMITS_SESSION_BYTES_PER_S", "200000")]).await;
    let shop = unique("shop");
    let mut main = Login::main(&shop, "till").on(&world.url(0)).await;
    let mut loud = Login::sub(&shop, "loud").on(&world.url(0)).await;
    let mut quiet = Login::sub(&shop, "quiet").on(&world.url(0)).await;
    let text = "x".repeat(60_000);
    let began = Instant::now();
    // A megabyte may come at once; what comes after it takes its time.
    let frames = 30;
    for _ in 0..frames {
        let op = json!({"op": "notify", "type": "t", "data": text, "to": {"devices": ["nobody", "till"]}});
        loud.try_send_raw(Message::text(op.to_string())).await.unwrap();
    }
    let quiets = quiet.notify(json!({"type": "quiet"})).await;
    let mut accepted = 0;
    while accepted < frames {
        assert_eq!(loud.next().await["op"], "accepted");
        accepted += 1;
    }
    assert!(began.elapsed() >= Duration::from_secs(3), "all of it was taken within {:?}", began.elapsed());
    assert!(world.nodes[0].metrics().await.get("shoprelay_reads_paused_total") >= 1.0);
    assert!(main.take(frames + 1).await.iter().any(|id| id.to_string() == quiets));
}

#[tokio::test]
async fn sessions_that_are_behind_by_the_same_share_what_is_read() {
    let redis = RedisServer::start().await;
    let proxy = RedisProxy::before(redis.port()).await;
    let node = NodeProcess::start(&NodeOptions::new(proxy.url())).await;
    let shop = unique("shop");
    let tills: Vec<Login> = (0..20).map(|n| Login::main(&shop, &format!("till-{n}"))).collect();
    for till in &tills {
        till.on(&node.ws_url()).await.close().await;
    }
    let mut hand = Login::sub(&shop, "hand").on(&node.ws_url()).await;
    for n in 0..50 {
        hand.notify(json!({"type": "add", "data": n})).await;
    }
    let read = async || {
        let metrics = node.metrics().await;
        (metrics.get("shoprelay_catchup_pages_total"), metrics.get("shoprelay_catchup_shared_total"))
    };
    let before = read().await;
    // Slow enough for all of them to ask while the first is answered.
    proxy.delay(Duration::from_millis(300));
    let url = node.ws_url();
    let mut back = join_all(tills.iter().map(|till| till.on(&url))).await;
    for till in &mut back {
        assert_eq!(till.take(50).await.len(), 50);
    }
    let after = read().await;
    let (pages, shared) = (after.0 - before.0, after.1 - before.1);
    assert!(shared >= 5.0 && pages <= 20.0, "{pages} pages were read and {shared} shared, for 20 sessions");
    proxy.delay(Duration::ZERO);
    hand.notify(json!({"type": "add"})).await;
    for till in &mut back {
        till.take(1).await;
    }
}
