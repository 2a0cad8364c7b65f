//! The connections of all shops.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::delivery::on_one_and_two_nodes;
use crate::harness::{Device, Login, World, unique};

on_one_and_two_nodes!(the_connections_of_all_shops_are_listed_page_by_page);

async fn the_connections_of_all_shops_are_listed_page_by_page(world: &mut World) {
    let mut devices: Vec<(String, Device)> = Vec::new();
    for (n, (shop, device)) in [("a", "x"), ("a", "y"), ("a b", "x"), ("ä", "x"), ("c", "x")].into_iter().enumerate() {
        let login = if n == 1 { Login::main(shop, device) } else { Login::sub(shop, device) };
        devices.push((shop.to_owned(), login.on(&world.url(n)).await));
    }
    // A device that is away.
    let gone = Login::sub("c", &unique("gone")).on(&world.url(0)).await;
    gone.close().await;
    let wanted: BTreeSet<String> = devices.iter().map(|(_, device)| conn(&device.welcome)).collect();
    for limit in [1, 2, 5, 500] {
        let api = world.api(limit);
        let mut seen = Vec::new();
        let mut after = String::new();
        loop {
            let page = api.get(&format!("/v1/connections?limit={limit}{after}")).await;
            assert!(page.items().len() <= limit, "{}", page.text);
            seen.extend(page.items().clone());
            let Some(next) = page.json["next"].as_str() else { break };
            after = format!("&after={}", percent_encoded(next));
        }
        seen.retain(|item| wanted.contains(&conn(item)));
        let order: Vec<(&str, &str)> = seen.iter().map(|item| (text(item, "shop"), text(item, "device"))).collect();
        assert_eq!(order, [("a", "x"), ("a", "y"), ("a b", "x"), ("c", "x"), ("ä", "x")], "limit {limit}");
    }
    let mains = world.api(0).get("/v1/connections?role=main").await;
    assert_eq!(mains.items().iter().map(conn).collect::<Vec<_>>(), [conn(&devices[1].1.welcome)]);
    let node = devices[0].1.welcome["node"].clone();
    let of_node = world.api(0).get(&format!("/v1/connections?node={}", node.as_str().unwrap())).await;
    assert!(!of_node.items().is_empty() && of_node.items().iter().all(|item| item["node"] == node), "{}", of_node.text);
    let first = &of_node.items()[0];
    let shown = world.api(1).get(&format!("/v1/connections/{}", conn(first))).await;
    assert_eq!((&shown.json, &shown.json["state"]), (first, &json!("online")));
    for wrong in ["after=", "after=a}", "after=}x", "limit=0", "limit=501", "role=boss"] {
        world.api(0).get(&format!("/v1/connections?{wrong}")).await.assert_problem(400, "bad_request");
    }
}

fn text<'a>(item: &'a Value, member: &str) -> &'a str {
    item[member].as_str().expect("a text")
}

fn conn(item: &Value) -> String {
    text(item, "conn").to_owned()
}

fn percent_encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02x}")).collect()
}
