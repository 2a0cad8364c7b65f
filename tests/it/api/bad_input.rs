//! Bodies, names, ids and queries that are not what they should be: each refusal names what is wrong.

use hyper::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::openapi::operations;
use super::{encoded, of_shop};
use crate::harness::api::Reply;
use crate::harness::{Api, Login, SOON, World, unique};

/// Checks that the answer is 400 and begins with the field that is wrong.
fn assert_names(reply: &Reply, field: &str) {
    reply.assert_problem(400, "bad_request");
    let detail = reply.json["detail"].as_str().unwrap();
    assert!(detail.contains(field), "{field} is not in {detail:?}");
}

/// What every node answers to some bytes, until it closes the connection or says no more.
async fn answer_to(address: &str, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.expect("it listens");
    stream.write_all(bytes).await.expect("it takes them");
    let mut answer = Vec::new();
    let reading = tokio::time::timeout(2 * SOON, stream.read_to_end(&mut answer)).await;
    assert!(reading.is_ok(), "the connection is still open: {}", String::from_utf8_lossy(&answer));
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn a_body_that_is_no_object_is_refused_on_every_route_that_takes_one() {
    let world = World::start(1).await;
    let shop = unique("shop");
    let mut till = Login::main(&shop, "till").on(&world.url(0)).await;
    let conn = till.welcome["conn"].as_str().unwrap().to_owned();
    let api = world.api(0);
    let mut count = 0;
    for operation in operations(&api.get("/openapi.json").await.json) {
        let Some(request) = operation.body.get("requestBody") else { continue };
        count += 1;
        let path = operation.path.replace("{shop}", &shop).replace("{device}", "till").replace("{conn}", &conn);
        let path = path.replace("{id}", "1-1");
        for bad in ["[]", "\"a\"", "1", "null", "{", "{\"type\":}", "{} x", "{}{}", "{\"a\":\u{1}}", " ", "not json"] {
            let reply = api.send(operation.method.clone(), &path, Some(bad.to_owned())).await;
            assert_eq!(reply.status, 400, "{operation:?} took {bad:?}: {}", reply.text);
            reply.assert_problem(400, "bad_request");
        }
        let empty = api.send(operation.method.clone(), &path, Some(String::new())).await;
        if request["required"] == true {
            empty.assert_problem(400, "bad_request");
        }
    }
    assert!(count >= 6, "{count}");
    // Only the bodies that may be empty were taken.
    assert_eq!(till.close_code().await.0, 4005);
}

#[tokio::test]
async fn a_field_of_the_wrong_type_or_out_of_range_is_named() {
    let world = World::start(1).await;
    let shop = unique("shop");
    let mut till = Login::main(&shop, "till").on(&world.url(0)).await;
    let long = "x".repeat(65);
    let api = world.api(0);
    for (field, values) in [
        ("type", vec![json!(7), json!(null), json!(""), json!(long), json!("a{b"), json!("a\u{85}b"), json!(["a"])]),
        (
            "to",
            vec![
                json!("everybody"),
                json!(1),
                json!(["mains"]),
                json!({"devices": "a"}),
                json!({"devices": [1]}),
                json!({"group": ""}),
                json!({"user": long}),
                json!({"conns": ["a b"]}),
                json!({"devices": [long]}),
            ],
        ),
        ("except", vec![json!("a"), json!([1]), json!([""]), json!({"devices": []})]),
        ("table", vec![json!(12), json!(""), json!(long)]),
        ("status", vec![json!(1), json!(""), json!("all"), json!(long)]),
        ("durable", vec![json!("yes"), json!(1)]),
        ("key", vec![json!(1), json!(""), json!("x".repeat(129))]),
        ("receipt", vec![json!("yes"), json!(0)]),
        ("ttl_s", vec![json!(0), json!(-1), json!(604_801), json!(1.5), json!("60"), json!(4_294_967_297u64)]),
    ] {
        for value in values {
            let mut notify = json!({"type": "a"});
            notify[field] = value;
            let reply = api.post(&of_shop(&shop, "/messages"), notify.clone()).await;
            assert_eq!(reply.status, 400, "{notify} was taken: {}", reply.text);
            assert_names(&reply, field);
        }
    }
    for (field, text) in [("data", "18446744073709551616"), ("user_info", "[1e999]"), ("data", "\"\\ud800\"")] {
        let body = format!(r#"{{"type":"a","{field}":{text}}}"#);
        assert_names(&api.send(Method::POST, &of_shop(&shop, "/messages"), Some(body)).await, field);
    }
    let deep = format!(r#"{{"type":"a","data":{}1{}}}"#, "[".repeat(5000), "]".repeat(5000));
    assert_names(&api.send(Method::POST, &of_shop(&shop, "/messages"), Some(deep)).await, "data");
    let twice = r#"{"type":"a","type":"b"}"#.to_owned();
    assert_names(&api.send(Method::POST, &of_shop(&shop, "/messages"), Some(twice)).await, "type");
    let status = of_shop(&shop, "/messages/1-1/status");
    for bad in [json!({}), json!({"status": 1}), json!({"status": "all"}), json!({"status": ""})] {
        assert_names(&api.put(&status, bad).await, "status");
    }
    for bad in [json!(1), json!("all"), json!("")] {
        assert_names(&api.put(&status, json!({"status": "done", "expect": bad})).await, "expect");
    }
    till.expect_nothing().await;
}

#[tokio::test]
async fn a_name_of_64_bytes_passes_and_one_of_65_does_not() {
    let world = World::start(1).await;
    let api = world.api(0);
    // 64 and 65 bytes of UTF-8; the latter are 23 characters.
    let (fits, is_too_long) = ("店".repeat(21) + "x", "店".repeat(21) + "xx");
    let _hand = Login::main(&fits, &fits).on(&world.url(0)).await;
    let (name, long) = (encoded(&fits), encoded(&is_too_long));
    assert_eq!(api.put(&format!("/v1/shops/{name}/groups/{name}/devices/{name}"), json!({})).await.status, 204);
    assert_eq!(api.get(&format!("/v1/shops/{name}/users/{name}")).await.status, 200);
    assert_eq!(api.get(&format!("/v1/shops/{name}/devices/{name}")).await.json["device"], json!(fits));
    for bad in [long.as_str(), "a%7Bb", "%7D", "%00", "%1F", "%7F", "%C2%80", "a%0Ab", "%FF", "%E5%BA", "%ED%A0%80"] {
        assert_names(&api.get(&format!("/v1/shops/{bad}/devices")).await, "shop");
        assert_names(&api.get(&format!("/v1/shops/a/devices/{bad}")).await, "device");
        assert_names(&api.get(&format!("/v1/shops/a/groups/{bad}")).await, "group");
        assert_names(&api.get(&format!("/v1/shops/a/users/{bad}")).await, "user");
        assert_names(&api.get(&format!("/v1/connections/{bad}")).await, "conn");
        assert_names(&api.delete(&format!("/v1/shops/a/groups/{bad}/devices/b")).await, "group");
        assert_names(&api.delete(&format!("/v1/shops/a/users/u/devices/{bad}")).await, "device");
        assert_names(&api.delete(&format!("/v1/shops/{bad}/devices/b")).await, "shop");
    }
    for bad in ["a%20b", "%E5%BA%97", "a/b".replace('/', "%2F").as_str()] {
        assert_names(&api.get(&format!("/v1/connections/{bad}")).await, "conn");
    }
}

#[tokio::test]
async fn an_id_of_another_form_is_refused() {
    let world = World::start(1).await;
    let api = world.api(0);
    for bad in
        ["1", "1-", "-1", "1-2-3", "+1-2", "a-b", "1-x", "18446744073709551616-0", "1%20-2", "%EF%BC%91-1", "open"]
    {
        assert_names(&api.get(&format!("/v1/shops/a/messages/{bad}")).await, "id");
        assert_names(&api.put(&format!("/v1/shops/a/messages/{bad}/status"), json!({"status": "done"})).await, "id");
        let after = bad.replace('+', "%2B");
        assert_names(&api.get(&format!("/v1/shops/a/messages?after={after}")).await, "after");
    }
}

#[tokio::test]
async fn a_limit_is_a_number_of_1_to_500() {
    let world = World::start(1).await;
    let api = world.api(0);
    let lists = [
        "/v1/shops",
        "/v1/nodes",
        "/v1/connections",
        "/v1/shops/a/messages",
        "/v1/shops/a/devices",
        "/v1/shops/a/online",
        "/v1/shops/a/groups",
        "/v1/shops/a/groups/g",
        "/v1/shops/a/users",
        "/v1/shops/a/users/u",
    ];
    for list in lists {
        for bad in ["0", "501", "x", "", "-1", "1.5", "%2B5", "+5", "1e2", "99999999999999999999"] {
            assert_names(&api.get(&format!("{list}?limit={bad}")).await, "limit");
        }
        for good in ["1", "500", "007"] {
            assert_eq!(api.get(&format!("{list}?limit={good}")).await.status, 200, "{list} {good}");
        }
        assert_eq!(api.get(&format!("{list}?of-a-later-version=1&&=")).await.status, 200, "what it doesn't know");
        assert_names(&api.get(&format!("{list}?limit=%FF")).await, "limit");
        assert_names(&api.get(&format!("{list}?limit=1&limit=2")).await, "limit");
    }
    for bad in ["", "%7B", "%00"] {
        assert_names(&api.get(&format!("/v1/shops/a/messages?status={bad}")).await, "status");
    }
    assert_names(&api.get("/v1/shops/a/messages?after=").await, "after");
    assert_names(&api.get("/v1/shops/a/devices?after=%FF").await, "after");
}

#[tokio::test]
async fn an_idempotency_key_has_its_bounds() {
    let world = World::start(1).await;
    let shop = unique("shop");
    let _till = Login::main(&shop, "till").on(&world.url(0)).await;
    let path = of_shop(&shop, "/messages");
    let api = world.api(0);
    let notify = json!({"type": "a"});
    for bad in ["", "x".repeat(129).as_str()] {
        assert_names(&api.header("Idempotency-Key", bad).post(&path, notify.clone()).await, "Idempotency-Key");
    }
    let two = api.header("Idempotency-Key", "a").header("Idempotency-Key", "b");
    assert_names(&two.post(&path, notify.clone()).await, "Idempotency-Key");
    let same = api.header("Idempotency-Key", "a").header("Idempotency-Key", "a");
    assert_eq!(same.post(&path, notify.clone()).await.status, 201);
    let longest = api.header("Idempotency-Key", &"x".repeat(128));
    assert_eq!(longest.post(&path, notify.clone()).await.status, 201);
    assert_eq!(longest.post(&path, notify).await.status, 200);
}

#[tokio::test]
async fn a_body_is_as_large_as_a_frame_at_most() {
    let world = World::with(1, &[("LIMITS_FRAME_BYTES", "2048")]).await;
    let shop = unique("shop");
    let mut till = Login::main(&shop, "till").on(&world.url(0)).await;
    let path = of_shop(&shop, "/messages");
    let body = |size: usize| {
        let frame = r#"{"type":"a","data":""}"#;
        format!(r#"{{"type":"a","data":"{}"}}"#, "x".repeat(size - frame.len()))
    };
    let send = async |body: String| world.api(0).send(Method::POST, &path, Some(body)).await;
    assert_eq!(send(body(2048)).await.status, 201);
    till.expect("message").await;
    let refused = send(body(2049)).await;
    refused.assert_problem(413, "too_large");
    assert!(refused.json["detail"].as_str().unwrap().contains("2048"), "{}", refused.text);
    let address = world.nodes[0].api_listen();
    let chunked = |body: &str| {
        let mut bytes = format!(
            "POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n\
             Transfer-Encoding: chunked\r\n\r\n"
        );
        for chunk in body.as_bytes().chunks(1000) {
            bytes.push_str(&format!("{:x}\r\n{}\r\n", chunk.len(), String::from_utf8_lossy(chunk)));
        }
        bytes + "0\r\n\r\n"
    };
    let taken = answer_to(address, chunked(&body(2048)).as_bytes()).await;
    assert!(taken.starts_with("HTTP/1.1 201 "), "{taken}");
    till.expect("message").await;
    let refused = answer_to(address, chunked(&body(2049)).as_bytes()).await;
    assert!(refused.starts_with("HTTP/1.1 413 ") && refused.contains("\"code\":\"too_large\""), "{refused}");
    // What a length promises is believed before it comes.
    let promised = format!("POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 999999999\r\n\r\n");
    let refused = answer_to(address, promised.as_bytes()).await;
    assert!(refused.starts_with("HTTP/1.1 413 "), "{refused}");
    till.expect_nothing().await;
}

#[tokio::test]
async fn a_body_that_does_not_come_is_not_waited_for() {
    let world = World::start(1).await;
    let shop = unique("shop");
    let mut till = Login::main(&shop, "till").on(&world.url(0)).await;
    let address = world.nodes[0].api_listen();
    let head = format!("POST {} HTTP/1.1\r\nHost: x\r\nContent-Length: 12\r\n\r\n", of_shop(&shop, "/messages"));
    let slow = answer_to(address, format!("{head}{{\"type\"").as_bytes()).await;
    assert!(slow.starts_with("HTTP/1.1 408 ") && slow.contains("application/problem+json"), "{slow}");
    // One that ends early is none.
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(format!("{head}{{\"type\":\"a\"").as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400 "), "{answer}");
    till.expect_nothing().await;
}

#[tokio::test]
async fn a_body_of_another_media_type_is_refused() {
    let world = World::start(1).await;
    let shop = unique("shop");
    let _till = Login::main(&shop, "till").on(&world.url(0)).await;
    let path = of_shop(&shop, "/messages");
    let post = async |media: &str| world.api(0).header("Content-Type", media).post(&path, json!({"type": "a"})).await;
    for bad in
        ["text/plain", "application/x-www-form-urlencoded", "application/merge-patch+json", "application/jsonp", ""]
    {
        post(bad).await.assert_problem(415, "bad_request");
    }
    for good in ["application/json", "Application/JSON; charset=utf-8", "application/json ;charset=UTF-8"] {
        assert_eq!(post(good).await.status, 201, "{good}");
    }
    let attrs = of_shop(&shop, "/devices/till/attrs");
    let merge = world.api(0).header("Content-Type", "application/merge-patch+json");
    assert_eq!(merge.patch(&attrs, json!({"attrs": {}})).await.status, 200);
    merge.put(&attrs, json!({"attrs": {}})).await.assert_problem(415, "bad_request");
}

#[tokio::test]
async fn a_method_that_a_path_does_not_take_is_answered_with_those_it_takes() {
    let world = World::start(1).await;
    let api = world.api(0);
    let mut allowed: std::collections::BTreeMap<String, Vec<Method>> = std::collections::BTreeMap::new();
    for operation in operations(&api.get("/openapi.json").await.json) {
        allowed.entry(operation.path).or_default().push(operation.method);
    }
    allowed.insert("/openapi.json".into(), vec![Method::GET]);
    let all = [Method::GET, Method::PUT, Method::POST, Method::PATCH, Method::DELETE, Method::OPTIONS, Method::TRACE];
    for (path, methods) in allowed {
        let concrete: String =
            path.split('/').map(|part| if part.starts_with('{') { "x" } else { part }).collect::<Vec<_>>().join("/");
        let mut wanted: Vec<&str> = methods.iter().map(Method::as_str).collect();
        if methods.contains(&Method::GET) {
            wanted.push("HEAD");
        }
        wanted.sort_unstable();
        for method in
            all.iter().chain([&Method::from_bytes(b"QUERY").unwrap()]).filter(|method| !methods.contains(method))
        {
            let reply = api.send(method.clone(), &concrete, None).await;
            reply.assert_problem(405, "bad_request");
            let mut told: Vec<&str> = reply.header("allow").split(", ").collect();
            told.sort_unstable();
            assert_eq!(told, wanted, "{method} {path}");
        }
    }
}

#[tokio::test]
async fn a_path_that_is_not_there_is_404() {
    let world = World::start(1).await;
    let api: Api = world.api(0);
    for path in [
        "/",
        "/v1",
        "/v1/",
        "/v1/shops/",
        "/v1/shops/a",
        "/v1/shops//devices",
        "/v1/shops/a/devices/",
        "/v1/shops/a/devices/d/e",
        "/v1/shops/a%2Fdevices",
        "/v2/shops",
        "/V1/shops",
        "/openapi.json/",
        "/healthz",
        "/v1/shops/a/groups/g/devices",
        "//v1/shops",
    ] {
        for method in [Method::GET, Method::POST] {
            api.send(method, path, None).await.assert_problem(404, "not_found");
        }
    }
}

#[tokio::test]
async fn what_is_no_http_is_answered_and_cut() {
    let world = World::start(1).await;
    let address = world.nodes[0].api_listen();
    let huge = format!("GET /v1/shops HTTP/1.1\r\nHost: x\r\nX-Long: {}\r\n\r\n", "x".repeat(40_000));
    for bad in ["nonsense\r\n\r\n", "GET /v1/shops HTTP/9.9\r\n\r\n", &huge] {
        let answer = answer_to(address, bad.as_bytes()).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    }
    let close = "GET /v1/nodes HTTP/1.0\r\n\r\n";
    let answer = answer_to(address, close.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.0 200 ") && answer.contains("\"items\""), "{answer}");
    world.assert_serves().await;
}

#[tokio::test]
async fn bodies_are_ignored_where_none_is_taken() {
    let world = World::start(1).await;
    let api = world.api(0);
    for path in ["/v1/shops", "/v1/stats"] {
        let reply = api.send(Method::GET, path, Some("not json".into())).await;
        assert_eq!((reply.status, reply.json.is_object()), (200, true), "{}", reply.text);
    }
    let deleted = api.send(Method::DELETE, "/v1/shops/a/groups/g", Some(Value::Null.to_string())).await;
    assert_eq!(deleted.status, 204);
}
