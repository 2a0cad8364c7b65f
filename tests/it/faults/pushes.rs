//! Pushes that get lost while the subscription looks fine.

use std::time::Duration;

use serde_json::json;

use crate::harness::{
    Device, Fault, Id, Login, NodeOptions, NodeProcess, Publisher, Recorder, RedisProxy, SOON, Urls, eventually, unique,
};
use crate::redis_server::RedisServer;

/// A node behind a proxy, with an audit each two seconds, and a Redis.
async fn behind_a_proxy() -> (RedisServer, RedisProxy, NodeProcess) {
    behind_a_proxy_with_audit("2s").await
}

async fn behind_a_proxy_with_audit(audit: &str) -> (RedisServer, RedisProxy, NodeProcess) {
    let redis = RedisServer::start().await;
    let proxy = RedisProxy::before(redis.port()).await;
    let node = NodeProcess::start(&NodeOptions::new(proxy.url()).set("AUDIT", audit)).await;
    (redis, proxy, node)
}

async fn till_and_hand(node: &NodeProcess, shop: &str) -> (Device, Device) {
    (Login::main(shop, "till").on(&node.ws_url()).await, Login::sub(shop, "hand").on(&node.ws_url()).await)
}

#[tokio::test]
async fn a_lost_push_is_found_by_the_next_one() {
    let (_redis, proxy, node) = behind_a_proxy().await;
    let shop = unique("shop");
    let (mut main, mut sub) = till_and_hand(&node, &shop).await;
    let first = sub.notify(json!({"type": "add"})).await;
    main.take(1).await;
    proxy.drop_pushes(2, &shop);
    let mut ids = vec![Id::of(&first)];
    for _ in 0..3 {
        ids.push(Id::of(&sub.notify(json!({"type": "add"})).await));
    }
    assert_eq!(main.take(3).await, ids[1..], "in order, with what was lost");
    assert_eq!(proxy.dropped_pushes(), 2);
    let metrics = node.metrics().await;
    assert!(metrics.get("shoprelay_feed_gaps_total") >= 1.0, "the gap is counted");
    assert!(metrics.get("shoprelay_messages_replayed_total") >= 1.0, "sent from the log");
    main.expect_nothing().await;
}

#[tokio::test]
async fn a_lost_last_push_is_found_by_the_audit() {
    let (_redis, proxy, node) = behind_a_proxy().await;
    let shop = unique("shop");
    let (mut main, mut sub) = till_and_hand(&node, &shop).await;
    proxy.drop_pushes(1, &shop);
    let id = sub.notify(json!({"type": "the-last"})).await;
    assert_eq!(main.take(1).await, [Id::of(&id)], "nothing after it betrays it");
    assert_eq!(proxy.dropped_pushes(), 1);
    main.expect_nothing().await;
}

/// The audit looked at logs only, so a takeover whose push was lost left two connections for ever.
#[tokio::test]
async fn a_lost_takeover_is_found_by_the_audit() {
    let (_redis, proxy, node) = behind_a_proxy_with_audit("1s").await;
    let shop = unique("shop");
    let login = Login::main(&shop, "till");
    let mut older = login.on(&node.ws_url()).await;
    proxy.drop_pushes(1, &shop);
    let mut newer = login.on(&node.ws_url()).await;
    assert_eq!(older.close_code().await.0, 4000);
    assert_eq!(proxy.dropped_pushes(), 1);
    newer.expect_nothing().await;
}

#[tokio::test]
async fn every_third_push_lost_under_load_changes_nothing_for_the_devices() {
    let (_redis, proxy, node) = behind_a_proxy().await;
    let urls = Urls::new([node.ws_url()]);
    let shop = unique("shop");
    let main = Recorder::logged_in(Login::main(&shop, "till"), &urls, 0).await;
    let mut fault = Fault::begin("every-third-push-lost");
    let (channel, count) = (shop.clone().into_bytes(), std::sync::atomic::AtomicU64::new(0));
    proxy.drop_pushes_where(u64::MAX, move |push| {
        let is_shop = push.channel.windows(channel.len()).any(|part| part == channel);
        is_shop && count.fetch_add(1, std::sync::atomic::Ordering::Relaxed) % 3 == 2
    });
    let publishers: Vec<Publisher> = (0..2)
        .map(|n| {
            Publisher::start(
                Login::sub(&shop, &format!("hand-{n}")),
                &urls,
                150,
                Duration::from_millis(2),
                json!({"type": "add"}),
            )
        })
        .collect();
    let records = fault.shop(publishers, [main]).await;
    fault.assert_survived();
    assert_eq!(records[0].connections.len(), 1);
    assert!(proxy.dropped_pushes() >= 90, "{} pushes were lost", proxy.dropped_pushes());
}

#[tokio::test]
async fn a_deaf_node_says_so_and_serves_again_once_it_hears() {
    let (_redis, proxy, node) = behind_a_proxy().await;
    let shop = unique("shop");
    let (mut main, mut sub) = till_and_hand(&node, &shop).await;
    eventually(SOON, "the node to be ready", async || node.is_ready().await).await;
    let connections = proxy.connections();
    proxy.deafen(true);
    eventually(Duration::from_secs(5), "the deaf node to be unready", async || !node.is_ready().await).await;
    assert!(node.metrics().await.get("shoprelay_feed_deaf_total") >= 1.0);
    // Commands work, so what is published now is accepted, and must not be lost.
    let id = sub.notify(json!({"type": "add"})).await;
    proxy.deafen(false);
    eventually(SOON, "the node to be ready again", async || node.is_ready().await).await;
    assert!(proxy.connections() > connections, "the subscriber was connected anew");
    assert_eq!(main.take(1).await, [Id::of(&id)]);
    let id = sub.notify(json!({"type": "live-again"})).await;
    assert_eq!(main.take(1).await, [Id::of(&id)]);
}

#[tokio::test]
async fn while_one_node_is_deaf_the_other_serves_on() {
    let redis = RedisServer::start().await;
    let proxy = RedisProxy::before(redis.port()).await;
    let mut options = NodeOptions::new(proxy.url()).set("AUDIT", "2s");
    let deaf = NodeProcess::start(&options).await;
    options.store = redis.url();
    let well = NodeProcess::start(&options).await;
    let shop = unique("shop");
    let mut main_there = Login::main(&shop, "till-0").on(&deaf.ws_url()).await;
    let mut main_here = Login::main(&shop, "till-1").on(&well.ws_url()).await;
    let mut sub = Login::sub(&shop, "hand").on(&well.ws_url()).await;
    proxy.deafen(true);
    let id = Id::of(&sub.notify(json!({"type": "add"})).await);
    assert_eq!(main_here.take(1).await, [id]);
    assert_eq!(main_there.take(1).await, [id], "found by reading, without a single push");
    assert!(well.is_ready().await);
    proxy.deafen(false);
    eventually(SOON, "the deaf node to be ready again", async || deaf.is_ready().await).await;
}
