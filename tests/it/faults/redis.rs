//! Redis stops, dies, loses its subscribers, or answers too late.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{
    Device, Fault, Id, Login, NodeOptions, NodeProcess, Publisher, Recorder, RedisProxy, SOON, Urls, World, eventually,
    id_of, two_nodes, unique,
};
use crate::redis_server::RedisServer;

/// Notifies until one is accepted; every refusal must be one that may be retried.
async fn notify_until_accepted(device: &mut Device, fields: Value) -> Id {
    let mut accepted = None;
    eventually(3 * SOON, "the store to take a message again", async || {
        let answer = device.request(crate::harness::device::op("notify", fields.clone())).await;
        if answer["op"] == "accepted" {
            accepted = Some(id_of(&answer, "id"));
            return true;
        }
        assert_eq!(answer["code"], "unavailable", "{answer}");
        false
    })
    .await;
    accepted.expect("it was accepted")
}

#[tokio::test]
async fn while_redis_is_paused_a_notify_is_refused_as_unavailable_and_sockets_stay() {
    let world = World::start(2).await;
    let shop = unique("shop");
    let mut main = Login::main(&shop, "till").on(&world.url(0)).await;
    let mut sub = Login::sub(&shop, "hand").on(&world.url(1)).await;
    let mut accepted: BTreeSet<Id> = [Id::of(&sub.notify(json!({"type": "before"})).await)].into();
    world.redis().pause();
    let key = unique("key");
    let asked = Instant::now();
    let refused = sub.refused("notify", json!({"type": "during", "key": key}), "unavailable").await;
    assert!(asked.elapsed() < Duration::from_secs(3), "refused after {:?} only", asked.elapsed());
    assert!(refused["retry_after_ms"].is_u64(), "{refused}");
    for node in &world.nodes {
        eventually(SOON, "the node to be unready", async || !node.is_ready().await).await;
        assert_eq!(node.get("/healthz").await.0, 200, "liveness never looks at Redis");
    }
    // Sockets are served as far as that goes without a store.
    assert_eq!(sub.request(json!({"op": "ping"})).await["op"], "pong");
    assert_eq!(main.request(json!({"op": "ping"})).await["op"], "pong");
    world.redis().resume();
    accepted.insert(notify_until_accepted(&mut sub, json!({"type": "during", "key": key})).await);
    accepted.insert(notify_until_accepted(&mut sub, json!({"type": "after"})).await);
    let came: BTreeSet<Id> = main.take(accepted.len()).await.into_iter().collect();
    assert_eq!(came, accepted, "exactly what was accepted, on the connection there was before");
    for node in &world.nodes {
        eventually(SOON, "the node to be ready again", async || node.is_ready().await).await;
    }
}

#[tokio::test]
async fn a_login_while_redis_is_paused_is_unavailable_and_may_be_tried_again() {
    let world = World::start(1).await;
    world.redis().pause();
    let login = Login::main(&unique("shop"), "till");
    let mut device = Device::connect(&world.url(0), crate::harness::Encoding::Json).await;
    let error = device.refused("login", login.op(), "unavailable").await;
    assert!(error["retry_after_ms"].is_u64(), "{error}");
    world.redis().resume();
    eventually(
        2 * SOON,
        "the login to succeed on the same connection",
        async || matches!(device.try_request(login.op()).await, Ok(answer) if answer["op"] == "welcome"),
    )
    .await;
}

#[tokio::test]
async fn acknowledgements_wait_while_redis_is_paused() {
    let world = World::start(1).await;
    let shop = unique("shop");
    let till = Login::main(&shop, "till");
    let mut main = till.on(&world.url(0)).await;
    let mut sub = Login::sub(&shop, "hand").on(&world.url(0)).await;
    let id = sub.notify(json!({"type": "add", "receipt": true})).await;
    assert_eq!(main.expect("message").await["id"], id.as_str());
    world.redis().pause();
    main.ack(&id).await;
    // An answer after it: the node has taken the ack, and can't store it.
    main.expect_nothing().await;
    sub.refused("notify", json!({"type": "x"}), "unavailable").await;
    world.redis().resume();
    let receipt = sub.next_where(|op| op["op"] == "receipt").await;
    assert_eq!(receipt["message"], id.as_str());
}

