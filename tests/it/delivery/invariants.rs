//! The seven promises, each by its name, on one node and across two.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};

use super::{in_every_redis, on_one_and_two_nodes};
use crate::harness::recorder::Acks;
use crate::harness::{Event, Id, Login, NodeProcess, Publisher, Recorder, SOON, World, eventually, id_of, unique};

on_one_and_two_nodes!(
    stored_before_accepted,
    nothing_skipped,
    cursors_never_go_back,
    no_repeats_on_one_connection,
    one_connection_per_device,
    a_retry_is_not_a_second_message,
    refuse_never_lose,
);
in_every_redis!(
    stored_before_accepted,
    nothing_skipped,
    cursors_never_go_back,
    no_repeats_on_one_connection,
    one_connection_per_device,
    a_retry_is_not_a_second_message,
    refuse_never_lose,
);

async fn stored_before_accepted(world: &mut World) {
    let shop = unique("shop");
    let _main = Login::main(&shop, "till").on(&world.url(0)).await;
    let mut sub = Login::sub(&shop, "hand").on(&world.url(1)).await;
    for n in 0..20 {
        let id = sub.notify(json!({"type": "add", "data": n})).await;
        world.assert_stored(&shop, &id);
    }
}

async fn nothing_skipped(world: &mut World) {
    let shop = unique("shop");
    let urls = world.urls();
    let mains = [
        Recorder::logged_in(Login::main(&shop, "till-0"), &urls, 0).await,
        Recorder::logged_in(Login::main(&shop, "till-1"), &urls, 1).await,
    ];
    let publish = |n: usize| {
        Publisher::start(Login::sub(&shop, &format!("hand-{n}")), &urls, 100, Duration::ZERO, json!({"type": "add"}))
    };
    let publishers: Vec<Publisher> = (0..3).map(publish).collect();
    // One comes and goes all the time, the other is away for half of it.
    mains[1].go_offline();
    for count in [20, 40, 60] {
        publishers[0].wait_accepted(count).await;
        mains[0].lose_connection();
    }
    mains[1].come_back();
    let mut accepted = BTreeSet::new();
    for publisher in publishers {
        accepted.extend(publisher.finish().await);
    }
    for main in mains {
        main.wait_for(&accepted, 2 * SOON).await;
        let record = main.stop().await;
        record.assert_exactly(&accepted);
        record.assert_unbroken(&accepted);
    }
}

async fn cursors_never_go_back(world: &mut World) {
    let shop = unique("shop");
    let login = Login::main(&shop, "till");
    let mut old = login.on(&world.url(0)).await;
    let mut sub = Login::sub(&shop, "hand").on(&world.url(0)).await;
    let mut ids = Vec::new();
    for n in 0..5 {
        ids.push(sub.notify(json!({"type": "add", "data": n})).await);
    }
    for _ in 0..5 {
        old.expect("message").await;
    }
    // The same device again, while the old connection still writes acknowledgements of old messages.
    let mut new = login.on(&world.url(1)).await;
    for _ in 0..5 {
        new.expect("message").await;
    }
    new.ack(&ids[4]).await;
    for id in &ids[..3] {
        // The relay has replaced it, so the connection may be gone.
        let _ = old.try_send_op(json!({"op": "ack", "id": id})).await;
    }
    new.ack(&ids[0]).await;
    new.ack(&ids[2]).await;
    // An answer after them: this node has taken them all.
    new.expect_nothing().await;
    assert_cursor_reaches(world, &login, Id::of(&ids[4])).await;
    drop(new);
    let again = login.on(&world.url(0)).await;
    assert_eq!(id_of(&again.welcome, "cursor"), Id::of(&ids[4]));
}

/// Waits until a new login of the device starts at `id`, and checks that its cursors only rise.
async fn assert_cursor_reaches(world: &World, login: &Login, id: Id) {
    let mut last = Id::ZERO;
    eventually(SOON, "the cursor to reach the newest acknowledged id", async || {
        let device = login.on(&world.url(1)).await;
        let cursor = id_of(&device.welcome, "cursor");
        assert!(cursor >= last, "the cursor went back from {last} to {cursor}");
        last = cursor;
        cursor == id
    })
    .await;
}

async fn no_repeats_on_one_connection(world: &mut World) {
    let shop = unique("shop");
    let urls = world.urls();
    // Not every entry is acknowledged, so the same ids come again, but on new connections only.
    let main = Recorder::start(Login::main(&shop, "till"), &urls, 0, Acks::EveryThird);
    main.wait_login().await;
    let publisher = Publisher::start(Login::sub(&shop, "hand"), &urls, 150, Duration::ZERO, json!({"type": "add"}));
    for count in [30, 60, 90, 120] {
        publisher.wait_accepted(count).await;
        main.lose_connection();
    }
    let accepted = publisher.finish().await;
    main.wait_for(&accepted, 2 * SOON).await;
    let record = main.stop().await;
    assert!(record.connections.len() >= 2, "the connection was never lost");
    record.assert_ordered();
    record.assert_unbroken(&accepted);
}

