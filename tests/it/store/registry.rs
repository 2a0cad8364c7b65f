//! The registry of every engine: who comes and goes, and how far each device has got.

use futures_util::future::join_all;
use shoprelay::ids::MessageId;
use shoprelay::message::{Audience, Membership, Role};
use shoprelay::store::{Connect, FeedEvent, Forget, Mark, Marked, Online, Published, Restored};

use super::suite::{Bench, conformance, conn, connect, device, login, mark, message, read, shop, shop_ref, stored};

conformance! {
    a_cursor_never_goes_back,
    two_marks_of_one_delivery_count_once,
    an_expired_message_names_who_did_not_see_it,
    a_newer_login_takes_over_and_the_older_connection_is_told,
    a_late_disconnect_does_not_remove_the_newer_presence,
    a_presence_is_given_back_to_nobody_but_a_connection_that_has_lost_it,
    a_device_seen_for_the_first_time_starts_at_the_head,
    a_device_is_found_by_its_name_as_the_list_shows_it,
    the_registry_keeps_what_a_device_told_of_itself,
    a_forgotten_device_is_gone_and_a_connected_one_is_kept,
}

async fn a_cursor_never_goes_back(bench: &mut Bench) {
    let store = &*bench.store;
    connect(store, "till", Role::Main, "c1").await;
    let (first, second) = (stored(store).await, stored(store).await);
    let marks = [mark("till", second), mark("till", first), mark("stranger", second)];
    let outcomes = store.mark_delivered(&shop(), &marks).await.unwrap();
    assert_eq!(outcomes, [Marked::Advanced { from: MessageId::ZERO }, Marked::Before, Marked::Before]);
    assert_eq!(connect(store, "till", Role::Main, "c2").await.cursor, second);
    assert_eq!(store.devices(&shop()).await.unwrap().len(), 1, "a stranger is not registered by its mark");
    assert_eq!(store.mark_delivered(&shop(), &[]).await.unwrap(), []);
}

async fn two_marks_of_one_delivery_count_once(bench: &mut Bench) {
    let store = &*bench.store;
    let names: Vec<String> = (0..250).map(|n| format!("d{n}")).collect();
    for name in &names {
        connect(store, name, Role::Sub, &format!("c.{name}")).await;
    }
    let id = stored(store).await;
    let marks: Vec<Mark> = names.iter().map(|name| mark(name, id)).collect();
    let calls = join_all((0..4).map(|_| store.mark_delivered(shop_ref(), &marks))).await;
    let advanced = calls.into_iter().flat_map(Result::unwrap).filter(|outcome| *outcome != Marked::Before).count();
    assert_eq!(advanced, 250);
}

async fn an_expired_message_names_who_did_not_see_it(bench: &mut Bench) {
    let store = &*bench.store;
    connect(store, "a", Role::Sub, "c1").await;
    connect(store, "b", Role::Sub, "c2").await;
    let (first, second) = (stored(store).await, stored(store).await);
    for name in ["a", "b", "a"] {
        let mark = Mark { device: device(name), through: second, expired: vec![first] };
        store.mark_delivered(&shop(), &[mark]).await.unwrap();
    }
    let page = read(store, MessageId::ZERO, 10).await;
    assert_eq!(page.entries[0].unseen_by, [device("a"), device("b")]);
    assert_eq!(page.entries[1].unseen_by, []);
}

async fn a_newer_login_takes_over_and_the_older_connection_is_told(bench: &mut Bench) {
    bench.store.subscribe(&shop()).await.unwrap();
    let store = &*bench.store;
    assert_eq!(connect(store, "till", Role::Main, "c1").await.replaced, None);
    assert_eq!(connect(store, "till", Role::Main, "c1").await.replaced, None, "the repeat");
    assert_eq!(connect(store, "till", Role::Main, "c2").await.replaced, Some(conn("c1")));
    let online = store.online(&shop()).await.unwrap();
    assert_eq!((online.len(), &online[0].conn), (1, &conn("c2")));
    assert!(online[0].since_ms > 1_600_000_000_000 && online[0].role == Role::Main);
    let FeedEvent::Replaced { device: of, conn: old, .. } = bench.next().await else { panic!() };
    assert_eq!((of, old), (device("till"), conn("c1")));
}

async fn a_presence_is_given_back_to_nobody_but_a_connection_that_has_lost_it(bench: &mut Bench) {
    let store = &*bench.store;
    let online = |conn_name: &str| Online {
        device: device("till"),
        role: Role::Main,
        conn: conn(conn_name),
        node: "node".parse().unwrap(),
        since_ms: 7,
    };
    let restore = async |conn_name: &str| store.restore(shop_ref(), &online(conn_name)).await.unwrap();
    assert_eq!(restore("c1").await, Restored::Refused, "it is not registered");
    connect(store, "till", Role::Main, "c1").await;
    assert_eq!((restore("c1").await, restore("c0").await), (Restored::Online, Restored::Taken));
    store.disconnect(&shop(), &device("till"), &conn("c1"), None).await.unwrap();
    assert_eq!(restore("c2").await, Restored::Online);
    assert_eq!(store.online(&shop()).await.unwrap(), [online("c2")]);
    assert_eq!(restore("c1").await, Restored::Taken);
    store.evict(&shop(), &device("till"), None, None).await.unwrap();
    assert_eq!(restore("c2").await, Restored::Refused, "an operator ended it");
    assert_eq!(store.online(&shop()).await.unwrap(), []);
    connect(store, "till", Role::Main, "c3").await;
    store.bar(&shop(), &device("till"), &"pos".parse().unwrap(), None).await.unwrap();
    assert_eq!((restore("c3").await, restore("c4").await), (Restored::Refused, Restored::Refused));
}