#[tokio::test]
async fn redis_that_is_killed_and_restarted_loses_nothing_that_was_accepted() {
    let redis = RedisServer::start_with(&["--appendonly", "yes", "--appendfsync", "always"]).await;
    let nodes = two_nodes(&redis).await;
    let urls = Urls::new(nodes.iter().map(NodeProcess::ws_url));
    let shop = unique("shop");
    let mains = [
        Recorder::logged_in(Login::main(&shop, "till-0"), &urls, 0).await,
        Recorder::logged_in(Login::main(&shop, "till-1"), &urls, 1).await,
    ];
    let publisher =
        Publisher::start(Login::sub(&shop, "hand"), &urls, 300, Duration::from_millis(5), json!({"type": "add"}));
    publisher.wait_accepted(100).await;
    let mut fault = Fault::begin("redis-killed-and-restarted");
    redis.kill();
    for node in &nodes {
        eventually(SOON, "the node to be unready", async || !node.is_ready().await).await;
    }
    redis.restart();
    fault.over();
    let records = fault.shop([publisher], mains).await;
    fault.assert_survived();
    assert!(records.iter().all(|record| record.connections.len() == 1), "sockets stay");
}

#[tokio::test]
async fn killing_the_subscribers_under_load_loses_nothing() {
    let world = World::start(2).await;
    let urls = world.urls();
    let shop = unique("shop");
    let mains = [
        Recorder::logged_in(Login::main(&shop, "till-0"), &urls, 0).await,
        Recorder::logged_in(Login::main(&shop, "till-1"), &urls, 1).await,
    ];
    let publisher =
        Publisher::start(Login::sub(&shop, "hand"), &urls, 400, Duration::from_millis(2), json!({"type": "add"}));
    let mut fault = Fault::begin("client-kill-pubsub");
    for count in [50, 150, 250, 350] {
        publisher.wait_accepted(count).await;
        world.redis().cli(&["CLIENT", "KILL", "TYPE", "pubsub"]);
        fault.over();
    }
    let records = fault.shop([publisher], mains).await;
    fault.assert_survived();
    assert!(records.iter().all(|record| record.connections.len() == 1), "no device noticed");
}

#[tokio::test]
async fn a_way_to_redis_that_is_cut_again_and_again_loses_and_doubles_nothing() {
    let redis = RedisServer::start().await;
    let proxy = RedisProxy::before(redis.port()).await;
    let node = NodeProcess::start(&NodeOptions::new(proxy.url())).await;
    let urls = Urls::new([node.ws_url()]);
    let shop = unique("shop");
    let main = Recorder::logged_in(Login::main(&shop, "till"), &urls, 0).await;
    let publisher =
        Publisher::start(Login::sub(&shop, "hand"), &urls, 200, Duration::from_millis(5), json!({"type": "add"}));
    let mut fault = Fault::begin("replies-swallowed-and-the-way-cut");
    for count in [30, 70, 110, 150] {
        publisher.wait_accepted(count).await;
        // The store carries commands out whose replies never arrive, and then the connection is gone.
        proxy.swallow_replies(true);
        let swallowed = proxy.swallowed_replies();
        eventually(SOON, "a reply to be swallowed", async || proxy.swallowed_replies() > swallowed).await;
        proxy.cut();
        proxy.swallow_replies(false);
        fault.over();
    }
    // Each key was stored once, though some of them were sent twice.
    fault.shop([publisher], [main]).await;
    fault.assert_survived();
}

#[tokio::test]
async fn a_redis_that_is_slow_is_used_and_one_that_hangs_is_not_waited_for() {
    let redis = RedisServer::start().await;
    let proxy = RedisProxy::before(redis.port()).await;
    let node = NodeProcess::start(&NodeOptions::new(proxy.url())).await;
    let shop = unique("shop");
    let mut main = Login::main(&shop, "till").on(&node.ws_url()).await;
    let mut sub = Login::sub(&shop, "hand").on(&node.ws_url()).await;
    proxy.delay(Duration::from_millis(200));
    let id = sub.notify(json!({"type": "slow"})).await;
    assert_eq!(main.take(1).await, [Id::of(&id)]);
    proxy.delay(Duration::ZERO);
    proxy.hold(true);
    sub.refused("notify", json!({"type": "hung", "key": "k"}), "unavailable").await;
    proxy.hold(false);
    let id = notify_until_accepted(&mut sub, json!({"type": "hung", "key": "k"})).await;
    assert_eq!(main.take(1).await, [id]);
    let list = main.request(json!({"op": "list"})).await;
    assert_eq!(list["items"].as_array().map(Vec::len), Some(2), "stored once: {list}");
}
