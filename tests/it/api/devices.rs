//! The registry and the attributes of devices, and forgetting them.

use serde_json::{Value, json};

use super::{encoded, listed, of_shop};
use crate::delivery::on_one_and_two_nodes;
use crate::harness::{Id, Login, SOON, World, eventually, id_of, unique, unix_ms};

on_one_and_two_nodes!(
    the_registry_shows_what_is_known_of_each_device,
    the_registry_is_listed_page_by_page,
    a_forgotten_device_is_closed_on_whichever_node_and_starts_anew,
    a_device_that_is_away_is_forgotten_too,
    attributes_are_replaced_merged_and_read,
    a_page_of_devices_ends_before_it_passes_a_megabyte,
    attributes_have_a_bound,
    a_patch_leaves_the_other_numbers_as_they_were,
);

async fn the_registry_shows_what_is_known_of_each_device(world: &mut World) {
    let shop = unique("shop");
    let before = unix_ms();
    let mut till = Login::main(&shop, "till").meta(json!({"model": "x", "n": 1.50})).on(&world.url(0)).await;
    let mut hand = Login::sub(&shop, "hand").on(&world.url(1)).await;
    for group in ["bar", "äbar", "Bar"] {
        assert_eq!(hand.request(json!({"op": "join", "group": group})).await["op"], "ok");
    }
    assert_eq!(hand.request(json!({"op": "bind", "user": "ann"})).await["op"], "ok");
    let id = hand.notify(json!({"type": "a"})).await;
    till.take(1).await;
    let path = of_shop(&shop, "/devices/till");
    eventually(SOON, "the cursor to move", async || world.api(1).get(&path).await.json["cursor"] == json!(id)).await;
    let shown = world.api(1).get(&path).await.json;
    let (first, last) = (shown["first_seen"].as_u64().unwrap(), shown["last_seen"].as_u64().unwrap());
    assert!(before <= first + 2_000 && first <= last && last <= unix_ms() + 2_000, "{shown}");
    let wanted = json!({
        "device": "till", "role": "main", "groups": [], "user": null, "meta": {"model": "x", "n": 1.50},
        "first_seen": first, "last_seen": last, "cursor": id,
    });
    assert_eq!(shown, wanted);
    let mut items = world.api(0).get(&of_shop(&shop, "/devices")).await.items().clone();
    assert_eq!(items[1], wanted);
    let hand = items.swap_remove(0);
    let wanted = json!({
        "device": "hand", "role": "sub", "groups": ["Bar", "bar", "äbar"], "user": "ann", "meta": null,
        "first_seen": hand["first_seen"], "last_seen": hand["last_seen"], "cursor": hand["cursor"],
    });
    assert_eq!(hand, wanted);
    world.api(0).get(&of_shop(&shop, "/devices/nobody")).await.assert_problem(404, "not_found");
    world.api(0).get(&of_shop(&unique("nowhere"), "/devices/till")).await.assert_problem(404, "not_found");
    let nowhere = world.api(0).get(&of_shop(&unique("nowhere"), "/devices")).await;
    assert_eq!(nowhere.json, json!({"items": [], "next": null, "total": 0}));
}

async fn the_registry_is_listed_page_by_page(world: &mut World) {
    let shop = unique("店");
    let mut wanted: Vec<String> = (0..7).map(|n| format!("手 持/{n}+&=#?")).collect();
    wanted.push("Z".into());
    wanted.sort();
    for (n, device) in wanted.iter().enumerate() {
        Login::sub(&shop, device).on(&world.url(n)).await.close().await;
    }
    let mut read = Vec::new();
    let mut after = String::new();
    loop {
        let page = world.api(read.len()).get(&of_shop(&shop, &format!("/devices?limit=3{after}"))).await;
        assert_eq!(page.json["total"], 8, "{}", page.text);
        read.extend(page.items().iter().map(|item| item["device"].as_str().unwrap().to_owned()));
        let Some(next) = page.json["next"].as_str() else { break };
        assert_eq!((page.items().len(), Some(next)), (3, read.last().map(String::as_str)));
        after = format!("&after={}", encoded(next));
    }
    assert_eq!(read, wanted);
    for device in &wanted {
        let shown = world.api(0).get(&of_shop(&shop, &format!("/devices/{}", encoded(device)))).await;
        assert_eq!(shown.json["device"], json!(device), "{}", shown.text);
    }
    let none = world.api(1).get(&of_shop(&shop, "/devices?after=%F0%9F%98%80")).await;
    assert_eq!(none.json, json!({"items": [], "next": null, "total": 8}), "after the last of them");
}

