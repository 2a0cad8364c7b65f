//! Tenants: what a device of one shop sends, whatever it is, changes nothing in another and learns nothing of
//! it. What the API key of one shop may not do is tried, on every route, in the tests of the API's keys.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::harness::token::{with_token, world_with};
use crate::harness::{Api, Device, Encoding, Event, Login, SOON, World, eventually_get, unique};

/// A shop with everything that another could want.
struct Victim {
    shop: String,
    till: Device,
    hand: Device,
    message: String,
    till_conn: String,
}

impl Victim {
    async fn open(world: &World) -> Victim {
        let shop = unique("victim");
        let mut till = with_token(Login::main(&shop, "till"), json!({})).on(&world.url(0)).await;
        let mut hand = with_token(Login::sub(&shop, "hand"), json!({})).on(&world.url(1)).await;
        for device in [&mut till, &mut hand] {
            device.request(json!({"op": "join", "group": "g"})).await;
            device.request(json!({"op": "bind", "user": "u"})).await;
            device.request(json!({"op": "attrs", "set": {"secret": true}})).await;
        }
        let message = hand.notify(json!({"type": "order", "data": "secret", "key": "k"})).await;
        till.expect("message").await;
        till.ack(&message).await;
        let till_conn = till.welcome["conn"].as_str().unwrap().to_owned();
        Victim { shop, till, hand, message, till_conn }
    }

    /// Everything that can be asked of the shop.
    async fn state(&self, api: &Api) -> Vec<String> {
        let mut state = Vec::new();
        for path in ["messages", "online", "groups", "groups/g", "users", "users/u", "barred", "stats"] {
            state.push(api.get(&format!("/v1/shops/{}/{path}", self.shop)).await.text);
        }
        for device in ["till", "hand"] {
            state.push(api.get(&format!("/v1/shops/{}/devices/{device}/attrs", self.shop)).await.text);
        }
        state
    }
}

/// Whether a text holds anything of the victim.
fn tells_of(victim: &Victim, said: &Value) -> bool {
    let text = said.to_string();
    text.contains("secret") || text.contains(&victim.shop) || text.contains(&victim.message)
}

/// Everything a device can send, with whatever could name what belongs to the other shop.
fn attempts(victim: &Victim) -> Vec<(&'static str, Value, &'static str)> {
    let Victim { shop, message, till_conn, .. } = victim;
    let order = |fields: Value| {
        let mut all = json!({"type": "evil", "shop": shop, "shop_id": shop});
        all.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        all
    };
    vec![
        ("login", json!({"shop": shop, "device": "till", "role": "main"}), "already_logged_in"),
        ("notify", order(json!({"to": "all"})), "accepted"),
        ("notify", order(json!({"to": "mains"})), "accepted"),
        ("notify", order(json!({"to": {"group": "g"}})), "accepted"),
        ("notify", order(json!({"to": {"user": "u"}})), "accepted"),
        ("notify", order(json!({"to": {"devices": ["till"]}, "receipt": true})), "accepted"),
        ("notify", order(json!({"to": {"devices": ["hand"]}})), "not_found"),
        ("notify", order(json!({"to": {"conns": [till_conn]}})), "accepted"),
        ("notify", order(json!({"to": "all", "durable": false})), "accepted"),
        ("notify", order(json!({"to": "mains", "key": "k"})), "accepted"),
        ("ack", json!({"id": message, "shop": shop}), ""),
        ("deal", json!({"id": message, "status": "done", "shop": shop}), "not_found"),
        ("list", json!({"shop": shop}), "messages"),
        ("online", json!({"shop": shop}), "presence"),
        ("join", json!({"group": "g", "shop": shop}), "ok"),
        ("leave", json!({"group": "g", "shop": shop}), "ok"),
        ("bind", json!({"user": "u", "shop": shop}), "ok"),
        ("unbind", json!({"user": "u", "shop": shop}), "ok"),
        ("attrs", json!({"shop": shop, "device": "till"}), "attrs"),
        ("attrs", json!({"set": {"mine": 1}, "shop": shop, "device": "till"}), "attrs"),
        ("attrs", json!({"patch": {"mine": 2}, "shop": shop}), "attrs"),
        ("call", json!({"method": "m", "shop": shop}), "ok"),
        ("ping", json!({"shop": shop}), "pong"),
        ("logout", json!({"shop": shop}), "closed"),
    ]
}

