//! Proofs of receipt: the window, the time-outs, and the Pong.

use serde_json::json;

use super::on_one_and_two_nodes;
use crate::harness::raw::PING;
use crate::harness::{Event, Frame, Id, Login, RawSocket, SOON, World, eventually, unique};

on_one_and_two_nodes!(what_was_not_acknowledged_comes_again_and_the_rest_does_not, a_pong_is_an_acknowledgement);

async fn what_was_not_acknowledged_comes_again_and_the_rest_does_not(world: &mut World) {
    let shop = unique("shop");
    let till = Login::main(&shop, "till");
    let mut main = till.on(&world.url(0)).await;
    let mut sub = Login::sub(&shop, "hand").on(&world.url(1)).await;
    let mut ids = Vec::new();
    for n in 0..5 {
        ids.push(sub.notify(json!({"type": "add", "receipt": true, "data": n})).await);
    }
    for id in &ids {
        assert_eq!(main.expect("message").await["id"], id.as_str());
    }
    main.ack(&ids[1]).await;
    for id in &ids[..2] {
        assert_eq!(sub.expect("receipt").await["message"], id.as_str(), "an ack proves all up to its id");
    }
    main.reset();
    let mut main = till.on(&world.url(1)).await;
    assert_eq!(main.welcome["cursor"], ids[1].as_str());
    assert_eq!(main.welcome["head"], ids[4].as_str());
    for id in &ids[2..] {
        assert_eq!(main.expect("message").await["id"], id.as_str());
    }
    main.expect_nothing().await;
}

async fn a_pong_is_an_acknowledgement(world: &mut World) {
    let shop = unique("shop");
    let till = Login::main(&shop, "till").ack_by_pong();
    let mut main = till.on(&world.url(0)).await;
    let mut sub = Login::sub(&shop, "hand").on(&world.url(1)).await;
    let id = sub.notify(json!({"type": "add", "receipt": true})).await;
    assert_eq!(main.expect("message").await["id"], id.as_str());
    let ping = match main.event_within(SOON).await {
        Some(Event::Ping(payload)) => payload,
        other => panic!("waited for the Ping after a message, but: {other:?}"),
    };
    assert_eq!(String::from_utf8_lossy(&ping), id, "the payload is the newest message's id");
    assert_eq!(sub.expect("receipt").await["message"], id.as_str());
    drop(main);
    eventually(SOON, "the cursor to be at the message", async || {
        till.on(&world.url(1)).await.welcome["cursor"] == id.as_str()
    })
    .await;
}

#[tokio::test]
async fn without_the_pong_there_is_no_proof() {
    let world = World::start(1).await;
    let shop = unique("shop");
    let till = Login::main(&shop, "till").ack_by_pong();
    let mut silent = RawSocket::open(&world.url(0)).await;
    silent.send_op(&till.op()).await;
    silent.expect("welcome").await;
    let mut sub = Login::sub(&shop, "hand").on(&world.url(0)).await;
    let id = sub.notify(json!({"type": "add", "receipt": true})).await;
    assert_eq!(silent.expect("message").await["id"], id.as_str());
    let ping = silent.read_frame().await.expect("a Ping follows");
    assert_eq!((ping.opcode, ping.payload.as_slice()), (PING, id.as_bytes()));
    // A Pong of something else proves nothing.
    silent.send(&Frame::new(crate::harness::raw::PONG, "nonsense")).await;
    silent.send(&Frame::new(crate::harness::raw::PONG, "")).await;
    let mut again = till.on(&world.url(0)).await;
    assert_eq!(again.expect("message").await["id"], id.as_str(), "it comes again");
}

#[tokio::test]
async fn an_ack_of_what_was_never_sent_proves_nothing_beyond_what_was() {
    let world = World::start(1).await;
    let shop = unique("shop");
    let till = Login::main(&shop, "till");
    let mut main = till.on(&world.url(0)).await;
    let mut sub = Login::sub(&shop, "hand").on(&world.url(0)).await;
    let first = sub.notify(json!({"type": "add"})).await;
    main.expect("message").await;
    main.ack("9999999999999-0").await;
    main.send(json!({"op": "ack", "id": "nonsense"})).await;
    assert_eq!(main.expect("error").await["code"], "bad_request");
    let second = sub.notify(json!({"type": "add"})).await;
    assert_eq!(main.expect("message").await["id"], second.as_str());
    main.reset();
    let mut main = till.on(&world.url(0)).await;
    let next = main.next_where(|op| op["op"] == "message" && op["id"] != first.as_str()).await;
    assert_eq!(next["id"], second.as_str(), "the second was never acknowledged");
}

