//! Who is connected, where, and how many there are of everything.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{listed, of_shop};
use crate::delivery::on_one_and_two_nodes;
use crate::harness::{Login, SOON, World, eventually, unique, unix_ms};

on_one_and_two_nodes!(
    who_is_online_is_listed_with_its_node,
    the_list_is_filtered,
    the_list_is_read_page_by_page,
    shops_nodes_and_totals_are_counted,
    a_shop_is_counted,
);

async fn who_is_online_is_listed_with_its_node(world: &mut World) {
    let shop = unique("shop");
    let hand = Login::sub(&shop, "hand").on(&world.url(1)).await;
    let till = Login::main(&shop, "till").on(&world.url(0)).await;
    Login::sub(&shop, "away").on(&world.url(0)).await.close().await;
    let path = of_shop(&shop, "/online");
    eventually(SOON, "the third to be gone", async || world.api(0).get(&path).await.json["total"] == 2).await;
    for n in 0..2 {
        let online = world.api(n).get(&path).await;
        let item = |device: &crate::harness::Device, since: &Value| {
            let welcome = &device.welcome;
            json!({"device": welcome["device"], "role": welcome["role"], "conn": welcome["conn"], "since": since,
                "state": "online", "node": welcome["node"]})
        };
        let items = online.items();
        assert_eq!(items[..], [item(&hand, &items[0]["since"]), item(&till, &items[1]["since"])], "{}", online.text);
        assert!(items.iter().all(|item| item["since"].as_u64().unwrap().abs_diff(unix_ms()) < 20_000));
        assert_eq!((&online.json["next"], &online.json["total"]), (&Value::Null, &json!(2)));
    }
    let nowhere = world.api(1).get(&of_shop(&unique("nowhere"), "/online")).await;
    assert_eq!(nowhere.json, json!({"items": [], "next": null, "total": 0}));
}

async fn the_list_is_filtered(world: &mut World) {
    let shop = unique("shop");
    let mut devices = Vec::new();
    for n in 0..4 {
        let name = format!("d{n}");
        let login = if n == 0 { Login::main(&shop, &name) } else { Login::sub(&shop, &name) };
        let mut device = login.on(&world.url(n)).await;
        let group = if n < 2 { "low" } else { "high" };
        assert_eq!(device.request(json!({"op": "join", "group": group})).await["op"], "ok");
        if n % 3 == 0 {
            assert_eq!(device.request(json!({"op": "bind", "user": "ann"})).await["op"], "ok");
        }
        devices.push(device);
    }
    let node = |n: usize| devices[n].welcome["node"].as_str().unwrap();
    let on_first: Vec<Value> = if world.nodes.len() == 1 {
        (0..4).map(|n| json!(format!("d{n}"))).collect()
    } else {
        vec![json!("d0"), json!("d2")]
    };
    let by_node = (format!("?node={}", node(0)), on_first);
    let wanted = |filter: &str, names: &[&str]| (filter.to_owned(), names.iter().map(|name| json!(name)).collect());
    let filters: Vec<(String, Vec<Value>)> = vec![
        wanted("?role=main", &["d0"]),
        wanted("?role=sub", &["d1", "d2", "d3"]),
        wanted("?group=low", &["d0", "d1"]),
        wanted("?group=high", &["d2", "d3"]),
        wanted("?user=ann", &["d0", "d3"]),
        wanted("?group=high&user=ann", &["d3"]),
        wanted("?group=low&role=sub", &["d1"]),
        wanted("?group=nobodys", &[]),
        wanted("?user=nobody", &[]),
        wanted("?node=no-such-node", &[]),
        by_node,
    ];
    for (filter, names) in filters {
        let online = world.api(1).get(&of_shop(&shop, &format!("/online{filter}"))).await;
        let seen: Vec<Value> = online.items().iter().map(|item| item["device"].clone()).collect();
        assert_eq!((&seen, &online.json["total"]), (&names, &json!(names.len())), "{filter}");
    }
    for filter in ["?role=cook", "?role=", "?group=", "?user=%7B", "?node=a%20b"] {
        let refused = world.api(0).get(&of_shop(&shop, &format!("/online{filter}"))).await;
        refused.assert_problem(400, "bad_request");
        let field = filter.trim_start_matches('?').split('=').next().unwrap();
        assert!(refused.json["detail"].as_str().unwrap().starts_with(field), "{filter}: {}", refused.text);
    }
}

async fn the_list_is_read_page_by_page(world: &mut World) {
    let shop = unique("shop");
    let mut devices = Vec::new();
    for n in 0..5 {
        devices.push(Login::sub(&shop, &format!("d{n}")).on(&world.url(n)).await);
    }
    let page = async |query: &str| world.api(1).get(&of_shop(&shop, &format!("/online{query}"))).await;
    let first = page("?limit=2").await;
    assert_eq!((first.items().len(), &first.json["next"], &first.json["total"]), (2, &json!("d1"), &json!(5)));
    let last = page("?limit=3&after=d1").await;
    assert_eq!((last.items().len(), &last.json["next"], &last.json["total"]), (3, &Value::Null, &json!(5)));
    assert_eq!(last.items()[0]["device"], "d2");
}