#[tokio::test]
async fn no_op_of_a_device_reaches_another_shop() {
    let (world, _dir) = world_with(&[("EVENTS", "true")]).await;
    let mut victim = Victim::open(&world).await;
    let api = world.api(0);
    let before = eventually_get(SOON, "the receipt is written down", async || {
        let state = victim.state(&api).await;
        state.iter().any(|text| text.contains(r#""delivered":{"till":true}"#)).then_some(state)
    })
    .await;
    // The same names as there, on either node.
    for (n, encoding) in [Encoding::Json, Encoding::MsgPack].into_iter().enumerate() {
        let login = with_token(Login::main(&unique("mine"), "till"), json!({})).encoding(encoding);
        let mut evil = login.on(&world.url(n)).await;
        for (op, fields, expected) in attempts(&victim) {
            let mut request = fields.clone();
            request["op"] = op.into();
            match expected {
                "" => evil.send(request).await,
                "closed" => {
                    evil.send(request).await;
                    assert_eq!(evil.close_code().await.0, 1000);
                }
                _ => {
                    let answer = evil.request(request.clone()).await;
                    let seen = answer["code"].as_str().or(answer["op"].as_str());
                    assert_eq!(seen, Some(expected), "{request}: {answer}");
                    assert!(!tells_of(&victim, &answer), "{request}: {answer}");
                    assert_ne!(answer["duplicate"], true, "a key is its shop's");
                    for event in evil.take_held() {
                        let Event::Op(told) = event else { continue };
                        assert!(!tells_of(&victim, &told), "{told}");
                    }
                }
            }
        }
    }
    victim.till.expect_nothing().await;
    victim.hand.expect_nothing().await;
    assert_eq!(victim.state(&api).await, before);
}

#[tokio::test]
async fn every_op_that_the_relay_takes_is_among_the_attempts() {
    let (world, _dir) = world_with(&[]).await;
    let victim = Victim::open(&world).await;
    let tried: BTreeSet<&str> = attempts(&victim).into_iter().map(|(op, ..)| op).collect();
    let arms = include_str!("../../src/protocol/client.rs").lines().filter(|line| line.contains("\" => ClientOp::"));
    let known: BTreeSet<&str> = arms.filter_map(|arm| arm.split('"').nth(1)).collect();
    assert!(known.contains("notify"), "{known:?}");
    assert_eq!(tried, known);
}

#[tokio::test]
async fn a_token_of_one_shop_lets_nobody_into_another() {
    let (world, _dir) = world_with(&[("LEGACY", "true")]).await;
    let mut victim = Victim::open(&world).await;
    let mine = unique("mine");
    let token = with_token(Login::main(&mine, "till"), json!({})).op()["token"].as_str().unwrap().to_owned();
    for device in ["till", "hand", "new"] {
        let mut evil = Device::connect(&world.url(1), Encoding::Json).await;
        evil.refused("login", Login::main(&victim.shop, device).token(&token).op(), "unauthorized").await;
        assert_eq!(evil.close_code().await.0, 4001);
    }
    let mut evil = crate::harness::LegacyDevice::connect(world.nodes[0].listen()).await;
    let login = json!({"op": "login", "shop_id": victim.shop, "client_id": "till", "type": "主", "token": token});
    evil.send(login).await;
    assert_eq!(evil.refusal().await, "unauthorized");
    assert_eq!(evil.close_code().await.0, 4001);
    victim.till.expect_nothing().await;
}
