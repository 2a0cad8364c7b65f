//! What operators and back ends do to devices, in every engine: attributes, closing, forgetting, finding.

use std::time::Duration;

use futures_util::future::join_all;
use shoprelay::attrs::{Attrs, AttrsChange};
use shoprelay::ids::{ConnId, MessageId, ShopId};
use shoprelay::message::{Audience, Membership, Role};
use shoprelay::store::{Admission, AttrsChanged, Connect, Evicted, FeedEvent, Forget, Published};

use super::suite::{
    Bench, conformance, conn, connect, device, login, mark, message, message_of_api, shop, shop_ref, signal, stored,
};
use crate::redis_server::eventually;

conformance! {
    attributes_are_set_merged_read_and_taken_away,
    attributes_that_are_too_large_change_nothing,
    patches_at_once_lose_nothing,
    an_evicted_device_is_away_and_its_node_is_told_with_the_last_signal,
    an_eviction_of_another_connection_leaves_the_present_one,
    an_evicted_device_was_seen_until_then,
    an_operator_forgets_a_connected_device_with_all_that_was_kept_of_it,
    a_connection_is_found_by_its_name_until_it_is_gone,
    a_barred_device_is_away_told_to_go_and_let_in_no_more_until_it_is_unbarred,
}

fn attrs(text: &str) -> Attrs {
    Attrs::parse(text).unwrap()
}

fn patch(text: &str) -> AttrsChange {
    AttrsChange::Patch(attrs(text))
}

fn set(text: &str) -> AttrsChange {
    AttrsChange::Set(attrs(text))
}

