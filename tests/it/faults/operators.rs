//! What an operator does to a Redis that runs: flushes its scripts, kills connections, fills it.

use std::time::Duration;

use serde_json::json;

use super::load::Load;
use crate::harness::{Fault, Login, Publisher, Recorder, SOON, World, eventually, unique};

#[tokio::test]
async fn scripts_that_are_flushed_under_load_are_not_missed() {
    let world = World::start(2).await;
    let load = Load::start(&world.urls(), 150).await;
    let mut fault = Fault::begin("script-flush");
    for accepted in [30, 60, 90, 120] {
        load.publishers[0].wait_accepted(accepted).await;
        world.redis().cli(&["SCRIPT", "FLUSH"]);
        fault.over();
    }
    load.assert_survived(fault).await;
    assert_eq!(world.metric("shoprelay_publish_refused_total").await, 0.0);
}

#[tokio::test]
async fn killing_all_connections_to_redis_under_load_loses_nothing() {
    let world = World::start(2).await;
    let load = Load::start(&world.urls(), 200).await;
    let mut fault = Fault::begin("client-kill-all");
    for accepted in [40, 80, 120, 160] {
        load.publishers[0].wait_accepted(accepted).await;
        for kind in ["normal", "pubsub"] {
            world.redis().cli(&["CLIENT", "KILL", "TYPE", kind]);
        }
        fault.over();
    }
    load.assert_survived(fault).await;
}

#[tokio::test]
async fn a_redis_that_is_full_for_a_while_loses_nothing_and_is_emptied_meanwhile() {
    let world = World::start(2).await;
    let urls = world.urls();
    let shop = unique("shop");
    let main = Recorder::logged_in(Login::main(&shop, "till"), &urls, 0).await;
    let publisher =
        Publisher::start(Login::sub(&shop, "hand"), &urls, 200, Duration::from_millis(5), json!({"type": "add"}));
    publisher.wait_accepted(60).await;
    let mut fault = Fault::begin("redis-full");
    world.redis().cli(&["CONFIG", "SET", "maxmemory", "1"]);
    let refused = async || world.metric("shoprelay_publish_refused_total").await >= 3.0;
    eventually(2 * SOON, "notifies to be refused", refused).await;
    // Who comes now gets what is there, and may prove that it has it.
    main.lose_connection();
    eventually(2 * SOON, "the till to be back", async || main.record().connections.len() == 2).await;
    world.redis().cli(&["CONFIG", "SET", "maxmemory", "0"]);
    fault.over();
    fault.shop([publisher], [main]).await;
    fault.assert_survived();
}

#[tokio::test]
async fn redis_that_is_stopped_for_ten_seconds_loses_nothing() {
    let world = World::start(2).await;
    let load = Load::start(&world.urls(), 200).await;
    load.publishers[0].wait_accepted(60).await;
    let mut fault = Fault::begin("redis-stopped");
    world.redis().pause();
    // Longer than every time-out there is: the connections are given up meanwhile.
    tokio::time::sleep(Duration::from_secs(10)).await;
    world.redis().resume();
    fault.over();
    load.assert_survived(fault).await;
}
