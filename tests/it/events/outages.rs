//! The stream while Redis is away, full, or will not take it.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::json;

use super::{Entry, Stream, conn, kinds, world_with_events};
use crate::harness::{Login, RawSocket, SOON, eventually, unique, unix_ms};

/// Events that wait for Redis, at most.
const WAITING_MAX: usize = 8192;
/// What a call may take that Redis does not answer: the writes before and of it, at 2 s each.
const REFUSED_WITHIN: Duration = Duration::from_secs(6);

/// Connects and is gone: two events a time.
async fn come_and_go(url: &str, times: usize) {
    for _ in 0..times {
        drop(RawSocket::open(url).await);
    }
}

/// The entries without those that were written twice, as an outage may do.
fn once(entries: Vec<Entry>) -> Vec<Entry> {
    let mut seen = BTreeSet::new();
    entries.into_iter().filter(|entry| seen.insert(entry.clone())).collect()
}

#[tokio::test]
async fn while_redis_is_away_a_call_is_unavailable_and_other_events_wait() {
    let world = world_with_events(1, &[]).await;
    let (stream, shop) = (Stream::of(&world), unique("shop"));
    let mut till = Login::main(&shop, "till").on(&world.url(0)).await;
    let hand = Login::sub(&shop, "hand").on(&world.url(0)).await;
    till.request(json!({"op": "call", "method": "before"})).await;
    world.redis().pause();
    let asked = Instant::now();
    let error = till.refused("call", json!({"method": "during"}), "unavailable").await;
    assert!(error["retry_after_ms"].is_u64(), "{error}");
    assert!(asked.elapsed() < REFUSED_WITHIN, "{:?}", asked.elapsed());
    let gone = conn(&hand.welcome);
    hand.reset();
    come_and_go(&world.url(0), 10).await;
    till.refused("call", json!({"method": "during"}), "unavailable").await;
    let back_ms = unix_ms();
    world.redis().resume();
    let close = stream.of_closed_conn(&gone).await.pop().unwrap();
    assert!(close["at"].parse::<u64>().unwrap() <= back_ms, "{close:?} tells when it was and not when it was written");
    eventually(SOON, "every event of that time", async || {
        let entries = once(stream.entries());
        let count = |kind: &str| kinds(&entries).into_iter().filter(|event| *event == kind).count();
        // Two logged in, ten came and went, and one of the two is still there.
        (count("connect"), count("close")) == (12, 11)
    })
    .await;
    eventually(SOON, "calls to be taken again", async || {
        till.request(json!({"op": "call", "method": "after"})).await["op"] == "ok"
    })
    .await;
    assert_eq!(world.metric("shoprelay_events_dropped_total").await, 0.0);
}

#[tokio::test]
async fn a_call_behind_more_events_than_one_write_takes_does_not_wait_for_redis() {
    // The writer held on to a full batch, and the call behind it was answered when Redis was back.
    let world = world_with_events(1, &[]).await;
    let mut till = Login::main(&unique("shop"), "till").on(&world.url(0)).await;
    world.redis().pause();
    come_and_go(&world.url(0), 300).await;
    for _ in 0..2 {
        let asked = Instant::now();
        till.refused("call", json!({"method": "price"}), "unavailable").await;
        assert!(asked.elapsed() < REFUSED_WITHIN, "{:?}", asked.elapsed());
    }
}

#[tokio::test]
async fn what_happens_beyond_the_bound_while_redis_is_away_is_dropped_and_counted() {
    let world = world_with_events(1, &[]).await;
    let stream = Stream::of(&world);
    world.redis().pause();
    let url = world.url(0);
    let connections = WAITING_MAX / 2 + 400;
    let comings: Vec<_> = (0..8)
        .map(|_| {
            let url = url.clone();
            tokio::spawn(async move { come_and_go(&url, connections / 8).await })
        })
        .collect();
    for coming in comings {
        coming.await.unwrap();
    }
    let told = connections / 8 * 8 * 2;
    let dropped = told - WAITING_MAX;
    eventually(SOON, "what is beyond the bound to be dropped", async || {
        world.metric("shoprelay_events_dropped_total").await == dropped as f64
    })
    .await;
    assert_eq!(world.metric("shoprelay_events_total").await, 0.0);
    world.redis().resume();
    eventually(2 * SOON, "what is within the bound to be counted as written", async || {
        world.metric("shoprelay_events_total").await == WAITING_MAX as f64
    })
    .await;
    assert_eq!(once(stream.entries()).len(), WAITING_MAX, "and to be there");
    assert_eq!(world.metric("shoprelay_events_dropped_total").await, dropped as f64);
}

#[tokio::test]
async fn while_redis_is_full_a_call_is_unavailable_and_other_events_wait() {
    let world = world_with_events(1, &[]).await;
    let (stream, shop) = (Stream::of(&world), unique("shop"));
    let mut till = Login::main(&shop, "till").on(&world.url(0)).await;
    let hand = Login::sub(&shop, "hand").on(&world.url(0)).await;
    world.redis().cli(&["CONFIG", "SET", "maxmemory", "1"]);
    let error = till.refused("call", json!({"method": "price"}), "unavailable").await;
    assert!(error["message"].as_str().unwrap().contains("full"), "{error}");
    let gone = conn(&hand.welcome);
    hand.reset();
    till.refused("call", json!({"method": "price"}), "unavailable").await;
    world.redis().cli(&["CONFIG", "SET", "maxmemory", "0"]);
    assert_eq!(kinds(&stream.of_closed_conn(&gone).await), ["connect", "login", "close"]);
}

#[tokio::test]
async fn where_the_streams_name_is_taken_events_are_dropped_and_counted_until_it_is_free() {
    let world = world_with_events(1, &[]).await;
    let stream = Stream::of(&world);
    stream.redis.cli(&["SET", &stream.key, "in the way"]);
    let mut till = Login::main(&unique("shop"), "till").on(&world.url(0)).await;
    // It would be of no use to call again.
    till.refused("call", json!({"method": "price"}), "internal").await;
    assert_eq!(world.metric("shoprelay_events_dropped_total").await, 3.0, "a connect, a login and a call");
    stream.redis.cli(&["DEL", &stream.key]);
    assert_eq!(till.request(json!({"op": "call", "method": "price"})).await["op"], "ok");
    assert_eq!(kinds(&stream.entries()), ["call"]);
}

#[tokio::test]
async fn a_node_stops_in_time_although_redis_is_away_and_says_that_events_are_lost() {
    let mut world = world_with_events(1, &[]).await;
    let socket = RawSocket::open(&world.url(0)).await;
    world.redis().pause();
    world.nodes[0].sigint();
    assert!(world.nodes[0].wait_exit().await.success());
    let log = world.nodes[0].log_text();
    assert!(log.contains("some events could not be written"), "{log}");
    drop(socket);
}
