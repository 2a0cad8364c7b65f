//! Messages and signals from the back end, and dealing with them.

use serde_json::{Value, json};

use super::{listed, of_shop};
use crate::delivery::on_one_and_two_nodes;
use crate::harness::{Device, Id, Login, SOON, World, eventually, id_of, unique, unix_ms};

on_one_and_two_nodes!(
    a_back_end_reaches_devices_on_every_node,
    every_field_of_a_notify_is_taken_from_a_back_end,
    what_a_back_end_leaves_out_has_its_default,
    every_audience_is_reached,
    connections_are_reached_by_signals_only,
    what_has_expired_is_not_sent_and_counts_as_not_delivered,
    messages_are_listed_page_by_page,
    messages_are_listed_by_status,
    one_message_is_shown_with_who_has_it,
    only_messages_are_shown_and_dealt_with,
    a_status_is_set_over_the_expected_one_only,
    a_key_counts_on_messages_only,
    a_message_is_stored_once_under_its_idempotency_key,
    a_back_end_deals_with_messages_as_a_main_does,
);

async fn a_back_end_reaches_devices_on_every_node(world: &mut World) {
    let shop = unique("shop");
    let mut tills = Vec::new();
    for n in 0..2 {
        tills.push(Login::main(&shop, &format!("till-{n}")).on(&world.url(n)).await);
    }
    for n in 0..2 {
        let posted = world.api(n).post(&format!("/v1/shops/{shop}/messages"), json!({"type": "add", "data": n})).await;
        assert_eq!((posted.status, &posted.json["duplicate"]), (201, &json!(false)), "{}", posted.text);
        let signal = json!({"type": "ring", "to": "all", "durable": false});
        let sent = world.api(n).post(&format!("/v1/shops/{shop}/messages"), signal).await;
        assert_eq!((sent.status, &sent.json["id"]), (202, &Value::Null), "{}", sent.text);
        for till in &mut tills {
            let message = till.expect("message").await;
            assert_eq!((&message["id"], &message["data"]), (&posted.json["id"], &json!(n)));
            assert_eq!((&message["from"], &message["to"]), (&json!({"api": "local"}), &json!("mains")));
            assert_eq!(till.expect("signal").await["type"], "ring");
        }
    }
}

async fn a_message_is_stored_once_under_its_idempotency_key(world: &mut World) {
    let shop = unique("shop");
    let mut till = Login::main(&shop, "till").on(&world.url(0)).await;
    let path = format!("/v1/shops/{shop}/messages");
    let key = unique("key");
    let first = world.api(0).header("Idempotency-Key", &key).post(&path, json!({"type": "a"})).await;
    let again = world.api(1).header("Idempotency-Key", &key).post(&path, json!({"type": "b", "key": key})).await;
    let by_field = world.api(1).post(&path, json!({"type": "c", "key": key})).await;
    assert_eq!((first.status, again.status, by_field.status), (201, 200, 200));
    for duplicate in [&again, &by_field] {
        assert_eq!(duplicate.json, json!({"id": first.json["id"], "duplicate": true}));
    }
    assert_eq!(till.expect("message").await["type"], "a");
    till.expect_nothing().await;
    let differs = world.api(0).header("Idempotency-Key", &key).post(&path, json!({"type": "d", "key": "other"})).await;
    differs.assert_problem(400, "bad_request");
}

async fn a_back_end_deals_with_messages_as_a_main_does(world: &mut World) {
    let shop = unique("shop");
    let mut till = Login::main(&shop, "till").on(&world.url(1)).await;
    let mut hand = Login::sub(&shop, "hand").on(&world.url(0)).await;
    let id = hand.notify(json!({"type": "add", "table": "12"})).await;
    till.expect("message").await;
    let path = format!("/v1/shops/{shop}/messages/{id}");
    let set = world.api(0).put(&format!("{path}/status"), json!({"status": "done"})).await;
    assert_eq!((set.status, set.text.as_str()), (204, ""));
    for device in [&mut till, &mut hand] {
        let status = device.expect("status").await;
        let told = (&status["message"], &status["status"], &status["by"]);
        assert_eq!(told, (&json!(id), &json!("done"), &json!({"api": "local"})));
    }
    let conflict = world.api(1).put(&format!("{path}/status"), json!({"status": "void"})).await;
    conflict.assert_problem(409, "conflict");
    assert_eq!((&conflict.json["present"], &conflict.json["by"]), (&json!("done"), &json!({"api": "local"})));
    let shown = world.api(1).get(&path).await.json;
    assert_eq!((&shown["status"], &shown["dealt_by"]), (&json!("done"), &json!({"api": "local"})), "{shown}");
    world
        .api(0)
        .put(&format!("/v1/shops/{shop}/messages/5-5/status"), json!({"status": "x"}))
        .await
        .assert_problem(404, "not_found");
}

