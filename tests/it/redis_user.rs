//! A node whose Redis user may do no more than SECURITY.md says it has to.

use std::collections::BTreeSet;
use std::path::Path;

use hyper::Method;
use serde_json::json;

use crate::harness::{Api, LegacyDevice};
use crate::harness::{Login, NodeOptions, NodeProcess, SOON, eventually, unique};
use crate::redis_server::RedisServer;

const PASSWORD: &str = "a-password-of-the-relay";

/// The words of the rule in SECURITY.md, after the name of the user.
fn rule() -> Vec<String> {
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("SECURITY.md")).expect("SECURITY.md");
    let block = page.split("```text\n").find(|block| block.starts_with("ACL SETUSER shoprelay ")).expect("the rule");
    let block = block.split("```").next().unwrap_or_default().replace('\\', " ");
    block.split_whitespace().skip(3).map(|word| word.replace("PASSWORD", PASSWORD)).collect()
}

#[test]
fn every_file_that_the_page_calls_to_witness_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = std::fs::read_to_string(root.join("SECURITY.md")).expect("SECURITY.md");
    let files: Vec<&str> = page.split('`').filter(|word| word.ends_with(".rs") && !word.contains(' ')).collect();
    assert!(files.len() > 10, "{files:?}");
    for file in files {
        assert!(root.join(file).is_file(), "{file}");
    }
}

/// Commands that the rule allows, subcommands as `command|subcommand`.
fn allowed() -> BTreeSet<String> {
    rule().iter().filter_map(|word| word.strip_prefix('+')).map(str::to_owned).collect()
}

/// Commands that the scripts call.
fn scripted() -> BTreeSet<String> {
    let scripts = std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("lua")).unwrap();
    let scripts = scripts.map(|entry| std::fs::read_to_string(entry.unwrap().path()).unwrap());
    let calls = scripts.flat_map(|script| script.split("redis.call('").skip(1).map(str::to_owned).collect::<Vec<_>>());
    calls.map(|call| call.split('\'').next().unwrap_or_default().to_lowercase()).collect()
}

/// The engine on Redis, as text.
fn coded() -> String {
    let files = std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/store/redis")).unwrap();
    files.map(|entry| std::fs::read_to_string(entry.unwrap().path()).unwrap()).collect()
}

#[test]
fn the_rule_allows_what_the_scripts_call() {
    let (allowed, scripted) = (allowed(), scripted());
    let missing: Vec<&String> = scripted.difference(&allowed).collect();
    assert!(scripted.contains("spublish") && missing.is_empty(), "SECURITY.md does not allow {missing:?}");
}

#[tokio::test]
async fn a_node_needs_no_more_of_redis_than_the_page_says() {
    let redis = RedisServer::start().await;
    let rule = rule();
    let words: Vec<&str> = ["ACL", "SETUSER", "shoprelay"].into_iter().chain(rule.iter().map(String::as_str)).collect();
    assert_eq!(redis.cli(&words), "OK");
    let mut options = NodeOptions::new(format!("redis://shoprelay:{PASSWORD}@127.0.0.1:{}", redis.port()))
        .set("LEGACY", "true")
        .set("EVENTS", "true");
    // The prefix that the rule names, which is also the default.
    options.prefix = "sr:".into();
    let (first, second) = (NodeProcess::start(&options).await, NodeProcess::start(&options).await);
    let shop = unique("shop");
    let mut till = Login::main(&shop, "till").on(&first.ws_url()).await;
    let mut hand = Login::sub(&shop, "hand").on(&second.ws_url()).await;
    for op in [
        json!({"op": "join", "group": "g"}),
        json!({"op": "bind", "user": "u"}),
        json!({"op": "attrs", "set": {"a": 1}}),
        json!({"op": "attrs", "patch": {"b": 2}}),
        json!({"op": "attrs"}),
        json!({"op": "online"}),
    ] {
        let answer = hand.request(op.clone()).await;
        assert_ne!(answer["op"], "error", "{op}: {answer}");
    }
    for number in 0..3 {
        let key = format!("k{number}");
        let id = hand.notify(json!({"type": "add", "receipt": true, "key": key, "data": number})).await;
        assert_eq!(till.expect("message").await["id"], id.as_str());
        till.send(json!({"op": "ack", "id": id})).await;
        hand.expect("receipt").await;
        let dealt = till.request(json!({"op": "deal", "id": id, "status": "done"})).await;
        assert_eq!(dealt["op"], "dealt", "{dealt}");
        hand.expect("status").await;
    }
    assert_eq!(hand.request(json!({"op": "list"})).await["op"], "messages");
    assert_eq!(hand.request(json!({"op": "leave", "group": "g"})).await["op"], "ok");
    assert_eq!(hand.request(json!({"op": "unbind"})).await["op"], "ok");
    old_devices(&first, &shop).await;
    every_request(&Api::at(second.api_listen()), &shop).await;
    drop((till, hand));
    for mut node in [first, second] {
        assert!(node.is_ready().await);
        node.sigterm();
        assert!(node.wait_exit().await.success());
        assert!(!node.log_text().contains("NOPERM"), "{}", node.log_text());
    }
    let denied = redis.cli(&["ACL", "LOG"]);
    assert!(denied.is_empty(), "Redis denied something:\n{denied}");
    nothing_is_allowed_for_nothing(&redis);
}

