//! The old server's four routes.

use hyper::Method;
use serde_json::{Value, json};

use super::{address, number_of, on_every_legacy_world, world};
use crate::harness::legacy::assert_answer;
use crate::harness::{Api, LegacyDevice, Login, NodeProcess, SOON, World, embedded_options, eventually, unique};

const STEM: &str = "/api.php/index/index";
const FORM: &str = "application/x-www-form-urlencoded";
const NO_MAIN: &str = "店铺主设备未记录,请先联系商家完成主设备初始化";

on_every_legacy_world!(
    a_list_has_the_old_members_in_the_old_order,
    a_message_has_one_number_on_every_node_and_in_every_place,
    parameters_stand_in_the_path_the_query_a_form_or_all_of_them,
    a_message_is_dealt_with_by_its_number,
    what_cannot_be_dealt_with_is_answered_code_1,
    the_mains_that_are_online_are_told,
    a_notify_over_http_reaches_the_mains,
    a_list_says_whether_each_main_has_it,
    the_oldest_five_hundred_are_listed,
);

/// The answer of an old route, whose status is 200 whatever it says.
async fn answer_of(api: &Api, method: Method, path: &str, form: Option<&str>) -> Value {
    let api = if form.is_some() { api.clone().header("Content-Type", FORM) } else { api.clone() };
    let reply = api.send(method, path, form.map(str::to_owned)).await;
    assert_eq!(reply.status, 200, "{path}: {}", reply.text);
    assert!(reply.header("content-type").starts_with("application/json"), "{:?}", reply.headers);
    assert_answer(&reply.json);
    reply.json
}

/// The same of the `n`th node, with what follows the stem.
async fn get(world: &World, n: usize, rest: &str) -> Value {
    answer_of(&Api::at(address(world, n)), Method::GET, &format!("{STEM}/{rest}"), None).await
}

async fn post(world: &World, n: usize, rest: &str, form: &str) -> Value {
    answer_of(&Api::at(address(world, n)), Method::POST, &format!("{STEM}/{rest}"), Some(form)).await
}

/// What the old list shows of a shop.
pub(super) async fn message_list(world: &World, n: usize, shop: &str) -> Vec<Value> {
    let answer = get(world, n, &format!("messageList/shop_id/{shop}")).await;
    assert_eq!(answer["code"], 0, "{answer}");
    answer["data"].as_array().expect("a list").clone()
}

/// Deals with a message over the old route.
pub(super) async fn deal(world: &World, n: usize, number: u64, status: &str) -> Result<(), String> {
    let answer = post(world, n, "deal", &format!("id={number}&status={status}")).await;
    match answer["code"].as_u64() {
        Some(0) => Ok(()),
        _ => Err(answer["msg"].as_str().expect("a msg").to_owned()),
    }
}

/// A shop with a legacy main, which is online, and a legacy sub.
async fn shop(world: &World) -> (String, LegacyDevice, LegacyDevice) {
    let shop = unique("shop");
    let mut till = LegacyDevice::log_in(address(world, 0), json!(shop), json!("till"), "主").await;
    till.expect_nothing().await;
    let hand = LegacyDevice::log_in(address(world, 1), json!(shop), json!("hand"), "副").await;
    (shop, till, hand)
}

