//! Devices that show a token: what it fixes, what it allows, and when it ends.

use std::time::{Duration, Instant};

use serde_json::json;

use super::{names, of_shop};
use crate::harness::token::{signed, with_token, world};
use crate::harness::{Device, Encoding, Login, unique, unix_ms};

#[tokio::test]
async fn a_token_lets_in_who_it_names_and_nobody_else() {
    let (world, _dir) = world().await;
    let shop = unique("店");
    let login = Login::sub(&shop, "hand");
    let mut device = with_token(login.clone(), json!({})).on(&world.url(0)).await;
    device.expect_nothing().await;
    let past = unix_ms() / 1000 - 1;
    let refused = [
        login.clone(),
        login.clone().token("nonsense"),
        login.clone().token(&signed(&json!({"shop": shop, "device": "hand", "role": "sub", "exp": past + 3600}), "x")),
        with_token(login.clone(), json!({"shop": "another"})),
        with_token(login.clone(), json!({"device": "another"})),
        with_token(login.clone(), json!({"role": "main"})),
        with_token(login.clone(), json!({"exp": past})),
        with_token(login.clone(), json!({"exp": null})),
        with_token(login.clone(), json!({"nbf": past + 3600})),
        with_token(login.clone(), json!({"groups": "bar"})),
    ];
    for login in refused {
        let mut stranger = Device::connect(&world.url(1), Encoding::Json).await;
        stranger.refused("login", login.op(), "unauthorized").await;
        assert_eq!(stranger.close_code().await.0, 4001);
    }
    device.expect_nothing().await;
}

#[tokio::test]
async fn a_token_fixes_groups_and_user_until_the_api_changes_them() {
    let (world, _dir) = world().await;
    let shop = unique("shop");
    let login = with_token(Login::sub(&shop, "hand"), json!({"groups": ["bar", "roof"], "user": "ann"}));
    let plain = with_token(Login::sub(&shop, "plain"), json!({})).on(&world.url(0)).await;
    let mut hand = login.on(&world.url(1)).await;
    let path = |rest: &str| of_shop(&shop, rest);
    for (op, fields) in [
        ("join", json!({"group": "attic"})),
        ("leave", json!({"group": "bar"})),
        ("bind", json!({"user": "bob"})),
        ("unbind", json!({})),
    ] {
        hand.refused(op, fields, "forbidden").await;
    }
    assert_eq!(names(&world.api(0), &path("/groups")).await, ["bar", "roof"]);
    assert_eq!(names(&world.api(0), &path("/users/ann")).await, ["hand"]);
    assert_eq!(world.api(0).put(&path("/groups/attic/devices/hand"), json!({})).await.status, 204);
    assert_eq!(world.api(0).delete(&path("/groups/bar/devices/hand")).await.status, 204);
    assert_eq!(world.api(0).put(&path("/users/bob/devices/hand"), json!({})).await.status, 204);
    for to in [json!({"group": "bar"}), json!({"user": "ann"}), json!({"group": "attic"}), json!({"user": "bob"})] {
        world.api(0).post(&path("/messages"), json!({"type": "a", "to": to, "durable": false})).await;
    }
    for _ in 0..2 {
        assert_eq!(hand.expect("signal").await["type"], "a");
    }
    hand.expect_nothing().await;
    let shown = world.api(1).get(&path("/devices/hand")).await.json;
    assert_eq!((&shown["groups"], &shown["user"]), (&json!(["attic", "roof"]), &json!("bob")));
    // At the next login it is again as the token says.
    hand.close().await;
    let mut hand = login.on(&world.url(0)).await;
    let shown = world.api(1).get(&path("/devices/hand")).await.json;
    assert_eq!((&shown["groups"], &shown["user"]), (&json!(["bar", "roof"]), &json!("ann")));
    world.api(1).post(&path("/messages"), json!({"type": "b", "to": {"group": "bar"}})).await;
    assert_eq!(hand.expect("message").await["type"], "b");
    // A token that names none takes the device out of all; one without the claim leaves them.
    hand.close().await;
    with_token(Login::sub(&shop, "hand"), json!({})).on(&world.url(1)).await.close().await;
    assert_eq!(names(&world.api(0), &path("/groups/bar")).await, ["hand"]);
    with_token(Login::sub(&shop, "hand"), json!({"groups": []})).on(&world.url(1)).await.close().await;
    assert_eq!(names(&world.api(0), &path("/groups")).await, [] as [&str; 0]);
    assert_eq!(plain.welcome["op"], "welcome");
}

