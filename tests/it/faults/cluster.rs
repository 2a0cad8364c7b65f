//! A cluster whose primaries die, go deaf, or give slots away.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::json;

use super::load::Load;
use crate::harness::{
    Fault, Id, Login, NodeOptions, NodeProcess, Publisher, Recorder, RedisProxy, SOON, Urls, eventually, unique,
};
use crate::redis_server::cluster::RedisCluster;

async fn two_nodes(options: &NodeOptions) -> (Vec<NodeProcess>, Urls) {
    let (first, second) = tokio::join!(NodeProcess::start(options), NodeProcess::start(options));
    let nodes = vec![first, second];
    let urls = Urls::new(nodes.iter().map(NodeProcess::ws_url));
    (nodes, urls)
}

/// A shop whose slot this server has.
fn shop_of(cluster: &RedisCluster, server: usize) -> String {
    let shops = std::iter::repeat_with(|| unique("shop"));
    shops.into_iter().find(|shop| cluster.owner(cluster.slot(shop), 0) == server).expect("some shop is there")
}

#[tokio::test]
async fn a_primary_of_a_cluster_that_is_killed_loses_nothing_and_the_others_serve_on() {
    let cluster = RedisCluster::start(3, 1, &[]);
    let options = NodeOptions::new(cluster.url()).set("STORE_WAIT_REPLICAS", "1");
    let (nodes, urls) = two_nodes(&options).await;
    let (dying, well) = (shop_of(&cluster, 1), shop_of(&cluster, 2));
    let load = Load::of_shop(&dying, &urls, 150).await;
    let others = Load::of_shop(&well, &urls, 150).await;
    load.publishers[0].wait_accepted(50).await;
    let before = others.publishers[0].accepted().len();
    let (mut fault, other) = (Fault::begin("cluster-primary-killed"), Fault::begin("cluster-other-primary-killed"));
    cluster.servers[1].kill();
    // They go on while nobody has taken the place of the dead one.
    others.publishers[0].wait_accepted(before + 20).await;
    let slot = cluster.slot(&dying);
    eventually(3 * SOON, "a replica in its place", async || cluster.owner(slot, 0) == 4).await;
    // It comes back as a replica of who took its place, and there is something to wait for again.
    cluster.servers[1].restart();
    fault.over();
    load.assert_survived_failover(fault).await;
    let (survived, _) = others.assert_survived(other).await;
    assert!(survived.longest_silence < Duration::from_secs(2), "the others were not held up: {survived}");
    for node in &nodes {
        eventually(2 * SOON, "the node to be ready again", async || node.is_ready().await).await;
    }
}

#[tokio::test]
async fn a_slot_that_moves_under_load_takes_its_channels_along_and_is_not_noticed() {
    let cluster = RedisCluster::start(3, 0, &[]);
    let (nodes, urls) = two_nodes(&NodeOptions::new(cluster.url())).await;
    let shop = shop_of(&cluster, 0);
    let load = Load::of_shop(&shop, &urls, 250).await;
    load.publishers[0].wait_accepted(20).await;
    let mut fault = Fault::begin("cluster-slot-moved");
    // There, on, and back to where it was at first.
    for (accepted, target) in [(40, 1), (100, 2), (160, 0)] {
        load.publishers[0].wait_accepted(accepted).await;
        cluster.move_slot(cluster.slot(&shop), target).await;
        fault.over();
    }
    load.assert_survived(fault).await;
    for node in &nodes {
        assert_eq!(node.metrics().await.get("shoprelay_publish_refused_total"), 0.0, "{}", node.log_text());
    }
    // The push comes by the channel: no audit is needed, and nothing waits for the next message.
    let mut main = Login::main(&shop, "till-9").on(&urls.pick(0)).await;
    let mut sub = Login::sub(&shop, "hand-9").on(&urls.pick(1)).await;
    cluster.move_slot(cluster.slot(&shop), 1).await;
    let id = sub.notify(json!({"type": "last"})).await;
    assert_eq!(main.take(1).await, [Id::of(&id)]);
}

#[tokio::test]
async fn a_node_that_one_primary_of_a_cluster_no_longer_reaches_is_deaf_until_that_one_is_subscribed_anew() {
    let cluster = RedisCluster::start(3, 0, &[]);
    let proxy = RedisProxy::before(cluster.servers[1].port()).await;
    // Whoever asks where the slots are is told to come by the proxy.
    let port = proxy.port().to_string();
    cluster.servers[1].cli(&["CONFIG", "SET", "cluster-announce-port", &port]);
    let told = async || (0..3).all(|n| cluster.servers[n].cli(&["CLUSTER", "NODES"]).contains(&format!(":{port}@")));
    eventually(SOON, "the others to know the new port", told).await;
    let node = NodeProcess::start(&NodeOptions::new(cluster.url())).await;
    let slot_owner = |shop: &str| cluster.slot(shop) / (16384 / 3);
    let shop = std::iter::repeat_with(|| unique("shop")).find(|shop| slot_owner(shop) == 1).expect("there is one");
    let mut main = Login::main(&shop, "till").on(&node.ws_url()).await;
    let mut sub = Login::sub(&shop, "hand").on(&node.ws_url()).await;
    assert!(node.is_ready().await);
    proxy.deafen(true);
    eventually(Duration::from_secs(6), "the deaf node to be unready", async || !node.is_ready().await).await;
    assert!(node.metrics().await.get("shoprelay_feed_deaf_total") >= 1.0);
    let id = sub.notify(json!({"type": "add"})).await;
    proxy.deafen(false);
    eventually(SOON, "the node to be ready again", async || node.is_ready().await).await;
    assert_eq!(main.take(1).await, [Id::of(&id)]);
}

#[tokio::test]
async fn a_primary_of_a_cluster_that_is_stopped_holds_up_only_its_own_shops() {
    let cluster = RedisCluster::start(3, 0, &["--cluster-require-full-coverage", "no"]);
    let (nodes, urls) = two_nodes(&NodeOptions::new(cluster.url())).await;
    let (held, free) = (shop_of(&cluster, 1), shop_of(&cluster, 2));
    let till = |shop: &str| Login::main(shop, "till");
    let mains = [Recorder::logged_in(till(&held), &urls, 0).await, Recorder::logged_in(till(&free), &urls, 1).await];
    let publish = |shop: &str| {
        Publisher::start(Login::sub(shop, "hand"), &urls, 150, Duration::from_millis(10), json!({"type": "add"}))
    };
    let (slow, fast) = (publish(&held), publish(&free));
    slow.wait_accepted(30).await;
    let mut fault = Fault::begin("cluster-primary-stopped");
    cluster.servers[1].pause();
    let accepted: BTreeSet<Id> = fast.finish().await;
    mains[1].wait_for(&accepted, SOON).await;
    for node in &nodes {
        eventually(SOON, "the node to be unready", async || !node.is_ready().await).await;
    }
    cluster.servers[1].resume();
    fault.over();
    let [main, other] = mains;
    fault.shop([slow], [main]).await;
    fault.assert_survived();
    other.stop().await.assert_exactly(&accepted);
}
