//! Connections, by their names and their devices: who they are, and closing them.

use serde_json::{Value, json};

use super::{listed, of_shop};
use crate::delivery::on_one_and_two_nodes;
use crate::harness::{Login, World, unique};

on_one_and_two_nodes!(
    a_device_is_closed_after_a_last_signal,
    a_connection_is_closed_by_its_name,
    who_is_away_cannot_be_closed,
    the_name_of_a_replaced_connection_is_gone,
);

async fn a_device_is_closed_after_a_last_signal(world: &mut World) {
    let shop = unique("shop");
    let mut watcher = Login::main(&shop, "till").on(&world.url(0)).await;
    let bodies = [json!({"data": {"why": ["update", 1]}}), json!({"data": false}), json!({"data": null}), json!({})];
    for (n, body) in bodies.into_iter().enumerate() {
        let login = Login::sub(&shop, "hand");
        let mut hand = login.on(&world.url(n)).await;
        let closed = world.api(n / 2).post(&of_shop(&shop, "/devices/hand/close"), body.clone()).await;
        assert_eq!((closed.status, closed.text.as_str()), (204, ""), "{body}");
        if body.get("data").is_some_and(|data| !data.is_null()) {
            let last = hand.expect("signal").await;
            let seen = (&last["type"], &last["data"], &last["from"]);
            assert_eq!(seen, (&json!("close"), &body["data"], &json!({"api": "local"})));
        }
        let mut ops = Vec::new();
        let code = loop {
            match hand.event().await {
                crate::harness::Event::Closed(code, _) => break code,
                crate::harness::Event::Op(op) => ops.push(op),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!((code, ops), (4005, Vec::<Value>::new()));
    }
    // Without any body too.
    let mut hand = Login::sub(&shop, "hand").on(&world.url(1)).await;
    let path = of_shop(&shop, "/devices/hand/close");
    assert_eq!(world.api(0).send(hyper::Method::POST, &path, None).await.status, 204);
    assert_eq!(hand.close_code().await.0, 4005);
    assert_eq!(listed(&world.api(1), &of_shop(&shop, "/online"), "device").await, [json!("till")]);
    watcher.expect_nothing().await;
    let mut back = Login::sub(&shop, "hand").on(&world.url(0)).await;
    back.expect_nothing().await;
}

async fn a_connection_is_closed_by_its_name(world: &mut World) {
    let shop = unique("店 铺");
    for n in 0..2 {
        let mut hand = Login::sub(&shop, "手").on(&world.url(n)).await;
        let conn = hand.welcome["conn"].as_str().unwrap().to_owned();
        let path = format!("/v1/connections/{conn}");
        for node in 0..2 {
            let shown = world.api(node).get(&path).await;
            let wanted = json!({
                "conn": conn, "node": hand.welcome["node"], "shop": shop, "device": "手", "role": "sub",
                "since": shown.json["since"], "state": "online",
            });
            assert_eq!((shown.status, &shown.json), (200, &wanted));
            assert!(shown.json["since"].as_u64().unwrap().abs_diff(crate::harness::unix_ms()) < 20_000);
        }
        let closed = world.api(1 - n).post(&format!("{path}/close"), json!({"data": "bye"})).await;
        assert_eq!(closed.status, 204, "{}", closed.text);
        assert_eq!(hand.expect("signal").await["data"], "bye");
        assert_eq!(hand.close_code().await.0, 4005);
        for node in 0..2 {
            world.api(node).get(&path).await.assert_problem(404, "not_found");
            let again = world.api(node).send(hyper::Method::POST, &format!("{path}/close"), None).await;
            again.assert_problem(404, "not_found");
        }
    }
}

async fn who_is_away_cannot_be_closed(world: &mut World) {
    let shop = unique("shop");
    Login::sub(&shop, "away").on(&world.url(0)).await.close().await;
    let mut hand = Login::sub(&shop, "hand").on(&world.url(0)).await;
    let close = async |n: usize, path: &str| world.api(n).post(path, json!({"data": 1})).await;
    let path = of_shop(&shop, "/devices/hand/close");
    assert_eq!(close(1, &path).await.status, 204);
    close(1, &path).await.assert_problem(404, "not_found");
    close(0, &path).await.assert_problem(404, "not_found");
    hand.expect("signal").await;
    assert_eq!(hand.close_code().await.0, 4005);
    crate::harness::eventually(crate::harness::SOON, "the other to be away", async || {
        close(1, &of_shop(&shop, "/devices/away/close")).await.status == 404
    })
    .await;
    close(1, &of_shop(&shop, "/devices/nobody/close")).await.assert_problem(404, "not_found");
    close(1, &of_shop(&unique("nowhere"), "/devices/hand/close")).await.assert_problem(404, "not_found");
    for gone in ["nowhere.1", "no-node-made-this", "x"] {
        world.api(0).get(&format!("/v1/connections/{gone}")).await.assert_problem(404, "not_found");
        close(0, &format!("/v1/connections/{gone}/close")).await.assert_problem(404, "not_found");
    }
}

async fn the_name_of_a_replaced_connection_is_gone(world: &mut World) {
    let shop = unique("shop");
    let login = Login::sub(&shop, "hand");
    let mut old = login.on(&world.url(0)).await;
    let mut new = login.on(&world.url(1)).await;
    assert_eq!(old.close_code().await.0, 4000);
    let old = old.welcome["conn"].as_str().unwrap();
    world.api(1).get(&format!("/v1/connections/{old}")).await.assert_problem(404, "not_found");
    world.api(1).post(&format!("/v1/connections/{old}/close"), json!({})).await.assert_problem(404, "not_found");
    new.expect_nothing().await;
    let shown = world.api(0).get(&format!("/v1/connections/{}", new.welcome["conn"].as_str().unwrap())).await;
    assert_eq!(shown.json["device"], "hand");
}
