//! Nodes that die, stop, or leave in good order.

use std::time::Duration;

use serde_json::json;

use crate::harness::{
    Encoding, Fault, Id, Login, NodeProcess, Publisher, Recorder, SOON, Summary, Urls, World, eventually, unique,
};

/// Mains and publishers of one shop, spread over the nodes.
pub(super) struct Load {
    mains: Vec<Recorder>,
    pub(super) publishers: Vec<Publisher>,
}

impl Load {
    pub(super) async fn start(urls: &Urls, count: usize) -> Load {
        Load::of_shop(&unique("shop"), urls, count).await
    }

    pub(super) async fn of_shop(shop: &str, urls: &Urls, count: usize) -> Load {
        let mut mains = Vec::new();
        for n in 0..4 {
            let encoding = if n % 2 == 0 { Encoding::Json } else { Encoding::MsgPack };
            let login = Login::main(shop, &format!("till-{n}")).encoding(encoding);
            mains.push(Recorder::logged_in(login, urls, n).await);
        }
        let publish = |n: usize| {
            let login = Login::sub(shop, &format!("hand-{n}"));
            Publisher::start(login, urls, count, Duration::from_millis(10), json!({"type": "add", "data": {"from": n}}))
        };
        let publishers = (0..3).map(publish).collect();
        Load { mains, publishers }
    }

    /// Waits for the end and says what became of it all.
    pub(super) async fn survived(self, mut fault: Fault) -> Summary {
        fault.shop(self.publishers, self.mains).await;
        let summary = fault.summary();
        println!("{summary}");
        summary
    }

    /// Waits for the end and checks that every main got exactly what was accepted, in order.
    pub(super) async fn assert_survived(self, mut fault: Fault) -> Summary {
        fault.shop(self.publishers, self.mains).await;
        fault.assert_survived()
    }
}

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
async fn the_devices_of_a_dead_node_become_unknown_and_then_offline() {
    let world = World::start(2).await;
    let shop = unique("shop");
    let _main = Login::main(&shop, "till").on(&world.url(0)).await;
    let mut watcher = Login::sub(&shop, "hand").on(&world.url(1)).await;
    world.nodes[0].sigkill();
    for (within, state) in [(6, Some("unknown")), (14, None)] {
        eventually(Duration::from_secs(within), &format!("the till to be {state:?}"), async || {
            let online = watcher.request(json!({"op": "online", "role": "main"})).await;
            online["devices"][0]["state"].as_str() == state
        })
        .await;
    }
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
    let mut world = World::start(1).await;
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
async fn a_restarted_node_serves_the_shops_it_served_before() {
    let mut world = World::start(2).await;
    let urls = world.urls();
    let load = Load::start(&urls, 200).await;
    let mut fault = Fault::begin("both-nodes-killed-and-restarted-in-turn");
    for index in [0, 1] {
        load.publishers[0].wait_accepted(50 + index * 70).await;
        world.nodes[index].sigkill();
        world.nodes[index].wait_exit().await;
        world.nodes[index] = NodeProcess::start(&world.options).await;
        urls.replace(index, world.nodes[index].ws_url());
        fault.over();
    }
    load.assert_survived(fault).await;
}
