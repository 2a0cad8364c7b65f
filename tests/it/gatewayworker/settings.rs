//! The rows of "Settings".

use serde_json::json;
use tempfile::TempDir;

use super::scene::{Scene, conn};
use crate::harness::{Api, Event, NodeProcess, RawSocket, SOON};

const KEYS: &str = r#"
[[keys]]
name = "shop's own"
key = "0123456789abcdef"
shops = ["{shop}"]
scopes = ["read"]
"#;

pub async fn ping_interval(scene: &mut Scene) {
    assert_eq!(scene.hand.welcome["heartbeat_s"], 2);
    assert!(matches!(scene.hand.event_within(SOON).await, Some(Event::Ping(_))));
}

/// It answers no Ping and sends nothing.
pub async fn ping_not_response_limit(scene: &mut Scene) {
    let mut silent = RawSocket::open(&scene.nodes[0].ws_url()).await;
    silent.send_op(&json!({"op": "login", "shop": scene.shop, "device": "silent", "role": "sub"})).await;
    silent.expect("welcome").await;
    assert_eq!(silent.close_code().await.0, 4006);
    scene.hand.request(json!({"op": "ping"})).await;
}

/// It sends nothing but the Pongs that its library writes, for longer than two heartbeats.
pub async fn ping_data(scene: &mut Scene) {
    for _ in 0..4 {
        assert!(matches!(scene.hand.event_within(SOON).await, Some(Event::Ping(_))));
    }
    scene.hand.expect_nothing().await;
}

/// Nothing but the store tells the nodes of each other.
pub async fn register_address(scene: &mut Scene) {
    let (till, hand) = (conn(&scene.till), conn(&scene.hand));
    for (n, conn) in [(1, till), (0, hand)] {
        let shown = Api::at(scene.nodes[n].api_listen()).get(&format!("/v1/connections/{conn}")).await;
        assert_eq!(shown.status, 200, "{}", shown.text);
    }
}

pub async fn secret_key(scene: &mut Scene) {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("keys.toml");
    std::fs::write(&path, KEYS.replace("{shop}", &scene.shop)).unwrap();
    let options = scene.options.clone().set("API_KEYS_FILE", path.to_str().expect("a path of text"));
    let node = NodeProcess::start(&options).await;
    let api = Api::at(node.api_listen());
    let path = format!("/v1/shops/{}/devices", scene.shop);
    api.get(&path).await.assert_problem(401, "unauthorized");
    api.key("another-key-0123").get(&path).await.assert_problem(401, "unauthorized");
    let api = api.key("0123456789abcdef");
    assert_eq!(api.get(&path).await.items().len(), 2);
    api.get("/v1/shops/other/devices").await.assert_problem(403, "forbidden");
    api.post(&format!("/v1/shops/{}/messages", scene.shop), json!({"type": "a"}))
        .await
        .assert_problem(403, "forbidden");
}