async fn a_forgotten_device_is_closed_on_whichever_node_and_starts_anew(world: &mut World) {
    let shop = unique("shop");
    let mut sender = Login::main(&shop, "sender").on(&world.url(0)).await;
    for n in 0..2 {
        let name = format!("till-{n}");
        let login = Login::main(&shop, &name).meta(json!({"model": "x"}));
        let mut till = login.on(&world.url(n)).await;
        assert_eq!(till.request(json!({"op": "join", "group": "bar"})).await["op"], "ok");
        assert_eq!(till.request(json!({"op": "attrs", "set": {"a": 1}})).await["op"], "attrs");
        let unseen = sender.notify(json!({"type": "a", "to": "mains"})).await;
        till.expect("message").await;
        let path = of_shop(&shop, &format!("/devices/{name}"));
        let gone = world.api(1 - n).delete(&path).await;
        assert_eq!((gone.status, gone.text.as_str()), (204, ""));
        assert_eq!(till.close_code().await.0, 4005);
        for node in 0..2 {
            world.api(node).get(&path).await.assert_problem(404, "not_found");
            world.api(node).delete(&path).await.assert_problem(404, "not_found");
            assert!(!listed(&world.api(node), &of_shop(&shop, "/online"), "device").await.contains(&json!(name)));
            assert!(!listed(&world.api(node), &of_shop(&shop, "/devices"), "device").await.contains(&json!(name)));
        }
        let delivered =
            world.api(0).get(&of_shop(&shop, &format!("/messages/{unseen}"))).await.json["delivered"].clone();
        assert!(delivered.get(&name).is_none(), "{delivered}");
        let mut back = Login::main(&shop, &name).on(&world.url(n)).await;
        let head = back.welcome["head"].clone();
        assert_eq!(back.welcome["cursor"], head, "it starts at the head");
        assert!(id_of(&back.welcome, "head") >= Id::of(&unseen));
        back.expect_nothing().await;
        let shown = world.api(n).get(&path).await.json;
        assert_eq!((&shown["groups"], &shown["meta"]), (&json!([]), &Value::Null), "{shown}");
        assert_eq!(back.request(json!({"op": "attrs"})).await["attrs"], json!({}));
        let new = sender.notify(json!({"type": "b", "to": {"devices": [name]}})).await;
        assert_eq!(back.take(1).await, [Id::of(&new)]);
    }
}

async fn a_device_that_is_away_is_forgotten_too(world: &mut World) {
    let shop = unique("shop");
    Login::main(&shop, "till").on(&world.url(0)).await.close().await;
    let mut hand = Login::sub(&shop, "hand").on(&world.url(1)).await;
    hand.notify(json!({"type": "a"})).await;
    assert_eq!(world.api(1).delete(&of_shop(&shop, "/devices/till")).await.status, 204);
    hand.refused("notify", json!({"type": "a"}), "no_main_device").await;
    world.api(0).delete(&of_shop(&shop, "/devices/till")).await.assert_problem(404, "not_found");
    world.api(0).delete(&of_shop(&unique("nowhere"), "/devices/till")).await.assert_problem(404, "not_found");
}

async fn attributes_are_replaced_merged_and_read(world: &mut World) {
    let shop = unique("shop");
    let mut hand = Login::sub(&shop, "hand").on(&world.url(0)).await;
    let path = of_shop(&shop, "/devices/hand/attrs");
    let attrs = async |n: usize| world.api(n).get(&path).await.json;
    assert_eq!(attrs(1).await, json!({"attrs": {}}));
    let set = world.api(1).put(&path, json!({"attrs": {"floor": 2, "waiter": {"name": "ann", "age": 30}}})).await;
    assert_eq!((set.status, set.text.as_str()), (204, ""));
    // RFC 7396: objects are merged at every level, a null removes, a list is replaced.
    let patch = json!({"attrs": {"waiter": {"age": null, "tags": [1, null]}, "floor": null, "new": {"x": null}}});
    let patched = world.api(0).patch(&path, patch.clone()).await;
    let wanted = json!({"attrs": {"waiter": {"name": "ann", "tags": [1, null]}, "new": {}}});
    assert_eq!((patched.status, &patched.json), (200, &wanted));
    let merge_patch = world.api(1).header("Content-Type", "application/merge-patch+json");
    assert_eq!(merge_patch.patch(&path, patch).await.json, wanted, "twice is as once");
    assert_eq!((attrs(0).await, attrs(1).await), (wanted.clone(), wanted.clone()));
    assert_eq!(hand.request(json!({"op": "attrs"})).await["attrs"], wanted["attrs"]);
    assert_eq!(hand.request(json!({"op": "attrs", "set": {"own": 1}})).await["op"], "attrs");
    assert_eq!(attrs(1).await, json!({"attrs": {"own": 1}}));
    // It need not be connected, but registered.
    hand.close().await;
    assert_eq!(world.api(0).put(&path, json!({"attrs": {}})).await.status, 204);
    assert_eq!(attrs(1).await, json!({"attrs": {}}));
    let nobody = of_shop(&shop, "/devices/nobody/attrs");
    world.api(0).get(&nobody).await.assert_problem(404, "not_found");
    world.api(0).put(&nobody, json!({"attrs": {}})).await.assert_problem(404, "not_found");
    world.api(0).patch(&nobody, json!({"attrs": {}})).await.assert_problem(404, "not_found");
    for bad in [json!({}), json!({"attrs": null}), json!({"attrs": []}), json!({"attrs": 1}), json!({"a": {}})] {
        for reply in [world.api(0).put(&path, bad.clone()).await, world.api(0).patch(&path, bad.clone()).await] {
            reply.assert_problem(400, "bad_request");
            assert!(reply.json["detail"].as_str().unwrap().contains("attrs"), "{bad}: {}", reply.text);
        }
    }
}

