//! The rows of "Closing".

use serde_json::{Value, json};

use super::scene::{Scene, conn};

const CLOSE: &str = "POST /v1/connections/{conn}/close";

/// The handheld is sent this last, or nothing, and closed.
async fn assert_closed(scene: &mut Scene, last: Option<Value>) {
    if let Some(data) = last {
        let signal = scene.hand.expect("signal").await;
        assert_eq!((&signal["type"], &signal["data"]), (&json!("close"), &data));
    }
    assert_eq!(scene.hand.close_code().await.0, 4005);
    scene.till.expect_nothing().await;
}

pub async fn close_client(scene: &mut Scene) {
    let first = conn(&scene.hand);
    scene.done(CLOSE, &[("conn", &first)], Some(json!({"data": "bye"}))).await;
    assert_closed(scene, Some(json!("bye"))).await;
    scene.ask(CLOSE, &[("conn", &first)], None).await.assert_problem(404, "not_found");
    let id = scene.prepare("POST /v1/shops/{shop}/messages", &[], Some(json!({"type": "a", "to": "subs"}))).await;
    scene.hand_returns().await;
    assert_eq!(scene.hand.expect("message").await["id"], id.json["id"]);
    let by_device = "POST /v1/shops/{shop}/devices/{device}/close";
    scene.done(by_device, &[("device", "hand")], Some(json!({"data": {"why": "shift ends"}}))).await;
    assert_closed(scene, Some(json!({"why": "shift ends"}))).await;
}

pub async fn close_current_client(scene: &mut Scene) {
    let current = current(scene).await;
    scene.done(CLOSE, &[("conn", &current)], Some(json!({"data": 5}))).await;
    assert_closed(scene, Some(json!(5))).await;
}

pub async fn destroy_client(scene: &mut Scene) {
    let first = conn(&scene.hand);
    scene.done(CLOSE, &[("conn", &first)], None).await;
    assert_closed(scene, None).await;
    scene.hand_returns().await;
    scene.done("DELETE /v1/shops/{shop}/devices/{device}", &[("device", "hand")], None).await;
    assert_closed(scene, None).await;
    let gone = scene.prepare("GET /v1/shops/{shop}/devices/hand", &[], None).await;
    gone.assert_problem(404, "not_found");
}

pub async fn destroy_current_client(scene: &mut Scene) {
    let current = current(scene).await;
    scene.done(CLOSE, &[("conn", &current)], None).await;
    assert_closed(scene, None).await;
}

/// The connection of the event that a worker handles.
async fn current(scene: &mut Scene) -> String {
    let called = scene.hand.request(json!({"op": "call", "method": "go"})).await;
    assert_eq!(called["op"], "ok", "{called}");
    scene.own_event("call").await["conn"].as_str().expect("a conn").to_owned()
}
