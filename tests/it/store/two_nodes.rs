//! What two nodes on one Redis hear of each other, and what Redis then holds.

use futures_util::future::join_all;
use serde_json::{Value, json};
use shoprelay::attrs::{Attrs, AttrsChange};
use shoprelay::ids::{ConnId, MessageId, NodeId};
use shoprelay::message::{Audience, Broadcast, Entry, MembershipChange, MembershipStep, Role};
use shoprelay::store::redis::RedisStore;
use shoprelay::store::{
    AttrsChanged, Connect, Event, EventKind, Evicted, FeedEvent, Forget, GapCause, LegacyText, MembershipChanged,
    NodeReport, Store, StoreError, StoreSettings,
};

use super::suite::{Bench, SOON, connect, device, login, message_of_api, settings, shop, shop_ref, signal, stored};
use crate::redis_server::{RedisServer, eventually};

fn broadcast(except: &str) -> Broadcast {
    Broadcast { signal: signal(message_of_api(Audience::All)), except: vec![except.parse().unwrap()].into() }
}

#[tokio::test]
async fn a_change_of_membership_is_heard_on_the_other_node_in_the_order_of_the_log() {
    let (one, mut other) = Bench::pair_on_redis(&RedisServer::shared().url()).await;
    other.store.subscribe(&shop()).await.unwrap();
    connect(&*other.store, "hand", Role::Sub, "c1").await;
    let before = stored(&*one.store).await;
    let change = MembershipChange { device: None, step: MembershipStep::Bind("ann".parse().unwrap()) };
    let MembershipChanged::Changed(id) = one.store.change_membership(&shop(), &change).await.unwrap() else { panic!() };
    let after = stored(&*other.store).await;
    let mut expected_prev = MessageId::ZERO;
    for expected in [before, id, after] {
        let FeedEvent::Entry { prev, stored, publisher, .. } = other.next().await else { panic!() };
        assert_eq!((prev, stored.id), (expected_prev, expected));
        if let Entry::Membership(heard) = stored.entry {
            assert_eq!((heard, publisher), (change.clone(), Some(one.node.clone())));
        } else {
            assert_ne!(expected, id);
        }
        expected_prev = expected;
    }
}

#[tokio::test]
async fn an_eviction_is_heard_on_the_node_that_holds_the_connection() {
    let (one, mut other) = Bench::pair_on_redis(&RedisServer::shared().url()).await;
    other.store.subscribe(&shop()).await.unwrap();
    let conn = ConnId::of(&other.node, 1);
    for is_forgotten in [false, true] {
        let connect = Connect { conn: conn.clone(), ..login("till", Role::Main, "-") };
        other.store.connect(&shop(), &connect).await.unwrap();
        if is_forgotten {
            assert!(one.store.forget(&shop(), &device("till"), Forget::ByOperator).await.unwrap());
        } else {
            let evicted = one.store.evict(&shop(), &device("till"), None, None).await.unwrap();
            assert_eq!(evicted, Evicted::Closing(conn.clone()));
        }
        let FeedEvent::Evicted { conn: heard, .. } = other.next().await else { panic!() };
        assert_eq!(heard, conn);
    }
}

#[tokio::test]
async fn a_broadcast_is_heard_on_every_node_and_again_after_each_reconnect() {
    let redis = RedisServer::start().await;
    let (mut one, mut other) = Bench::pair_on_redis(&redis.url()).await;
    for n in 0..3 {
        one.store.broadcast(&broadcast(&format!("n.{n}"))).await.unwrap();
        for bench in [&mut one, &mut other] {
            let FeedEvent::Broadcast(heard) = bench.next().await else { panic!() };
            assert_eq!(heard.except.as_slice(), [format!("n.{n}").parse().unwrap()]);
        }
        redis.cli(&["CLIENT", "KILL", "TYPE", "pubsub"]);
        for bench in [&mut one, &mut other] {
            let told = bench.next().await;
            assert!(matches!(told, FeedEvent::Gap(GapCause::Reconnected)), "{told:?}");
        }
    }
    assert_eq!(redis.cli(&["PUBSUB", "SHARDCHANNELS", "*:all"]).lines().count(), 1);
}

