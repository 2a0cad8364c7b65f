//! The rows of "Who is online".

use serde_json::json;

use super::scene::{Scene, conn, each};
use crate::harness::{SOON, eventually};

/// The connections of the till and the handheld, in order.
fn both(scene: &Scene) -> Vec<String> {
    let mut both = vec![conn(&scene.till), conn(&scene.hand)];
    both.sort();
    both
}

pub async fn is_online(scene: &mut Scene) {
    let hand = conn(&scene.hand);
    let shown = scene.get("GET /v1/connections/{conn}", &[("conn", &hand)]).await;
    assert_eq!((&shown["device"], &shown["shop"]), (&json!("hand"), &json!(scene.shop)), "{shown}");
    scene.hand_leaves().await;
    let gone = scene.ask("GET /v1/connections/{conn}", &[("conn", &hand)], None).await;
    gone.assert_problem(404, "not_found");
}

pub async fn is_uid_online(scene: &mut Scene) {
    let request = "GET /v1/shops/{shop}/online?user={user}&limit=1";
    scene.bind("hand", "ann").await;
    assert_eq!(scene.get(request, &[("user", "ann")]).await["total"], 1);
    let _second = scene.another("second").await;
    scene.bind("second", "ann").await;
    assert_eq!(scene.get(request, &[("user", "ann")]).await["total"], 2);
    assert_eq!(scene.get(request, &[("user", "bob")]).await["total"], 0);
}

pub async fn get_all_client_id_list(scene: &mut Scene) {
    let stranger = scene.stranger().await;
    let in_shop = scene.list("GET /v1/shops/{shop}/online", &[]).await;
    assert_eq!(each(&in_shop, "conn"), both(scene));
    let mut all = both(scene);
    all.push(conn(&stranger));
    all.sort();
    let items = scene.list("GET /v1/connections", &[]).await;
    assert_eq!(each(&items, "conn"), all);
    for item in items {
        let name = item["conn"].as_str().expect("a conn").to_owned();
        assert_eq!(scene.prepare("GET /v1/connections/{conn}", &[("conn", &name)], None).await.json, item);
    }
}

pub async fn get_all_client_id_count(scene: &mut Scene) {
    let _stranger = scene.stranger().await;
    let in_shop = scene.get("GET /v1/shops/{shop}/stats", &[]).await;
    assert_eq!(in_shop["online"], json!({"main": 1, "sub": 1}));
    let count = async || scene.get("GET /v1/stats", &[]).await["sessions"] == json!({"main": 1, "sub": 2});
    eventually(SOON, "the nodes have reported their sessions", count).await;
}

pub async fn get_all_client_count(scene: &mut Scene) {
    get_all_client_id_count(scene).await;
}

pub async fn get_client_id_by_uid(scene: &mut Scene) {
    scene.absent("away").await;
    scene.bind("hand", "ann").await;
    scene.bind("away", "ann").await;
    let online = scene.list("GET /v1/shops/{shop}/online?user={user}", &[("user", "ann")]).await;
    assert_eq!(each(&online, "conn"), [conn(&scene.hand)]);
    let devices = scene.list("GET /v1/shops/{shop}/users/{user}", &[("user", "ann")]).await;
    assert_eq!(devices, [json!("away"), json!("hand")]);
}

pub async fn get_client_id_list_by_group(scene: &mut Scene) {
    scene.absent("away").await;
    scene.join("hand", "bar").await;
    scene.join("away", "bar").await;
    let online = scene.list("GET /v1/shops/{shop}/online?group={group}", &[("group", "bar")]).await;
    assert_eq!(each(&online, "conn"), [conn(&scene.hand)]);
    let devices = scene.list("GET /v1/shops/{shop}/groups/{group}", &[("group", "bar")]).await;
    assert_eq!(devices, [json!("away"), json!("hand")]);
}

pub async fn get_client_id_count_by_group(scene: &mut Scene) {
    let request = "GET /v1/shops/{shop}/online?group={group}&limit=1";
    scene.absent("away").await;
    for device in ["hand", "till", "away"] {
        scene.join(device, "bar").await;
    }
    assert_eq!(scene.get(request, &[("group", "bar")]).await["total"], 2);
    assert_eq!(scene.get(request, &[("group", "kitchen")]).await["total"], 0);
}

pub async fn get_client_count_by_group(scene: &mut Scene) {
    get_client_id_count_by_group(scene).await;
}
