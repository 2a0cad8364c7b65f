//! What is in the stream: which entries with which fields, in which order, and how many.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

use super::{Entry, Stream, conn, entry, kinds, world_with_events};
use crate::harness::{
    Encoding, Login, NodeProcess, RawSocket, RedisProxy, SOON, World, device::op, eventually, eventually_get, unique,
    unix_ms, wire::bin,
};

/// An entry without its time, which lies between the test's begin and now.
fn timeless(mut entry: Entry, begin_ms: u64) -> Entry {
    let at: u64 = entry.remove("at").expect("every entry has a time").parse().expect("milliseconds");
    // The relay goes by the clock of Redis.
    assert!((begin_ms - 1000..=unix_ms() + 1000).contains(&at), "{at} is not now: {entry:?}");
    entry
}

fn fields(pairs: &[(&str, &str)]) -> Entry {
    pairs.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
}

#[tokio::test]
async fn every_event_has_exactly_its_fields() {
    let begin_ms = unix_ms();
    let world = world_with_events(1, &[]).await;
    let stream = Stream::of(&world);
    let shop = unique("shop");
    let mut till = Login::main(&shop, "till").on(&world.url(0)).await;
    let mut hand = Login::sub(&shop, "hand").on(&world.url(0)).await;
    assert_eq!(hand.request(json!({"op": "bind", "user": "Zoë"})).await["op"], "ok");
    hand.send(json!({"op": "logout"})).await;
    assert_eq!(hand.close_code().await.0, 1000);
    let mut hand = Login::sub(&shop, "hand").on(&world.url(0)).await;
    assert_eq!(hand.request(json!({"op": "call", "method": "price", "data": {"dish": 7}})).await["op"], "ok");
    hand.send(json!({"op": "call", "method": "hello"})).await;
    assert_eq!(hand.expect("ok").await["ref"], Value::Null);
    let [first, second] = [hand.notify(json!({"type": "a"})).await, hand.notify(json!({"type": "b"})).await];
    assert_eq!(till.request(json!({"op": "deal", "id": first, "status": "done"})).await["op"], "dealt");
    let path = format!("/v1/shops/{shop}/messages/{second}/status");
    assert_eq!(world.api(0).put(&path, json!({"status": "void"})).await.status, 204);
    hand.send(json!({"op": "logout"})).await;
    hand.close_code().await;

    let (conn, node) = (conn(&hand.welcome), hand.welcome["node"].as_str().unwrap().to_owned());
    let mut entries = stream.of_closed_conn(&conn).await;
    let reference = entries[2].get("ref").expect("the first call has a ref").clone();
    let connection = [("node", node.as_str()), ("conn", conn.as_str())];
    let device = [("shop", shop.as_str()), ("device", "hand"), ("role", "sub"), ("user", "Zoë")];
    let session = [connection.as_slice(), device.as_slice()].concat();
    let call = [("event", "call"), ("method", "price"), ("ref", &reference), ("data", r#"{"dish":7}"#)];
    let expected = [
        fields(&[&[("event", "connect")], connection.as_slice()].concat()),
        fields(&[&[("event", "login")], session.as_slice()].concat()),
        fields(&[call.as_slice(), session.as_slice()].concat()),
        fields(&[&[("event", "call"), ("method", "hello")], session.as_slice()].concat()),
        fields(&[&[("event", "close"), ("code", "1000")], session.as_slice()].concat()),
    ];
    let entries: Vec<Entry> = entries.drain(..).map(|entry| timeless(entry, begin_ms)).collect();
    assert_eq!(entries, expected);

    let all = stream.entries();
    let dealt: Vec<Entry> =
        all.into_iter().filter(|entry| entry["event"] == "dealt").map(|entry| timeless(entry, begin_ms)).collect();
    let till_conn = super::conn(&till.welcome);
    let of_message = [("event", "dealt"), ("node", node.as_str()), ("shop", shop.as_str())];
    let by_device = [("conn", till_conn.as_str()), ("device", "till"), ("role", "main"), ("status", "done")];
    let expected = [
        fields(&[of_message.as_slice(), by_device.as_slice(), &[("message", &first)]].concat()),
        fields(&[of_message.as_slice(), &[("api", "local"), ("status", "void"), ("message", &second)]].concat()),
    ];
    assert_eq!(dealt, expected);
}

#[tokio::test]
async fn a_close_carries_the_code_of_the_side_that_closed_first() {
    let world = world_with_events(1, &[]).await;
    let (stream, shop) = (Stream::of(&world), unique("shop"));
    let mut logins = Vec::new();
    for name in ["replaced", "reset", "own-code", "no-code", "operator"] {
        logins.push(Login::main(&shop, name).on(&world.url(0)).await);
    }
    let conns: Vec<String> = logins.iter().map(|device| conn(&device.welcome)).collect();
    let [mut replaced, reset, mut own_code, no_code, mut operator] = <[_; 5]>::try_from(logins).ok().unwrap();
    let _newer = Login::main(&shop, "replaced").on(&world.url(0)).await;
    assert_eq!(replaced.close_code().await.0, 4000);
    reset.reset();
    own_code.send_raw(Message::Close(Some(CloseFrame { code: 4321.into(), reason: "bye".into() }))).await;
    no_code.close().await;
    let path = format!("/v1/shops/{shop}/devices/operator/close");
    assert_eq!(world.api(0).post(&path, json!({})).await.status, 204);
    assert_eq!(operator.close_code().await.0, 4005);
    for (conn, code) in conns.iter().zip(["4000", "1006", "4321", "1005", "4005"]) {
        let entries = stream.of_closed_conn(conn).await;
        assert_eq!(kinds(&entries), ["connect", "login", "close"]);
        assert_eq!(entries[2]["code"], code, "{:?}", entries[2]);
    }
}

#[tokio::test]
async fn a_connection_that_never_logged_in_has_a_connect_and_a_close() {
    let world = world_with_events(1, &[]).await;
    let stream = Stream::of(&world);
    drop(RawSocket::open(&world.url(0)).await);
    eventually(SOON, "its close", async || stream.exists() && stream.entries().len() == 2).await;
    let entries = stream.entries();
    assert_eq!(kinds(&entries), ["connect", "close"]);
    assert_eq!(entries[0]["conn"], entries[1]["conn"]);
    assert!(!entries[1].contains_key("shop"), "{:?}", entries[1]);
    assert_eq!(entries[1]["code"], "1006");
}

#[tokio::test]
async fn the_entries_of_a_connection_are_in_the_order_in_which_things_happened() {
    let world = world_with_events(2, &[]).await;
    let (stream, shop) = (Stream::of(&world), unique("shop"));
    let shifts = (0..40).map(|n| {
        let (login, url) = (Login::sub(&shop, &format!("hand-{n}")), world.url(n));
        tokio::spawn(async move {
            let mut hand = login.on(&url).await;
            for call in 0..5 {
                assert_eq!(hand.request(json!({"op": "call", "method": format!("m{call}")})).await["op"], "ok");
            }
            hand.send(json!({"op": "logout"})).await;
            hand.close_code().await;
            conn(&hand.welcome)
        })
    });
    for shift in shifts.collect::<Vec<_>>() {
        let conn = shift.await.unwrap();
        let entries = stream.of_closed_conn(&conn).await;
        assert_eq!(kinds(&entries), ["connect", "login", "call", "call", "call", "call", "call", "close"]);
        let methods: Vec<&str> = entries[2..7].iter().map(|entry| entry["method"].as_str()).collect();
        assert_eq!(methods, ["m0", "m1", "m2", "m3", "m4"]);
    }
}

#[tokio::test]
async fn a_call_is_in_the_stream_when_it_is_answered_with_its_ref_as_text_and_its_data_as_json() {
    let world = world_with_events(1, &[]).await;
    let (stream, shop) = (Stream::of(&world), unique("shop"));
    for encoding in [Encoding::Json, Encoding::MsgPack] {
        let mut hand = Login::sub(&shop, "hand").encoding(encoding).on(&world.url(0)).await;
        let conn = conn(&hand.welcome);
        let data =
            json!({"dish": "宮保雞丁", "counts": [1, -2, 9_007_199_254_740_993u64, 0.5], "hot": true, "no": null});
        for reference in [json!(42), json!("order \"7\""), json!(-1)] {
            let call = json!({"op": "call", "method": "价格", "ref": reference, "data": data});
            hand.send(call).await;
            let ok = hand.expect("ok").await;
            // Right now, without waiting for anything.
            let last = stream.of_conn(&conn).pop().expect("the call is in the stream");
            assert_eq!(ok["ref"], reference);
            let as_text = reference.as_str().map_or_else(|| reference.to_string(), str::to_owned);
            assert_eq!((last["method"].as_str(), last["ref"].as_str()), ("价格", as_text.as_str()));
            assert_eq!(serde_json::from_str::<Value>(&last["data"]).unwrap(), data, "{encoding:?}");
        }
    }
    let mut hand = Login::sub(&shop, "hand").encoding(Encoding::MsgPack).on(&world.url(0)).await;
    let call = json!({"method": "scan", "data": bin(&[0, 255])});
    assert_eq!(hand.request(op("call", call)).await["op"], "ok");
    let last = stream.of_conn(&conn(&hand.welcome)).pop().unwrap();
    assert_eq!(last["data"], r#""AP8=""#, "bytes are base64 text in JSON");
}

#[tokio::test]
async fn without_a_stream_a_call_is_forbidden_and_nothing_is_written() {
    let world = World::start(1).await;
    let mut hand = Login::sub(&unique("shop"), "hand").on(&world.url(0)).await;
    let error = hand.refused("call", json!({"method": "price"}), "forbidden").await;
    assert!(error["message"].as_str().unwrap().contains("--events"), "{error}");
    assert!(!Stream::of(&world).exists());
}

#[tokio::test]
async fn the_stream_is_capped_and_keeps_the_newest() {
    let limit = 200;
    let settings = [("LIMITS_EVENTS", "200"), ("LIMITS_SESSION_OPS_PER_S", "100000")];
    let world = world_with_events(1, &settings).await;
    let stream = Stream::of(&world);
    let mut hand = Login::sub(&unique("shop"), "hand").on(&world.url(0)).await;
    for n in 0..1000 {
        hand.send(json!({"op": "call", "method": "count", "ref": n})).await;
    }
    for _ in 0..1000 {
        hand.expect("ok").await;
    }
    let entries = stream.entries();
    // Redis drops whole nodes of its tree, which hold 100 entries at most.
    assert!((limit..=limit + 100).contains(&entries.len()), "{} entries at a limit of {limit}", entries.len());
    let refs: Vec<usize> = entries.iter().map(|entry| entry["ref"].parse().unwrap()).collect();
    let newest: Vec<usize> = (1000 - entries.len()..1000).collect();
    assert_eq!(refs, newest);
    assert_eq!(world.metric("shoprelay_events_total").await, 1002.0, "with the connect and the login");
    assert_eq!(world.metric("shoprelay_events_dropped_total").await, 0.0);
}

#[tokio::test]
async fn the_workers_of_a_group_share_the_entries_and_every_group_gets_all_of_them() {
    let world = world_with_events(1, &[]).await;
    let stream = Stream::of(&world);
    for group in ["answers", "books"] {
        // Before there is a stream, as a worker that starts before the relay does.
        stream.redis.cli(&["XGROUP", "CREATE", &stream.key, group, "$", "MKSTREAM"]);
    }
    let mut hand = Login::sub(&unique("shop"), "hand").on(&world.url(0)).await;
    for n in 0..18 {
        assert_eq!(hand.request(json!({"op": "call", "method": format!("m{n}")})).await["op"], "ok");
    }
    let read = |group: &str, worker: &str, count: &str| -> Vec<Entry> {
        let command = ["XREADGROUP", "GROUP", group, worker, "COUNT", count, "STREAMS", &stream.key, ">"];
        let answer = stream.ask(&command);
        answer[&stream.key].as_array().map_or_else(Vec::new, |items| items.iter().map(entry).collect())
    };
    let mut shared: Vec<Vec<Entry>> = Vec::new();
    for worker in ["one", "two", "one", "two", "three"] {
        shared.push(read("answers", worker, "4"));
    }
    assert!(shared.iter().all(|part| part.len() == 4), "{shared:?}");
    let parts: BTreeSet<Entry> = shared.into_iter().flatten().collect();
    assert_eq!(parts.len(), 20, "none went to two workers");
    assert_eq!(read("books", "one", "100"), stream.entries(), "another group gets everything");
}

#[tokio::test]
async fn a_node_that_stops_writes_the_close_of_every_connection_before_it_leaves() {
    // Without `Events::finish` the node left while its writer still waited for an earlier answer.
    let world = world_with_events(1, &[]).await;
    let proxy = RedisProxy::before(world.redis().port()).await;
    let mut options = world.options.clone();
    options.store = proxy.url();
    let options = options.set("TIMEOUTS_STORE", "10s");
    let mut node = NodeProcess::start(&options).await;
    let stream = Stream::of(&world);
    let mut sockets = Vec::new();
    for _ in 0..20 {
        sockets.push(RawSocket::open(&node.ws_url()).await);
    }
    eventually(SOON, "their connects", async || stream.exists() && stream.entries().len() == 20).await;
    proxy.delay(Duration::from_secs(1));
    sockets.push(RawSocket::open(&node.ws_url()).await);
    eventually(SOON, "a connect whose answer is late", async || stream.entries().len() == 21).await;
    node.sigint();
    for mut socket in sockets {
        assert_eq!(socket.close_code().await.0, 1012);
    }
    assert!(node.wait_exit().await.success());
    let closes = stream.entries().split_off(21);
    assert_eq!(kinds(&closes), ["close"; 21]);
    assert!(closes.iter().all(|close| close["code"] == "1012"), "{closes:?}");
}

#[tokio::test]
async fn entries_name_the_node_that_wrote_them() {
    let world = world_with_events(2, &[]).await;
    let (stream, shop) = (Stream::of(&world), unique("shop"));
    let mut nodes = BTreeSet::new();
    for n in 0..2 {
        let hand = Login::sub(&shop, &format!("hand-{n}")).on(&world.url(n)).await;
        let node = hand.welcome["node"].as_str().unwrap().to_owned();
        let login = eventually_get(SOON, "its login", async || {
            stream.of_conn(&conn(&hand.welcome)).into_iter().find(|entry| entry["event"] == "login")
        });
        assert_eq!(login.await["node"], node);
        nodes.insert(node);
    }
    assert_eq!(nodes.len(), 2);
}
