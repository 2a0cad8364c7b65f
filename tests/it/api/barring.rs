//! Barring: who an operator keeps out is off every node at once, and does not come in again.

use std::time::{Duration, Instant};

use hyper::Method;
use serde_json::json;

use super::{listed, of_shop};
use crate::delivery::on_one_and_two_nodes;
use crate::harness::{
    Api, Device, Encoding, LegacyDevice, Login, NodeOptions, NodeProcess, RedisProxy, SOON, World, eventually, unique,
};
use crate::redis_server::RedisServer;

/// The promise: off every node within a second.
const PROMISED: Duration = Duration::from_secs(1);

on_one_and_two_nodes!(
    a_barred_device_is_off_within_a_second_and_cannot_log_in_until_it_is_unbarred,
    a_device_that_never_came_can_be_barred,
    what_was_sent_to_a_barred_device_waits_until_it_is_unbarred,
    a_barred_device_that_logs_in_all_the_time_never_stays,
);

async fn a_barred_device_is_off_within_a_second_and_cannot_log_in_until_it_is_unbarred(world: &mut World) {
    let shop = unique("shop");
    let bar = of_shop(&shop, "/devices/hand/bar");
    let mut till = Login::main(&shop, "till").on(&world.url(0)).await;
    for n in 0..2 {
        let mut hand = Login::sub(&shop, "hand").on(&world.url(n)).await;
        assert_eq!(world.api(0).get(&bar).await.status, 404);
        let asked = Instant::now();
        let answer = world.api(0).put(&bar, json!({"data": {"why": "stolen"}})).await;
        assert_eq!((answer.status, answer.text.as_str()), (204, ""));
        let last = hand.expect("signal").await;
        assert_eq!((&last["type"], &last["data"]), (&json!("close"), &json!({"why": "stolen"})));
        assert_eq!(hand.close_code().await, (4005, "barred by an operator".to_owned()));
        assert!(asked.elapsed() < PROMISED, "{:?}", asked.elapsed());

        let shown = world.api(1).get(&bar).await;
        assert_eq!((&shown.json["device"], &shown.json["by"]), (&json!("hand"), &json!("local")));
        assert_eq!(listed(&world.api(1), &of_shop(&shop, "/barred"), "device").await, [json!("hand")]);
        assert_eq!(listed(&world.api(1), &of_shop(&shop, "/online"), "device").await, [json!("till")]);
        assert_eq!(world.api(1).send(Method::PUT, &bar, None).await.status, 204, "the repeat, without a body");
        for node in 0..2 {
            let mut hand = Device::connect(&world.url(node), Encoding::Json).await;
            hand.refused("login", Login::sub(&shop, "hand").op(), "unauthorized").await;
            assert_eq!(hand.close_code().await.0, 4001);
        }
        for _ in 0..2 {
            assert_eq!(world.api(0).send(Method::DELETE, &bar, None).await.status, 204);
        }
        assert_eq!(listed(&world.api(0), &of_shop(&shop, "/barred"), "device").await, [] as [serde_json::Value; 0]);
    }
    Login::sub(&shop, "hand").on(&world.url(0)).await;
    till.expect_nothing().await;
}

async fn a_device_that_never_came_can_be_barred(world: &mut World) {
    let shop = unique("店 铺");
    let bar = of_shop(&shop, "/devices/%E6%89%8B/bar");
    assert_eq!(world.api(0).send(Method::PUT, &bar, None).await.status, 204);
    let mut hand = Device::connect(&world.url(1), Encoding::MsgPack).await;
    hand.refused("login", Login::sub(&shop, "手").op(), "unauthorized").await;
    assert_eq!(hand.close_code().await.0, 4001);
    assert_eq!(world.api(0).get(&of_shop(&shop, "/devices/%E6%89%8B")).await.status, 404, "it is not registered");
    Login::sub(&unique("other"), "手").on(&world.url(1)).await;
    world.api(0).put(&bar, json!([1])).await.assert_problem(400, "bad_request");
}