/// Sends, and must be answered with this status.
async fn post(world: &World, n: usize, shop: &str, notify: Value, status: u16) -> Value {
    let posted = world.api(n).post(&of_shop(shop, "/messages"), notify.clone()).await;
    assert_eq!(posted.status, status, "{notify}: {}", posted.text);
    posted.json
}

async fn every_field_of_a_notify_is_taken_from_a_back_end(world: &mut World) {
    let shop = unique("店铺/1 %");
    let mut till = Login::main(&shop, "till").on(&world.url(0)).await;
    let mut hand = Login::sub(&shop, "hand").on(&world.url(1)).await;
    let notify = json!({
        "to": "all", "except": ["till"], "type": "加菜", "table": "桌 12", "data": {"n": [1, 2.5, null]},
        "user_info": "ann", "status": "new", "durable": true, "key": unique("key"), "receipt": true, "ttl_s": 60,
        "later": "a field of a later version",
    });
    let posted = world.api(1).post(&of_shop(&shop, "/messages"), notify).await;
    assert_eq!((posted.status, posted.header("content-type")), (201, "application/json"), "{}", posted.text);
    let id = posted.json["id"].as_str().expect("an id");
    assert_eq!(posted.json, json!({"id": id, "duplicate": false}));
    let message = hand.expect("message").await;
    let wanted = json!({
        "op": "message", "id": id, "at": message["at"], "from": {"api": "local"}, "to": "all", "type": "加菜",
        "table": "桌 12", "data": {"n": [1, 2.5, null]}, "user_info": "ann", "status": "new",
    });
    assert_eq!(message, wanted);
    till.expect_nothing().await;
    let shown = world.api(0).get(posted.header("location")).await;
    assert_eq!((&shown.json["id"], &shown.json["delivered"]), (&json!(id), &json!({"hand": false})), "{}", shown.text);
    hand.ack(id).await;
    let place = posted.header("location");
    eventually(SOON, "it to be delivered", async || {
        world.api(1).get(place).await.json["delivered"] == json!({"hand": true})
    })
    .await;
}

async fn what_a_back_end_leaves_out_has_its_default(world: &mut World) {
    let shop = unique("shop");
    let mut till = Login::main(&shop, "till").on(&world.url(0)).await;
    let mut hand = Login::sub(&shop, "hand").on(&world.url(1)).await;
    let nulls = json!({"type": "b", "to": null, "except": null, "table": null, "data": null, "user_info": null,
        "status": null, "durable": null, "key": null, "receipt": null, "ttl_s": null});
    for notify in [json!({"type": "a"}), nulls] {
        let id = post(world, 1, &shop, notify, 201).await["id"].clone();
        let message = till.expect("message").await;
        assert_eq!((&message["id"], &message["to"], &message["status"]), (&id, &json!("mains"), &json!("open")));
        for field in ["table", "data", "user_info"] {
            assert_eq!(message.get(field).unwrap_or(&Value::Null), &Value::Null, "{message}");
        }
    }
    // A back end is no main: what it sends to the subs is kept for them.
    let id = post(world, 0, &shop, json!({"type": "c", "to": "subs"}), 201).await["id"].clone();
    assert_eq!(hand.expect("message").await["id"], id);
    hand.expect_nothing().await;
    till.expect_nothing().await;
}

