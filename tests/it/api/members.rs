//! Groups and users as back ends see and change them, whoever is connected where.

use serde_json::{Value, json};

use super::{encoded, names, of_shop};
use crate::delivery::on_one_and_two_nodes;
use crate::harness::{Id, Login, SOON, World, eventually, unique};

on_one_and_two_nodes!(
    a_group_is_joined_left_and_dissolved,
    a_user_has_several_devices_and_a_device_one_user,
    a_change_holds_for_the_next_message_of_a_connected_device,
    a_change_holds_for_a_device_that_is_away,
    who_is_not_registered_cannot_join_and_need_not_leave,
    names_of_groups_and_users_may_have_any_characters,
);

/// Makes a change that must be done.
async fn change(world: &World, n: usize, method: hyper::Method, path: &str) {
    let changed = world.api(n).send(method.clone(), path, None).await;
    assert_eq!((changed.status, changed.text.as_str()), (204, ""), "{method} {path}");
}

async fn put(world: &World, n: usize, path: &str) {
    change(world, n, hyper::Method::PUT, path).await;
}

async fn delete(world: &World, n: usize, path: &str) {
    change(world, n, hyper::Method::DELETE, path).await;
}

async fn a_group_is_joined_left_and_dissolved(world: &mut World) {
    let shop = unique("shop");
    let (groups, bar) = (of_shop(&shop, "/groups"), of_shop(&shop, "/groups/bar"));
    assert_eq!(world.api(0).get(&groups).await.json, json!({"items": [], "next": null, "total": 0}));
    let _first = Login::main(&shop, "first").on(&world.url(0)).await;
    let _second = Login::sub(&shop, "second").on(&world.url(1)).await;
    Login::sub(&shop, "third").on(&world.url(1)).await.close().await;
    for device in ["third", "first", "second", "first"] {
        put(world, 0, &format!("{bar}/devices/{device}")).await;
    }
    put(world, 1, &of_shop(&shop, "/groups/attic/devices/second")).await;
    for n in 0..2 {
        assert_eq!(names(&world.api(n), &groups).await, ["attic", "bar"]);
        assert_eq!(names(&world.api(n), &bar).await, ["first", "second", "third"]);
    }
    let page = world.api(0).get(&format!("{bar}?limit=2")).await.json;
    assert_eq!(page, json!({"items": ["first", "second"], "next": "second", "total": 3}));
    let rest = world.api(0).get(&format!("{bar}?limit=2&after=second")).await.json;
    assert_eq!(rest, json!({"items": ["third"], "next": null, "total": 3}));
    let page = world.api(0).get(&format!("{groups}?limit=1")).await.json;
    assert_eq!(page, json!({"items": ["attic"], "next": "attic", "total": 2}));
    for _ in 0..2 {
        delete(world, 1, &format!("{bar}/devices/first")).await;
    }
    assert_eq!(names(&world.api(0), &bar).await, ["second", "third"]);
    for _ in 0..2 {
        delete(world, 0, &bar).await;
        assert_eq!(names(&world.api(1), &bar).await, [] as [&str; 0]);
        assert_eq!(names(&world.api(1), &groups).await, ["attic"]);
    }
    delete(world, 0, &of_shop(&unique("nowhere"), "/groups/bar")).await;
}

async fn a_user_has_several_devices_and_a_device_one_user(world: &mut World) {
    let shop = unique("shop");
    let (users, ann) = (of_shop(&shop, "/users"), of_shop(&shop, "/users/ann"));
    let _first = Login::main(&shop, "first").on(&world.url(0)).await;
    Login::sub(&shop, "second").on(&world.url(1)).await.close().await;
    put(world, 0, &format!("{ann}/devices/first")).await;
    put(world, 1, &format!("{ann}/devices/second")).await;
    assert_eq!(names(&world.api(1), &users).await, ["ann"]);
    assert_eq!(names(&world.api(0), &ann).await, ["first", "second"]);
    put(world, 1, &of_shop(&shop, "/users/bob/devices/first")).await;
    assert_eq!(names(&world.api(0), &users).await, ["ann", "bob"]);
    assert_eq!(names(&world.api(0), &ann).await, ["second"], "a device has one user");
    delete(world, 0, &format!("{ann}/devices/first")).await;
    assert_eq!(names(&world.api(1), &of_shop(&shop, "/users/bob")).await, ["first"], "it was not ann's any more");
    delete(world, 0, &of_shop(&shop, "/users/bob/devices/first")).await;
    delete(world, 1, &format!("{ann}/devices/second")).await;
    assert_eq!(names(&world.api(0), &users).await, [] as [&str; 0]);
    assert_eq!(names(&world.api(0), &ann).await, [] as [&str; 0]);
}

