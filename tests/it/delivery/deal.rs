//! Dealing with a message: the first main wins, and the others hear of it.

use serde_json::json;

use super::on_one_and_two_nodes;
use crate::harness::{Device, Id, Login, World, id_of, unique};

on_one_and_two_nodes!(
    the_first_to_deal_wins_and_everyone_else_hears_of_it,
    with_expect_only_the_present_status_lets_a_deal_through,
    of_fifty_mains_at_once_one_wins,
);

async fn the_first_to_deal_wins_and_everyone_else_hears_of_it(world: &mut World) {
    let shop = unique("shop");
    let mut winner = Login::main(&shop, "till-0").on(&world.url(0)).await;
    let mut loser = Login::main(&shop, "till-1").on(&world.url(1)).await;
    let mut sender = Login::sub(&shop, "hand-0").on(&world.url(1)).await;
    let mut bystander = Login::sub(&shop, "hand-1").on(&world.url(0)).await;
    let id = sender.notify(json!({"type": "add"})).await;
    winner.take(1).await;
    loser.take(1).await;
    bystander.refused("deal", json!({"id": id, "status": "done"}), "forbidden").await;
    let dealt = winner.request(json!({"op": "deal", "id": id, "status": "done"})).await;
    assert_eq!((&dealt["op"], &dealt["id"], &dealt["status"]), (&json!("dealt"), &json!(id), &json!("done")));
    for device in [&mut loser, &mut sender] {
        let status = device.expect("status").await;
        assert_eq!((&status["message"], &status["status"]), (&json!(id), &json!("done")));
        assert_eq!(status["by"], json!({"device": "till-0", "role": "main"}));
        assert!(id_of(&status, "id") > Id::of(&id), "{status}");
        assert!(status["at"].is_u64());
    }
    // The same again changes nothing and tells nobody.
    let again = winner.request(json!({"op": "deal", "id": id, "status": "done"})).await;
    assert_eq!(again["op"], "dealt", "{again}");
    for (device, status) in [(&mut loser, "done"), (&mut winner, "refused")] {
        let conflict = device.refused("deal", json!({"id": id, "status": status}), "conflict").await;
        assert_eq!(conflict["status"], "done");
        assert_eq!(conflict["by"], json!({"device": "till-0", "role": "main"}));
    }
    let next = sender.notify(json!({"type": "mark", "to": "all"})).await;
    for device in [&mut winner, &mut loser, &mut bystander] {
        assert_eq!(device.expect("message").await["id"], next.as_str(), "no further status came");
    }
    sender.expect_nothing().await;
}

async fn with_expect_only_the_present_status_lets_a_deal_through(world: &mut World) {
    let shop = unique("shop");
    let mut first = Login::main(&shop, "till-0").on(&world.url(0)).await;
    let mut second = Login::main(&shop, "till-1").on(&world.url(1)).await;
    let mut sender = Login::sub(&shop, "hand").on(&world.url(0)).await;
    let id = sender.notify(json!({"type": "add", "status": "new"})).await;
    first.take(1).await;
    second.take(1).await;
    let conflict = first.refused("deal", json!({"id": id, "status": "cooking", "expect": "open"}), "conflict").await;
    assert_eq!(conflict["status"], "new", "its first status is the present one");
    assert!(conflict.get("by").is_none_or(serde_json::Value::is_null), "nobody has dealt with it: {conflict}");
    let dealt = first.request(json!({"op": "deal", "id": id, "status": "cooking", "expect": "new"})).await;
    assert_eq!(dealt["op"], "dealt", "{dealt}");
    assert_eq!(second.expect("status").await["status"], "cooking");
    let dealt = second.request(json!({"op": "deal", "id": id, "status": "served", "expect": "cooking"})).await;
    assert_eq!(dealt["op"], "dealt", "{dealt}");
    let status = first.expect("status").await;
    assert_eq!((&status["status"], &status["by"]["device"]), (&json!("served"), &json!("till-1")));
    first.refused("deal", json!({"id": id, "status": "cooking", "expect": "cooking"}), "conflict").await;
    first.refused("deal", json!({"id": "1-1", "status": "done"}), "not_found").await;
    first.refused("deal", json!({"id": id, "status": "all"}), "bad_request").await;
    first.refused("deal", json!({"id": "nonsense", "status": "done"}), "bad_request").await;
    first.refused("deal", json!({"id": id}), "bad_request").await;
}

async fn of_fifty_mains_at_once_one_wins(world: &mut World) {
    let shop = unique("shop");
    let mut mains: Vec<Device> = Vec::new();
    for n in 0..50 {
        mains.push(Login::main(&shop, &format!("till-{n}")).on(&world.url(n)).await);
    }
    let mut sender = Login::sub(&shop, "hand").on(&world.url(0)).await;
    let id = sender.notify(json!({"type": "add"})).await;
    for main in &mut mains {
        main.take(1).await;
    }
    let deals = mains.iter_mut().map(|main| main.request(json!({"op": "deal", "id": id, "status": "done"})));
    let answers = futures_util::future::join_all(deals).await;
    let winners: Vec<usize> = (0..50).filter(|n| answers[*n]["op"] == "dealt").collect();
    assert_eq!(winners.len(), 1, "{winners:?} won");
    let winner = json!({"device": format!("till-{}", winners[0]), "role": "main"});
    for (n, main) in mains.iter_mut().enumerate().filter(|(n, _)| *n != winners[0]) {
        assert_eq!(answers[n]["code"], "conflict", "{}", answers[n]);
        assert_eq!(answers[n]["by"], winner);
        let status = main.expect("status").await;
        assert_eq!((&status["message"], &status["by"]), (&json!(id), &winner));
    }
    assert_eq!(sender.expect("status").await["by"], winner);
    mains[winners[0]].expect_nothing().await;
}

#[tokio::test]
async fn a_message_that_was_dealt_with_comes_with_its_present_status() {
    let world = World::start(2).await;
    let shop = unique("shop");
    let late = Login::main(&shop, "till-1");
    late.on(&world.url(1)).await.close().await;
    let mut first = Login::main(&shop, "till-0").on(&world.url(0)).await;
    let mut sender = Login::sub(&shop, "hand").on(&world.url(0)).await;
    let id = sender.notify(json!({"type": "add"})).await;
    first.take(1).await;
    first.request(json!({"op": "deal", "id": id, "status": "done"})).await;
    let mut late = late.on(&world.url(1)).await;
    let message = late.expect("message").await;
    assert_eq!((&message["id"], &message["status"]), (&json!(id), &json!("done")), "the present status, not the first");
    assert_eq!(late.expect("status").await["status"], "done");
}