async fn every_audience_is_reached(world: &mut World) {
    let shop = unique("shop");
    let mut till = Login::main(&shop, "till").on(&world.url(0)).await;
    let mut first = Login::sub(&shop, "first").on(&world.url(0)).await;
    let mut second = Login::sub(&shop, "second").on(&world.url(1)).await;
    assert_eq!(first.request(json!({"op": "join", "group": "bar"})).await["op"], "ok");
    assert_eq!(second.request(json!({"op": "bind", "user": "ann"})).await["op"], "ok");
    let audiences = [
        (json!("mains"), [true, false, false]),
        (json!("subs"), [false, true, true]),
        (json!("all"), [true, true, true]),
        (json!({"devices": ["till", "second", "no-such-device"]}), [true, false, true]),
        (json!({"group": "bar"}), [false, true, false]),
        (json!({"user": "ann"}), [false, false, true]),
    ];
    for (to, reached) in audiences {
        for (durable, op, status) in [(true, "message", 201), (false, "signal", 202)] {
            let id =
                post(world, 1, &shop, json!({"type": "a", "to": to, "durable": durable}), status).await["id"].clone();
            assert_eq!(id.is_string(), durable, "{id}");
            let mark = json!({"type": "mark", "to": "all", "durable": durable});
            post(world, 1, &shop, mark, status).await;
            for (device, is_reached) in [&mut till, &mut first, &mut second].into_iter().zip(reached) {
                if is_reached {
                    let came = device.expect(op).await;
                    assert_eq!((&came["type"], durable.then_some(&came["to"])), (&json!("a"), durable.then_some(&to)));
                }
                assert_eq!(device.expect(op).await["type"], "mark", "to {to}");
            }
        }
    }
}

async fn connections_are_reached_by_signals_only(world: &mut World) {
    let shop = unique("shop");
    let mut till = Login::main(&shop, "till").on(&world.url(0)).await;
    let mut hand = Login::sub(&shop, "hand").on(&world.url(1)).await;
    let mut stranger = Login::sub(&unique("other"), "hand").on(&world.url(1)).await;
    let conns = json!({"conns": [hand.welcome["conn"], stranger.welcome["conn"], "gone.1"]});
    let path = of_shop(&shop, "/messages");
    for durable in [Value::Null, json!(false)] {
        let sent = world.api(0).post(&path, json!({"type": "ring", "to": conns, "durable": durable})).await;
        assert_eq!((sent.status, sent.header("location")), (202, ""));
        assert_eq!(sent.json, json!({"id": null, "duplicate": false}));
        assert_eq!(hand.expect("signal").await["type"], "ring");
    }
    let durable = json!({"type": "ring", "to": conns, "durable": true});
    world.api(0).post(&path, durable).await.assert_problem(400, "bad_request");
    for device in [&mut till, &mut hand, &mut stranger] {
        device.expect_nothing().await;
    }
    assert_eq!(listed(&world.api(1), &path, "id").await, [] as [Value; 0], "signals are not listed");
}

async fn what_has_expired_is_not_sent_and_counts_as_not_delivered(world: &mut World) {
    let shop = unique("shop");
    let login = Login::main(&shop, "till");
    login.on(&world.url(0)).await.close().await;
    let short = post(world, 0, &shop, json!({"type": "short", "ttl_s": 1}), 201).await;
    let long = post(world, 1, &shop, json!({"type": "long", "ttl_s": 604_800.0}), 201).await;
    let end = Id::of(short["id"].as_str().unwrap()).0 + 1000;
    eventually(SOON, "its second to pass", async || unix_ms() > end + 100).await;
    let mut till = login.on(&world.url(1)).await;
    assert_eq!(till.take(1).await, [id_of(&long, "id")]);
    let path = of_shop(&shop, "/messages");
    eventually(SOON, "the other to be delivered", async || {
        listed(&world.api(0), &path, "delivered").await == [json!({"till": false}), json!({"till": true})]
    })
    .await;
}

/// Sends so many messages from a handheld and gives their ids.
async fn send(hand: &mut Device, count: usize) -> Vec<Value> {
    let mut ids = Vec::new();
    for n in 0..count {
        ids.push(json!(hand.notify(json!({"type": "a", "data": n})).await));
    }
    ids
}