#[tokio::test]
async fn the_window_holds_the_fifth_message_back_until_an_ack() {
    let world = World::with(2, &[("LIMITS_WINDOW", "4")]).await;
    let shop = unique("shop");
    let mut slow = Login::main(&shop, "slow").on(&world.url(0)).await;
    assert_eq!(slow.welcome["window"], 4);
    let mut quick = Login::main(&shop, "quick").on(&world.url(0)).await;
    let mut sub = Login::sub(&shop, "hand").on(&world.url(1)).await;
    let mut ids = Vec::new();
    for n in 0..10 {
        ids.push(sub.notify(json!({"type": "add", "data": n})).await);
        // The other main on the same node has it, so the node has handed it to both.
        assert_eq!(quick.take(1).await, [Id::of(&ids[n])]);
    }
    for id in &ids[..4] {
        assert_eq!(slow.expect("message").await["id"], id.as_str());
    }
    slow.expect_nothing().await;
    slow.ack(&ids[0]).await;
    assert_eq!(slow.expect("message").await["id"], ids[4].as_str());
    slow.expect_nothing().await;
    slow.ack(&ids[4]).await;
    for id in &ids[5..9] {
        assert_eq!(slow.expect("message").await["id"], id.as_str());
    }
    slow.expect_nothing().await;
    slow.ack(&ids[8]).await;
    assert_eq!(slow.expect("message").await["id"], ids[9].as_str());
}

#[tokio::test]
async fn who_does_not_acknowledge_in_time_is_closed_with_4003_and_gets_it_again() {
    let world = World::with(1, &[("TIMEOUTS_ACK", "1s")]).await;
    let shop = unique("shop");
    let till = Login::main(&shop, "till");
    let mut main = till.on(&world.url(0)).await;
    let mut sub = Login::sub(&shop, "hand").on(&world.url(0)).await;
    let first = sub.notify(json!({"type": "add"})).await;
    let second = sub.notify(json!({"type": "add"})).await;
    main.expect("message").await;
    main.ack(&first).await;
    main.expect("message").await;
    assert_eq!(main.close_code().await.0, 4003);
    let mut main = till.on(&world.url(0)).await;
    assert_eq!(main.take(1).await, [Id::of(&second)]);
    main.expect_nothing().await;
    eventually(SOON, "both to be counted, each once", async || {
        world.metric("shoprelay_messages_delivered_total").await == 2.0
    })
    .await;
}

#[tokio::test]
async fn who_is_silent_for_two_heartbeats_is_closed_with_4006() {
    let world = World::with(1, &[("HEARTBEAT", "1s")]).await;
    let shop = unique("shop");
    let mut silent = RawSocket::open(&world.url(0)).await;
    silent.send_op(&Login::main(&shop, "silent").op()).await;
    assert_eq!(silent.expect("welcome").await["heartbeat_s"], 1);
    // This one answers its Pings in the background.
    let mut alive = Login::main(&shop, "alive").on(&world.url(0)).await;
    assert_eq!(silent.close_code().await.0, 4006);
    let mut pings = 0;
    while pings < 4 {
        match alive.event_within(SOON).await {
            Some(Event::Ping(_)) => pings += 1,
            other => panic!("waited for a Ping, but: {other:?}"),
        }
    }
    alive.expect_nothing().await;
}

#[tokio::test]
async fn a_message_is_counted_as_delivered_once_a_device() {
    let world = World::start(2).await;
    let shop = unique("shop");
    let till = Login::main(&shop, "till");
    let mut main = till.on(&world.url(0)).await;
    let mut other = Login::main(&shop, "other").on(&world.url(1)).await;
    let mut sub = Login::sub(&shop, "hand").on(&world.url(1)).await;
    let mut newest = String::new();
    for _ in 0..10 {
        newest = sub.notify(json!({"type": "add"})).await;
    }
    main.take(10).await;
    main.ack(&newest).await;
    other.take(10).await;
    // A deal makes an entry of the log that is no message.
    main.request(json!({"op": "deal", "id": newest, "status": "done"})).await;
    let status = other.expect("status").await;
    other.ack(status["id"].as_str().expect("an id")).await;
    eventually(SOON, "twenty deliveries", async || world.metric("shoprelay_messages_delivered_total").await >= 20.0)
        .await;
    main = till.on(&world.url(1)).await;
    main.ack(&newest).await;
    main.expect_nothing().await;
    other.expect_nothing().await;
    assert_eq!(world.metric("shoprelay_messages_delivered_total").await, 20.0);
    assert_eq!(world.metric("shoprelay_messages_published_total").await, 10.0);
}