async fn one_connection_per_device(world: &mut World) {
    let shop = unique("shop");
    let login = Login::main(&shop, "till");
    let mut watcher = Login::sub(&shop, "hand").on(&world.url(0)).await;
    let mut older = login.on(&world.url(0)).await;
    for turn in 1..6 {
        let newer = login.on(&world.url(turn)).await;
        assert_ne!(newer.welcome["conn"], older.welcome["conn"]);
        assert_eq!(older.close_code().await.0, 4000);
        older.close().await;
        older = newer;
    }
    // All the late clean-ups must have left the newest connection's presence alone. A message goes
    // through both, so that they have had their turn.
    let id = watcher.notify(json!({"type": "add"})).await;
    assert_eq!(older.expect("message").await["id"], id.as_str());
    let online = watcher.request(json!({"op": "online", "role": "main"})).await;
    let devices = online["devices"].as_array().expect("presence has devices");
    assert_eq!(devices.len(), 1, "{online}");
    assert_eq!(devices[0]["conn"], older.welcome["conn"], "{online}");
    assert_eq!(devices[0]["state"], "online", "{online}");
}

async fn a_retry_is_not_a_second_message(world: &mut World) {
    let shop = unique("shop");
    let mut main = Login::main(&shop, "till").on(&world.url(0)).await;
    let mut subs =
        [Login::sub(&shop, "hand-0").on(&world.url(0)).await, Login::sub(&shop, "hand-1").on(&world.url(1)).await];
    let notify = json!({"op": "notify", "type": "add", "key": unique("key")});
    let mut answers = Vec::new();
    for sub in &mut subs {
        for _ in 0..2 {
            answers.push(sub.request(notify.clone()).await);
        }
    }
    let ids: BTreeSet<Id> = answers.iter().map(|answer| id_of(answer, "id")).collect();
    assert_eq!(ids.len(), 1, "{answers:?}");
    let duplicates: Vec<&Value> = answers.iter().map(|answer| &answer["duplicate"]).collect();
    assert_eq!(duplicates, [&json!(false), &json!(true), &json!(true), &json!(true)]);
    let after = subs[0].notify(json!({"type": "next"})).await;
    assert_eq!(main.take(2).await, [*ids.first().expect("one id"), Id::of(&after)]);
}

async fn refuse_never_lose(world: &mut World) {
    // Every refusal there is without a fault; those with one are in the fault tests.
    let shop = unique("shop");
    let mut sub = Login::sub(&shop, "hand").on(&world.url(0)).await;
    sub.refused("notify", json!({"type": "add"}), "no_main_device").await;
    sub.refused("notify", json!({"type": "add", "to": {"devices": ["nobody"]}}), "not_found").await;
    let mut main = Login::main(&shop, "till").on(&world.url(1)).await;
    let id = sub.notify(json!({"type": "add"})).await;
    assert_eq!(main.take(1).await, [Id::of(&id)], "what was refused must not come, what was accepted must");
    refuses_when_the_log_is_full(world).await;
}

/// A log that nobody empties refuses, and whoever was away gets exactly what was accepted.
async fn refuses_when_the_log_is_full(world: &World) {
    let (options, _place) = world.options_of_another();
    let options = options.set("LIMITS_LOG_ENTRIES", "50");
    let mut urls = Vec::new();
    let mut nodes = Vec::new();
    for _ in &world.nodes {
        let node = NodeProcess::start(&options).await;
        urls.push(node.ws_url());
        nodes.push(node);
    }
    let shop = unique("full");
    let till = Login::main(&shop, "till");
    till.on(&urls[0]).await.close().await;
    let mut sub = Login::sub(&shop, "hand").on(urls.last().expect("a node")).await;
    let mut accepted = BTreeSet::new();
    let refusal = loop {
        let answer = sub.request(json!({"op": "notify", "type": "add"})).await;
        if answer["op"] != "accepted" {
            break answer;
        }
        accepted.insert(id_of(&answer, "id"));
        assert!(accepted.len() <= 100, "a log of 50 entries took {}", accepted.len());
    };
    assert_eq!(refusal["code"], "backlog_full", "{refusal}");
    assert!(refusal["retry_after_ms"].is_u64(), "{refusal}");
    let mut main = till.on(&urls[0]).await;
    let came: BTreeSet<Id> = main.take(accepted.len()).await.into_iter().collect();
    assert_eq!(came, accepted);
    // What everyone is past makes room.
    eventually(SOON, "room in the log", async || {
        sub.request(json!({"op": "notify", "type": "add"})).await["op"] == "accepted"
    })
    .await;
    assert!(matches!(main.event_within(SOON).await, Some(Event::Op(op)) if op["op"] == "message"));
}