async fn messages_are_listed_page_by_page(world: &mut World) {
    let shop = unique("shop");
    let _till = Login::main(&shop, "till").on(&world.url(0)).await;
    let mut hand = Login::sub(&shop, "hand").on(&world.url(1)).await;
    let path = of_shop(&shop, "/messages");
    let empty = world.api(0).get(&path).await;
    assert_eq!((empty.status, empty.json), (200, json!({"items": [], "next": null})));
    let sent = send(&mut hand, 120).await;
    let first = world.api(0).get(&path).await;
    assert_eq!((first.items().len(), &first.json["next"]), (100, &sent[99]), "100 unless told");
    let mut read = Vec::new();
    let mut after = String::new();
    let mut pages = 0;
    loop {
        let page = world.api(pages).get(&format!("{path}?limit=50{after}")).await;
        read.extend(page.items().iter().map(|item| item["id"].clone()));
        pages += 1;
        let Some(next) = page.json["next"].as_str() else { break };
        assert_eq!(page.items().len(), 50);
        after = format!("&after={next}");
    }
    assert_eq!((&read, pages), (&sent, 3));
    let whole = world.api(1).get(&format!("{path}?limit=500")).await;
    assert_eq!((whole.items().len(), &whole.json["next"]), (120, &Value::Null));
    let exact = world.api(1).get(&format!("{path}?limit=120")).await;
    assert_eq!((exact.items().len(), &exact.json["next"]), (120, &Value::Null), "the last page says so");
}

async fn messages_are_listed_by_status(world: &mut World) {
    let shop = unique("shop");
    let _till = Login::main(&shop, "till").on(&world.url(0)).await;
    let mut hand = Login::sub(&shop, "hand").on(&world.url(1)).await;
    let path = of_shop(&shop, "/messages");
    let sent = send(&mut hand, 3).await;
    let named = post(world, 0, &shop, json!({"type": "b", "status": "已 完成"}), 201).await["id"].clone();
    let dealt = json!({"status": "done"});
    assert_eq!(world.api(0).put(&format!("{path}/{}/status", sent[1].as_str().unwrap()), dealt).await.status, 204);
    let all = [sent[0].clone(), sent[1].clone(), sent[2].clone(), named.clone()];
    let open = [sent[0].clone(), sent[2].clone(), named.clone()];
    for (query, wanted) in [
        ("", &all[..]),
        ("?status=all", &all[..]),
        ("?status=open", &open[..]),
        ("?status=done", &sent[1..2]),
        ("?status=%E5%B7%B2+%E5%AE%8C%E6%88%90", std::slice::from_ref(&named)),
        ("?status=none-of-it", &[]),
    ] {
        assert_eq!(listed(&world.api(1), &format!("{path}{query}"), "id").await, wanted, "{query}");
    }
    let filtered = world.api(1).get(&format!("{path}?status=open&limit=2")).await;
    assert_eq!((filtered.items().len(), &filtered.json["next"]), (2, &sent[2]));
}

async fn one_message_is_shown_with_who_has_it(world: &mut World) {
    let shop = unique("shop");
    let mut till = Login::main(&shop, "till").on(&world.url(0)).await;
    Login::main(&shop, "away").on(&world.url(1)).await.close().await;
    let mut hand = Login::sub(&shop, "hand").on(&world.url(1)).await;
    let id = hand.notify(json!({"type": "add", "table": "12", "data": {"n": 1}, "user_info": [1]})).await;
    Login::main(&shop, "late").on(&world.url(1)).await.close().await;
    till.take(1).await;
    let path = of_shop(&shop, &format!("/messages/{id}"));
    let delivered = json!({"till": true, "away": false});
    eventually(SOON, "the till to have it", async || world.api(1).get(&path).await.json["delivered"] == delivered)
        .await;
    let shown = world.api(0).get(&path).await.json;
    let wanted = json!({
        "id": id, "at": Id::of(&id).0, "from": {"device": "hand", "role": "sub"}, "to": "mains", "type": "add",
        "table": "12", "data": {"n": 1}, "user_info": [1], "status": "open", "delivered": delivered,
    });
    assert_eq!(shown, wanted);
}

