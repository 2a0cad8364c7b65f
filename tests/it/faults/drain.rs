//! Nodes that leave in good order: their devices are on another node before they are gone.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::load::Load;
use crate::harness::{
    Balancer, Device, Encoding, Event, Fault, Id, LegacyDevice, Login, NodeProcess, SOON, Urls, World, eventually,
    unique,
};

/// The wait that a close with 1012 asks for.
fn retry_after_ms(reason: &str) -> u64 {
    let wait = reason.strip_prefix("retry_after_ms=").and_then(|wait| wait.parse().ok());
    wait.unwrap_or_else(|| panic!("no wait in {reason:?}"))
}

/// What its node says when it sends the device elsewhere.
async fn goaway(device: &mut Device) -> Value {
    device.next_where(|op| op["op"] == "goaway").await
}

#[tokio::test]
async fn a_rolling_restart_of_three_nodes_under_load_loses_nothing_and_repeats_nothing() {
    let mut world = World::with(3, &[("DRAIN_WINDOW", "5s")]).await;
    let balancer = Balancer::before(&world.nodes).await;
    let load = Load::steady(&Urls::new([balancer.ws_url()])).await;
    load.go_on(20).await;
    let mut fault = Fault::begin("rolling-restart-of-three-nodes");
    for index in 0..3 {
        let new = NodeProcess::start(&world.options).await;
        balancer.add(&new);
        world.nodes[index].sigterm();
        let status = world.nodes[index].wait_exit().await;
        assert_eq!(status.code(), Some(0), "{}", world.nodes[index].log_text());
        world.nodes[index] = new;
    }
    fault.over();
    load.go_on(20).await;
    load.enough();
    let (summary, records) = load.assert_survived(fault).await;
    // Where it takes a reconnect to be served again, the wait alone takes longer.
    assert!(summary.latest < SOON && summary.longest_silence < SOON, "{summary}");
    for record in records {
        let (_, left) = record.connections.split_last().unwrap();
        assert!(!left.is_empty(), "{} was on a node that left", record.device);
        for connection in left {
            assert!(connection.goaway.is_some(), "{connection:?}");
            assert!(matches!(connection.end, Some(Event::Closed(4000, _))), "{:?}", connection.end);
        }
    }
}

#[tokio::test]
async fn a_session_is_told_to_log_in_elsewhere_and_served_until_it_has() {
    let mut world = World::with(2, &[("DRAIN_WINDOW", "8s")]).await;
    let shop = unique("shop");
    let till = Login::main(&shop, "till");
    let mut sub = Login::sub(&shop, "hand").on(&world.url(1)).await;
    let mut old = till.on(&world.url(0)).await;
    world.nodes[0].sigterm();
    let told = goaway(&mut old).await;
    let (wait, deadline) = (told["reconnect_in_ms"].as_u64().unwrap(), told["deadline_ms"].as_u64().unwrap());
    assert!(wait < deadline && (1..7_000).contains(&deadline), "{told}");
    assert!(world.nodes[0].metrics().await.get("shoprelay_goaways_total") == 1.0);
    // It is served as before: what it does and what it is sent.
    let first = Id::of(&sub.notify(json!({"type": "add"})).await);
    assert_eq!(old.take(1).await, [first]);
    assert_eq!(old.request(json!({"op": "list"})).await["items"].as_array().map(Vec::len), Some(1));
    let second = sub.notify(json!({"type": "add"})).await;
    assert_eq!(old.expect("message").await["id"], second.as_str());
    let mut new = till.on(&world.url(1)).await;
    assert_eq!(old.close_code().await.0, 4000);
    drop(old);
    // What it has not proven comes again, on the other connection.
    assert_eq!(new.expect("message").await["id"], second.as_str());
    assert_eq!(world.nodes[0].wait_exit().await.code(), Some(0), "nobody is left, so it does not wait");
    new.ack(&second).await;
    new.expect_nothing().await;
}

#[tokio::test]
async fn a_draining_node_is_unready_and_serves_on_until_balancers_have_seen_it() {
    let mut world = World::with(2, &[("DRAIN_WINDOW", "20s")]).await;
    let shop = unique("shop");
    let mut main = Login::main(&shop, "till").on(&world.url(0)).await;
    let began = Instant::now();
    world.nodes[0].sigterm();
    eventually(SOON, "the node to be unready", async || !world.nodes[0].is_ready().await).await;
    assert_eq!(world.nodes[0].get("/healthz").await.0, 200);
    assert_eq!(world.nodes[0].metrics().await.get("shoprelay_draining"), 1.0);
    // Devices and back ends that are still sent here are served.
    let mut late = Login::sub(&shop, "hand").on(&world.url(0)).await;
    let messages = format!("/v1/shops/{shop}/messages");
    assert_eq!(world.api(0).post(&messages, json!({"type": "add"})).await.status, 201);
    let id = late.notify(json!({"type": "add"})).await;
    assert_eq!(main.take(2).await[1], Id::of(&id));
    // Then nobody is let in any more.
    let url = world.url(0);
    eventually(SOON, "the listener to be closed", async || Device::try_connect(&url, None).await.is_err()).await;
    assert!(began.elapsed() >= Duration::from_secs(4), "it was closed after {:?}", began.elapsed());
    // Who is in is served on, and leaving ends the drain early.
    assert_eq!(late.request(json!({"op": "ping"})).await["op"], "pong");
    main.close().await;
    late.close().await;
    assert_eq!(world.nodes[0].wait_exit().await.code(), Some(0));
}

