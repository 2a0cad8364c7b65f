//! Everybody comes back at once. The full size is `cargo bench --bench storm`.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::json;

use crate::harness::{Login, RawSocket, SOON, World, unique};

const SHOPS: usize = 50;
const MAINS_PER_SHOP: usize = 20;

#[tokio::test]
async fn a_thousand_devices_that_come_back_at_once_get_what_they_missed_and_redis_stays_quick() {
    let world = World::with(2, &[]).await;
    let shops: Vec<String> = (0..SHOPS).map(|n| unique(&format!("shop-{n}"))).collect();
    let logins: Vec<Login> = shops
        .iter()
        .flat_map(|shop| (0..MAINS_PER_SHOP).map(move |n| Login::main(shop, &format!("till-{n}"))))
        .collect();
    // They are registered, and gone.
    join_all(logins.iter().enumerate().map(|(n, login)| {
        let url = world.url(n);
        async move { log_in(&url, login).await.expect("it gets in") }
    }))
    .await;
    for (n, shop) in shops.iter().enumerate() {
        Login::sub(shop, "hand").on(&world.url(n)).await.notify(json!({"type": "missed"})).await;
    }
    let began = Instant::now();
    let back = join_all(logins.iter().enumerate().map(|(n, login)| {
        let url = world.url(n);
        async move {
            let mut tries = 0;
            let mut socket = loop {
                tries += 1;
                match log_in(&url, login).await {
                    Ok(socket) => break socket,
                    Err(_) if tries < 10 => tokio::time::sleep(Duration::from_secs(1)).await, // as it is told
                    Err(cause) => panic!("{cause}"),
                }
            };
            let message = socket.expect("message").await;
            assert_eq!(message["type"], "missed");
            socket.send_op(&json!({"op": "ack", "id": message["id"]})).await;
            socket
        }
    }));
    let quickness = async {
        let mut slowest = Duration::ZERO;
        loop {
            let asked = Instant::now();
            world.redis().cli(&["PING"]);
            slowest = slowest.max(asked.elapsed());
            tokio::time::sleep(Duration::from_millis(100)).await; // between two looks
            if slowest > SOON {
                return slowest;
            }
        }
    };
    let healed = tokio::select! {
        healed = back => healed,
        slowest = quickness => panic!("Redis took {slowest:?} to answer"),
    };
    assert_eq!(healed.len(), SHOPS * MAINS_PER_SHOP);
    assert!(began.elapsed() < Duration::from_secs(60), "it took {:?}", began.elapsed());
    world.assert_serves().await;
}

async fn log_in(url: &str, login: &Login) -> Result<RawSocket, String> {
    let (head, mut socket) = RawSocket::connect(url).await.ask(url, &[]).await?;
    if !head.starts_with("HTTP/1.1 101") {
        return Err(head);
    }
    socket.send_op(&login.op()).await;
    let answer = socket.next().await;
    if answer["op"] == "welcome" { Ok(socket) } else { Err(answer.to_string()) }
}
