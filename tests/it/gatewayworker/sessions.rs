//! The rows of "Sessions".

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::scene::Scene;

const GET: &str = "GET /v1/shops/{shop}/devices/{device}/attrs";
const PUT: &str = "PUT /v1/shops/{shop}/devices/{device}/attrs";
const PATCH: &str = "PATCH /v1/shops/{shop}/devices/{device}/attrs";
const HAND: &[(&str, &str)] = &[("device", "hand")];

/// Sets a device's attributes; no part of the row.
async fn set(scene: &mut Scene, device: &str, attrs: Value) {
    let set = scene.prepare(PUT, &[("device", device)], Some(json!({"attrs": attrs}))).await;
    assert_eq!(set.status, 204, "{}", set.text);
}

/// Shows the handheld's; no part of the row.
async fn shown(scene: &mut Scene) -> Value {
    scene.prepare(GET, HAND, None).await.json["attrs"].clone()
}

pub async fn get_session(scene: &mut Scene) {
    assert_eq!(scene.get(GET, HAND).await, json!({"attrs": {}}));
    set(scene, "hand", json!({"name": "Ann", "floor": 2})).await;
    assert_eq!(scene.get(GET, HAND).await, json!({"attrs": {"name": "Ann", "floor": 2}}));
    assert_eq!(scene.op_of_hand(json!({"op": "attrs"})).await["attrs"], json!({"name": "Ann", "floor": 2}));
    scene.hand_leaves().await;
    assert_eq!(scene.get(GET, HAND).await, json!({"attrs": {"name": "Ann", "floor": 2}}));
    scene.ask(GET, &[("device", "nobody")], None).await.assert_problem(404, "not_found");
}

pub async fn set_session(scene: &mut Scene) {
    scene.done(PUT, HAND, Some(json!({"attrs": {"name": "Ann", "floor": 2}}))).await;
    scene.done(PUT, HAND, Some(json!({"attrs": {"name": "Bob"}}))).await;
    assert_eq!(shown(scene).await, json!({"name": "Bob"}));
    assert_eq!(scene.op_of_hand(json!({"op": "attrs", "set": {"own": 1}})).await["attrs"], json!({"own": 1}));
    assert_eq!(shown(scene).await, json!({"own": 1}));
}

pub async fn update_session(scene: &mut Scene) {
    set(scene, "hand", json!({"name": "Ann", "floor": 2, "seen": {"a": 1}})).await;
    let patch = json!({"attrs": {"name": "Bob", "floor": null, "seen": {"b": 2}}});
    let patched = scene.ask(PATCH, HAND, Some(patch)).await;
    let wanted = json!({"name": "Bob", "seen": {"a": 1, "b": 2}});
    assert_eq!((patched.status, &patched.json), (200, &json!({"attrs": wanted})));
    let by_op = scene.op_of_hand(json!({"op": "attrs", "patch": {"seen": null}})).await;
    assert_eq!(by_op["attrs"], json!({"name": "Bob"}));
    assert_eq!(shown(scene).await, json!({"name": "Bob"}));
}

/// The attributes of the devices in a list, by connection's device.
async fn sessions(scene: &mut Scene, list: &str, names: &[(&str, &str)]) -> BTreeMap<String, Value> {
    let mut sessions = BTreeMap::new();
    for online in scene.list(list, names).await {
        let device = online["device"].as_str().expect("a device").to_owned();
        let attrs = scene.get(GET, &[("device", &device)]).await["attrs"].clone();
        sessions.insert(device, attrs);
    }
    sessions
}

pub async fn get_all_client_sessions(scene: &mut Scene) {
    set(scene, "hand", json!({"n": 1})).await;
    set(scene, "till", json!({"n": 2})).await;
    scene.absent("away").await;
    let wanted = [("hand", json!({"n": 1})), ("till", json!({"n": 2}))];
    let sessions = sessions(scene, "GET /v1/connections", &[]).await;
    assert_eq!(sessions, wanted.map(|(device, attrs)| (device.to_owned(), attrs)).into());
}

pub async fn get_all_client_info(scene: &mut Scene) {
    get_all_client_sessions(scene).await;
}

pub async fn get_client_sessions_by_group(scene: &mut Scene) {
    set(scene, "hand", json!({"n": 1})).await;
    scene.absent("away").await;
    scene.join("hand", "bar").await;
    scene.join("away", "bar").await;
    let sessions = sessions(scene, "GET /v1/shops/{shop}/online?group={group}", &[("group", "bar")]).await;
    assert_eq!(sessions, [("hand".to_owned(), json!({"n": 1}))].into());
}

pub async fn get_client_info_by_group(scene: &mut Scene) {
    get_client_sessions_by_group(scene).await;
}

/// Two workers read it and each changes another part.
pub async fn session_variable(scene: &mut Scene) {
    set(scene, "hand", json!({"calls": 1})).await;
    assert_eq!(scene.get(GET, HAND).await["attrs"], json!({"calls": 1}));
    for change in [json!({"calls": 2}), json!({"name": "Ann"})] {
        assert_eq!(scene.ask(PATCH, HAND, Some(json!({"attrs": change}))).await.status, 200);
    }
    assert_eq!(scene.get(GET, HAND).await["attrs"], json!({"calls": 2, "name": "Ann"}));
}
