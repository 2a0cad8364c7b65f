//! The rows of "Users" and "Groups".

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::scene::{Scene, conn, each};

const DEVICES: &str = "GET /v1/shops/{shop}/devices";
const ONLINE: &str = "GET /v1/shops/{shop}/online";
const ONLINE_OF_GROUP: &str = "GET /v1/shops/{shop}/online?group={group}";

/// Names of each group.
type Groups = BTreeMap<String, BTreeSet<String>>;

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn names(of: &[&str]) -> BTreeSet<String> {
    of.iter().map(|name| (*name).to_owned()).collect()
}

/// What the handheld is a member of.
async fn hand_is_in(scene: &mut Scene) -> (Value, Value) {
    let device = scene.prepare("GET /v1/shops/{shop}/devices/hand", &[], None).await.json;
    (device["groups"].clone(), device["user"].clone())
}

pub async fn bind_uid(scene: &mut Scene) {
    let bind = "PUT /v1/shops/{shop}/users/{user}/devices/{device}";
    let hand = conn(&scene.hand);
    let device = text(&scene.get("GET /v1/connections/{conn}", &[("conn", &hand)]).await["device"]);
    scene.done(bind, &[("user", "ann"), ("device", &device)], None).await;
    assert_eq!(hand_is_in(scene).await.1, "ann");
    scene.hand_leaves().await;
    scene.hand_returns().await;
    assert_eq!(hand_is_in(scene).await.1, "ann");
    assert_eq!(scene.op_of_hand(json!({"op": "bind", "user": "bob"})).await["op"], "ok");
    assert_eq!(hand_is_in(scene).await.1, "bob");
    let nobody = scene.ask(bind, &[("user", "ann"), ("device", "nobody")], None).await;
    nobody.assert_problem(404, "not_found");
}

pub async fn unbind_uid(scene: &mut Scene) {
    let unbind = "DELETE /v1/shops/{shop}/users/{user}/devices/{device}";
    scene.bind("hand", "ann").await;
    scene.done(unbind, &[("user", "bob"), ("device", "hand")], None).await;
    assert_eq!(hand_is_in(scene).await.1, "ann");
    scene.done(unbind, &[("user", "ann"), ("device", "hand")], None).await;
    assert_eq!(hand_is_in(scene).await.1, Value::Null);
    scene.bind("hand", "ann").await;
    assert_eq!(scene.op_of_hand(json!({"op": "unbind"})).await["op"], "ok");
    assert_eq!(hand_is_in(scene).await.1, Value::Null);
}

pub async fn get_uid_by_client_id(scene: &mut Scene) {
    scene.bind("hand", "ann").await;
    let hand = conn(&scene.hand);
    let device = text(&scene.get("GET /v1/connections/{conn}", &[("conn", &hand)]).await["device"]);
    let shown = scene.get("GET /v1/shops/{shop}/devices/{device}", &[("device", &device)]).await;
    assert_eq!(shown["user"], "ann");
}

/// Ann has the handheld and one that is away, Bob the till, Cid one that is away; the bar has all but
/// the till, the kitchen the till.
async fn members(scene: &mut Scene) {
    scene.absent("away").await;
    scene.absent("gone").await;
    for (device, user) in [("hand", "ann"), ("away", "ann"), ("till", "bob"), ("gone", "cid")] {
        scene.bind(device, user).await;
        scene.join(device, if device == "till" { "kitchen" } else { "bar" }).await;
    }
}

pub async fn get_all_uid_list(scene: &mut Scene) {
    members(scene).await;
    assert_eq!(scene.list("GET /v1/shops/{shop}/users", &[]).await, ["ann", "bob", "cid"]);
    let users: BTreeSet<String> = online_devices(scene, ONLINE, &[]).await.iter().map(|it| text(&it["user"])).collect();
    assert_eq!(users, names(&["ann", "bob"]));
}

pub async fn get_all_uid_count(scene: &mut Scene) {
    members(scene).await;
    assert_eq!(scene.get("GET /v1/shops/{shop}/users?limit=1", &[]).await["total"], 3);
}

pub async fn get_uid_list_by_group(scene: &mut Scene) {
    members(scene).await;
    let online = online_devices(scene, ONLINE_OF_GROUP, &[("group", "bar")]).await;
    assert_eq!(each(&online, "user"), ["ann"]);
}

