//! The bytes that mutation starts from: mostly the examples of the documentation.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a seed that cannot be made is a mistake of ours")]

use serde_json::Value as Json;
use serde_json::value::RawValue;

use crate::auth;
use crate::message::{Audience, Broadcast, Content, MembershipChange, MembershipStep, Message, Origin, Role, Signal};
use crate::message::{StatusChange, Value};
use crate::store::{LegacyText, Receipt, record};

const PROTOCOL: &str = include_str!("../../docs/protocol.md");
const API: &str = include_str!("../../docs/api.md");
const LEGACY: &str = include_str!("../../docs/legacy.md");

/// Beside the examples: what is at some edge.
const FRAMES: &[&str] = &[
    r#"{"op":"notify","ref":-1,"type":"t","to":{"devices":["a","b"]},"except":["b"],"data":[1e2,-0,18446744073709551615,0.1,"\u00e9",null],"durable":true,"key":"k","receipt":true,"ttl_s":60.0}"#,
    r#"{"op":"notify","ref":"店","type":"t","to":{"conns":["n.1"]},"data":{"a":{"b":[[],{}]},"a":1},"user_info":"x","status":"new"}"#,
    r#"{"op":"login","shop":"s1","device":"d","role":"sub","ack":"pong","token":"a.b.c","meta":{"v":1}}"#,
    r#"{"op":"deal","id":"1-0","status":"done","expect":"open"}"#,
    r#"{"op":"list","status":"open","after":"1-1","limit":500,"ref":18446744073709551615}"#,
    r#"{"op":"attrs","patch":{"a":null,"b":{"c":1}}}"#,
    r#"{"op":"call","method":"m","data":[{}]}"#,
];
const LEGACY_FRAMES: &[&str] = &[
    r#"{"op":"login","shop_id":1,"client_id":"pad","type":"副","token":null}"#,
    r#"{"op":"notify","shop_id":"1","type":"add","table_id":12,"data":{"菜":[1]},"user_info":[1],"from_client_id":5,"x":1e9}"#,
    r#"{"op":"logout"}"#,
    "from_admin=1&key=k&op=send_messages&content=%E5%BA%97+1&to_fds=n.1,n.2",
    "from_admin=1&key=k&op=get_connections",
];

pub fn native_json() -> Vec<Vec<u8>> {
    texts(examples(PROTOCOL).iter().map(String::as_str).chain(FRAMES.iter().copied()))
}

pub fn native_msgpack() -> Vec<Vec<u8>> {
    let packed = |frame: &str| rmp_serde::to_vec(&serde_json::from_str::<Json>(frame).unwrap()).unwrap();
    let mut seeds: Vec<Vec<u8>> = examples(PROTOCOL).iter().map(|frame| packed(frame)).collect();
    seeds.extend(FRAMES.iter().map(|frame| packed(frame)));
    // What JSON has not: bin, a short float, ext.
    seeds.push(b"\x83\xa2op\xa6notify\xa4type\xa1t\xa4data\x93\xc4\x02\xff\x00\xca\x3d\xcc\xcc\xcd\xc0".to_vec());
    seeds.push(b"\x83\xa2op\xa6notify\xa4type\xa1t\xa4data\xd4\x01\x02".to_vec());
    seeds
}

pub fn legacy_frame() -> Vec<Vec<u8>> {
    texts(examples(LEGACY).iter().map(String::as_str).chain(LEGACY_FRAMES.iter().copied()))
}

pub fn api_body() -> Vec<Vec<u8>> {
    let own = [
        r#"{"type":"t","to":{"group":"g"},"ttl_s":60,"data":{"a":[1.5]}}"#,
        r#"{"status":"done","expect":"open"}"#,
        r#"{"attrs":{"a":null}}"#,
        r#"{"data":[1]}"#,
        r#"{"type":"t","role":"main","except":["n.1"]}"#,
    ];
    texts(examples(API).iter().map(String::as_str).chain(own))
}

pub fn attrs() -> Vec<Vec<u8>> {
    texts([
        "{\"a\":{\"b\":1,\"c\":[1,2]},\"d\":1e15}\n{\"a\":{\"b\":null,\"e\":{\"f\":null}},\"g\":\"\\u0001\"}",
        "{}\n{\"a\":{}}",
        "{\"a\":18446744073709551615}\n{\"a\":{\"b\":{\"c\":-0.0}}}",
    ])
}

pub fn http_target() -> Vec<Vec<u8>> {
    texts([
        "/v1/shops/s1/messages?status=open&after=1-1&limit=500",
        "/v1/shops/s1/groups/%E5%BA%97%20%2F/devices/till-1",
        "/v1/shops/s2/online?role=main&group=g&user=u&node=n&after=a&limit=1",
        "/v1/connections/n.1/close",
        "/v1/connections?role=sub&after=x",
        "/api.php/index/index/messageList/shop_id/1?key=k",
        "/api.php/index/index/notify_main/shop_id/1/type/add?data=%7B%22a%22%3A1%7D&user_info=[1]",
        "/api.php/index/index/deal/id/7/status/done",
        "/ws",
    ])
}