#[tokio::test]
async fn who_does_not_leave_a_draining_node_is_closed_with_1012_at_the_deadline() {
    let mut world = World::with(2, &[("DRAIN_WINDOW", "5s"), ("LEGACY", "true")]).await;
    let shop = unique("shop");
    let mut stays = Login::main(&shop, "till").on(&world.url(0)).await;
    let mut anonymous = Device::connect(&world.url(0), Encoding::Json).await;
    let mut legacy = LegacyDevice::log_in(world.nodes[0].listen(), shop.as_str().into(), "old-till".into(), "主").await;
    legacy.expect_nothing().await;
    let began = Instant::now();
    world.nodes[0].sigterm();
    // Neither of these knows the word.
    let (code, reason) = anonymous.close_code().await;
    assert_eq!((code, retry_after_ms(&reason)), (1012, 100));
    let (code, reason) = legacy.close_code().await;
    assert_eq!((code, retry_after_ms(&reason)), (1012, 100));
    goaway(&mut stays).await;
    let (code, reason) = stays.close_code().await;
    assert_eq!(code, 1012);
    assert!((100..3100).contains(&retry_after_ms(&reason)), "{reason}");
    assert!(began.elapsed() >= Duration::from_secs(5), "it was closed after {:?}", began.elapsed());
    drop((stays, anonymous, legacy));
    assert_eq!(world.nodes[0].wait_exit().await.code(), Some(0));
}

#[tokio::test]
async fn a_second_signal_hurries_a_draining_node() {
    for hurry in [NodeProcess::sigterm, NodeProcess::sigint] {
        let mut world = World::with(2, &[("DRAIN_WINDOW", "10m")]).await;
        let shop = unique("shop");
        let mut main = Login::main(&shop, "till").on(&world.url(0)).await;
        let mut sub = Login::sub(&shop, "hand").on(&world.url(1)).await;
        let id = sub.notify(json!({"type": "add"})).await;
        world.nodes[0].sigterm();
        eventually(SOON, "the node to be unready", async || !world.nodes[0].is_ready().await).await;
        assert_eq!(main.take(1).await, [Id::of(&id)]);
        main.expect_nothing().await;
        hurry(&world.nodes[0]);
        assert_eq!(main.close_code().await.0, 1012);
        drop(main);
        assert_eq!(world.nodes[0].wait_exit().await.code(), Some(0));
        // What was proven until then has been written down.
        let mut main = Login::main(&shop, "till").on(&world.url(1)).await;
        assert_eq!(main.welcome["cursor"], id.as_str());
        main.expect_nothing().await;
    }
}

#[tokio::test]
async fn a_node_without_a_window_or_interrupted_where_there_is_no_other_closes_its_connections_at_once() {
    let worlds = [
        (World::with(2, &[("DRAIN_WINDOW", "0s")]).await, NodeProcess::sigterm as fn(&NodeProcess)),
        (World::with(1, &[("DRAIN_WINDOW", "10m")]).await, NodeProcess::sigint),
        (World::embedded(&[("DRAIN_WINDOW", "10m")]).await, NodeProcess::sigint),
    ];
    for (mut world, stop) in worlds {
        let mut main = Login::main(&unique("shop"), "till").on(&world.url(0)).await;
        stop(&world.nodes[0]);
        let (code, reason) = main.close_code().await;
        assert_eq!(code, 1012);
        assert!((100..3100).contains(&retry_after_ms(&reason)), "{reason}");
        drop(main);
        assert_eq!(world.nodes[0].wait_exit().await.code(), Some(0));
    }
}

#[tokio::test]
async fn the_only_node_tells_its_devices_and_serves_them_to_the_end_of_the_window() {
    let mut world = World::embedded(&[("DRAIN_WINDOW", "5s")]).await;
    let shop = unique("shop");
    let mut main = Login::main(&shop, "till").on(&world.url(0)).await;
    world.nodes[0].sigterm();
    goaway(&mut main).await;
    assert_eq!(main.request(json!({"op": "list"})).await["op"], "messages");
    assert_eq!(main.close_code().await.0, 1012);
    drop(main);
    assert_eq!(world.nodes[0].wait_exit().await.code(), Some(0));
}

#[tokio::test]
async fn a_connection_that_has_asked_for_nothing_does_not_keep_an_empty_node() {
    let mut world = World::with(2, &[("DRAIN_WINDOW", "10m")]).await;
    let _probe = tokio::net::TcpStream::connect(world.nodes[0].listen()).await.unwrap();
    let served = world.nodes[0].get_public("/").await;
    assert_eq!(served.0, 404, "the connection before this one was taken");
    world.nodes[0].sigterm();
    let left = tokio::time::timeout(Duration::from_secs(4), world.nodes[0].wait_exit()).await;
    assert_eq!(left.expect("the empty node leaves at once").code(), Some(0));
}