pub async fn get_uid_count_by_group(scene: &mut Scene) {
    members(scene).await;
    let online = online_devices(scene, ONLINE_OF_GROUP, &[("group", "kitchen")]).await;
    assert_eq!(each(&online, "user").len(), 1);
}

/// The registered devices that are in this list of who is online.
async fn online_devices(scene: &mut Scene, online: &str, names: &[(&str, &str)]) -> Vec<Value> {
    let online = each(&scene.list(online, names).await, "device");
    let devices = scene.list(DEVICES, &[]).await;
    devices.into_iter().filter(|device| online.contains(&text(&device["device"]))).collect()
}

pub async fn join_group(scene: &mut Scene) {
    let join = "PUT /v1/shops/{shop}/groups/{group}/devices/{device}";
    scene.done(join, &[("group", "bar"), ("device", "hand")], None).await;
    assert_eq!(scene.op_of_hand(json!({"op": "join", "group": "hall"})).await["op"], "ok");
    scene.hand_leaves().await;
    scene.hand_returns().await;
    assert_eq!(hand_is_in(scene).await.0, json!(["bar", "hall"]));
}

pub async fn leave_group(scene: &mut Scene) {
    let leave = "DELETE /v1/shops/{shop}/groups/{group}/devices/{device}";
    scene.join("hand", "bar").await;
    scene.join("hand", "hall").await;
    scene.done(leave, &[("group", "bar"), ("device", "hand")], None).await;
    scene.done(leave, &[("group", "bar"), ("device", "hand")], None).await;
    assert_eq!(hand_is_in(scene).await.0, json!(["hall"]));
    assert_eq!(scene.op_of_hand(json!({"op": "leave", "group": "hall"})).await["op"], "ok");
    assert_eq!(hand_is_in(scene).await.0, json!([]));
}

pub async fn ungroup(scene: &mut Scene) {
    members(scene).await;
    scene.done("DELETE /v1/shops/{shop}/groups/{group}", &[("group", "bar")], None).await;
    let left = scene.prepare("GET /v1/shops/{shop}/groups", &[], None).await;
    assert_eq!(*left.items(), ["kitchen"]);
}

pub async fn get_all_group_id_list(scene: &mut Scene) {
    members(scene).await;
    assert_eq!(scene.list("GET /v1/shops/{shop}/groups", &[]).await, ["bar", "kitchen"]);
}

pub async fn get_all_group_uid_list(scene: &mut Scene) {
    let wanted = [("bar", &["ann"][..]), ("kitchen", &["bob"])];
    assert_eq!(group_users(scene).await, wanted.map(|(group, users)| (group.to_owned(), names(users))).into());
}

pub async fn get_all_group_uid_count(scene: &mut Scene) {
    let counts: Vec<(String, usize)> =
        group_users(scene).await.into_iter().map(|(group, users)| (group, users.len())).collect();
    assert_eq!(counts, [("bar".to_owned(), 1), ("kitchen".to_owned(), 1)]);
}

async fn group_users(scene: &mut Scene) -> Groups {
    members(scene).await;
    let mut groups = Groups::new();
    for device in online_devices(scene, ONLINE, &[]).await {
        for group in device["groups"].as_array().expect("groups") {
            groups.entry(text(group)).or_default().insert(text(&device["user"]));
        }
    }
    groups
}

pub async fn get_all_group_client_id_list(scene: &mut Scene) {
    let wanted = [("bar", conn(&scene.hand)), ("kitchen", conn(&scene.till))];
    assert_eq!(group_conns(scene).await, wanted.map(|(group, conn)| (group.to_owned(), names(&[&conn]))).into());
}

pub async fn get_all_group_client_id_count(scene: &mut Scene) {
    let counts: Vec<(String, usize)> =
        group_conns(scene).await.into_iter().map(|(group, conns)| (group, conns.len())).collect();
    assert_eq!(counts, [("bar".to_owned(), 1), ("kitchen".to_owned(), 1)]);
}

async fn group_conns(scene: &mut Scene) -> Groups {
    members(scene).await;
    let online = scene.list(ONLINE, &[]).await;
    let conns: BTreeMap<String, String> = online.iter().map(|it| (text(&it["device"]), text(&it["conn"]))).collect();
    let mut groups = Groups::new();
    for device in scene.list(DEVICES, &[]).await {
        let Some(conn) = conns.get(&text(&device["device"])) else { continue };
        for group in device["groups"].as_array().expect("groups") {
            groups.entry(text(group)).or_default().insert(conn.clone());
        }
    }
    groups
}