/// Streams of masked frames, each after a byte that says how it is cut.
pub fn websocket() -> Vec<Vec<u8>> {
    let (fin, text, binary, close, ping, pong) = (0x80, 1, 2, 8, 9, 10);
    let streams: [&[(u8, &[u8])]; 6] = [
        &[(fin | text, br#"{"op":"ping"}"#), (fin | close, b"\x03\xe8bye")],
        &[(binary, b"\x81"), (0, b"\xa2op"), (fin | ping, b"p"), (fin, b"\xa4ping"), (fin | pong, b"")],
        &[(fin | binary, &[7; 900]), (text, &[b'x'; 600]), (fin, &[b'y'; 400]), (fin | close, b"")],
        &[(text, b"\xe5\xba"), (fin, b"\x97"), (fin | text, b"\xff")],
        &[(fin | binary, &[7; 1000]), (fin | binary, &[7; 1001])],
        &[(0, b"a"), (fin | 0x40 | text, b"b")],
    ];
    let stream = |(cut, frames): (u8, &[(u8, &[u8])])| {
        let frames = frames.iter().flat_map(|(first, payload)| masked(*first, payload));
        [cut].into_iter().chain(frames).collect()
    };
    (0u8..).map(|number| number * 37).zip(streams).map(stream).collect()
}

fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [1, 2, 3, 0xfe];
    let size = match u8::try_from(payload.len()) {
        Ok(size) if size < 126 => vec![0x80 | size],
        _ => [&[0x80 | 126][..], &(payload.len() as u16).to_be_bytes()].concat(),
    };
    let bytes = payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask);
    [&[first][..], &size, &MASK].concat().into_iter().chain(bytes).collect()
}