async fn what_was_sent_to_a_barred_device_waits_until_it_is_unbarred(world: &mut World) {
    let shop = unique("shop");
    let bar = of_shop(&shop, "/devices/till/bar");
    let mut till = Login::main(&shop, "till").on(&world.url(0)).await;
    assert_eq!(world.api(0).send(Method::PUT, &bar, None).await.status, 204);
    till.close_code().await;
    let mut hand = Login::sub(&shop, "hand").on(&world.url(1)).await;
    let id = hand.notify(json!({"type": "order"})).await;
    assert_eq!(world.api(1).send(Method::DELETE, &bar, None).await.status, 204);
    let mut till = Login::main(&shop, "till").on(&world.url(1)).await;
    assert_eq!(till.expect("message").await["id"], id.as_str());
}

/// The login and the bar meet at every moment of the login.
async fn a_barred_device_that_logs_in_all_the_time_never_stays(world: &mut World) {
    let shop = unique("shop");
    let api = world.api(0);
    let (bar, online) = (of_shop(&shop, "/devices/hand/bar"), of_shop(&shop, "/online"));
    for round in 0..12 {
        let url = world.url(round);
        let login = Login::sub(&shop, "hand");
        let coming = tokio::spawn(async move { login.try_on(&url).await });
        tokio::time::sleep(Duration::from_micros(300 * round as u64)).await;
        assert_eq!(api.send(Method::PUT, &bar, None).await.status, 204);
        if let Ok(mut hand) = coming.await.unwrap() {
            let code = hand.close_code().await.0;
            assert!(code == 4005 || code == 4001, "{code}");
        }
        assert_eq!(listed(&api, &online, "device").await, [] as [serde_json::Value; 0]);
        assert_eq!(api.send(Method::DELETE, &bar, None).await.status, 204);
    }
}

#[tokio::test]
async fn a_barred_legacy_device_is_closed_and_refused() {
    let world = World::with(1, &[("LEGACY", "true")]).await;
    let shop = unique("shop");
    let address = world.nodes[0].listen();
    let mut till = LegacyDevice::log_in(address, json!(shop), json!("1"), "主").await;
    let api = world.api(0);
    let online = of_shop(&shop, "/online");
    eventually(SOON, "the till to be in", async || !listed(&api, &online, "device").await.is_empty()).await;
    assert_eq!(api.send(Method::PUT, &of_shop(&shop, "/devices/1/bar"), None).await.status, 204);
    assert_eq!(till.close_code().await.0, 4005);
    let mut till = LegacyDevice::log_in(address, json!(shop), json!("1"), "主").await;
    assert_eq!(till.answer().await, (1, "unauthorized".to_owned()));
    assert_eq!(till.close_code().await.0, 4001);
}

/// Nothing comes after the lost word that would betray it; the audit finds that the presence is gone.
#[tokio::test]
async fn a_barred_device_whose_node_did_not_hear_of_it_is_found_by_the_audit() {
    let redis = RedisServer::start().await;
    let proxy = RedisProxy::before(redis.port()).await;
    let node = NodeProcess::start(&NodeOptions::new(proxy.url()).set("AUDIT", "1s")).await;
    let shop = unique("shop");
    let mut hand = Login::sub(&shop, "hand").on(&node.ws_url()).await;
    proxy.drop_pushes(1, &shop);
    let bar = of_shop(&shop, "/devices/hand/bar");
    assert_eq!(Api::at(node.api_listen()).send(Method::PUT, &bar, None).await.status, 204);
    assert_eq!(hand.close_code().await.0, 1012, "it is to log in again");
    assert_eq!(proxy.dropped_pushes(), 1);
    let mut hand = Device::connect(&node.ws_url(), Encoding::Json).await;
    hand.refused("login", Login::sub(&shop, "hand").op(), "unauthorized").await;
}
