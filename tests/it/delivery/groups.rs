//! Groups, users, attributes and calls of devices.

use serde_json::json;

use super::on_one_and_two_nodes;
use crate::harness::{Id, Login, World, unique};

on_one_and_two_nodes!(
    a_group_reaches_its_members,
    a_user_reaches_the_devices_bound_to_it,
    attributes_are_set_patched_and_read,
    members_that_are_offline_get_what_was_sent_to_their_group_when_they_return,
    what_belongs_to_a_device_outlives_its_connections,
);

async fn a_group_reaches_its_members(world: &mut World) {
    let shop = unique("shop");
    let mut sender = Login::main(&shop, "till").on(&world.url(0)).await;
    let mut inside = Login::sub(&shop, "inside").on(&world.url(0)).await;
    let mut outside = Login::sub(&shop, "outside").on(&world.url(1)).await;
    for device in [&mut inside, &mut outside, &mut sender] {
        assert_eq!(device.request(json!({"op": "join", "group": "bar"})).await["op"], "ok");
    }
    assert_eq!(outside.request(json!({"op": "leave", "group": "bar"})).await["op"], "ok");
    for durable in [true, false] {
        let op = if durable { "message" } else { "signal" };
        sender.notify(json!({"type": "to-bar", "to": {"group": "bar"}, "durable": durable})).await;
        sender.notify(json!({"type": "mark", "to": {"devices": ["inside", "outside"]}, "durable": durable})).await;
        let came = inside.expect(op).await;
        assert_eq!(came["type"], "to-bar");
        if durable {
            assert_eq!(came["to"], json!({"group": "bar"}));
        }
        assert_eq!(inside.expect(op).await["type"], "mark");
        assert_eq!(outside.expect(op).await["type"], "mark");
        sender.expect_nothing().await;
    }
    inside.refused("join", json!({"group": "{"}), "bad_request").await;
    inside.refused("join", json!({}), "bad_request").await;
}

async fn members_that_are_offline_get_what_was_sent_to_their_group_when_they_return(world: &mut World) {
    let shop = unique("shop");
    let mut sender = Login::main(&shop, "till").on(&world.url(0)).await;
    let login = Login::sub(&shop, "away");
    let mut away = login.on(&world.url(1)).await;
    assert_eq!(away.request(json!({"op": "join", "group": "bar"})).await["op"], "ok");
    assert_eq!(away.request(json!({"op": "bind", "user": "ann"})).await["op"], "ok");
    away.send(json!({"op": "logout"})).await;
    assert_eq!(away.close_code().await.0, 1000);
    let to_group = sender.notify(json!({"type": "a", "to": {"group": "bar"}})).await;
    sender.notify(json!({"type": "b", "to": {"group": "kitchen"}})).await;
    let to_user = sender.notify(json!({"type": "c", "to": {"user": "ann"}})).await;
    let mut back = login.on(&world.url(0)).await;
    assert_eq!(back.take(2).await, [Id::of(&to_group), Id::of(&to_user)]);
}

async fn what_belongs_to_a_device_outlives_its_connections(world: &mut World) {
    let shop = unique("shop");
    let mut sender = Login::main(&shop, "till").on(&world.url(0)).await;
    let login = Login::sub(&shop, "hand");
    let mut device = login.on(&world.url(1)).await;
    assert_eq!(device.request(json!({"op": "join", "group": "bar"})).await["op"], "ok");
    for n in 0..3 {
        device = login.on(&world.url(n)).await;
        let signal = json!({"type": "s", "to": {"group": "bar"}, "durable": false});
        sender.notify(signal).await;
        assert_eq!(device.expect("signal").await["type"], "s");
    }
}

async fn a_user_reaches_the_devices_bound_to_it(world: &mut World) {
    let shop = unique("shop");
    let mut sender = Login::main(&shop, "till").on(&world.url(0)).await;
    let mut first = Login::sub(&shop, "first").on(&world.url(0)).await;
    let mut second = Login::sub(&shop, "second").on(&world.url(1)).await;
    for device in [&mut first, &mut second] {
        assert_eq!(device.request(json!({"op": "bind", "user": "ann"})).await["op"], "ok");
    }
    let id = sender.notify(json!({"type": "to-ann", "to": {"user": "ann"}})).await;
    for device in [&mut first, &mut second] {
        assert_eq!(device.expect("message").await["id"], id.as_str());
    }
    assert_eq!(second.request(json!({"op": "unbind"})).await["op"], "ok");
    sender.notify(json!({"type": "to-ann", "to": {"user": "ann"}})).await;
    sender.notify(json!({"type": "mark", "to": "subs", "durable": true})).await;
    assert_eq!(first.expect("message").await["type"], "to-ann");
    assert_eq!(second.expect("message").await["type"], "mark");
}

async fn attributes_are_set_patched_and_read(world: &mut World) {
    let shop = unique("shop");
    let login = Login::sub(&shop, "hand");
    let mut device = login.on(&world.url(0)).await;
    let empty = device.request(json!({"op": "attrs"})).await;
    assert_eq!((&empty["op"], &empty["attrs"]), (&json!("attrs"), &json!({})));
    let set = device.request(json!({"op": "attrs", "set": {"floor": 2, "waiter": "ann"}})).await;
    assert_eq!(set["attrs"], json!({"floor": 2, "waiter": "ann"}));
    let patched = device.request(json!({"op": "attrs", "patch": {"waiter": null, "battery": 0.5}})).await;
    assert_eq!(patched["attrs"], json!({"floor": 2, "battery": 0.5}));
    let mut again = login.on(&world.url(1)).await;
    assert_eq!(again.request(json!({"op": "attrs"})).await["attrs"], json!({"floor": 2, "battery": 0.5}));
    again.refused("attrs", json!({"set": {}, "patch": {}}), "bad_request").await;
    again.refused("attrs", json!({"set": 1}), "bad_request").await;
}

#[tokio::test]
async fn a_call_is_forbidden_while_the_event_stream_is_off() {
    let world = World::start(1).await;
    let mut device = Login::sub(&unique("shop"), "hand").on(&world.url(0)).await;
    device.refused("call", json!({"method": "price"}), "forbidden").await;
}