pub fn token() -> Vec<Vec<u8>> {
    let good = auth::properties::signed(br#"{"shop":"s1","device":"till-1","role":"main","exp":1900000000}"#);
    let (signed, _) = good.rsplit_once('.').unwrap();
    let (_, claims) = signed.split_once('.').unwrap();
    // {"alg":"none"} and {"alg":"EdDSA","kid":"b"}
    let headers = ["eyJhbGciOiJub25lIn0", "eyJhbGciOiJFZERTQSIsImtpZCI6ImIifQ"];
    let of_header =
        headers.iter().flat_map(|header| [format!("{header}.{claims}."), format!("{header}.{claims}.AAAA")]);
    of_header
        .chain([format!("{signed}."), format!("{signed}.AAAA"), "a.b.c".to_owned()])
        .map(String::into_bytes)
        .collect()
}

pub fn claims() -> Vec<Vec<u8>> {
    texts([
        r#"{"shop":"s1","device":"till-1","role":"main","exp":1900000000}"#,
        r#"{"shop":"s1","device":"till-1","role":"main","exp":1800000000.5,"nbf":1799999999.5,"groups":["a","b"],"user":"li","ops":["notify"]}"#,
        r#"{"shop":"s2","device":"till-1","role":"sub","exp":1e300,"nbf":null,"iat":0}"#,
    ])
}

pub fn api_keys() -> Vec<Vec<u8>> {
    texts([
        "[[keys]]\nname = \"back\"\nkey = \"0123456789abcdef\"\nshops = [\"*\"]\nscopes = [\"read\", \"write\"]\n\
         [[keys]]\nname = \"店\"\nkey = \"fedcba9876543210\"\nshops = [\"s1\", \"s2\"]\nscopes = [\"operate\"]\n",
        "[[keys]]\nname = \"digest\"\nsha256 = \"5755ebe16061aec645992d9f57844449e3577007da9b1eb6e82526714e34870c\"\n\
         shops = [\"s1\"]\nscopes = [\"read\"]\n",
        "keys = [{name = 1, key = 'unquoted-0123456789', shops = [], scopes = [\"admin\"]}]",
    ])
}

pub fn settings() -> Vec<Vec<u8>> {
    texts([
        "listen = \"127.0.0.1:8080\"\nstore = \"redis://:hunter3@redis:6379/1?a=b\"\nlog = \"info\"\n[limits]\nframe_bytes = 65536\n",
        "auth = \"jwt\"\njwt_secret_file = [\"a=/etc/a\", \"b=/etc/b\"]\ncors_origins = [\"https://a.example\"]\n[timeouts]\nlogin = \"10s\"\n",
        "legacy = true\nmetrics_listen = \"none\"\nheartbeat = 25\nunknown = []\n",
    ])
}

pub fn record() -> Vec<Vec<u8>> {
    let change = MembershipChange { device: Some("d".parse().unwrap()), step: MembershipStep::Unbind(None) };
    let json = content(Value::Json(RawValue::from_string(r#"{"a":[1]}"#.to_owned()).unwrap()));
    let message = Message { content: json, status: "open".parse().unwrap(), ttl: None, receipt: true };
    vec![
        record::encode_message(&message).unwrap(),
        record::encode_status(&status_change()).unwrap(),
        record::encode_membership(&change).unwrap(),
        record::encode_signal(&signal()).unwrap(),
        record::encode_broadcast(&broadcast()).unwrap(),
        record::encode_receipt(&receipt()).unwrap(),
    ]
}

pub fn redis_event() -> Vec<Vec<u8>> {
    let of = |head: &[u8], record: Vec<u8>| [head, &record].concat();
    let status = record::encode_status(&status_change()).unwrap();
    let signal = record::encode_signal(&signal()).unwrap();
    let text = LegacyText { conns: vec!["n.1".parse().unwrap(), "n.2".parse().unwrap()], text: "a\nb".into() };
    vec![
        of(b"E0-0 5-1 node-1\n", status),
        of(b"Snode-1\n", signal.clone()),
        of(b"R", record::encode_receipt(&receipt()).unwrap()),
        of(b"B", record::encode_broadcast(&broadcast()).unwrap()),
        of(b"Knode.1\n", signal.clone()),
        of(b"Xnode.1\ntill-1\n", signal),
        "Cnode.1\n店 1".into(),
        [b"T", "n.1 n.2\n".as_bytes(), text.text.as_bytes()].concat(),
    ]
}

pub fn redis_field() -> Vec<Vec<u8>> {
    let record = serde_json::json!({
        "role": "main", "groups": ["a"], "user": "u", "meta": "{}", "first_seen": 1, "last_seen": 2, "registered_at": "1-1",
    });
    let mut seeds = texts([
        "n.1\nn\n17\nsub",
        "17\nback",
        "done\n5-0\nd\ntill-1\nmain",
        "d\n店 1\nsub",
        "a\npos",
        "a\nb\nc",
        "s1\n5-1",
        "17 9 2 5 3 0.2.0",
        "17 9 3 0.1.0",
    ]);
    seeds.push(rmp_serde::to_vec(&record).unwrap());
    seeds
}

pub fn embedded_row() -> Vec<Vec<u8>> {
    let device = serde_json::json!({
        "role": "sub", "groups": ["a"], "user": "u", "meta": "{}", "first_seen": 1, "last_seen": 2, "registered_at": "1-1",
        "presence": {"conn": "n.1", "node": "n", "since": 3, "holder": "n"},
    });
    let fate = serde_json::json!({"dealt": ["done", {"Device": ["d", "main"]}], "unseen_by": ["a"]});
    vec![rmp_serde::to_vec(&device).unwrap(), rmp_serde::to_vec(&fate).unwrap()]
}

pub fn embedded_journal() -> Vec<Vec<u8>> {
    // A row of two bytes put into table 2, and one removed from table 5.
    let changes = [&[5, 2, 0, 0, 0][..], b"ab", &[2, 0, 0, 0], b"cd", &[10, 1, 0, 0, 0], b"e"].concat();
    vec![crate::store::embedded::properties::a_journal(&changes), changes]
}

fn content(data: Value) -> Content {
    Content {
        from: Origin::Device { device: "d".parse().unwrap(), role: Role::Main },
        to: Audience::Devices(vec!["a".parse().unwrap()].into()),
        except: vec!["b".parse().unwrap()].into(),
        kind: "t".parse().unwrap(),
        table: Some("12".parse().unwrap()),
        data: Some(data),
        user_info: None,
        legacy: Some(RawValue::from_string(r#"{"table_id":12}"#.to_owned()).unwrap()),
    }
}

fn signal() -> Signal {
    Signal { at_ms: 7, content: content(Value::MsgPack(b"\x91\xc4\x01\n".as_slice().into())) }
}

fn broadcast() -> Broadcast {
    Broadcast { signal: signal(), except: vec!["n.1".parse().unwrap()].into() }
}

fn receipt() -> Receipt {
    let (sender, device) = ("a".parse().unwrap(), "b".parse().unwrap());
    Receipt { sender, message: "1-0".parse().unwrap(), device, at_ms: 2 }
}

fn status_change() -> StatusChange {
    let by = Origin::Api { name: "x".parse().unwrap() };
    StatusChange { message: "10-10".parse().unwrap(), status: "done".parse().unwrap(), by, sender: None }
}

/// The JSON objects that stand in a page of the documentation at the beginning of a line.
fn examples(page: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = page;
    while let Some(at) = rest.find("\n{") {
        rest = rest.get(at + 1..).expect("what was found");
        let mut objects = serde_json::Deserializer::from_str(rest).into_iter::<Box<RawValue>>();
        let object = objects.next().and_then(Result::ok);
        found.extend(object.map(|object| object.get().to_owned()));
    }
    found
}

fn texts<'a>(texts: impl IntoIterator<Item = &'a str>) -> Vec<Vec<u8>> {
    texts.into_iter().map(|text| text.as_bytes().to_vec()).collect()
}