async fn shops_nodes_and_totals_are_counted(world: &mut World) {
    let shops = [unique("店"), unique("shop")];
    let mut devices = Vec::new();
    for n in 0..5 {
        let login = if n == 4 { Login::main(&shops[0], "till") } else { Login::sub(&shops[n % 2], &format!("d{n}")) };
        devices.push(login.on(&world.url(n)).await);
    }
    // Two that do not log in.
    for n in 0..2 {
        devices.push(crate::harness::Device::connect(&world.url(n), crate::harness::Encoding::Json).await);
    }
    let count = world.nodes.len();
    let stats = json!({"shops": 2, "nodes": count, "connections": 7, "sessions": {"main": 1, "sub": 4}});
    for n in 0..2 {
        let what = format!("the totals on {n}");
        eventually(SOON, &what, async || world.api(n).get("/v1/stats").await.json == stats).await;
        let mut sorted = shops.to_vec();
        sorted.sort();
        assert_eq!(super::names(&world.api(n), "/v1/shops").await, sorted);
        let nodes = world.api(n).get("/v1/nodes").await;
        assert_eq!(nodes.json["total"], count, "{}", nodes.text);
        let mut seen: Vec<&Value> = nodes.items().iter().map(|node| &node["node"]).collect();
        let mut wanted: Vec<&Value> = devices[..count].iter().map(|device| &device.welcome["node"]).collect();
        seen.sort_by_key(|node| node.to_string());
        wanted.sort_by_key(|node| node.to_string());
        assert_eq!(seen, wanted);
        for node in nodes.items() {
            let on_it = devices.iter().filter(|device| device.welcome["node"] == node["node"]).count();
            let sessions = node["sessions"]["main"].as_u64().unwrap() + node["sessions"]["sub"].as_u64().unwrap();
            assert_eq!((sessions, &node["state"]), (on_it as u64, &json!("online")), "{node}");
            assert!(node["seen"].as_u64().unwrap().abs_diff(unix_ms()) < 5_000, "{node}");
            assert!(!node["version"].as_str().unwrap().is_empty());
            assert!(node["rooms"].as_u64().unwrap() <= 2 && node["connections"].as_u64().unwrap() > 0, "{node}");
        }
    }
}

async fn a_shop_is_counted(world: &mut World) {
    let shop = unique("shop");
    let empty = json!({"shop": shop, "devices": {"main": 0, "sub": 0}, "online": {"main": 0, "sub": 0}, "entries": 0,
        "head": null});
    let path = of_shop(&shop, "/stats");
    assert_eq!(world.api(0).get(&path).await.json, empty);
    Login::main(&shop, "till").on(&world.url(0)).await.close().await;
    let mut hand = Login::sub(&shop, "hand").on(&world.url(1)).await;
    let head = hand.notify(json!({"type": "a"})).await;
    let wanted = json!({"shop": shop, "devices": {"main": 1, "sub": 1}, "online": {"main": 0, "sub": 1}, "entries": 1,
        "head": head});
    for n in 0..2 {
        eventually(SOON, "the till to be gone", async || world.api(n).get(&path).await.json == wanted).await;
    }
}

#[tokio::test]
async fn the_devices_of_a_killed_node_become_unknown_and_vanish_from_every_count() {
    let world = World::start(2).await;
    let shop = unique("shop");
    let here = Login::main(&shop, "here").on(&world.url(0)).await;
    let there = Login::sub(&shop, "there").on(&world.url(1)).await;
    let conn = there.welcome["conn"].as_str().unwrap().to_owned();
    let api = world.api(0);
    let online = of_shop(&shop, "/online");
    let both = json!({"main": 1, "sub": 1});
    eventually(SOON, "both to be counted", async || api.get("/v1/stats").await.json["sessions"] == both).await;
    world.nodes[1].sigkill();
    let killed = Instant::now();
    let state_there = async || {
        let items = api.get(&online).await.items().clone();
        items.iter().find(|item| item["device"] == "there").map(|item| item["state"].clone())
    };
    eventually(SOON, "it to be unknown", async || state_there().await == Some(json!("unknown"))).await;
    assert!(killed.elapsed() < Duration::from_secs(6), "unknown after {:?}", killed.elapsed());
    assert_eq!(api.get(&format!("/v1/connections/{conn}")).await.json["state"], "unknown");
    assert_eq!(listed(&api, "/v1/nodes", "state").await.iter().filter(|state| **state == "unknown").count(), 1);
    let gone = async || {
        let is_gone = state_there().await.is_none();
        is_gone && api.get(&format!("/v1/connections/{conn}")).await.status == 404
    };
    eventually(SOON, "it to be gone", gone).await;
    let alone = json!({"shops": 1, "nodes": 1, "connections": 1, "sessions": {"main": 1, "sub": 0}});
    eventually(SOON, "its node to be gone", async || api.get("/v1/stats").await.json == alone).await;
    assert!(killed.elapsed() < Duration::from_secs(13), "gone after {:?}", killed.elapsed());
    assert_eq!(listed(&api, "/v1/nodes", "node").await, [here.welcome["node"].clone()]);
    assert_eq!(listed(&api, "/v1/connections", "device").await, [json!("here")]);
    assert_eq!(api.get(&of_shop(&shop, "/stats")).await.json["online"], json!({"main": 1, "sub": 0}));
    let close = of_shop(&shop, "/devices/there/close");
    api.post(&close, json!({})).await.assert_problem(404, "not_found");
    let by_conn = api.post(&format!("/v1/connections/{conn}/close"), json!({})).await;
    by_conn.assert_problem(404, "not_found");
    // It may come back by another node.
    let mut back = Login::sub(&shop, "there").on(&world.url(0)).await;
    assert_eq!(state_there().await, Some(json!("online")));
    assert_eq!(api.post(&close, json!({})).await.status, 204);
    assert_eq!(back.close_code().await.0, 4005);
}
