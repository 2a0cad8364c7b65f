//! Handshakes and logins are paced, and so many may wait.

use std::time::Duration;

use futures_util::future::join_all;

use super::answer;
use crate::harness::{
    Device, Encoding, Login, NodeOptions, NodeProcess, RawSocket, RedisProxy, SOON, World, eventually, unique,
};
use crate::redis_server::RedisServer;

async fn waiting(world: &World) -> f64 {
    world.nodes[0].metrics().await.get("shoprelay_logins_waiting")
}

#[tokio::test]
async fn handshakes_wait_for_their_turn_and_beyond_the_queue_are_answered_503() {
    let settings = [
        ("LIMITS_HANDSHAKES_PER_S", "1"),
        ("LIMITS_HANDSHAKE_QUEUE", "3"),
        ("TIMEOUTS_LOGIN", "2s"),
        ("TIMEOUTS_HEADER", "2s"),
    ];
    let world = World::with(1, &settings).await;
    let url = world.url(0);
    let shop = unique("shop");
    let comings = (0..12).map(|n| {
        let (url, login) = (&url, Login::sub(&shop, &format!("hand-{n}")));
        async move {
            let (head, mut socket) = RawSocket::connect(url).await.ask(url, &[]).await.unwrap();
            if answer(&head).0 == 101 {
                // The last of them waited longer than it has time to log in, and that was not its fault.
                socket.send_op(&login.op()).await;
                socket.expect("welcome").await;
            }
            (head, socket)
        }
    });
    let (mut opened, mut refused) = (Vec::new(), 0);
    for (head, socket) in join_all(comings).await {
        match answer(&head) {
            (101, _) => opened.push(socket),
            (503, Some(seconds)) => {
                assert!((1..=60).contains(&seconds), "{head}");
                refused += 1;
            }
            _ => panic!("{head}"),
        }
    }
    assert!(opened.len() >= 3, "who waits gets in: {}", opened.len());
    assert!(refused >= 1);
    let metrics = world.nodes[0].metrics().await;
    let counted = metrics.labelled("shoprelay_connections_refused_total", &[("reason", "handshake_queue")]);
    assert_eq!(counted, f64::from(refused));
}

#[tokio::test]
async fn logins_wait_for_their_turn_and_beyond_the_queue_are_unavailable() {
    let settings = [("LIMITS_LOGINS_PER_S", "1"), ("LIMITS_LOGIN_QUEUE", "2"), ("TIMEOUTS_LOGIN", "5s")];
    let world = World::with(1, &settings).await;
    let url = world.url(0);
    let shop = unique("shop");
    let devices = join_all((0..8).map(|_| Device::connect(&url, Encoding::Json))).await;
    let logins = devices.into_iter().enumerate().map(|(n, mut device)| {
        let login = Login::sub(&shop, &format!("hand-{n}"));
        async move {
            let answer = device.request(login.op()).await;
            (answer, device)
        }
    });
    let (mut welcome, mut busy) = (Vec::new(), Vec::new());
    for (answer, device) in join_all(logins).await {
        if answer["op"] == "welcome" {
            welcome.push(device);
        } else {
            assert_eq!(answer["code"], "unavailable", "{answer}");
            busy.push((answer["retry_after_ms"].as_u64().unwrap(), device));
        }
    }
    assert!(welcome.len() >= 2 && busy.len() >= 2, "{} let in, {} told to wait", welcome.len(), busy.len());
    busy.sort_by_key(|(wait, _)| *wait);
    assert!(busy.windows(2).all(|pair| pair[0].0 < pair[1].0), "no two are to come back together");
    assert!(busy[0].0 >= 1000, "{}", busy[0].0);
    // The connection stays, for another try.
    let (_, mut again) = busy.remove(0);
    eventually(SOON, "the queue to be empty", async || waiting(&world).await == 0.0).await;
    assert_eq!(again.request(Login::sub(&shop, "again").op()).await["op"], "welcome");
}

#[tokio::test]
async fn while_the_queue_of_logins_is_full_handshakes_are_answered_503_and_who_gives_up_leaves_it() {
    let settings = [("LIMITS_LOGINS_PER_S", "1"), ("LIMITS_LOGIN_QUEUE", "3"), ("LIMITS_LOGINS_AT_ONCE", "1")];
    let redis = RedisServer::start().await;
    let proxy = RedisProxy::before(redis.port()).await;
    let options =
        settings.iter().fold(NodeOptions::new(proxy.url()), |options, (name, value)| options.set(name, value));
    let node = NodeProcess::start(&options.set("TIMEOUTS_STORE", "60s")).await;
    let url = node.ws_url();
    let shop = unique("shop");
    let _before = Login::main(&shop, "till").on(&url).await;
    // One login is under way and stays so, and the others wait for it.
    proxy.hold(true);
    let mut sockets = join_all((0..4).map(|_| RawSocket::open(&url))).await;
    let waiting = async || node.metrics().await.get("shoprelay_logins_waiting");
    for (n, socket) in sockets.iter_mut().enumerate() {
        socket.send_op(&Login::sub(&shop, &format!("hand-{n}")).op()).await;
        eventually(SOON, "the login to be in the queue or under way", async || waiting().await >= n as f64).await;
    }
    eventually(SOON, "three to wait", async || waiting().await == 3.0).await;
    assert_eq!(RawSocket::handshake(&url, &[]).await.0, 503);
    let refused = node.metrics().await.labelled("shoprelay_connections_refused_total", &[("reason", "login_queue")]);
    assert_eq!(refused, 1.0);
    drop(sockets.pop());
    eventually(SOON, "the one that gave up to be out of the queue", async || waiting().await == 2.0).await;
    assert_eq!(RawSocket::handshake(&url, &[]).await.0, 101);
    proxy.hold(false);
    for mut socket in sockets {
        socket.expect("welcome").await;
    }
}

#[tokio::test]
async fn fewer_logins_ask_at_once_when_the_store_is_slow_and_all_get_in() {
    let redis = RedisServer::start().await;
    let proxy = RedisProxy::before(redis.port()).await;
    let node = NodeProcess::start(&NodeOptions::new(proxy.url())).await;
    let url = node.ws_url();
    let shop = unique("shop");
    // What a login takes when nothing is slow.
    for n in 0..4 {
        Login::sub(&shop, &format!("first-{n}")).on(&url).await.close().await;
    }
    assert_eq!(node.metrics().await.get("shoprelay_logins_at_once"), 16.0);
    proxy.delay(Duration::from_millis(250));
    let logins = (0..60).map(|n| {
        let login = Login::sub(&shop, &format!("hand-{n}"));
        let url = &url;
        async move { login.try_on(url).await }
    });
    let devices = join_all(logins).await;
    assert!(devices.iter().all(Result::is_ok), "everyone waits, and gets in");
    let at_once = node.metrics().await.get("shoprelay_logins_at_once");
    assert!(at_once <= 8.0, "still {at_once} at once");
    assert!(at_once >= 4.0, "{at_once}: none could tell that the store is fast again");
}
