//! What every engine tells nodes, and what they tell of themselves.

use std::collections::HashSet;
use std::time::Duration;

use futures_util::future::join_all;
use shoprelay::ids::{ConnId, MessageId, NodeId, ShopId};
use shoprelay::message::{Audience, Broadcast, Role};
use shoprelay::store::{FeedEvent, LegacyText, NodeReport, Receipt, Signalled, StoreError};

use super::suite::{Bench, SOON, conformance, conn, connect, device, message, message_of_api, shop, signal, stored};

conformance! {
    signals_and_receipts_come_through_the_feed_and_store_nothing,
    a_back_ends_signal_for_a_shop_that_nobody_registered_in_is_refused,
    a_broadcast_is_heard_whatever_shops_are_listened_to,
    a_text_for_legacy_connections_is_heard_whatever_shops_are_listened_to,
    legacy_connections_are_listed_until_they_end_or_their_node_leaves,
    a_task_is_claimed_by_one_node_at_a_time,
    a_node_is_heard_of_until_it_leaves,
    every_shop_that_was_listened_to_is_remembered,
    an_unsubscribed_shop_is_no_longer_heard,
    many_shops_are_subscribed_at_once,
}

async fn signals_and_receipts_come_through_the_feed_and_store_nothing(bench: &mut Bench) {
    bench.store.subscribe(&shop()).await.unwrap();
    let store = &*bench.store;
    let nobody = Audience::Devices(vec![device("nobody")].into());
    assert_eq!(store.signal(&shop(), &signal(message(nobody))).await.unwrap(), Signalled::NoSuchDevice);
    connect(store, "till", Role::Main, "c1").await;
    let one = Audience::Devices(vec![device("nobody"), device("till")].into());
    assert_eq!(store.signal(&shop(), &signal(message(one))).await.unwrap(), Signalled::Sent);
    assert_eq!(store.signal(&shop(), &signal(message(Audience::Mains))).await.unwrap(), Signalled::Sent);
    let receipts: Vec<Receipt> = (1..=300)
        .map(|n| Receipt {
            sender: device("hand"),
            message: MessageId { ms: n, n: 0 },
            device: device("till"),
            at_ms: 9,
        })
        .collect();
    store.send_receipts(&shop(), &receipts).await.unwrap();
    assert_eq!(store.log_len(&shop()).await.unwrap(), 0);
    for _ in 0..2 {
        let FeedEvent::Signal { signal, publisher, .. } = bench.next().await else { panic!() };
        assert_eq!((signal.at_ms, publisher), (7, Some(bench.node.clone())));
    }
    for expected in receipts {
        let FeedEvent::Receipt { receipt, .. } = bench.next().await else { panic!() };
        assert_eq!(receipt, expected);
    }
}

async fn a_back_ends_signal_for_a_shop_that_nobody_registered_in_is_refused(bench: &mut Bench) {
    let store = &*bench.store;
    let send = async |to| store.signal(&shop(), &signal(message_of_api(to))).await.unwrap();
    let conns = || Audience::Conns(vec!["c1".parse().unwrap()].into());
    for to in [Audience::All, Audience::Mains, Audience::Group("g".parse().unwrap()), conns()] {
        assert_eq!(send(to.clone()).await, Signalled::NoSuchDevice, "{to:?}");
    }
    assert_eq!(store.signal(&shop(), &signal(message(Audience::All))).await.unwrap(), Signalled::Sent, "a device's");
    connect(store, "hand", Role::Sub, "c1").await;
    for to in [Audience::All, Audience::Mains, conns(), Audience::Devices(vec![device("hand")].into())] {
        assert_eq!(send(to.clone()).await, Signalled::Sent, "{to:?}");
    }
    assert_eq!(send(Audience::Devices(vec![device("other")].into())).await, Signalled::NoSuchDevice);
}

async fn a_broadcast_is_heard_whatever_shops_are_listened_to(bench: &mut Bench) {
    let sent = |except: &str| {
        let except = vec![except.parse().unwrap()].into();
        Broadcast { signal: signal(message_of_api(Audience::Subs)), except }
    };
    bench.store.broadcast(&sent("n.1")).await.unwrap();
    let FeedEvent::Broadcast(heard) = bench.next().await else { panic!() };
    assert_eq!(format!("{heard:?}"), format!("{:?}", sent("n.1")));
    bench.store.subscribe(&shop()).await.unwrap();
    bench.store.broadcast(&sent("n.2")).await.unwrap();
    stored(&*bench.store).await;
    // In a cluster they may come from two primaries, whose connections keep no common order.
    let heard = [bench.next().await, bench.next().await];
    let broadcasts = heard.iter().filter_map(|event| match event {
        FeedEvent::Broadcast(heard) => Some(heard.except.as_slice()),
        _ => None,
    });
    assert_eq!(broadcasts.collect::<Vec<_>>(), [["n.2".parse().unwrap()]], "heard once: {heard:?}");
    assert!(heard.iter().any(|event| matches!(event, FeedEvent::Entry { .. })), "{heard:?}");
}

async fn a_text_for_legacy_connections_is_heard_whatever_shops_are_listened_to(bench: &mut Bench) {
    let nobody = LegacyText { conns: Vec::new(), text: "unheard".into() };
    let one = LegacyText { conns: vec![conn("n.1")], text: "".into() };
    let conns = (0..1000).map(|n| conn(&format!("n-{n}.{n}"))).collect();
    let many = LegacyText { conns, text: "a b\nc\0\"店\"".into() };
    for text in [&nobody, &one, &many] {
        bench.store.send_text(text).await.unwrap();
    }
    for sent in [one, many] {
        let FeedEvent::LegacyText(heard) = bench.next().await else { panic!() };
        assert_eq!(heard, sent);
    }
}

