//! Who may ask for what: keys, their scopes and their shops.

use hyper::Method;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::openapi::{Operation, operations};
use super::{listed, of_shop};
use crate::harness::{Api, Login, NodeOptions, NodeProcess, SOON, eventually, unique};
use crate::redis_server::RedisServer;

const EVERYTHING: &str = "everything-0123456789abcdef";
const READER: &str = "reader-key-0123456789abcdef";
const WRITER: &str = "writer-key-0123456789abcdef";
const OPERATOR: &str = "operator-key-0123456789abcdef";
const OF_SHOP_A: &str = "shop-a-key-0123456789abcdef";
/// What `sha256sum` prints for `WRITER`.
const WRITER_SHA256: &str = "5755ebe16061aec645992d9f57844449e3577007da9b1eb6e82526714e34870c";

/// A node with a keys file.
struct Keyed {
    node: NodeProcess,
    dir: TempDir,
    shop_a: String,
    shop_b: String,
}

impl Keyed {
    async fn start() -> Keyed {
        let dir = TempDir::new().unwrap();
        let (shop_a, shop_b) = (unique("a"), unique("b"));
        let all = r#"["*"]"#;
        let entry = |name: &str, key: &str, shops: &str, scopes: &str| {
            format!("[[keys]]\nname = \"{name}\"\n{key}\nshops = {shops}\nscopes = {scopes}\n")
        };
        let plain = |key: &str| format!("key = \"{key}\"");
        let every_scope = r#"["read", "write", "operate"]"#;
        let keys = [
            entry("everything", &plain(EVERYTHING), all, every_scope),
            entry("reader", &plain(READER), all, r#"["read"]"#),
            entry("writer", &format!("sha256 = \"{WRITER_SHA256}\""), all, r#"["write"]"#),
            entry("operator", &plain(OPERATOR), all, r#"["operate"]"#),
            entry("till software", &plain(OF_SHOP_A), &format!("[\"{shop_a}\"]"), every_scope),
        ];
        let path = dir.path().join("keys.toml");
        std::fs::write(&path, keys.concat()).unwrap();
        let options = NodeOptions::new(RedisServer::shared().url()).set("API_KEYS_FILE", path.to_str().unwrap());
        Keyed { node: NodeProcess::start(&options).await, dir, shop_a, shop_b }
    }

    fn api(&self, key: &str) -> Api {
        self.without_key().key(key)
    }

    fn without_key(&self) -> Api {
        Api::at(self.node.api_listen())
    }

    /// Every operation of the node's own document.
    async fn operations(&self) -> Vec<Operation> {
        let operations = operations(&self.without_key().get("/openapi.json").await.json);
        assert!(operations.len() > 20, "{operations:?}");
        operations
    }
}

/// Sends what an operation takes, for this shop and this connection.
async fn ask(api: &Api, operation: &Operation, shop: &str, conn: &str) -> crate::harness::api::Reply {
    let path = operation.path.replace("{shop}", shop).replace("{conn}", conn);
    let path = path.replace("{id}", "1-1").replace("{device}", "d").replace("{group}", "g").replace("{user}", "u");
    assert!(!path.contains('{'), "{path}");
    let body = (operation.method != Method::GET && operation.method != Method::DELETE).then(|| "{}".to_owned());
    api.send(operation.method.clone(), &path, body).await
}

#[tokio::test]
async fn every_route_wants_a_key_that_is_known() {
    let keyed = Keyed::start().await;
    for operation in keyed.operations().await {
        let without = ask(&keyed.without_key(), &operation, &keyed.shop_a, "n.1").await;
        without.assert_problem(401, "unauthorized");
        assert_eq!(without.header("www-authenticate"), "Bearer", "{operation:?}");
        for authorization in ["Bearer nobody-has-this-key", &format!("Basic {EVERYTHING}"), EVERYTHING, "Bearer"] {
            let api = keyed.without_key().header("Authorization", authorization);
            let refused = ask(&api, &operation, &keyed.shop_a, "n.1").await;
            refused.assert_problem(401, "unauthorized");
            assert_eq!(refused.header("www-authenticate"), "Bearer", "{operation:?}");
        }
    }
    let document = keyed.without_key().get("/openapi.json").await;
    assert_eq!((document.status, &document.json["openapi"]), (200, &json!("3.1.0")), "it needs no key");
}

#[tokio::test]
async fn every_route_wants_its_scope_and_no_scope_includes_another() {
    let keyed = Keyed::start().await;
    for operation in keyed.operations().await {
        for (scope, key) in [("read", READER), ("write", WRITER), ("operate", OPERATOR)] {
            let reply = ask(&keyed.api(key), &operation, &keyed.shop_a, "n.1").await;
            if scope == operation.scope {
                assert!(!matches!(reply.status, 401 | 403), "{operation:?} with {scope}: {}", reply.text);
            } else {
                reply.assert_problem(403, "forbidden");
                let detail = reply.json["detail"].as_str().unwrap();
                assert!(detail.contains(&operation.scope), "{operation:?} with {scope}: {detail}");
            }
        }
    }
}

#[tokio::test]
async fn the_key_of_one_shop_opens_no_other_on_any_route() {
    let keyed = Keyed::start().await;
    let mut other = Login::main(&keyed.shop_b, "d").on(&keyed.node.ws_url()).await;
    let own = Login::main(&keyed.shop_a, "d").on(&keyed.node.ws_url()).await;
    let conn = |device: &crate::harness::Device| device.welcome["conn"].as_str().unwrap().to_owned();
    let (others_conn, own_conn) = (conn(&other), conn(&own));
    let api = keyed.api(OF_SHOP_A);
    let mut kinds = std::collections::BTreeSet::new();
    for operation in keyed.operations().await {
        let reply = ask(&api, &operation, &keyed.shop_b, &others_conn).await;
        if operation.path.contains("{shop}") {
            kinds.insert("shop");
            reply.assert_problem(403, "forbidden");
            let own = ask(&api, &operation, &keyed.shop_a, &own_conn).await;
            assert!(!matches!(own.status, 401 | 403), "{operation:?}: {}", own.text);
        } else if operation.path.contains("{conn}") {
            kinds.insert("conn");
            reply.assert_problem(404, "not_found");
            let gone = ask(&api, &operation, &keyed.shop_b, "no-such-conn.1").await;
            assert_eq!(gone.json["detail"], reply.json["detail"], "it tells that the connection is there");
        } else {
            kinds.insert("deployment");
            reply.assert_problem(403, "forbidden");
            let all = ask(&keyed.api(EVERYTHING), &operation, "", "").await;
            assert!(!matches!(all.status, 401 | 403), "{operation:?}: {}", all.text);
        }
    }
    assert_eq!(kinds.len(), 3, "{kinds:?}");
    // It was neither closed nor forgotten, and nothing was sent to it.
    other.expect_nothing().await;
    let shown = keyed.api(EVERYTHING).get(&format!("/v1/connections/{others_conn}")).await;
    assert_eq!((shown.status, &shown.json["shop"]), (200, &json!(keyed.shop_b)));
}

#[tokio::test]
async fn messages_and_statuses_name_the_key_they_came_by() {
    let keyed = Keyed::start().await;
    let mut till = Login::main(&keyed.shop_a, "till").on(&keyed.node.ws_url()).await;
    let path = of_shop(&keyed.shop_a, "/messages");
    let by_shop = keyed.api(OF_SHOP_A).post(&path, json!({"type": "a"})).await;
    assert_eq!(by_shop.status, 201, "{}", by_shop.text);
    assert_eq!(till.expect("message").await["from"], json!({"api": "till software"}));
    keyed.api(WRITER).post(&path, json!({"type": "b", "durable": false})).await;
    assert_eq!(till.expect("signal").await["from"], json!({"api": "writer"}), "by the digest of its key");
    let status = format!("{path}/{}/status", by_shop.json["id"].as_str().unwrap());
    assert_eq!(keyed.api(EVERYTHING).put(&status, json!({"status": "done"})).await.status, 204);
    assert_eq!(till.expect("status").await["by"], json!({"api": "everything"}));
    let again = keyed.api(OF_SHOP_A).put(&status, json!({"status": "done"})).await;
    again.assert_problem(409, "conflict");
    assert_eq!(again.json["by"], json!({"api": "everything"}), "the same status, but by another");
    assert_eq!(listed(&keyed.api(READER), &path, "dealt_by").await, [json!({"api": "everything"})]);
    keyed.api(OPERATOR).post("/v1/broadcast", json!({"type": "c"})).await;
    assert_eq!(till.expect("signal").await["from"], json!({"api": "operator"}));
    let close = of_shop(&keyed.shop_a, "/devices/till/close");
    assert_eq!(keyed.api(OPERATOR).post(&close, json!({"data": 1})).await.status, 204);
    let last = till.expect("signal").await;
    assert_eq!((&last["from"], &last["type"]), (&json!({"api": "operator"}), &json!("close")));
}

#[tokio::test]
async fn keys_are_read_anew_on_a_hangup_and_a_bad_file_keeps_the_old_ones() {
    let keyed = Keyed::start().await;
    let file = keyed.dir.path().join("keys.toml");
    let status = async |key: &str| keyed.api(key).get("/v1/shops").await.status;
    assert_eq!(status(READER).await, 200);
    let new = "new-key-0123456789abcdef";
    std::fs::write(&file, format!("[[keys]]\nname = \"new\"\nkey = \"{new}\"\nshops = [\"*\"]\nscopes = [\"read\"]\n"))
        .unwrap();
    assert_eq!((status(READER).await, status(new).await), (200, 401), "not before the hangup");
    keyed.node.sighup();
    eventually(SOON, "the new key to be taken", async || status(new).await == 200).await;
    assert_eq!(status(READER).await, 401, "the old one is gone");
    std::fs::write(&file, "[[keys]]\nname = \"bad\"\n").unwrap();
    keyed.node.sighup();
    let stay = "the API's keys stay as they were";
    eventually(SOON, stay, async || keyed.node.log_text().contains(stay)).await;
    assert_eq!(status(new).await, 200);
    std::fs::remove_file(&file).unwrap();
    keyed.node.sighup();
    eventually(SOON, "the second", async || keyed.node.log_text().matches(stay).count() == 2).await;
    assert_eq!(status(new).await, 200);
    assert!(!keyed.node.log_text().contains(new), "no log line has a key");
}

#[tokio::test]
async fn without_a_keys_file_no_key_is_wanted_and_any_is_ignored() {
    let node = NodeProcess::start(&NodeOptions::new(RedisServer::shared().url())).await;
    let api = Api::at(node.api_listen());
    for api in [api.clone(), api.key("whatever"), api.header("Authorization", "nonsense")] {
        let shops = api.get("/v1/shops").await;
        assert_eq!((shops.status, &shops.json["items"]), (200, &Value::Array(Vec::new())));
    }
}
