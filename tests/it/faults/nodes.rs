//! Nodes that die, stop, or leave in good order.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::json;

use super::load::Load;
use crate::harness::{
    Api, Balancer, Fault, Id, Login, NodeOptions, NodeProcess, RedisProxy, SOON, Urls, World, eventually, unique,
};
use crate::redis_server::RedisServer;

#[tokio::test]
async fn a_node_that_is_killed_under_load_loses_nothing() {
    let mut world = World::start(2).await;
    let load = Load::start(&world.urls(), 200).await;
    load.publishers[0].wait_accepted(60).await;
    let fault = Fault::begin("node-killed");
    world.nodes[0].sigkill();
    let status = world.nodes[0].wait_exit().await;
    assert!(!status.success());
    load.assert_survived(fault).await;
}

#[tokio::test]
async fn a_node_that_is_stopped_for_a_while_loses_nothing() {
    let world = World::with(2, &[("TIMEOUTS_ACK", "5s")]).await;
    let load = Load::start(&world.urls(), 200).await;
    load.publishers[1].wait_accepted(40).await;
    let mut fault = Fault::begin("node-stopped-for-a-while");
    world.nodes[0].pause();
    // The subs of the other node go on meanwhile; those of this one wait in their requests.
    let went_on = async || load.publishers.iter().map(|publisher| publisher.accepted().len()).sum::<usize>() >= 200;
    eventually(3 * SOON, "the other node to serve on", went_on).await;
    world.nodes[0].resume();
    fault.over();
    load.assert_survived(fault).await;
}

#[tokio::test]
async fn a_node_that_is_terminated_under_load_loses_nothing() {
    let mut world = World::with(2, &[("DRAIN_WINDOW", "3s")]).await;
    let load = Load::start(&world.urls(), 200).await;
    load.publishers[0].wait_accepted(60).await;
    let mut fault = Fault::begin("node-terminated");
    world.nodes[0].sigterm();
    let status = world.nodes[0].wait_exit().await;
    fault.over();
    assert_eq!(status.code(), Some(0), "{}", world.nodes[0].log_text());
    load.assert_survived(fault).await;
}

#[tokio::test]
async fn a_stopping_node_closes_with_1012_and_has_written_the_last_acknowledgements() {
    let mut world = World::with(1, &[("DRAIN_WINDOW", "2s")]).await;
    let shop = unique("shop");
    let mut main = Login::main(&shop, "till").on(&world.url(0)).await;
    let mut sub = Login::sub(&shop, "hand").on(&world.url(0)).await;
    let last = sub.notify(json!({"type": "add"})).await;
    assert_eq!(main.take(1).await, [Id::of(&last)]);
    // The answer to the ping shows that the acknowledgement before it has been read.
    assert_eq!(main.request(json!({"op": "ping"})).await["op"], "pong");
    world.nodes[0].sigterm();
    for device in [&mut main, &mut sub] {
        let (code, reason) = device.close_code().await;
        assert_eq!(code, 1012);
        let wait = reason.strip_prefix("retry_after_ms=").and_then(|wait| wait.parse::<u64>().ok());
        assert!(wait.is_some(), "{reason:?}");
    }
    assert_eq!(world.nodes[0].wait_exit().await.code(), Some(0));
    let node = NodeProcess::start(&world.options).await;
    let mut main = Login::main(&shop, "till").on(&node.ws_url()).await;
    assert_eq!(main.welcome["cursor"], last.as_str());
    main.expect_nothing().await;
}

#[tokio::test]
async fn a_stopping_node_without_connections_leaves_at_once() {
    let mut world = World::with(1, &[("DRAIN_WINDOW", "20s")]).await;
    world.nodes[0].sigterm();
    let left = tokio::time::timeout(Duration::from_secs(4), world.nodes[0].wait_exit()).await;
    assert_eq!(left.expect("the empty node leaves at once").code(), Some(0));
}

#[tokio::test]
async fn nodes_that_are_killed_in_turn_lose_nothing_and_serve_the_same_shops_again() {
    let mut world = World::start(3).await;
    let urls = world.urls();
    let load = Load::steady(&urls).await;
    let mut fault = Fault::begin("three-nodes-killed-and-restarted-in-turn");
    for index in [0, 1, 2] {
        load.go_on(40).await;
        world.nodes[index].sigkill();
        world.nodes[index].wait_exit().await;
        world.nodes[index] = NodeProcess::start(&world.options).await;
        urls.replace(index, world.nodes[index].ws_url());
        fault.over();
    }
    load.go_on(40).await;
    load.enough();
    load.assert_survived(fault).await;
}

#[tokio::test]
async fn a_node_that_sleeps_while_its_devices_move_harms_none_of_them_when_it_wakes() {
    let world = World::start(2).await;
    let balancer = Balancer::before(&world.nodes).await;
    let load = Load::steady(&Urls::new([balancer.ws_url()])).await;
    load.go_on(20).await;
    let mut fault = Fault::begin("node-asleep-for-12-s");
    world.nodes[0].pause();
    let fell_asleep = Instant::now();
    eventually(SOON, "the balancer to see it", async || balancer.ready() == 1).await;
    // Those who sit on the sleeper notice that it is silent, and move.
    load.lose_connections();
    load.go_on(60).await;
    // Beyond every lease: for the others it is dead.
    eventually(3 * SOON, "12 s to pass", async || fell_asleep.elapsed() > Duration::from_secs(12)).await;
    let before = load.connections();
    world.nodes[0].resume();
    fault.over();
    eventually(SOON, "it to be ready again", async || balancer.ready() == 2).await;
    load.go_on(120).await;
    let online = online(&world, &load.shop).await;
    let connections = load.connections();
    assert_eq!(connections, before, "none was lost or taken over when it woke");
    assert_eq!(online, connections, "and each is who is online");
    load.enough();
    load.assert_survived(fault).await;
}

/// The connections of the shop's mains that are online, as the second node sees them.
async fn online(world: &World, shop: &str) -> BTreeSet<String> {
    let online = world.api(1).get(&format!("/v1/shops/{shop}/online?role=main")).await.json;
    let items = online["items"].as_array().unwrap_or_else(|| panic!("{online}"));
    items.iter().map(|item| item["conn"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn a_node_that_is_cut_off_from_redis_for_a_while_keeps_its_devices_and_catches_up() {
    let redis = RedisServer::start().await;
    let proxy = RedisProxy::before(redis.port()).await;
    let mut options = NodeOptions::new(proxy.url());
    let cut_off = NodeProcess::start(&options).await;
    options.store = redis.url();
    let well = NodeProcess::start(&options).await;
    let load = Load::steady(&Urls::new([cut_off.ws_url(), well.ws_url()])).await;
    load.go_on(20).await;
    let mut fault = Fault::begin("node-cut-off-from-redis-for-a-while");
    // What was on its way comes when the network is back, however late.
    proxy.hold(true);
    eventually(SOON, "the node to be unready", async || !cut_off.is_ready().await).await;
    assert!(well.is_ready().await, "the other one is not concerned");
    load.go_on(60).await;
    eventually(SOON, "it to be late for the other", async || {
        let nodes = Api::at(well.api_listen()).get("/v1/nodes").await.json;
        nodes["items"].as_array().unwrap().iter().any(|node| node["state"] == "unknown")
    })
    .await;
    proxy.hold(false);
    fault.over();
    eventually(SOON, "the node to be ready again", async || cut_off.is_ready().await).await;
    load.go_on(60).await;
    load.enough();
    let (_, records) = load.assert_survived(fault).await;
    assert!(records.iter().all(|record| record.connections.len() == 1), "sockets stay");
}