async fn a_change_holds_for_the_next_message_of_a_connected_device(world: &mut World) {
    let shop = unique("shop");
    let _till = Login::main(&shop, "till").on(&world.url(0)).await;
    let mut hands = Vec::new();
    for n in 0..2 {
        hands.push(Login::sub(&shop, &format!("hand-{n}")).on(&world.url(n)).await);
    }
    let of_group = of_shop(&shop, "/groups/bar");
    let of_user = of_shop(&shop, "/users/ann");
    for (to, member) in [(json!({"group": "bar"}), of_group.clone()), (json!({"user": "ann"}), of_user)] {
        for round in 0..4 {
            let is_in = round % 2 == 0;
            for n in 0..2 {
                let path = format!("{member}/devices/hand-{n}");
                // By the node that holds the device, and by the other.
                let at = (n + round / 2) % 2;
                if is_in { put(world, at, &path).await } else { delete(world, at, &path).await }
            }
            for durable in [true, false] {
                let op = if durable { "message" } else { "signal" };
                for n in 0..2 {
                    let path = of_shop(&shop, "/messages");
                    let notify = json!({"type": "to-members", "to": to, "durable": durable});
                    assert!(matches!(world.api(n).post(&path, notify).await.status, 201 | 202));
                    let mark = json!({"type": "mark", "to": "subs", "durable": durable});
                    assert!(matches!(world.api(n).post(&path, mark).await.status, 201 | 202));
                }
                for hand in &mut hands {
                    for _ in 0..2 {
                        if is_in {
                            assert_eq!(hand.expect(op).await["type"], "to-members", "{to} in round {round}");
                        }
                        assert_eq!(hand.expect(op).await["type"], "mark", "{to} in round {round}");
                    }
                }
            }
        }
    }
    put(world, 0, &format!("{of_group}/devices/hand-0")).await;
    put(world, 0, &format!("{of_group}/devices/hand-1")).await;
    delete(world, 1, &of_group).await;
    world.api(0).post(&of_shop(&shop, "/messages"), json!({"type": "a", "to": {"group": "bar"}})).await;
    for hand in &mut hands {
        hand.expect_nothing().await;
    }
}

async fn a_change_holds_for_a_device_that_is_away(world: &mut World) {
    let shop = unique("shop");
    let _till = Login::main(&shop, "till").on(&world.url(0)).await;
    let login = Login::sub(&shop, "hand");
    login.on(&world.url(1)).await.close().await;
    let sent = async |to: Value| {
        let sent = world.api(0).post(&of_shop(&shop, "/messages"), json!({"type": "a", "to": to})).await;
        assert_eq!(sent.status, 201, "{}", sent.text);
        Id::of(sent.json["id"].as_str().unwrap())
    };
    put(world, 0, &of_shop(&shop, "/groups/bar/devices/hand")).await;
    put(world, 0, &of_shop(&shop, "/users/ann/devices/hand")).await;
    let to_group = sent(json!({"group": "bar"})).await;
    let to_user = sent(json!({"user": "ann"})).await;
    let mut hand = login.on(&world.url(1)).await;
    assert_eq!(hand.take(2).await, [to_group, to_user]);
    hand.close().await;
    // Until its acknowledgements are written down they may be sent again.
    eventually(SOON, "both are proven", async || {
        let listed = world.api(0).get(&of_shop(&shop, "/messages")).await;
        listed.text.matches(r#""hand":true"#).count() == 2
    })
    .await;
    sent(json!({"group": "bar"})).await;
    delete(world, 1, &of_shop(&shop, "/groups/bar")).await;
    let to_user = sent(json!({"user": "ann"})).await;
    let mut hand = login.on(&world.url(0)).await;
    assert_eq!(hand.take(1).await, [to_user], "it is what it is when its cursor passes the message");
}

async fn who_is_not_registered_cannot_join_and_need_not_leave(world: &mut World) {
    let shop = unique("shop");
    let _till = Login::main(&shop, "till").on(&world.url(0)).await;
    for shop in [&shop, &unique("nowhere")] {
        for path in ["/groups/bar/devices/nobody", "/users/ann/devices/nobody"] {
            let path = of_shop(shop, path);
            world.api(1).put(&path, json!({})).await.assert_problem(404, "not_found");
            delete(world, 1, &path).await;
        }
        assert_eq!(names(&world.api(0), &of_shop(shop, "/groups")).await, [] as [&str; 0]);
        assert_eq!(names(&world.api(0), &of_shop(shop, "/users")).await, [] as [&str; 0]);
    }
}

async fn names_of_groups_and_users_may_have_any_characters(world: &mut World) {
    let shop = unique("店/铺");
    let device = "手 持/1";
    let _hand = Login::sub(&shop, device).on(&world.url(1)).await;
    for name in ["a/b", "%2F", "..", "酒 吧?", "a+b&c=d#e", "\u{feff}x", "\u{10ffff}"] {
        for (kind, one) in [("groups", "group"), ("users", "user")] {
            let path = of_shop(&shop, &format!("/{kind}/{}", encoded(name)));
            let member = format!("{path}/devices/{}", encoded(device));
            put(world, 0, &member).await;
            assert_eq!(names(&world.api(1), &path).await, [device], "{kind} {name:?}");
            assert_eq!(names(&world.api(1), &of_shop(&shop, &format!("/{kind}"))).await, [name]);
            let online = world.api(1).get(&of_shop(&shop, &format!("/online?{one}={}", encoded(name)))).await;
            assert_eq!(online.json["total"], 1, "{kind} {name:?}: {}", online.text);
            delete(world, 0, &member).await;
        }
    }
}

#[tokio::test]
async fn a_device_is_in_so_many_groups_at_most() {
    let world = World::with(1, &[("LIMITS_DEVICE_GROUPS", "2")]).await;
    let shop = unique("shop");
    let _hand = Login::sub(&shop, "hand").on(&world.url(0)).await;
    for group in ["a", "b", "a"] {
        put(&world, 0, &of_shop(&shop, &format!("/groups/{group}/devices/hand"))).await;
    }
    let path = of_shop(&shop, "/groups/c/devices/hand");
    world.api(0).put(&path, json!({})).await.assert_problem(400, "bad_request");
    delete(&world, 0, &of_shop(&shop, "/groups/a")).await;
    put(&world, 0, &path).await;
    assert_eq!(names(&world.api(0), &of_shop(&shop, "/groups")).await, ["b", "c"]);
}