#[tokio::test]
async fn a_token_without_groups_or_user_leaves_them_to_the_device() {
    let (world, _dir) = world().await;
    let shop = unique("shop");
    let mut hand = with_token(Login::sub(&shop, "hand"), json!({"user": "ann"})).on(&world.url(0)).await;
    assert_eq!(hand.request(json!({"op": "join", "group": "bar"})).await["op"], "ok");
    hand.refused("unbind", json!({}), "forbidden").await;
    let mut other = with_token(Login::sub(&shop, "other"), json!({"groups": ["bar"]})).on(&world.url(1)).await;
    assert_eq!(other.request(json!({"op": "bind", "user": "bob"})).await["op"], "ok");
    other.refused("leave", json!({"group": "bar"}), "forbidden").await;
    assert_eq!(names(&world.api(1), &of_shop(&shop, "/groups/bar")).await, ["hand", "other"]);
    assert_eq!(names(&world.api(1), &of_shop(&shop, "/users")).await, ["ann", "bob"]);
}

#[tokio::test]
async fn a_token_limits_the_ops() {
    let (world, _dir) = world().await;
    let shop = unique("shop");
    let mut till = with_token(Login::main(&shop, "till"), json!({})).on(&world.url(0)).await;
    let ops = json!({"ops": ["notify", "attrs", "an-op-of-a-later-version"]});
    let mut hand = with_token(Login::sub(&shop, "hand"), ops).on(&world.url(1)).await;
    hand.notify(json!({"type": "a"})).await;
    assert_eq!(hand.request(json!({"op": "attrs"})).await["op"], "attrs");
    for (op, fields) in [
        ("list", json!({})),
        ("online", json!({})),
        ("join", json!({"group": "g"})),
        ("leave", json!({"group": "g"})),
        ("bind", json!({"user": "u"})),
        ("unbind", json!({})),
        ("deal", json!({"id": "1-1", "status": "done"})),
        ("call", json!({"method": "m"})),
    ] {
        hand.refused(op, fields, "forbidden").await;
    }
    // Receiving, and what keeps the connection, cannot be withheld.
    let id = till.notify(json!({"type": "b", "to": "subs", "durable": true})).await;
    assert_eq!(hand.take(1).await.len(), 1);
    let shown = of_shop(&shop, &format!("/messages/{id}"));
    crate::harness::eventually(crate::harness::SOON, "the ack to count", async || {
        world.api(0).get(&shown).await.json["delivered"]["hand"] == true
    })
    .await;
    hand.send(json!({"op": "logout"})).await;
    assert_eq!(hand.close_code().await.0, 1000);
    let mut none = with_token(Login::sub(&shop, "none"), json!({"ops": []})).on(&world.url(0)).await;
    none.refused("notify", json!({"type": "a"}), "forbidden").await;
    assert_eq!(none.request(json!({"op": "ping"})).await["op"], "pong");
}

#[tokio::test]
async fn a_connection_ends_with_its_token() {
    let (world, _dir) = world().await;
    let shop = unique("shop");
    let exp = unix_ms() / 1000 + 3;
    let mut hand = with_token(Login::sub(&shop, "hand"), json!({"exp": exp})).on(&world.url(0)).await;
    let mut other = with_token(Login::sub(&shop, "other"), json!({"exp": exp + 3600})).on(&world.url(0)).await;
    let began = Instant::now();
    assert_eq!(hand.close_code().await.0, 4001);
    assert!(began.elapsed() < Duration::from_secs(5));
    assert!(unix_ms() >= exp * 1000, "not before its time");
    other.expect_nothing().await;
}

#[tokio::test]
async fn a_device_that_logs_in_again_in_time_stays_when_its_old_token_ends() {
    let (world, _dir) = world().await;
    let shop = unique("shop");
    let exp = unix_ms() / 1000 + 4;
    let login = Login::sub(&shop, "hand");
    let mut old = with_token(login.clone(), json!({"exp": exp})).on(&world.url(0)).await;
    let mut new = with_token(login, json!({"exp": exp + 3600})).on(&world.url(1)).await;
    assert_eq!(old.close_code().await.0, 4000, "replaced, before the token ends");
    tokio::time::sleep(Duration::from_millis((exp * 1000 + 500).saturating_sub(unix_ms()))).await;
    new.expect_nothing().await;
}