async fn a_list_has_the_old_members_in_the_old_order(world: &mut World) {
    let (shop, mut till, mut hand) = shop(world).await;
    assert!(message_list(world, 0, &shop).await.is_empty());
    hand.say(
        r#"{"op":"notify","table_id":12,"type":"加菜","data":{"z":1,"a":[2.50]},"user_info":"李","status":"new"}"#,
    )
    .await;
    let number = number_of(&till.json().await);
    hand.say(r#"{"op":"notify","type":"结账"}"#).await;
    let other = number_of(&till.json().await);
    // Reading on lets the library answer the Ping.
    till.expect_nothing().await;
    eventually(SOON, "the main has both", async || {
        message_list(world, 1, &shop).await.iter().all(|item| item["is_delivered"] == 1)
    })
    .await;
    let reply = Api::at(address(world, 1)).get(&format!("{STEM}/messageList/shop_id/{shop}")).await;
    assert_answer(&reply.json);
    let time = |n: usize| reply.json["data"][n]["time"].as_str().expect("a time").to_owned();
    let (first, second) = (time(0), time(1));
    let expected = format!(
        r#""data":[{{"id":{number},"status":"new","table_id":12,"type":"加菜","title":"桌id:12 加菜","data":{{"z":1,"a":[2.50]}},"user_info":"李","from_client_id":"hand","is_delivered":1,"time":"{first}"}},{{"id":{other},"status":"open","table_id":"","type":"结账","title":"桌id: 结账","data":null,"user_info":null,"from_client_id":"hand","is_delivered":1,"time":"{second}"}}],"#
    );
    assert!(reply.text.contains(&expected), "{}\nis not\n{expected}", reply.text);
    let text = &reply.text;
    assert!(text.starts_with(r#"{"code":0,"msg":"#) && text.contains(r#","ttfb_time":"0."#), "{text}");
    let shape: String = first.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    assert_eq!(shape, "0000-00-00 00:00:00");
    // UTC: within a minute of now, by the clock that the answer itself tells.
    assert_eq!(first[..10], reply.json["time"].as_str().unwrap()[..10]);
}

async fn a_message_has_one_number_on_every_node_and_in_every_place(world: &mut World) {
    let (shop, mut till, mut hand) = shop(world).await;
    let (other_shop, mut other_till, mut other_hand) = self::shop(world).await;
    let mut pushed = Vec::new();
    for _ in 0..5 {
        hand.say(r#"{"op":"notify","type":"加菜"}"#).await;
        other_hand.say(r#"{"op":"notify","type":"加菜"}"#).await;
        pushed.push(number_of(&till.json().await));
        pushed.push(number_of(&other_till.json().await));
    }
    for n in 0..2 {
        let mut listed: Vec<u64> = message_list(world, n, &shop).await.iter().map(number_of).collect();
        let others: Vec<u64> = message_list(world, n, &other_shop).await.iter().map(number_of).collect();
        assert!(listed.is_sorted() && others.is_sorted());
        listed.extend(others);
        let (mut listed_all, mut pushed_all) = (listed.clone(), pushed.clone());
        listed_all.sort_unstable();
        pushed_all.sort_unstable();
        assert_eq!(listed_all, pushed_all);
        pushed_all.dedup();
        assert_eq!(pushed_all.len(), 10, "no number is taken twice");
    }
}

async fn parameters_stand_in_the_path_the_query_a_form_or_all_of_them(world: &mut World) {
    let shop = format!("店 /&{}", unique("s"));
    let encoded: String = shop.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let mut till = LegacyDevice::log_in(address(world, 0), json!(shop), json!("收银 1"), "主").await;
    till.expect_nothing().await;
    let online = json!(["收银 1"]);
    for rest in [
        format!("check_online_main/shop_id/{encoded}"),
        format!("check_online_main/shop_id/{encoded}/"),
        format!("check_online_main/other/1/shop_id/{encoded}"),
        format!("check_online_main?shop_id={encoded}"),
        format!("check_online_main/?x=1&shop_id={encoded}"),
        // The path counts before the query.
        format!("check_online_main/shop_id/{encoded}?shop_id=other"),
    ] {
        assert_eq!(get(world, 1, &rest).await["data"], online, "{rest}");
    }
    let form = format!("shop_id={encoded}");
    assert_eq!(post(world, 1, "check_online_main", &form).await["data"], online);
    assert_eq!(post(world, 1, "check_online_main/a/b?c=d", &form).await["data"], online);
    let mixed = format!("notify_main/shop_id/{encoded}/type/%E5%8A%A0%E8%8F%9C?table_id=5");
    assert_eq!(post(world, 1, &mixed, "status=new&data=a+b%26").await["code"], 0);
    let pushed = till.json().await;
    assert_eq!((&pushed["title"], &pushed["status"]), (&json!("桌id:5 加菜"), &json!("new")));
    let listed = get(world, 0, &format!("messageList?shop_id={encoded}")).await;
    assert_eq!(listed["data"][0]["data"], "a b&");
    for rest in ["messageList", "messageList/shop_id", "messageList/shop_id/%FF", "nothing", "", "deal/id/x/status/y"] {
        let refused = get(world, 0, rest).await;
        assert_eq!((&refused["code"], &refused["data"]), (&json!(1), &Value::Null), "{rest}: {refused}");
    }
    // A JSON body is a form too; numbers are as good as texts.
    let numbered = rand::random::<u32>();
    let _main = Login::main(&numbered.to_string(), "till").on(&world.url(0)).await;
    let api = Api::at(address(world, 0));
    let body = json!({"shop_id": numbered, "type": 7, "table_id": 3, "data": "[1]"});
    assert_eq!(api.post(&format!("{STEM}/notify_main"), body).await.json["code"], 0);
    let listed = message_list(world, 1, &numbered.to_string()).await;
    assert_eq!((&listed[0]["table_id"], &listed[0]["type"]), (&json!(3), &json!("7")));
    assert_eq!(listed[0]["data"], "[1]", "a text in JSON stays one");
}

async fn a_message_is_dealt_with_by_its_number(world: &mut World) {
    let (shop, mut till, mut hand) = shop(world).await;
    let mut numbers = Vec::new();
    for _ in 0..4 {
        hand.say(r#"{"op":"notify","type":"加菜"}"#).await;
        numbers.push(number_of(&till.json().await));
    }
    let [a, b, c, d] = numbers[..] else { panic!("four") };
    assert_eq!(get(world, 1, &format!("deal/id/{a}/status/done")).await["code"], 0);
    assert_eq!(get(world, 0, &format!("deal?id={b}&status=%E5%B7%B2%E5%A4%84%E7%90%86")).await["code"], 0);
    assert_eq!(post(world, 1, "deal", &format!("id={c}&status=1")).await["code"], 0);
    assert_eq!(message_list(world, 0, &shop).await.iter().map(number_of).collect::<Vec<_>>(), [d]);
    let path = format!("/v1/shops/{shop}/messages");
    let listed = world.api(0).get(&path).await;
    let statuses: Vec<&Value> = listed.items().iter().map(|item| &item["status"]).collect();
    assert_eq!(statuses, [&json!("done"), &json!("已处理"), &json!("1"), &json!("open")]);
    assert_eq!(listed.items()[0]["dealt_by"], json!({"api": "legacy"}));
    till.expect_nothing().await;
    hand.expect_nothing().await;
}

async fn what_cannot_be_dealt_with_is_answered_code_1(world: &mut World) {
    let (_, mut till, mut hand) = shop(world).await;
    hand.say(r#"{"op":"notify","type":"加菜"}"#).await;
    let number = number_of(&till.json().await);
    for form in [
        format!("id={number}"),
        format!("id={number}&status="),
        format!("id={number}&status=all"),
        format!("id={number}&status=a%00b"),
        format!("id={number}&status={}", "x".repeat(65)),
        "status=done".to_owned(),
        "id=-1&status=done".to_owned(),
        "id=1.5&status=done".to_owned(),
        "id=0&status=done".to_owned(),
        "id=999999999&status=done".to_owned(),
        "id=99999999999999999999999&status=done".to_owned(),
    ] {
        let refused = post(world, 1, "deal", &form).await;
        assert_eq!((&refused["code"], &refused["data"]), (&json!(1), &Value::Null), "{form}: {refused}");
    }
    assert_eq!(deal(world, 0, number, "done").await, Ok(()), "none of these did anything");
    assert!(deal(world, 1, number, "again").await.is_err());
}

async fn the_mains_that_are_online_are_told(world: &mut World) {
    let shop = unique("shop");
    let check = format!("check_online_main/shop_id/{shop}");
    assert_eq!(get(world, 0, &check).await["data"], json!([]));
    let mut till = LegacyDevice::log_in(address(world, 0), json!(shop), json!(5), "主").await;
    till.expect_nothing().await;
    let _native = Login::main(&shop, "native").on(&world.url(1)).await;
    let mut hand = LegacyDevice::log_in(address(world, 1), json!(shop), json!(6), "副").await;
    hand.expect_nothing().await;
    for n in 0..2 {
        let answer = get(world, n, &check).await;
        assert_eq!((&answer["code"], &answer["data"]), (&json!(0), &json!(["5", "native"])));
    }
    till.say(r#"{"op":"logout"}"#).await;
    assert_eq!(till.close_code().await.0, 1000);
    eventually(SOON, "it has gone", async || get(world, 1, &check).await["data"] == json!(["native"])).await;
}

async fn a_notify_over_http_reaches_the_mains(world: &mut World) {
    let unknown = unique("shop");
    let refused = post(world, 0, "notify_main", &format!("shop_id={unknown}&type=x")).await;
    assert_eq!((&refused["code"], &refused["msg"]), (&json!(1), &json!(NO_MAIN)));
    let (shop, mut till, mut hand) = shop(world).await;
    let mut native = Login::main(&shop, "native").on(&world.url(0)).await;
    let form = format!(
        "shop_id={shop}&type=%E5%8A%A0%E8%8F%9C&table_id=12&from_client_id=web&from_client_type=x&user_info=li\
         &data=%7B%22n%22%3A%5B1%5D%7D"
    );
    assert_eq!(post(world, 1, "notify_main", &form).await["code"], 0);
    let text = till.text().await;
    let number = number_of(&serde_json::from_str(&text).unwrap());
    assert_eq!(
        text,
        format!(r#"{{"id":{number},"status":"open","table_id":"12","type":"加菜","title":"桌id:12 加菜"}}"#)
    );
    let message = native.expect("message").await;
    assert_eq!((&message["from"], &message["to"]), (&json!({"api": "legacy"}), &json!("mains")));
    assert_eq!((&message["table"], &message["user_info"]), (&json!("12"), &json!("li")));
    assert_eq!(message["data"], json!({"n": [1]}), "JSON in a form is JSON");
    let listed = message_list(world, 0, &shop).await;
    assert_eq!((&listed[0]["id"], &listed[0]["from_client_id"]), (&json!(number), &json!("web")));
    for form in [
        format!("shop_id={shop}"),
        format!("shop_id={shop}&type="),
        "type=x".to_owned(),
        "type=x&shop_id=%7B".to_owned(),
    ] {
        assert_eq!(post(world, 0, "notify_main", &form).await["code"], 1, "{form}");
    }
    till.expect_nothing().await;
    hand.expect_nothing().await;
}

async fn a_list_says_whether_each_main_has_it(world: &mut World) {
    let (shop, mut till, mut hand) = shop(world).await;
    let mut native = Login::main(&shop, "native").on(&world.url(0)).await;
    hand.say(r#"{"op":"notify","type":"加菜"}"#).await;
    till.json().await;
    till.expect_nothing().await;
    let id = native.expect("message").await["id"].as_str().unwrap().to_owned();
    // The legacy main has it, by its Pong; the native one has not said so.
    eventually(SOON, "the legacy main has it", async || {
        let listed = native.request(json!({"op": "list"})).await;
        listed["items"][0]["delivered"] == json!({"till": true, "native": false})
    })
    .await;
    assert_eq!(message_list(world, 1, &shop).await[0]["is_delivered"], 0);
    native.ack(&id).await;
    eventually(SOON, "both have it", async || message_list(world, 1, &shop).await[0]["is_delivered"] == 1).await;
}

async fn the_oldest_five_hundred_are_listed(world: &mut World) {
    let (shop, till, mut hand) = shop(world).await;
    drop(till);
    for n in 0..505 {
        hand.say(format!(r#"{{"op":"notify","type":"加菜","table_id":{n},"data":"{}"}}"#, "x".repeat(3_000))).await;
    }
    hand.expect_nothing().await;
    let listed = message_list(world, 0, &shop).await;
    let tables: Vec<u64> = listed.iter().map(|item| item["table_id"].as_u64().unwrap()).collect();
    assert_eq!(tables, (0..500).collect::<Vec<u64>>());
    for item in listed.iter().take(3) {
        assert_eq!(deal(world, 1, number_of(item), "done").await, Ok(()));
    }
    let listed = message_list(world, 1, &shop).await;
    let tables: Vec<u64> = listed.iter().map(|item| item["table_id"].as_u64().unwrap()).collect();
    assert_eq!(tables, (3..503).collect::<Vec<u64>>());
}

const KEYS: &str = r#"
[[keys]]
name = "reader"
key = "reader-reader-reader"
shops = ["*"]
scopes = ["read"]

[[keys]]
name = "writer"
key = "writer-writer-writer"
shops = ["*"]
scopes = ["write"]

[[keys]]
name = "one"
key = "one-one-one-one-one"
shops = ["one"]
scopes = ["read", "write"]
"#;

#[tokio::test]
async fn with_a_keys_file_each_route_wants_a_key_of_its_scope_and_shop() {
    let dir = tempfile::TempDir::new().unwrap();
    let keys = dir.path().join("keys.toml");
    std::fs::write(&keys, KEYS).unwrap();
    let world = World::with(1, &[("LEGACY", "true"), ("API_KEYS_FILE", keys.to_str().unwrap())]).await;
    let mut till = LegacyDevice::log_in(address(&world, 0), json!("two"), json!("till"), "主").await;
    till.expect_nothing().await;
    let mut one = LegacyDevice::log_in(address(&world, 0), json!("one"), json!("till"), "主").await;
    one.expect_nothing().await;
    let mut hand = LegacyDevice::log_in(address(&world, 0), json!("two"), json!("hand"), "副").await;
    hand.say(r#"{"op":"notify","type":"加菜"}"#).await;
    let number = number_of(&till.json().await);
    let (reader, writer, own) = ("reader-reader-reader", "writer-writer-writer", "one-one-one-one-one");
    let deal_two = format!("deal?id={number}&status=done");
    let routes = [
        ("messageList/shop_id/two", [true, false, false]),
        ("check_online_main/shop_id/two", [true, false, false]),
        ("messageList/shop_id/one", [true, false, true]),
        ("notify_main/shop_id/two/type/x", [false, true, false]),
        ("notify_main/shop_id/one/type/x", [false, true, true]),
        (&deal_two, [false, true, false]),
    ];
    for (rest, allowed) in routes {
        for (key, is_allowed) in [reader, writer, own].into_iter().zip(allowed) {
            let joint = if rest.contains('?') { '&' } else { '?' };
            let by_query = get(&world, 0, &format!("{rest}{joint}key={key}")).await;
            let bearer = Api::at(address(&world, 0)).key(key);
            let by_header = answer_of(&bearer, Method::GET, &format!("{STEM}/{rest}"), None).await;
            let by_form = post(&world, 0, rest, &format!("key={key}")).await;
            for answer in [by_query, by_header, by_form] {
                let msg = answer["msg"].as_str().unwrap();
                assert_eq!(answer["code"] == 0, is_allowed, "{rest} with {key}: {answer}");
                assert_eq!(msg == "unauthorized", !is_allowed, "{rest} with {key}: {answer}");
            }
        }
        for wrong in ["", "?key=", "?key=wrong-wrong-wrong-wrong"] {
            let wrong = if rest.contains('?') { wrong.replace('?', "&") } else { wrong.to_owned() };
            let refused = get(&world, 0, &format!("{rest}{wrong}")).await;
            assert_eq!((&refused["code"], &refused["msg"]), (&json!(1), &json!("unauthorized")), "{rest}{wrong}");
        }
    }
    // A key for one shop does not learn which numbers there are.
    for number in [number, 999_999] {
        let refused = get(&world, 0, &format!("deal?id={number}&status=x&key={own}")).await;
        assert_eq!(refused["msg"], "unauthorized");
    }
    let unknown = get(&world, 0, &format!("deal?id=999999&status=x&key={writer}")).await;
    assert!(unknown["code"] == 1 && unknown["msg"] != "unauthorized", "{unknown}");
}

/// An address of this machine that is no loopback address.
fn own_address() -> String {
    let output = std::process::Command::new("hostname").arg("-I").output().expect("hostname runs");
    let text = String::from_utf8(output.stdout).expect("addresses");
    let address = text.split_whitespace().find(|address| address.contains('.') && !address.starts_with("127."));
    address.expect("this machine has an IPv4 address beside the loopback; give it one to run this test").to_owned()
}

#[tokio::test]
async fn without_a_keys_file_they_answer_on_a_loopback_address_only() {
    let (mut options, _dir) = embedded_options();
    options.listen = "0.0.0.0:0".into();
    let node = NodeProcess::start(&options.set("LEGACY", "true").set("INSECURE", "true")).await;
    let port = node.listen().rsplit(':').next().unwrap();
    for rest in
        ["messageList/shop_id/1", "check_online_main/shop_id/1", "notify_main/shop_id/1/type/x", "deal?id=1&status=x"]
    {
        let path = format!("{STEM}/{rest}");
        let local = answer_of(&Api::at(&format!("127.0.0.1:{port}")), Method::GET, &path, None).await;
        assert_ne!(local["msg"], "unauthorized", "{rest}");
        let far = answer_of(&Api::at(&format!("{}:{port}", own_address())), Method::GET, &path, None).await;
        assert_eq!((&far["code"], &far["msg"]), (&json!(1), &json!("unauthorized")), "{rest}");
    }
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused() {
    let world = world(1).await;
    let refused = post(&world, 0, "notify_main", &format!("shop_id=1&type=x&data={}", "x".repeat(70_000))).await;
    assert_eq!(refused["code"], 1);
    world.assert_serves().await;
}
