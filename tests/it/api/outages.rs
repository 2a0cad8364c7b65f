//! The store is away, or its answers are lost: what a back end is told, and what it may repeat.

use std::time::{Duration, Instant};

use hyper::Method;
use serde_json::json;

use super::openapi::operations;
use super::{listed, of_shop};
use crate::harness::{Api, Login, NodeOptions, NodeProcess, RedisProxy, SOON, World, eventually, unique};
use crate::redis_server::RedisServer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

#[tokio::test]
async fn while_the_store_is_away_every_route_says_when_to_try_again() {
    let world = World::with(1, &[("TIMEOUTS_STORE", "500ms")]).await;
    let shop = unique("shop");
    let mut till = Login::main(&shop, "till").on(&world.url(0)).await;
    let conn = till.welcome["conn"].as_str().unwrap().to_owned();
    let api = world.api(0);
    let operations = operations(&api.get("/openapi.json").await.json);
    world.redis().pause();
    for operation in operations {
        let path = operation.path.replace("{shop}", &shop).replace("{device}", "till").replace("{conn}", &conn);
        let path = path.replace("{id}", "1-1").replace("{group}", "g").replace("{user}", "u");
        let body = json!({"type": "a", "status": "done", "attrs": {}}).to_string();
        let asked = Instant::now();
        let body = operation.body.get("requestBody").map(|_| body);
        let reply = api.send(operation.method.clone(), &path, body).await;
        if operation.path == "/v1/nodes" {
            assert_eq!(reply.status, 200, "it is known without asking");
        } else {
            assert_eq!(reply.status, 503, "{} {path}: {}", operation.method, reply.text);
            reply.assert_problem(503, "unavailable");
        }
        assert!(asked.elapsed() < Duration::from_secs(3), "{} {path} took {:?}", operation.method, asked.elapsed());
    }
    assert_eq!(api.get("/openapi.json").await.status, 200);
    api.get("/v1/shops/%00/devices").await.assert_problem(400, "bad_request");
    till.expect_nothing().await;
    world.redis().resume();
    eventually(SOON, "it to answer again", async || api.get("/v1/shops").await.status == 200).await;
}

#[tokio::test]
async fn a_post_whose_outcome_was_lost_is_repeated_under_its_key_and_stored_once() {
    let redis = RedisServer::start().await;
    let proxy = RedisProxy::before(redis.port()).await;
    let options = NodeOptions::new(proxy.url()).set("TIMEOUTS_STORE", "500ms");
    let node = NodeProcess::start(&options).await;
    let api = Api::at(node.api_listen());
    let shop = unique("shop");
    let mut till = Login::main(&shop, "till").on(&node.ws_url()).await;
    let path = of_shop(&shop, "/messages");
    let post = async |key: &str| {
        let notify = json!({"type": "add", "data": key}).to_string();
        api.header("Idempotency-Key", key).send(Method::POST, &path, Some(notify)).await
    };
    // The first one makes the script known: a lost "no such script" would be no lost acceptance.
    assert_eq!(post("first").await.status, 201);
    till.take(1).await;
    for round in 1..4 {
        let key = unique("key");
        proxy.swallow_replies(true);
        post(&key).await.assert_problem(503, "unavailable");
        proxy.cut();
        proxy.swallow_replies(false);
        let mut told = None;
        eventually(2 * SOON, "an answer", async || {
            let reply = post(&key).await;
            if reply.status == 503 {
                return false;
            }
            told = Some(reply);
            true
        })
        .await;
        let told = told.unwrap();
        assert_eq!((told.status, &told.json["duplicate"]), (200, &json!(true)), "it was stored: {}", told.text);
        let message = till.next_where(|op| op["op"] == "message").await;
        assert_eq!((&message["id"], &message["data"]), (&told.json["id"], &json!(key)));
        till.ack(message["id"].as_str().unwrap()).await;
        assert_eq!(listed(&api, &path, "data").await.len(), round + 1);
    }
    till.expect_nothing().await;
}

#[tokio::test]
async fn a_node_that_stops_answers_the_requests_that_are_under_way() {
    let mut world = World::start(1).await;
    let shop = unique("shop");
    let mut till = Login::main(&shop, "till").on(&world.url(0)).await;
    let mut stream = TcpStream::connect(world.nodes[0].api_listen()).await.unwrap();
    let (path, body) = (of_shop(&shop, "/messages"), r#"{"type":"last"}"#);
    let head =
        format!("POST {path} HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: {}\r\n\r\n", body.len());
    stream.write_all(head.as_bytes()).await.unwrap();
    // The node has the head, and waits for the body.
    let mut go_on = [0; 25];
    stream.read_exact(&mut go_on).await.unwrap();
    assert_eq!(&go_on, b"HTTP/1.1 100 Continue\r\n\r\n");
    world.nodes[0].sigint();
    assert_eq!(till.close_code().await.0, 1012);
    stream.write_all(body.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 201 "), "{answer}");
    assert!(world.nodes[0].wait_exit().await.success());
}