#[tokio::test]
async fn a_text_for_legacy_connections_is_heard_on_every_node() {
    let redis = RedisServer::start().await;
    let (mut one, mut other) = Bench::pair_on_redis(&redis.url()).await;
    let sent = LegacyText { conns: vec!["n.1".parse().unwrap()], text: "店\n".into() };
    one.store.send_text(&sent).await.unwrap();
    for bench in [&mut one, &mut other] {
        let FeedEvent::LegacyText(heard) = bench.next().await else { panic!() };
        assert_eq!(heard, sent);
    }
    // What a later version may tell is left out, and what comes after it is heard.
    let channel = redis.cli(&["PUBSUB", "SHARDCHANNELS", "*:all"]);
    redis.cli(&["SPUBLISH", &channel, "Zx"]);
    one.store.send_text(&sent).await.unwrap();
    assert!(matches!(other.next().await, FeedEvent::LegacyText(_)));
}

#[tokio::test]
async fn legacy_connections_of_all_nodes_are_listed_and_go_with_their_node() {
    let redis = RedisServer::start().await;
    let (one, other) = Bench::pair_on_redis(&redis.url()).await;
    let conns = [ConnId::of(&one.node, 1), ConnId::of(&other.node, 1)];
    for (bench, conn) in [&one, &other].into_iter().zip(&conns) {
        bench.store.beat(&bench.node, &NodeReport::default()).await.unwrap();
        bench.store.note_legacy(conn, true).await.unwrap();
    }
    for bench in [&one, &other] {
        let listed = bench.store.legacy_conns().await.unwrap();
        assert_eq!((listed.len(), conns.iter().all(|conn| listed.contains(conn))), (2, true), "{listed:?}");
    }
    let key = redis.cli(&["KEYS", &format!("*legacy-conns:{}", other.node)]);
    let ttl = || redis.cli(&["TTL", &key]).parse::<i64>().unwrap();
    assert!((3500..=3600).contains(&ttl()), "{}", ttl());
    redis.cli(&["EXPIRE", &key, "100"]);
    one.store.beat(&one.node, &NodeReport::default()).await.unwrap();
    assert!(ttl() <= 100, "another node's beat renews nothing");
    other.store.beat(&other.node, &NodeReport::default()).await.unwrap();
    assert!(ttl() > 3500, "its own does");

    other.store.leave(&other.node).await.unwrap();
    assert_eq!(one.store.legacy_conns().await.unwrap(), conns[..1]);
    assert_eq!(redis.cli(&["EXISTS", &key]), "0");
    one.store.note_legacy(&conns[0], false).await.unwrap();
    assert_eq!(redis.cli(&["KEYS", "*legacy-conns*"]), "", "nothing is left behind");
}

#[tokio::test]
async fn a_connection_is_found_from_another_node_and_leaves_nothing_behind() {
    let redis = RedisServer::start().await;
    let (one, other) = Bench::pair_on_redis(&redis.url()).await;
    let nth = |n| ConnId::of(&other.node, n);
    let log_in = async |name: &str, conn: ConnId| {
        let connect = Connect { conn, node: other.node.clone(), ..login(name, Role::Main, "-") };
        other.store.connect(&shop(), &connect).await.unwrap();
    };
    log_in("till", nth(1)).await;
    let (of, online) = one.store.locate(&nth(1)).await.unwrap().unwrap();
    assert_eq!((of, &online.device, &online.node), (shop(), &device("till"), &other.node));
    let key = redis.cli(&["KEYS", "*conns:*"]);
    assert!(key.ends_with(other.node.as_str()), "{key}");
    let ttl = || redis.cli(&["TTL", &key]).parse::<i64>().unwrap();
    assert!((3500..=3600).contains(&ttl()), "{}", ttl());

    redis.cli(&["EXPIRE", &key, "100"]);
    one.store.beat(&one.node, &NodeReport::default()).await.unwrap();
    assert!(ttl() <= 100, "another node's beat renews nothing");
    other.store.beat(&other.node, &NodeReport::default()).await.unwrap();
    assert!(ttl() > 3500, "its own does");

    log_in("till", nth(2)).await;
    assert_eq!(redis.cli(&["HLEN", &key]), "2");
    assert_eq!(one.store.locate(&nth(1)).await.unwrap(), None, "what is noted there holds no more");
    assert!(!other.store.disconnect(&shop(), &device("till"), &nth(1), None).await.unwrap());
    assert_eq!(redis.cli(&["HKEYS", &key]), nth(2).as_str(), "a late clean-up removes its own");
    other.store.leave(&other.node).await.unwrap();
    assert_eq!(redis.cli(&["EXISTS", &key]), "0");
}

