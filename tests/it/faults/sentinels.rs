//! A primary dies, or seems to, and sentinels put another in its place.

use std::time::Duration;

use serde_json::json;

use super::load::Load;
use crate::harness::{Fault, Id, Login, NodeOptions, NodeProcess, Recorder, SOON, Urls, eventually, unique};
use crate::redis_server::sentinels::RedisSentinels;

/// Two nodes on the service.
async fn two_nodes(sentinels: &RedisSentinels, wait_replicas: &str) -> (Vec<NodeProcess>, Urls) {
    let options = NodeOptions::new(sentinels.url()).set("STORE_WAIT_REPLICAS", wait_replicas);
    let (first, second) = tokio::join!(NodeProcess::start(&options), NodeProcess::start(&options));
    let nodes = vec![first, second];
    let urls = Urls::new(nodes.iter().map(NodeProcess::ws_url));
    (nodes, urls)
}

async fn wait_for_another_primary(sentinels: &RedisSentinels, old: usize) {
    eventually(4 * SOON, "another primary", async || sentinels.primary() != old).await;
}

#[tokio::test]
async fn a_primary_that_is_killed_loses_nothing_that_waited_for_a_replica() {
    let sentinels = RedisSentinels::start(&[]);
    let (nodes, urls) = two_nodes(&sentinels, "1").await;
    let load = Load::start(&urls, 150).await;
    load.publishers[0].wait_accepted(50).await;
    let mut fault = Fault::begin("sentinel-primary-killed");
    sentinels.servers[0].kill();
    wait_for_another_primary(&sentinels, 0).await;
    fault.over();
    load.assert_survived_failover(fault).await;
    for node in &nodes {
        eventually(2 * SOON, "the node to be ready again", async || node.is_ready().await).await;
    }
}

#[tokio::test]
async fn a_primary_that_is_stopped_and_wakes_up_replaced_loses_nothing_that_waited_for_a_replica() {
    let sentinels = RedisSentinels::start(&[]);
    let (_nodes, urls) = two_nodes(&sentinels, "1").await;
    let load = Load::start(&urls, 150).await;
    load.publishers[0].wait_accepted(50).await;
    let mut fault = Fault::begin("sentinel-primary-stopped-and-demoted");
    sentinels.servers[0].pause();
    wait_for_another_primary(&sentinels, 0).await;
    // It takes itself for the primary until a sentinel tells it otherwise.
    sentinels.servers[0].resume();
    fault.over();
    let summary = load.survived(fault).await;
    // What the old primary stored before it was told, and no replica had, was refused as unavailable. Who was
    // sent it all the same is sent it again under the id that it was accepted with in the end; and what the
    // new primary stored meanwhile comes after it, though its id may be lower.
    assert_eq!((summary.lost, summary.repeated), (0, 0), "{summary}");
    eventually(4 * SOON, "the old primary to be a replica", async || {
        sentinels.servers[0].cli(&["ROLE"]).starts_with("slave")
    })
    .await;
}

