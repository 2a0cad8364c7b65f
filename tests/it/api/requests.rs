//! Requests as such: their ids, HEAD, and how many connections may bring them.

use hyper::Method;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::of_shop;
use crate::harness::{Login, SOON, World, eventually, unique};

#[tokio::test]
async fn a_request_keeps_the_id_it_came_with_or_is_given_one() {
    let world = World::start(2).await;
    let api = world.api(0);
    let longest = "x".repeat(64);
    for id in ["r-1", "A.b_C-9", &longest] {
        for path in ["/v1/shops", "/nowhere", "/v1/shops/%00/devices"] {
            let reply = api.header("X-Request-Id", id).get(path).await;
            assert_eq!(reply.header("x-request-id"), id);
            if reply.status != 200 {
                assert_eq!(reply.json["request_id"], id);
            }
        }
    }
    let mut given = std::collections::BTreeSet::new();
    for id in ["", "a b", "ä", "x{y}", &"x".repeat(65), "<script>"] {
        let reply = api.header("X-Request-Id", id).get("/nowhere").await;
        let own = reply.header("x-request-id").to_owned();
        assert_eq!(reply.json["request_id"], json!(own));
        assert!((1..=64).contains(&own.len()) && own.bytes().all(|byte| byte.is_ascii_graphic()), "{own}");
        assert!(given.insert(own), "an id was given twice");
    }
    for n in 0..4 {
        let own = world.api(n).get("/v1/shops").await.header("x-request-id").to_owned();
        assert!(given.insert(own), "an id was given twice");
    }
    // What failed is found in the log by it.
    let named = "find-me-in-the-log";
    world.redis().pause();
    api.header("X-Request-Id", named).get("/v1/shops").await.assert_problem(503, "unavailable");
    world.redis().resume();
    eventually(SOON, "its line in the log", async || world.nodes[0].log_text().contains(named)).await;
}

#[tokio::test]
async fn head_is_get_without_the_body() {
    let world = World::start(1).await;
    let shop = unique("shop");
    let mut till = Login::main(&shop, "till").on(&world.url(0)).await;
    let api = world.api(0);
    let paths = [
        "/openapi.json".to_owned(),
        "/v1/shops".to_owned(),
        of_shop(&shop, "/devices/till"),
        of_shop(&shop, "/devices/nobody"),
        of_shop(&shop, "/messages?limit=0"),
    ];
    for path in paths {
        let got = api.get(&path).await;
        let head = api.send(Method::HEAD, &path, None).await;
        assert_eq!((head.status, head.text.as_str()), (got.status, ""), "{path}");
        assert_eq!(head.header("content-type"), got.header("content-type"));
        assert_eq!(head.headers.get("content-length").is_some(), got.headers.get("content-length").is_some());
    }
    let post_only = api.send(Method::HEAD, &of_shop(&shop, "/devices/till/close"), None).await;
    assert_eq!((post_only.status, post_only.header("allow")), (405, "POST"));
    till.expect_nothing().await;
}

#[tokio::test]
async fn one_connection_carries_many_requests() {
    let world = World::start(1).await;
    let mut stream = TcpStream::connect(world.nodes[0].api_listen()).await.unwrap();
    let last = "GET /v1/stats HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let pipelined = "GET /v1/shops HTTP/1.1\r\nHost: x\r\n\r\n".repeat(20) + last;
    stream.write_all(pipelined.as_bytes()).await.unwrap();
    let mut answers = String::new();
    stream.read_to_string(&mut answers).await.unwrap();
    assert_eq!(answers.matches("HTTP/1.1 200 OK\r\n").count(), 21, "{answers}");
}

#[tokio::test]
async fn connections_beyond_the_limit_are_told_to_come_back() {
    let world = World::with(1, &[("LIMITS_API_CONNECTIONS", "2")]).await;
    let address = world.nodes[0].api_listen();
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET /v1/nodes HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        let mut first = [0; 12];
        stream.read_exact(&mut first).await.unwrap();
        assert_eq!(&first, b"HTTP/1.1 200");
        held.push(stream);
    }
    let refused = world.api(0).get("/v1/nodes").await;
    refused.assert_problem(503, "unavailable");
    assert_eq!(refused.header("connection"), "close");
    // Who says nothing is not kept either.
    let mut silent = TcpStream::connect(address).await.unwrap();
    let ended = tokio::time::timeout(SOON, silent.read_to_end(&mut Vec::new())).await;
    assert!(ended.is_ok(), "it is still open");
    held.pop();
    eventually(SOON, "room for another", async || world.api(0).get("/v1/nodes").await.status == 200).await;
}

#[tokio::test]
async fn requests_are_counted_by_route_and_never_by_shop() {
    let world = World::start(1).await;
    let shop = unique("secret-shop");
    for _ in 0..3 {
        world.api(0).get(&of_shop(&shop, "/devices")).await;
    }
    world.api(0).get("/nowhere").await.assert_problem(404, "not_found");
    let (_, text) = world.nodes[0].get("/metrics").await;
    let lines: Vec<&str> = text.lines().filter(|line| line.starts_with("shoprelay_api")).collect();
    assert!(lines.iter().any(|line| line.contains("/v1/shops/{shop}/devices")), "{lines:#?}");
    assert!(!text.contains("secret-shop"), "a label has a shop");
}