async fn legacy_connections_are_listed_until_they_end_or_their_node_leaves(bench: &mut Bench) {
    let store = &*bench.store;
    let other: NodeId = "other".parse().unwrap();
    let (mine, others) = (|n| ConnId::of(&bench.node, n), |n| ConnId::of(&other, n));
    let listed = async || store.legacy_conns().await.unwrap().into_iter().collect::<HashSet<ConnId>>();
    for node in [&bench.node, &other] {
        store.beat(node, &NodeReport::default()).await.unwrap();
    }
    assert_eq!(listed().await, HashSet::new());
    store.note_legacy(&mine(1), false).await.unwrap();
    for conn in [mine(1), mine(2), others(1), mine(1)] {
        store.note_legacy(&conn, true).await.unwrap();
    }
    assert_eq!(listed().await, HashSet::from([mine(1), mine(2), others(1)]));
    store.note_legacy(&mine(1), false).await.unwrap();
    store.note_legacy(&mine(1), false).await.unwrap();
    assert_eq!(listed().await, HashSet::from([mine(2), others(1)]));
    let many: Vec<ConnId> = (100..2600).map(mine).collect();
    for noted in join_all(many.iter().map(|conn| store.note_legacy(conn, true))).await {
        noted.unwrap();
    }
    let listed_now = store.legacy_conns().await.unwrap();
    assert_eq!((listed_now.len(), listed().await.len()), (2502, 2502), "each once");
    store.leave(&bench.node).await.unwrap();
    assert_eq!(listed().await, HashSet::from([others(1)]));
    store.beat(&bench.node, &NodeReport::default()).await.unwrap();
    assert_eq!(listed().await, HashSet::from([others(1)]), "they went with their node");
}

async fn a_task_is_claimed_by_one_node_at_a_time(bench: &mut Bench) {
    let store = &*bench.store;
    let (a, b): (NodeId, NodeId) = ("a".parse().unwrap(), "b".parse().unwrap());
    let minute = Duration::from_secs(60);
    assert!(store.claim("trim", &a, minute).await.unwrap());
    assert!(!store.claim("trim", &b, minute).await.unwrap());
    assert!(store.claim("trim", &a, Duration::from_millis(1)).await.unwrap(), "the holder goes on");
    crate::redis_server::eventually(SOON, "the lease runs out", async || {
        store.claim("trim", &b, minute).await.unwrap()
    })
    .await;
}

async fn a_node_is_heard_of_until_it_leaves(bench: &mut Bench) {
    let store = &*bench.store;
    let other: NodeId = "other".parse().unwrap();
    let report = NodeReport { connections: 9, mains: 2, subs: 5, rooms: 3, version: "1.2.3".into() };
    store.beat(&other, &NodeReport::default()).await.unwrap();
    store.beat(&other, &report).await.unwrap();
    let mut beats = store.beat(&bench.node, &NodeReport::default()).await.unwrap();
    beats.sort_by_key(|beat| beat.node != other);
    assert_eq!((beats.len(), &beats[0].node, &beats[1].node), (2, &other, &bench.node));
    assert_eq!((&beats[0].report, &beats[1].report), (&report, &NodeReport::default()));
    assert!(beats[0].at_ms > 1_600_000_000_000 && beats[0].age < SOON);
    store.leave(&other).await.unwrap();
    store.leave(&other).await.unwrap();
    assert_eq!(store.beat(&bench.node, &NodeReport::default()).await.unwrap().len(), 1);
}

async fn every_shop_that_was_listened_to_is_remembered(bench: &mut Bench) {
    let store = &*bench.store;
    assert_eq!(store.shops().await.unwrap(), []);
    store.subscribe(&shop()).await.unwrap();
    store.subscribe(&"店".parse().unwrap()).await.unwrap();
    store.unsubscribe(&shop()).await.unwrap();
    assert_eq!(store.shops().await.unwrap(), [shop(), "店".parse().unwrap()]);
}

async fn an_unsubscribed_shop_is_no_longer_heard(bench: &mut Bench) {
    let other: ShopId = "other".parse().unwrap();
    bench.store.subscribe(&shop()).await.unwrap();
    bench.store.subscribe(&other).await.unwrap();
    bench.store.unsubscribe(&shop()).await.unwrap();
    stored(&*bench.store).await;
    bench.store.publish(&other, &message(Audience::All)).await.unwrap();
    let FeedEvent::Entry { shop: of, .. } = bench.next().await else { panic!() };
    assert_eq!(of, other);
    bench.store.subscribe(&shop()).await.unwrap();
    stored(&*bench.store).await;
    let FeedEvent::Entry { shop: of, .. } = bench.next().await else { panic!() };
    assert_eq!(of, shop());
}

async fn many_shops_are_subscribed_at_once(bench: &mut Bench) {
    let shops: Vec<ShopId> = (0..1000).map(|n| format!("s{n}").parse().unwrap()).collect();
    let store = &*bench.store;
    let outcomes: Vec<Result<(), StoreError>> = join_all(shops.iter().map(async |shop| {
        store.subscribe(shop).await?;
        // Its return is the promise that this is heard.
        store.publish(shop, &message(Audience::All)).await.map(|_| ())
    }))
    .await;
    outcomes.into_iter().for_each(Result::unwrap);
    let mut heard = HashSet::new();
    while heard.len() < shops.len() {
        let FeedEvent::Entry { shop, .. } = bench.next().await else { panic!() };
        assert!(heard.insert(shop), "heard twice");
    }
}