/// The dialect and the routes of the old server.
async fn old_devices(node: &NodeProcess, shop: &str) {
    let mut pad = LegacyDevice::log_in(node.listen(), json!(shop), json!("pad"), "副").await;
    pad.send(json!({"op": "notify", "shop_id": shop, "type": "add", "table_id": 1, "from_client_id": "pad"})).await;
    eventually(SOON, "the old list to have it", async || {
        let (_, listed) = node.get_public(&format!("/api.php/index/index/messageList/shop_id/{shop}")).await;
        listed.contains("\"id\":")
    })
    .await;
    let (status, _) = node.get_public("/api.php/index/index/deal/id/1/status/done").await;
    assert_eq!(status, 200);
    pad.say("from_admin=1&op=get_connections").await;
    pad.say("from_admin=1&op=send_messages&content=x&to_fds=n.1").await;
    pad.send(json!({"op": "logout"})).await;
}

/// What back ends ask for; every request of the API's document that changes or reads something else.
async fn every_request(api: &Api, shop: &str) {
    let of = |rest: &str| format!("/v1/shops/{shop}{rest}");
    let call = json!({"op": "nothing"});
    for (method, path, body) in [
        (Method::POST, of("/messages"), Some(json!({"type": "a", "durable": true}))),
        (Method::POST, of("/messages"), Some(json!({"type": "a", "durable": false}))),
        (Method::GET, of("/messages?status=open"), None),
        (Method::GET, of("/devices"), None),
        (Method::GET, of("/devices/hand"), None),
        (Method::GET, of("/online"), None),
        (Method::PUT, of("/devices/hand/attrs"), Some(json!({"attrs": {"x": 1}}))),
        (Method::PATCH, of("/devices/hand/attrs"), Some(json!({"attrs": {"y": 1}}))),
        (Method::GET, of("/devices/hand/attrs"), None),
        (Method::PUT, of("/groups/g/devices/hand"), Some(json!({}))),
        (Method::GET, of("/groups"), None),
        (Method::GET, of("/groups/g"), None),
        (Method::DELETE, of("/groups/g"), None),
        (Method::PUT, of("/users/u/devices/hand"), Some(json!({}))),
        (Method::GET, of("/users/u"), None),
        (Method::DELETE, of("/users/u/devices/hand"), None),
        (Method::GET, of("/stats"), None),
        (Method::GET, "/v1/connections".to_owned(), None),
        (Method::GET, "/v1/shops".to_owned(), None),
        (Method::GET, "/v1/nodes".to_owned(), None),
        (Method::GET, "/v1/stats".to_owned(), None),
        (Method::POST, "/v1/broadcast".to_owned(), Some(json!({"type": "a"}))),
        (Method::POST, of("/devices/till/close"), Some(json!({"data": call}))),
        (Method::PUT, of("/devices/hand/bar"), Some(json!({}))),
        (Method::GET, of("/barred"), None),
        (Method::DELETE, of("/devices/hand/bar"), None),
        (Method::DELETE, of("/devices/hand"), None),
    ] {
        let reply = api.send(method.clone(), &path, body.map(|body| body.to_string())).await;
        assert!(reply.status < 300 || reply.status == 404, "{method} {path}: {}", reply.text);
    }
}

/// What the rule allows and nobody asked for.
fn nothing_is_allowed_for_nothing(redis: &RedisServer) {
    let stats = redis.cli(&["INFO", "commandstats"]);
    let used: BTreeSet<&str> =
        stats.lines().filter_map(|line| line.strip_prefix("cmdstat_")?.split(':').next()).collect();
    let (scripted, coded) = (scripted(), coded());
    // What is for a cluster or for replicas is not asked of a single server.
    let is_custom = |command: &str| {
        let name = command.split('|').next().unwrap_or_default().to_uppercase();
        coded.contains(&format!("new_static(\"{name}\""))
    };
    let is_unused = |command: &String| {
        let is_called = coded.contains(&format!(".{command}(")) || is_custom(command);
        !used.contains(command.as_str()) && !scripted.contains(command) && !is_called
    };
    let unused: Vec<String> = allowed().into_iter().filter(is_unused).collect();
    assert!(unused.is_empty(), "SECURITY.md allows {unused:?} for nothing; used were {used:?}");
}
