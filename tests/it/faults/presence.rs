//! Presence as a lease, and what becomes of it when the store loses it or keeps it too long.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{Device, Id, Login, SOON, World, eventually, unique};

/// The key of who is online in a shop.
fn online_key(world: &World, shop: &str) -> String {
    format!("{}{{{shop}}}:online", world.options.prefix)
}

async fn online(device: &mut Device) -> Value {
    device.request(json!({"op": "online", "role": "main"})).await["devices"].clone()
}

#[tokio::test]
async fn a_presence_that_the_store_lost_is_given_back_and_one_of_a_connection_that_is_gone_is_ended() {
    let world = World::with(2, &[("AUDIT", "1s")]).await;
    let shop = unique("shop");
    let mut main = Login::main(&shop, "till").on(&world.url(0)).await;
    let mut sub = Login::sub(&shop, "hand").on(&world.url(1)).await;
    let before = online(&mut sub).await;
    let key = online_key(&world, &shop);
    world.redis().cli(&["HDEL", &key, "till"]);
    // As a failover leaves it that has lost a departure.
    let node = main.welcome["node"].as_str().unwrap();
    world.redis().cli(&["HSET", &key, "gone", &format!("{node}.999\n{node}\n1000\nmain")]);
    eventually(2 * SOON, "both to be put right", async || {
        let now = online(&mut sub).await;
        let conns: Vec<&Value> = now.as_array().unwrap().iter().map(|device| &device["conn"]).collect();
        conns == [&before[0]["conn"]]
    })
    .await;
    assert!(world.metric("shoprelay_presence_repairs_total").await >= 2.0);
    // No connection had to be given up for it.
    let id = sub.notify(json!({"type": "add"})).await;
    assert_eq!(main.take(1).await, [Id::of(&id)]);
    main.close().await;
    eventually(SOON, "nobody to be online", async || online(&mut sub).await == json!([])).await;
}

/// The audit took whatever connection the registry named for the newer one, and closed the present one with
/// 4000, after which a device does not come back.
#[tokio::test]
async fn a_device_whose_login_the_store_lost_is_asked_to_log_in_anew() {
    let world = World::with(2, &[("AUDIT", "1s")]).await;
    let shop = unique("shop");
    let login = Login::main(&shop, "till");
    let mut main = login.on(&world.url(0)).await;
    let node = unique("node");
    let before = format!("{node}.7\n{node}\n1000\nmain");
    world.redis().cli(&["HSET", &online_key(&world, &shop), "till", &before]);
    assert_eq!(main.close_code().await.0, 1012);
    let mut again = login.on(&world.url(1)).await;
    again.expect_nothing().await;
    let presence = world.redis().cli(&["HGET", &online_key(&world, &shop), "till"]);
    assert!(presence.starts_with(again.welcome["conn"].as_str().unwrap()), "{presence}");
}

#[tokio::test]
async fn the_devices_of_a_dead_node_become_unknown_and_then_offline_and_no_ghost_stays() {
    let world = World::start(2).await;
    let shop = unique("shop");
    let _main = Login::main(&shop, "till").on(&world.url(0)).await;
    let mut watcher = Login::sub(&shop, "hand").on(&world.url(1)).await;
    world.nodes[0].sigkill();
    for (within, state) in [(6, Some("unknown")), (14, None)] {
        eventually(Duration::from_secs(within), &format!("the till to be {state:?}"), async || {
            online(&mut watcher).await[0]["state"].as_str() == state
        })
        .await;
    }
    let listed = world.api(1).get("/v1/nodes").await.json;
    assert_eq!(listed["items"].as_array().map(Vec::len), Some(1), "{listed}");
    // It comes back as if nothing had been.
    let mut main = Login::main(&shop, "till").on(&world.url(1)).await;
    main.expect_nothing().await;
    assert_eq!(online(&mut watcher).await[0]["state"], "online");
}