async fn attributes_are_set_merged_read_and_taken_away(bench: &mut Bench) {
    let store = &*bench.store;
    let till = device("till");
    let change = async |change: AttrsChange| store.change_attrs(&shop(), &till, &change).await.unwrap();
    let present = async || store.attrs(&shop(), &till).await.unwrap();
    assert_eq!(present().await, None);
    assert_eq!(change(set("{}")).await, AttrsChanged::NoSuchDevice);
    assert_eq!(change(patch(r#"{"a":1}"#)).await, AttrsChanged::NoSuchDevice);
    connect(store, "till", Role::Main, "c1").await;
    assert_eq!(present().await, Some(Attrs::none()));
    let written = r#"{ "b": "é\\n", "a": {"x": 1.50} }"#;
    assert_eq!(change(set(written)).await, AttrsChanged::Now(attrs(written)));
    assert_eq!(present().await, Some(attrs(written)), "as it was written");
    let merged = attrs(r#"{"a":{"x":1.5,"y":[]},"c":0}"#);
    assert_eq!(change(patch(r#"{"b":null,"a":{"y":[]},"c":0}"#)).await, AttrsChanged::Now(merged.clone()));
    assert_eq!(change(patch("{}")).await, AttrsChanged::Now(merged.clone()));
    connect(store, "till", Role::Sub, "c2").await;
    connect(store, "other", Role::Sub, "c3").await;
    assert_eq!(present().await, Some(merged), "a login leaves them");
    assert_eq!(store.attrs(&shop(), &device("other")).await.unwrap(), Some(Attrs::none()));
    assert_eq!(change(patch(r#"{"a":null,"c":null}"#)).await, AttrsChanged::Now(Attrs::none()));
    assert_eq!(present().await, Some(Attrs::none()));
    assert_eq!(change(patch(r#"{"a":1}"#)).await, AttrsChanged::Now(attrs(r#"{"a":1}"#)));
    assert_eq!(change(set("{ }")).await, AttrsChanged::Now(attrs("{ }")));
    assert_eq!(present().await, Some(Attrs::none()));
}

async fn attributes_that_are_too_large_change_nothing(bench: &mut Bench) {
    let store = &*bench.store;
    connect(store, "till", Role::Main, "c1").await;
    let sized = |size: usize| format!(r#"{{"a":"{}"}}"#, "x".repeat(size - 8));
    let change = async |change: AttrsChange| store.change_attrs(shop_ref(), &device("till"), &change).await.unwrap();
    assert_eq!(change(set(&sized(201))).await, AttrsChanged::TooLarge { size: 201 });
    assert_eq!(store.attrs(&shop(), &device("till")).await.unwrap(), Some(Attrs::none()));
    assert_eq!(change(set(&sized(200))).await, AttrsChanged::Now(attrs(&sized(200))), "the limit is inclusive");
    assert_eq!(change(patch(r#"{"b":1}"#)).await, AttrsChanged::TooLarge { size: 206 });
    assert_eq!(store.attrs(&shop(), &device("till")).await.unwrap(), Some(attrs(&sized(200))));
    let gone = store.change_attrs(&shop(), &device("nobody"), &set(&sized(201))).await.unwrap();
    assert_eq!(gone, AttrsChanged::NoSuchDevice, "whatever it would have been given");
}

async fn patches_at_once_lose_nothing(bench: &mut Bench) {
    let store = &*bench.store;
    connect(store, "till", Role::Main, "c1").await;
    let patches: Vec<AttrsChange> = (0..10).map(|n| patch(&format!(r#"{{"k{n}":{n}}}"#))).collect();
    let till = device("till");
    for outcome in join_all(patches.iter().map(|patch| store.change_attrs(shop_ref(), &till, patch))).await {
        assert!(matches!(outcome.unwrap(), AttrsChanged::Now(_)));
    }
    let members: Vec<String> = (0..10).map(|n| format!(r#""k{n}":{n}"#)).collect();
    let all = format!("{{{}}}", members.join(","));
    assert_eq!(store.attrs(&shop(), &till).await.unwrap(), Some(attrs(&all)));
}

async fn an_evicted_device_is_away_and_its_node_is_told_with_the_last_signal(bench: &mut Bench) {
    bench.store.subscribe(&shop()).await.unwrap();
    let store = &*bench.store;
    let till = device("till");
    assert_eq!(store.evict(&shop(), &till, None, None).await.unwrap(), Evicted::Away, "it never came");
    connect(store, "till", Role::Main, "c1").await;
    assert_eq!(store.evict(&shop(), &till, None, None).await.unwrap(), Evicted::Closing(conn("c1")));
    assert_eq!(store.evict(&shop(), &till, None, None).await.unwrap(), Evicted::Away, "the repeat");
    assert_eq!(store.online(&shop()).await.unwrap(), []);
    assert!(!store.disconnect(&shop(), &till, &conn("c1"), None).await.unwrap());
    assert!(store.device(&shop(), &till).await.unwrap().is_some(), "it stays registered");
    let back = connect(store, "till", Role::Main, "c2").await;
    assert_eq!(back.replaced, None, "nobody is replaced by its coming back");
    let last = signal(message_of_api(Audience::All));
    let evicted = store.evict(&shop(), &till, Some(&conn("c2")), Some(&last)).await.unwrap();
    assert_eq!(evicted, Evicted::Closing(conn("c2")));

    let FeedEvent::Evicted { shop: of, conn: first, last: none } = bench.next().await else { panic!() };
    assert_eq!((of, first, none.is_none()), (shop(), conn("c1"), true));
    let FeedEvent::Evicted { conn: second, last: told, .. } = bench.next().await else { panic!() };
    assert_eq!((second, format!("{:?}", told.unwrap())), (conn("c2"), format!("{last:?}")));
}

async fn an_eviction_of_another_connection_leaves_the_present_one(bench: &mut Bench) {
    bench.store.subscribe(&shop()).await.unwrap();
    let store = &*bench.store;
    let till = device("till");
    connect(store, "till", Role::Main, "c1").await;
    connect(store, "till", Role::Main, "c2").await;
    for other in ["c1", "c", "c22"] {
        let outcome = store.evict(&shop(), &till, Some(&conn(other)), None).await.unwrap();
        assert_eq!(outcome, Evicted::Away, "{other}");
    }
    assert_eq!(store.online(&shop()).await.unwrap()[0].conn, conn("c2"));
    let id = stored(store).await;
    assert!(matches!(bench.next().await, FeedEvent::Replaced { .. }));
    let FeedEvent::Entry { stored, .. } = bench.next().await else { panic!("nobody is told") };
    assert_eq!(stored.id, id);
}

/// Its own clean-up finds no presence any more; a device that had been connected for long would have
/// been forgotten as one that was not seen since its login.
async fn an_evicted_device_was_seen_until_then(bench: &mut Bench) {
    let store = &*bench.store;
    connect(store, "till", Role::Main, "c1").await;
    let seen_ms = async || store.device(&shop(), &device("till")).await.unwrap().unwrap().last_seen_ms;
    let logged_in_ms = seen_ms().await;
    eventually(Duration::from_secs(5), "the clock goes on", async || store.now_ms() > logged_in_ms + 1).await;
    store.evict(&shop(), &device("till"), None, None).await.unwrap();
    assert!(seen_ms().await > logged_in_ms);
}

async fn an_operator_forgets_a_connected_device_with_all_that_was_kept_of_it(bench: &mut Bench) {
    bench.store.subscribe(&shop()).await.unwrap();
    let store = &*bench.store;
    let till = device("till");
    let forget = async || store.forget(&shop(), &till, Forget::ByOperator).await.unwrap();
    assert!(!forget().await, "it never came");
    let groups = Some(vec!["g".parse().unwrap()]);
    let connecting = Connect { groups, user: Some("u".parse().unwrap()), ..login("till", Role::Main, "c1") };
    store.connect(&shop(), &connecting).await.unwrap();
    store.change_attrs(&shop(), &till, &set(r#"{"a":1}"#)).await.unwrap();
    let first = stored(store).await;
    store.mark_delivered(&shop(), &[mark("till", first)]).await.unwrap();
    let head = stored(store).await;
    assert!(forget().await);
    assert!(!forget().await, "the repeat");
    assert_eq!(store.devices(&shop()).await.unwrap(), []);
    assert_eq!(store.online(&shop()).await.unwrap(), []);
    assert_eq!(store.attrs(&shop(), &till).await.unwrap(), None);
    assert!(!store.disconnect(&shop(), &till, &conn("c1"), Some(head)).await.unwrap());
    let publish = store.publish(&shop(), &message(Audience::Mains)).await.unwrap();
    assert_eq!(publish, Published::NoMainDevice);
    let anew = connect(store, "till", Role::Sub, "c2").await;
    assert_eq!((anew.cursor, anew.membership), (head, Membership::default()), "as one that never was");
    assert_eq!(store.attrs(&shop(), &till).await.unwrap(), Some(Attrs::none()));
    store.disconnect(&shop(), &till, &conn("c2"), None).await.unwrap();
    assert!(forget().await, "one that is away");

    for _ in 0..2 {
        assert!(matches!(bench.next().await, FeedEvent::Entry { .. }));
    }
    let FeedEvent::Evicted { conn: closed, last, .. } = bench.next().await else { panic!() };
    assert_eq!((closed, last.is_none()), (conn("c1"), true));
    assert!(matches!(next_after(bench).await, FeedEvent::Entry { .. }), "the second time nobody was there");
}

/// What comes after everything so far.
async fn next_after(bench: &mut Bench) -> FeedEvent {
    let id = stored(&*bench.store).await;
    assert!(id > MessageId::ZERO);
    bench.next().await
}

async fn a_connection_is_found_by_its_name_until_it_is_gone(bench: &mut Bench) {
    let store = &*bench.store;
    let nth = |n| ConnId::of(&bench.node, n);
    let log_in = async |of: &ShopId, name: &str, role, conn: ConnId| {
        let connect = Connect { conn, node: bench.node.clone(), ..login(name, role, "-") };
        store.connect(of, &connect).await.unwrap();
    };
    let other: ShopId = "店 2".parse().unwrap();
    log_in(&shop(), "till", Role::Main, nth(1)).await;
    log_in(&other, "店 a", Role::Sub, nth(2)).await;
    let (of, found) = store.locate(&nth(2)).await.unwrap().unwrap();
    assert_eq!((&of, &found.device, found.role, &found.node), (&other, &device("店 a"), Role::Sub, &bench.node));
    assert_eq!(store.online(&of).await.unwrap(), [found]);
    assert_eq!(store.locate(&nth(1)).await.unwrap().unwrap().0, shop());
    for unknown in [nth(3), conn("nobody"), conn("other-node.1")] {
        assert_eq!(store.locate(&unknown).await.unwrap(), None);
    }

    log_in(&shop(), "till", Role::Main, nth(3)).await;
    assert_eq!(store.locate(&nth(1)).await.unwrap(), None, "it was replaced");
    assert_eq!(store.locate(&nth(3)).await.unwrap().unwrap().1.device, device("till"));
    store.disconnect(&shop(), &device("till"), &nth(1), None).await.unwrap();
    assert!(store.locate(&nth(3)).await.unwrap().is_some());
    store.evict(&shop(), &device("till"), None, None).await.unwrap();
    assert_eq!(store.locate(&nth(3)).await.unwrap(), None, "it was evicted");
    assert!(store.disconnect(&other, &device("店 a"), &nth(2), None).await.unwrap());
    assert_eq!(store.locate(&nth(2)).await.unwrap(), None, "it went");
}

async fn a_barred_device_is_away_told_to_go_and_let_in_no_more_until_it_is_unbarred(bench: &mut Bench) {
    bench.store.subscribe(&shop()).await.unwrap();
    let store = &*bench.store;
    let (till, by) = (device("till"), "pos".parse().unwrap());
    connect(store, "till", Role::Main, "c1").await;
    let last = signal(message_of_api(Audience::All));
    assert!(store.bar(&shop(), &till, &by, Some(&last)).await.unwrap());
    let first = store.barred(&shop()).await.unwrap();
    assert_eq!((&first[0].device, &first[0].by, first.len()), (&till, &by, 1));
    assert!(!store.bar(&shop(), &till, &"other".parse().unwrap(), None).await.unwrap(), "the repeat");
    assert!(store.bar(&shop(), &device("stranger"), &by, None).await.unwrap(), "one that never came");
    let both = store.barred(&shop()).await.unwrap();
    assert_eq!((&both[0].device, &both[1]), (&device("stranger"), &first[0]), "who barred it first stays");
    assert_eq!(store.barred(&"other".parse().unwrap()).await.unwrap(), []);
    assert_eq!(store.online(&shop()).await.unwrap(), []);
    for name in ["till", "stranger"] {
        let refused = store.connect(&shop(), &login(name, Role::Main, "c2")).await.unwrap();
        assert_eq!(refused, Admission::Barred, "{name}");
    }
    assert_eq!(store.devices(&shop()).await.unwrap().len(), 1, "the refused stranger is not registered");
    assert!(store.forget(&shop(), &till, Forget::ByOperator).await.unwrap());
    let refused = store.connect(&shop(), &login("till", Role::Main, "c2")).await.unwrap();
    assert_eq!(refused, Admission::Barred, "who is forgotten stays barred");
    assert!(store.unbar(&shop(), &till).await.unwrap());
    assert!(!store.unbar(&shop(), &till).await.unwrap(), "the repeat");
    assert_eq!(connect(store, "till", Role::Main, "c2").await.replaced, None);

    let FeedEvent::Barred { device: of, conn: closed, last: told, .. } = bench.next().await else { panic!() };
    assert_eq!((of, closed, format!("{:?}", told.unwrap())), (till.clone(), Some(conn("c1")), format!("{last:?}")));
    for name in ["till", "stranger"] {
        let FeedEvent::Barred { device: of, conn: none, last, .. } = bench.next().await else { panic!() };
        assert_eq!((of, none, last.is_none()), (device(name), None, true));
    }
}
