//! The rows of "Events".

use serde_json::{Map, Value, json};

use super::scene::{Scene, conn, entries};

fn is_of(conn: &str) -> impl Fn(&Map<String, Value>) -> bool {
    move |event| event["conn"] == conn
}

pub async fn on_worker_start(scene: &mut Scene) {
    let create = ["XGROUP", "CREATE", "sr:events", "workers", "$", "MKSTREAM"];
    assert_eq!(scene.redis(&create), json!("OK"));
    assert!(scene.redis(&create).to_string().contains("BUSYGROUP"));
    let called = scene.hand.request(json!({"op": "call", "method": "hello"})).await;
    assert_eq!(called["op"], "ok", "{called}");
    assert!(read(scene, "worker-1").iter().any(|(_, event)| event["event"] == "call"));
}

/// What the worker is given that no worker has been given before.
fn read(scene: &Scene, worker: &str) -> Vec<(String, Map<String, Value>)> {
    let read = ["XREADGROUP", "GROUP", "workers", worker, "STREAMS", "sr:events", ">"];
    let streams = scene.own_redis(&read);
    // RESP3 has a map of streams.
    let stream = streams.as_object().and_then(|streams| streams.values().next());
    stream.map(entries).unwrap_or_default()
}

pub async fn on_connect(scene: &mut Scene) {
    let hand = conn(&scene.hand);
    let event = scene.event("connect", is_of(&hand)).await;
    assert_eq!(event["node"], scene.hand.welcome["node"]);
    assert!(!event.contains_key("shop") && !event.contains_key("device"), "{event:?}");
}

pub async fn on_web_socket_connect(scene: &mut Scene) {
    scene.bind("hand", "ann").await;
    scene.hand_leaves().await;
    scene.hand_returns().await;
    let hand = conn(&scene.hand);
    let event = scene.event("login", is_of(&hand)).await;
    let told = ["shop", "device", "role", "user"].map(|field| event[field].clone());
    assert_eq!(told, [json!(scene.shop), json!("hand"), json!("sub"), json!("ann")]);
}

pub async fn on_message(scene: &mut Scene) {
    let create = ["XGROUP", "CREATE", "sr:events", "workers", "0", "MKSTREAM"];
    assert_eq!(scene.own_redis(&create), json!("OK"));
    let data = json!({"dish": 7});
    let called = scene.op_of_hand(json!({"op": "call", "method": "price", "data": data})).await;
    assert_eq!(called["op"], "ok", "{called}");
    let hand = conn(&scene.hand);
    let event = scene.event("call", is_of(&hand)).await;
    let told = ["shop", "device", "method", "ref"].map(|field| event[field].clone());
    assert_eq!(told, [json!(scene.shop), json!("hand"), json!("price"), json!(called["ref"].to_string())]);
    assert_eq!(serde_json::from_str::<Value>(event["data"].as_str().expect("data")).unwrap(), data);
    let (id, given) =
        read(scene, "worker-1").into_iter().find(|(_, event)| event["event"] == "call").expect("the call");
    assert_eq!(given, event);
    let answer = json!({"type": "price", "to": {"devices": ["hand"]}, "data": {"dish": 7, "cents": 850}});
    assert_eq!(scene.prepare("POST /v1/shops/{shop}/messages", &[], Some(answer)).await.status, 201);
    assert_eq!(scene.hand.expect("message").await["data"]["cents"], 850);
    assert_eq!(scene.own_redis(&["XACK", "sr:events", "workers", &id]), json!(1));
    assert!(read(scene, "worker-2").is_empty(), "it is given to one worker");
}

pub async fn on_close(scene: &mut Scene) {
    let hand = conn(&scene.hand);
    scene.hand_leaves().await;
    let event = scene.event("close", is_of(&hand)).await;
    let told = ["shop", "device", "code"].map(|field| event[field].clone());
    assert_eq!(told, [json!(scene.shop), json!("hand"), json!("1000")]);
    let still = scene.prepare("GET /v1/shops/{shop}/devices/hand/attrs", &[], None).await;
    assert_eq!(still.status, 200);
}

pub async fn on_worker_stop(scene: &mut Scene) {
    let create = ["XGROUP", "CREATE", "sr:events", "workers", "$", "MKSTREAM"];
    assert_eq!(scene.own_redis(&create), json!("OK"));
    let called = scene.hand.request(json!({"op": "call", "method": "slow"})).await;
    assert_eq!(called["op"], "ok", "{called}");
    let taken = read(scene, "worker-that-dies");
    assert!(taken.iter().any(|(_, event)| event["method"] == "slow"), "{taken:?}");
    let claimed = scene.redis(&["XAUTOCLAIM", "sr:events", "workers", "worker-2", "0", "0"]);
    assert_eq!(entries(&claimed[1]), taken);
}

pub async fn context(scene: &mut Scene) {
    let called = scene.hand.request(json!({"op": "call", "method": "who"})).await;
    assert_eq!(called["op"], "ok", "{called}");
    let event = scene.own_event("call").await;
    let told = ["conn", "shop", "device"].map(|field| event[field].clone());
    assert_eq!(told, [json!(conn(&scene.hand)), json!(scene.shop), json!("hand")]);
}