#[tokio::test]
async fn a_login_is_taken_where_whose_connection_it_is_cannot_be_noted() {
    let redis = RedisServer::start().await;
    let bench = Bench::on_redis(&redis.url()).await;
    let first = Connect { conn: ConnId::of(&bench.node, 7), ..login("hand", Role::Sub, "-") };
    bench.store.connect(&shop(), &first).await.unwrap();
    redis.cli(&["SET", &redis.cli(&["KEYS", "*conns:*"]), "no hash"]);
    let conn = ConnId::of(&bench.node, 1);
    let connect = Connect { conn: conn.clone(), ..login("till", Role::Main, "-") };
    bench.store.connect(&shop(), &connect).await.unwrap();
    assert!(bench.store.locate(&conn).await.is_err());
    assert_eq!(bench.store.online(&shop()).await.unwrap().len(), 2);
    assert!(bench.store.disconnect(&shop(), &device("till"), &conn, None).await.unwrap());
}

#[tokio::test]
async fn patches_of_two_nodes_at_once_lose_nothing() {
    let (one, other) = Bench::pair_on_redis(&RedisServer::shared().url()).await;
    connect(&*one.store, "till", Role::Main, "c1").await;
    let patch = |n: usize| AttrsChange::Patch(Attrs::parse(&format!(r#"{{"k{n}":{n}}}"#)).unwrap());
    let patches: Vec<AttrsChange> = (0..12).map(patch).collect();
    let till = device("till");
    let stores = [&*one.store, &*other.store];
    let calls = patches.iter().enumerate().map(|(n, patch)| stores[n % 2].change_attrs(shop_ref(), &till, patch));
    for outcome in join_all(calls).await {
        assert!(matches!(outcome.unwrap(), AttrsChanged::Now(_)));
    }
    let attrs = other.store.attrs(&shop(), &till).await.unwrap().unwrap();
    let attrs: Value = serde_json::from_str(attrs.as_str()).unwrap();
    assert_eq!(attrs.as_object().unwrap().len(), 12);
}

#[tokio::test]
async fn what_grows_a_full_redis_is_refused_and_what_frees_it_is_taken() {
    let redis = RedisServer::start().await;
    let bench = Bench::on_redis(&redis.url()).await;
    let store = &*bench.store;
    connect(store, "till", Role::Main, "c1").await;
    redis.cli(&["CONFIG", "SET", "maxmemory", "1"]);
    let change = MembershipChange { device: Some(device("till")), step: MembershipStep::Join("g".parse().unwrap()) };
    let refused = store.change_membership(&shop(), &change).await;
    assert!(matches!(refused, Err(StoreError::Full)), "{refused:?}");
    let set = AttrsChange::Set(Attrs::parse(r#"{"a":1}"#).unwrap());
    let refused = store.change_attrs(&shop(), &device("till"), &set).await;
    assert!(matches!(refused, Err(StoreError::Full)), "{refused:?}");
    let refused = store.add_events(&[event(EventKind::Connect)]).await;
    assert!(matches!(refused, Err(StoreError::Full)), "{refused:?}");
    store.broadcast(&broadcast("n.1")).await.unwrap();
    assert!(matches!(store.evict(&shop(), &device("till"), None, None).await.unwrap(), Evicted::Closing(_)));
    assert!(store.forget(&shop(), &device("till"), Forget::ByOperator).await.unwrap());
}

fn event(kind: EventKind) -> Event {
    let node: NodeId = "n".parse().unwrap();
    Event { kind, at_ms: 17, node, conn: None, shop: None, device: None, role: None, user: None }
}

#[tokio::test]
async fn events_come_into_the_stream_in_order_with_the_fields_that_apply_and_no_others() {
    let redis = RedisServer::start().await;
    let bench = Bench::on_redis(&redis.url()).await;
    let of_device = |kind| Event {
        conn: Some("n.1".parse().unwrap()),
        shop: Some("店 1".parse().unwrap()),
        device: Some(device("till")),
        role: Some(Role::Main),
        user: Some("ann".parse().unwrap()),
        ..event(kind)
    };
    let call = |reference: Option<&str>, data: Option<&str>| EventKind::Call {
        method: "print".parse().unwrap(),
        reference: reference.map(Into::into),
        data: data.map(Into::into),
    };
    let dealt = |api: Option<&str>| EventKind::Dealt {
        message: MessageId { ms: 5, n: 1 },
        status: "done".parse().unwrap(),
        api: api.map(|api| api.parse().unwrap()),
    };
    let sent = [
        Event { conn: Some("n.1".parse().unwrap()), ..event(EventKind::Connect) },
        of_device(EventKind::Login),
        of_device(call(Some("7"), Some(r#"{"a": [1, null]}"#))),
        of_device(call(None, None)),
        of_device(dealt(None)),
        Event { shop: Some(shop()), ..event(dealt(Some("pos"))) },
        of_device(EventKind::Close { code: 1006 }),
    ];
    bench.store.add_events(&sent).await.unwrap();
    bench.store.add_events(&[]).await.unwrap();
    let key = redis.cli(&["KEYS", "*events"]);
    let entries: Value = serde_json::from_str(&redis.cli(&["--json", "XRANGE", &key, "-", "+"])).unwrap();
    let fields: Vec<String> = entries
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| {
            entry[1].as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect::<Vec<_>>().join("|")
        })
        .collect();
    let who = "node|n|conn|n.1|shop|店 1|device|till|role|main|user|ann";
    let expected = [
        "event|connect|at|17|node|n|conn|n.1".to_owned(),
        format!("event|login|at|17|{who}"),
        format!(r#"event|call|at|17|{who}|method|print|ref|7|data|{{"a": [1, null]}}"#),
        format!("event|call|at|17|{who}|method|print"),
        format!("event|dealt|at|17|{who}|message|5-1|status|done"),
        "event|dealt|at|17|node|n|shop|shop 1|message|5-1|status|done|api|pos".to_owned(),
        format!("event|close|at|17|{who}|code|1006"),
    ];
    assert_eq!(json!(fields), json!(expected));
}

#[tokio::test]
async fn the_stream_of_events_holds_roughly_as_many_as_it_may() {
    let redis = RedisServer::start().await;
    let few = StoreSettings { events_max: 500, ..settings() };
    let (store, _feed) = RedisStore::start(&redis.url(), None, NodeId::fresh(), few).await.unwrap();
    let events: Vec<Event> = (0..2000).map(|code| event(EventKind::Close { code })).collect();
    store.add_events(&events).await.unwrap();
    let key = redis.cli(&["KEYS", "*events"]);
    let held: u64 = redis.cli(&["XLEN", &key]).parse().unwrap();
    assert!((500..=700).contains(&held), "{held}");
    let newest = redis.cli(&["XREVRANGE", &key, "+", "-", "COUNT", "1"]);
    assert!(newest.ends_with("1999"), "{newest}");
    store.close().await;
}

/// A field of `nodes` of an earlier version holds sessions, rooms and version; it was read as a beat
/// then, and its node has to be alive for later versions too.
#[tokio::test]
async fn a_node_of_an_earlier_version_is_heard_of() {
    let redis = RedisServer::start().await;
    let bench = Bench::on_redis(&redis.url()).await;
    bench.store.beat(&bench.node, &NodeReport::default()).await.unwrap();
    let key = redis.cli(&["KEYS", "*nodes"]);
    let now_ms = bench.store.now_ms();
    redis.cli(&["HSET", &key, "early", &format!("{now_ms} 7 2 0.1.0")]);
    let beats = bench.store.beat(&bench.node, &NodeReport::default()).await.unwrap();
    let early = beats.iter().find(|beat| beat.node.as_str() == "early").unwrap();
    assert_eq!((early.at_ms, early.age < SOON), (now_ms, true));
    let report = NodeReport { connections: 7, rooms: 2, version: "0.1.0".into(), ..NodeReport::default() };
    assert_eq!(early.report, report);
}

#[tokio::test]
async fn attributes_that_cannot_be_read_count_as_none_and_can_be_set_again() {
    let redis = RedisServer::start().await;
    let bench = Bench::on_redis(&redis.url()).await;
    let store = &*bench.store;
    connect(store, "till", Role::Main, "c1").await;
    let change = AttrsChange::Patch(Attrs::parse(r#"{"a":1}"#).unwrap());
    store.change_attrs(&shop(), &device("till"), &change).await.unwrap();
    let key = redis.cli(&["KEYS", "*attrs"]);
    redis.cli(&["HSET", &key, "till", "no JSON"]);
    assert_eq!(store.attrs(&shop(), &device("till")).await.unwrap(), Some(Attrs::none()));
    let now = store.change_attrs(&shop(), &device("till"), &change).await.unwrap();
    assert_eq!(now, AttrsChanged::Now(Attrs::parse(r#"{"a":1}"#).unwrap()));
    assert_eq!(redis.cli(&["HGET", &key, "till"]), r#"{"a":1}"#);
    assert!(matches!(
        store.change_attrs(&shop(), &device("till"), &AttrsChange::Set(Attrs::none())).await.unwrap(),
        AttrsChanged::Now(_)
    ));
    eventually(SOON, "nothing is kept of it", async || redis.cli(&["EXISTS", &key]) == "0").await;
}