/// Without waiting for replicas the newest messages may be lost. That is noticed and told, and what is there
/// comes to everyone, in order: also to who was sent what is lost.
#[tokio::test]
async fn a_log_that_was_rewound_is_noticed_and_everything_that_it_still_has_is_delivered() {
    let sentinels = RedisSentinels::start(&[]);
    let (nodes, urls) = two_nodes(&sentinels, "0").await;
    let shop = unique("shop");
    let mains = [
        Recorder::logged_in(Login::main(&shop, "till-0"), &urls, 0).await,
        Recorder::logged_in(Login::main(&shop, "till-1"), &urls, 1).await,
    ];
    let mut sub = Login::sub(&shop, "hand").on(&urls.pick(0)).await;
    let mut kept = Vec::new();
    for n in 0..5 {
        kept.push(Id::of(&sub.notify(json!({"type": "kept", "data": n})).await));
    }
    let replicas = &sentinels.servers[1..];
    let kept_there = async || {
        let key = sentinels.servers[0].cli(&["KEYS", &format!("*{{{shop}}}:log")]);
        replicas.iter().all(|replica| replica.cli(&["XLEN", &key]) == "5")
    };
    eventually(SOON, "the replicas to have it all", kept_there).await;
    // The replicas lose their primary, and cannot look for it.
    for replica in replicas {
        replica.pause();
    }
    sentinels.servers[0].cli(&["CLIENT", "KILL", "TYPE", "replica"]);
    let mut lost = Vec::new();
    for n in 0..5 {
        lost.push(Id::of(&sub.notify(json!({"type": "lost", "data": n})).await));
    }
    for main in &mains {
        main.wait_for(&lost.iter().copied().collect(), SOON).await;
    }
    sentinels.servers[0].kill();
    for replica in replicas {
        replica.resume();
    }
    wait_for_another_primary(&sentinels, 0).await;
    let mut after = Vec::new();
    eventually(4 * SOON, "the new primary to take messages", async || {
        let answer = sub.request(json!({"op": "notify", "type": "after"})).await;
        if answer["op"] == "accepted" {
            after.push(Id::of(answer["id"].as_str().expect("an id")));
        }
        after.len() == 5
    })
    .await;
    for main in mains {
        main.wait_for(&after.iter().copied().collect(), 2 * SOON).await;
        let record = main.stop().await;
        record.assert_ordered();
        let came = record.ids("message");
        assert!(kept.iter().chain(&lost).all(|id| came.contains(id)), "{came:?}");
    }
    let mut rewinds = 0.0;
    for node in &nodes {
        rewinds += node.metrics().await.get("shoprelay_log_rewinds_total");
    }
    assert!(rewinds >= 2.0, "each node's room saw it: {rewinds}");
}

#[tokio::test]
async fn without_enough_replicas_a_notify_is_unavailable_and_nothing_is_stored_again_and_again() {
    let sentinels = RedisSentinels::start(&[]);
    let (_nodes, urls) = two_nodes(&sentinels, "2").await;
    let shop = unique("shop");
    let mut main = Login::main(&shop, "till").on(&urls.pick(0)).await;
    let mut sub = Login::sub(&shop, "hand").on(&urls.pick(1)).await;
    let first = sub.notify(json!({"type": "add"})).await;
    assert_eq!(main.take(1).await, [Id::of(&first)]);
    sentinels.servers[2].pause();
    let key = unique("key");
    sub.refused("notify", json!({"type": "short", "key": key}), "unavailable").await;
    for _ in 0..10 {
        sub.refused("notify", json!({"type": "short"}), "unavailable").await;
    }
    let log = sentinels.servers[0].cli(&["KEYS", &format!("*{{{shop}}}:log")]);
    let stored = sentinels.servers[0].cli(&["XLEN", &log]);
    assert_eq!(stored, "2", "the first refusal cannot be taken back, the others stored nothing");
    sentinels.servers[2].resume();
    let mut accepted = None;
    eventually(2 * SOON, "replicas enough again", async || {
        let answer = sub.request(json!({"op": "notify", "type": "short", "key": key})).await;
        accepted = (answer["op"] == "accepted").then(|| answer["id"].as_str().expect("an id").to_owned());
        accepted.is_some()
    })
    .await;
    assert_eq!(main.take(1).await, [Id::of(&accepted.expect("it was accepted"))], "it came once");
    main.expect_nothing().await;
}

#[tokio::test]
async fn a_primary_that_wants_more_replicas_than_there_are_refuses_and_nothing_is_stored() {
    let sentinels = RedisSentinels::start(&[]);
    let (_nodes, urls) = two_nodes(&sentinels, "0").await;
    let shop = unique("shop");
    let mut main = Login::main(&shop, "till").on(&urls.pick(0)).await;
    let mut sub = Login::sub(&shop, "hand").on(&urls.pick(1)).await;
    sentinels.servers[0].cli(&["CONFIG", "SET", "min-replicas-to-write", "3"]);
    for _ in 0..3 {
        sub.refused("notify", json!({"type": "add"}), "unavailable").await;
    }
    sentinels.servers[0].cli(&["CONFIG", "SET", "min-replicas-to-write", "2"]);
    tokio::time::sleep(Duration::from_millis(50)).await;
    let id = sub.notify(json!({"type": "add"})).await;
    assert_eq!(main.take(1).await, [Id::of(&id)], "only what was accepted");
    main.expect_nothing().await;
}
