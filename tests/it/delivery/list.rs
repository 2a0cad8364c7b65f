//! Lists: what a device sees of its shop's messages, page by page.

use serde_json::{Value, json};

use super::on_one_and_two_nodes;
use crate::harness::{Device, Id, Login, SOON, World, eventually, id_of, unique};

on_one_and_two_nodes!(
    a_main_sees_all_messages_and_a_sub_its_own,
    a_list_is_read_page_by_page,
    a_list_shows_the_open_ones_and_those_of_a_status,
    delivered_names_the_audience_and_who_is_past_it,
);

async fn ids(device: &mut Device, fields: Value) -> Vec<Id> {
    let list = device.request(crate::harness::device::op("list", fields)).await;
    assert_eq!(list["op"], "messages", "{list}");
    items(&list).iter().map(|item| id_of(item, "id")).collect()
}

fn items(list: &Value) -> &[Value] {
    list["items"].as_array().unwrap_or_else(|| panic!("no items in {list}"))
}

async fn a_main_sees_all_messages_and_a_sub_its_own(world: &mut World) {
    let shop = unique("shop");
    let mut main = Login::main(&shop, "till").on(&world.url(0)).await;
    let mut first = Login::sub(&shop, "hand-0").on(&world.url(0)).await;
    let mut second = Login::sub(&shop, "hand-1").on(&world.url(1)).await;
    let from_first =
        Id::of(&first.notify(json!({"type": "a", "table": "12", "data": {"n": 1}, "user_info": "u"})).await);
    let from_second = Id::of(&second.notify(json!({"type": "b"})).await);
    let to_first = Id::of(&main.notify(json!({"type": "c", "to": {"devices": ["hand-0"]}})).await);
    let to_subs = Id::of(&main.notify(json!({"type": "d", "durable": true})).await);
    main.notify(json!({"type": "signal"})).await;
    assert_eq!(ids(&mut main, json!({})).await, [from_first, from_second, to_first, to_subs], "signals are not listed");
    assert_eq!(ids(&mut first, json!({})).await, [from_first, to_first, to_subs]);
    assert_eq!(ids(&mut second, json!({})).await, [from_second, to_subs]);
    let list = main.request(json!({"op": "list", "limit": 1})).await;
    let item = &items(&list)[0];
    assert_eq!(item["from"], json!({"device": "hand-0", "role": "sub"}));
    assert_eq!((&item["type"], &item["table"], &item["data"]), (&json!("a"), &json!("12"), &json!({"n": 1})));
    assert_eq!((&item["to"], &item["user_info"], &item["status"]), (&json!("mains"), &json!("u"), &json!("open")));
    assert_eq!(item["at"].as_u64(), Some(from_first.0));
}

async fn a_list_is_read_page_by_page(world: &mut World) {
    let shop = unique("shop");
    let mut main = Login::main(&shop, "till").on(&world.url(0)).await;
    let mut sub = Login::sub(&shop, "hand").on(&world.url(1)).await;
    let mut sent = Vec::new();
    for n in 0..120 {
        sent.push(Id::of(&sub.notify(json!({"type": "a", "data": n})).await));
    }
    main.take(120).await;
    assert_eq!(ids(&mut main, json!({})).await, sent[..100], "100 unless told");
    let mut after = Value::Null;
    let mut read = Vec::new();
    loop {
        let list = main.request(json!({"op": "list", "limit": 50, "after": after})).await;
        let page: Vec<Id> = items(&list).iter().map(|item| id_of(item, "id")).collect();
        assert!(page.len() <= 50);
        read.extend(page);
        after = list["next"].clone();
        if after.is_null() {
            break;
        }
        assert_eq!(id_of(&list, "next"), *read.last().expect("a page before a next one"));
    }
    assert_eq!(read, sent);
    assert_eq!(ids(&mut main, json!({"after": sent[99].to_string()})).await, sent[100..], "after is exclusive");
    assert_eq!(ids(&mut main, json!({"limit": 500})).await, sent);
    for limit in [json!(0), json!(501), json!(-1), json!("10")] {
        main.refused("list", json!({"limit": limit}), "bad_request").await;
    }
    main.refused("list", json!({"after": "x"}), "bad_request").await;
    let last = format!("{0}-{0}", u64::MAX);
    assert!(ids(&mut main, json!({"after": last})).await.is_empty(), "nothing comes after the last id there is");
}