async fn only_messages_are_shown_and_dealt_with(world: &mut World) {
    let shop = unique("shop");
    let mut till = Login::main(&shop, "till").on(&world.url(0)).await;
    let mut hand = Login::sub(&shop, "hand").on(&world.url(1)).await;
    let id = hand.notify(json!({"type": "add"})).await;
    till.expect("message").await;
    let deal = json!({"status": "done"});
    world.api(0).put(&of_shop(&shop, &format!("/messages/{id}/status")), deal.clone()).await;
    let status_id = till.expect("status").await["id"].as_str().expect("an id").to_owned();
    world.api(0).put(&of_shop(&shop, "/groups/bar/devices/till"), json!({})).await;
    for none in [&status_id, "5-5", "0-0", "18446744073709551615-18446744073709551615"] {
        let path = of_shop(&shop, &format!("/messages/{none}"));
        world.api(1).get(&path).await.assert_problem(404, "not_found");
        world.api(1).put(&format!("{path}/status"), deal.clone()).await.assert_problem(404, "not_found");
    }
    let elsewhere = of_shop(&unique("other"), &format!("/messages/{id}"));
    world.api(1).get(&elsewhere).await.assert_problem(404, "not_found");
    assert_eq!(listed(&world.api(1), &of_shop(&shop, "/messages"), "id").await, [json!(id)]);
}

async fn a_status_is_set_over_the_expected_one_only(world: &mut World) {
    let shop = unique("shop");
    let mut till = Login::main(&shop, "till").on(&world.url(0)).await;
    let mut hand = Login::sub(&shop, "hand").on(&world.url(1)).await;
    let id = hand.notify(json!({"type": "add"})).await;
    till.take(1).await;
    let path = of_shop(&shop, &format!("/messages/{id}/status"));
    let put = async |n: usize, body: Value| world.api(n).put(&path, body).await;
    let nobody = put(0, json!({"status": "done", "expect": "cooking"})).await;
    nobody.assert_problem(409, "conflict");
    assert_eq!((&nobody.json["present"], nobody.json.get("by")), (&json!("open"), None));
    assert_eq!(put(1, json!({"status": "cooking", "expect": "open"})).await.status, 204);
    assert_eq!(put(0, json!({"status": "cooking"})).await.status, 204, "the same by the same tells nothing");
    assert_eq!(put(0, json!({"status": "done", "expect": "cooking"})).await.status, 204);
    for status in ["cooking", "done"] {
        assert_eq!(till.expect("status").await["status"], status);
        assert_eq!(hand.expect("status").await["status"], status);
    }
    let late = put(1, json!({"status": "void", "expect": "cooking"})).await;
    late.assert_problem(409, "conflict");
    assert_eq!((&late.json["present"], &late.json["by"]), (&json!("done"), &json!({"api": "local"})));
    let dealt = till.request(json!({"op": "deal", "id": id, "status": "served", "expect": "done"})).await;
    assert_eq!(dealt["op"], "dealt");
    let by_device = put(1, json!({"status": "void"})).await;
    by_device.assert_problem(409, "conflict");
    let by = json!({"device": "till", "role": "main"});
    assert_eq!((&by_device.json["present"], &by_device.json["by"]), (&json!("served"), &by));
}

async fn a_key_counts_on_messages_only(world: &mut World) {
    let shop = unique("shop");
    let mut till = Login::main(&shop, "till").on(&world.url(0)).await;
    let key = "k".repeat(128);
    for n in 0..2 {
        let signal = json!({"type": "ring", "durable": false, "key": key, "data": n});
        assert_eq!(post(world, n, &shop, signal, 202).await, json!({"id": null, "duplicate": false}));
        assert_eq!(till.expect("signal").await["data"], n);
    }
    let first = post(world, 0, &shop, json!({"type": "a", "key": key}), 201).await;
    assert_eq!(till.expect("message").await["id"], first["id"], "the signals did not take the key");
    // A key is the shop's, over all senders.
    let again = till.request(json!({"op": "notify", "to": "all", "type": "b", "key": key})).await;
    assert_eq!((&again["id"], &again["duplicate"]), (&first["id"], &json!(true)));
    let other = unique("other");
    let _till = Login::main(&other, "till").on(&world.url(1)).await;
    assert_ne!(post(world, 1, &other, json!({"type": "a", "key": key}), 201).await["id"], Value::Null);
}