async fn a_late_disconnect_does_not_remove_the_newer_presence(bench: &mut Bench) {
    let store = &*bench.store;
    connect(store, "till", Role::Main, "c1").await;
    connect(store, "till", Role::Main, "c2").await;
    assert!(!store.disconnect(&shop(), &device("till"), &conn("c1"), None).await.unwrap());
    assert_eq!(store.online(&shop()).await.unwrap()[0].conn, conn("c2"));
    assert!(store.disconnect(&shop(), &device("till"), &conn("c2"), None).await.unwrap());
    assert!(!store.disconnect(&shop(), &device("till"), &conn("c2"), None).await.unwrap());
    assert_eq!(store.online(&shop()).await.unwrap(), []);
    assert_eq!(store.devices(&shop()).await.unwrap().len(), 1);
}

async fn a_device_seen_for_the_first_time_starts_at_the_head(bench: &mut Bench) {
    let store = &*bench.store;
    let fresh = connect(store, "early", Role::Sub, "c1").await;
    assert_eq!((fresh.cursor, fresh.head), (MessageId::ZERO, MessageId::ZERO));
    let id = stored(store).await;
    let late = connect(store, "late", Role::Sub, "c2").await;
    assert_eq!((late.cursor, late.head), (id, id));
    let back = connect(store, "early", Role::Sub, "c3").await;
    assert_eq!((back.cursor, back.head), (MessageId::ZERO, id));
    let devices = store.devices(&shop()).await.unwrap();
    assert_eq!(devices.iter().map(|device| device.registered_at).collect::<Vec<_>>(), [MessageId::ZERO, id]);
}

async fn a_device_is_found_by_its_name_as_the_list_shows_it(bench: &mut Bench) {
    let store = &*bench.store;
    stored(store).await;
    let (meta, groups, user) = (Some("{}".into()), Some(vec!["g".parse().unwrap()]), Some("u".parse().unwrap()));
    store.connect(&shop(), &Connect { meta, groups, user, ..login("till", Role::Main, "c1") }).await.unwrap();
    connect(store, "hand", Role::Sub, "c2").await;
    let id = stored(store).await;
    store.mark_delivered(&shop(), &[mark("till", id)]).await.unwrap();
    for listed in store.devices(&shop()).await.unwrap() {
        assert_eq!(store.device(&shop(), &listed.device).await.unwrap(), Some(listed));
    }
    let till = store.device(&shop(), &device("till")).await.unwrap().unwrap();
    assert_eq!((till.cursor, till.role), (id, Role::Main));
    assert_eq!(store.device(&shop(), &device("nobody")).await.unwrap(), None);
    assert_eq!(store.device(&"shop 2".parse().unwrap(), &device("till")).await.unwrap(), None);
}

async fn the_registry_keeps_what_a_device_told_of_itself(bench: &mut Bench) {
    let store = &*bench.store;
    let meta = Some(r#"{"v": "é"}"#.into());
    store.connect(&shop(), &Connect { meta, ..login("店", Role::Main, "c") }).await.unwrap();
    connect(store, "a", Role::Sub, "c").await;
    connect(store, "店", Role::Sub, "c").await;
    let devices = store.devices(&shop()).await.unwrap();
    let names: Vec<&str> = devices.iter().map(|device| device.device.as_str()).collect();
    assert_eq!(names, ["a", "店"], "in the order of their ids");
    assert_eq!(devices[1].meta.as_deref(), Some(r#"{"v": "é"}"#));
    assert_eq!((devices[1].role, devices[0].meta.as_deref()), (Role::Sub, None));
    assert!(devices[1].first_seen_ms > 1_600_000_000_000 && devices[1].last_seen_ms >= devices[1].first_seen_ms);
    assert_eq!(devices[1].membership, Membership::default());
}

async fn a_forgotten_device_is_gone_and_a_connected_one_is_kept(bench: &mut Bench) {
    let store = &*bench.store;
    connect(store, "till", Role::Main, "c1").await;
    let forget = async |before| store.forget(&shop(), &device("till"), Forget::UnseenSince(before)).await.unwrap();
    assert!(!forget(u64::MAX >> 12).await, "it is connected");
    store.disconnect(&shop(), &device("till"), &conn("c1"), None).await.unwrap();
    assert!(!forget(1000).await, "it was seen since");
    assert!(forget(u64::MAX >> 12).await);
    assert!(!forget(u64::MAX >> 12).await);
    assert_eq!(store.devices(&shop()).await.unwrap(), []);
    let publish = store.publish(&shop(), &message(Audience::Mains)).await.unwrap();
    assert_eq!(publish, Published::NoMainDevice);
}