async fn attributes_have_a_bound(world: &mut World) {
    let shop = unique("shop");
    let _hand = Login::sub(&shop, "hand").on(&world.url(0)).await;
    let path = of_shop(&shop, "/devices/hand/attrs");
    let half = "x".repeat(40_000);
    assert_eq!(world.api(0).put(&path, json!({"attrs": {"a": half}})).await.status, 204);
    let refused = world.api(1).patch(&path, json!({"attrs": {"b": half}})).await;
    refused.assert_problem(400, "bad_request");
    assert!(refused.json["detail"].as_str().unwrap().contains("65536"), "{}", refused.text);
    let whole = world.api(1).put(&path, json!({"attrs": {"a": half, "b": half}})).await;
    whole.assert_problem(413, "too_large");
    assert_eq!(world.api(1).get(&path).await.json, json!({"attrs": {"a": half}}), "nothing changed");
}

/// Numbers were read with an error in the last bit, and a patch of another member wrote them back so.
async fn a_patch_leaves_the_other_numbers_as_they_were(world: &mut World) {
    let shop = unique("shop");
    let mut hand = Login::sub(&shop, "hand").on(&world.url(0)).await;
    let path = of_shop(&shop, "/devices/hand/attrs");
    let given = r#"{"attrs":{"a":-1.0937767834792597e+226,"b":5e-324,"c":18446744073709551615}}"#;
    let set = world.api(0).send(hyper::Method::PUT, &path, Some(given.to_owned())).await;
    assert_eq!(set.status, 204, "{}", set.text);
    let patched = world.api(0).patch(&path, json!({"attrs": {"d": 1}})).await;
    for number in ["-1.0937767834792597e226", "5e-324", "18446744073709551615"] {
        let as_given = patched.text.replace("e+", "e");
        assert!(as_given.contains(number), "{number} is not in {as_given}");
    }
    assert_eq!(hand.request(json!({"op": "attrs"})).await["attrs"], patched.json["attrs"]);
}

async fn a_page_of_devices_ends_before_it_passes_a_megabyte(world: &mut World) {
    let shop = unique("shop");
    let meta = json!({"model": "x".repeat(60_000)});
    let wanted: Vec<Value> = (10..50).map(|n| json!(format!("d{n}"))).collect();
    for (n, device) in wanted.iter().enumerate() {
        Login::sub(&shop, device.as_str().unwrap()).meta(meta.clone()).on(&world.url(n)).await.close().await;
    }
    let path = of_shop(&shop, "/devices");
    let first = world.api(0).get(&path).await;
    assert!(first.text.len() <= 1 << 20 && first.items().len() > 10, "{} bytes", first.text.len());
    assert_eq!(first.json["total"], 40);
    let mut read: Vec<Value> = first.items().iter().map(|item| item["device"].clone()).collect();
    let mut next = first.json["next"].clone();
    while let Some(after) = next.as_str() {
        assert_eq!(read.last(), Some(&json!(after)));
        let page = world.api(1).get(&format!("{path}?after={after}")).await;
        assert!(page.text.len() <= 1 << 20);
        read.extend(page.items().iter().map(|item| item["device"].clone()));
        next = page.json["next"].clone();
    }
    assert_eq!(read, wanted);
}