async fn a_list_shows_the_open_ones_and_those_of_a_status(world: &mut World) {
    let shop = unique("shop");
    let mut main = Login::main(&shop, "till").on(&world.url(0)).await;
    let mut sub = Login::sub(&shop, "hand").on(&world.url(1)).await;
    let plain = sub.notify(json!({"type": "a"})).await;
    let named = sub.notify(json!({"type": "a", "status": "new"})).await;
    let dealt = sub.notify(json!({"type": "a"})).await;
    main.take(3).await;
    main.request(json!({"op": "deal", "id": dealt, "status": "done"})).await;
    let [plain, named, dealt] = [plain, named, dealt].map(|id| Id::of(&id));
    assert_eq!(ids(&mut main, json!({"status": "open"})).await, [plain, named], "whatever its first status");
    assert_eq!(ids(&mut main, json!({"status": "all"})).await, [plain, named, dealt]);
    assert_eq!(ids(&mut main, json!({"status": "new"})).await, [named]);
    assert_eq!(ids(&mut main, json!({"status": "done"})).await, [dealt]);
    assert_eq!(ids(&mut main, json!({"status": "never"})).await, []);
    let list = sub.request(json!({"op": "list", "status": "done"})).await;
    assert_eq!(items(&list)[0]["status"], "done");
    assert_eq!(items(&list)[0]["dealt_by"], json!({"device": "till", "role": "main"}));
}

async fn delivered_names_the_audience_and_who_is_past_it(world: &mut World) {
    let shop = unique("shop");
    let mut has_it = Login::main(&shop, "has-it").on(&world.url(0)).await;
    Login::main(&shop, "away").on(&world.url(1)).await.close().await;
    let mut sub = Login::sub(&shop, "hand").on(&world.url(1)).await;
    let id = sub.notify(json!({"type": "a"})).await;
    has_it.take(1).await;
    // Registered after it was stored, so it is not among those who were to get it.
    let _late = Login::main(&shop, "late").on(&world.url(0)).await;
    eventually(SOON, "the receipt to be in the list", async || {
        let list = sub.request(json!({"op": "list"})).await;
        let item = &items(&list)[0];
        assert_eq!(item["id"], id.as_str());
        let delivered = item["delivered"].as_object().expect("delivered is an object");
        assert_eq!(delivered.keys().collect::<Vec<_>>(), ["away", "has-it"], "{item}");
        assert_eq!(delivered["away"], false);
        delivered["has-it"] == true
    })
    .await;
}

#[tokio::test]
async fn a_page_ends_before_a_mebibyte() {
    let world = World::start(1).await;
    let shop = unique("shop");
    let mut main = Login::main(&shop, "till").on(&world.url(0)).await;
    let mut sub = Login::sub(&shop, "hand").on(&world.url(0)).await;
    let data = "x".repeat(60_000);
    let mut sent = Vec::new();
    for _ in 0..40 {
        sent.push(Id::of(&sub.notify(json!({"type": "a", "data": data})).await));
        main.take(1).await;
    }
    let mut read = Vec::new();
    let mut after = Value::Null;
    loop {
        let list = main.request(json!({"op": "list", "limit": 500, "after": after})).await;
        assert!(list.to_string().len() <= 1024 * 1024, "a page of {} bytes", list.to_string().len());
        read.extend(items(&list).iter().map(|item| id_of(item, "id")));
        after = list["next"].clone();
        if after.is_null() {
            break;
        }
    }
    assert_eq!(read, sent);
}
