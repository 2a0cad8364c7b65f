//! What holds of every engine.

use std::collections::HashSet;
use std::time::Duration;

use futures_util::future::join_all;
use shoprelay::ids::{ConnId, DeviceId, MessageId, NodeId, OnceKey, ShopId};
use shoprelay::message::{Audience, Content, Entry, Membership, Message, Origin, Role, Signal, Value};
use shoprelay::store::embedded::EmbeddedStore;
use shoprelay::store::redis::RedisStore;
use shoprelay::store::{
    Connect, Connected, Dealt, FeedEvent, Forget, Mark, Marked, NodeReport, Page, PageLimit, Publish, Published,
    Receipt, SetStatus, Signalled, StatusSet, Store, StoreError, StoreSettings,
};
use tempfile::TempDir;
use tokio::sync::mpsc;

use crate::redis_server::{RedisServer, fresh_prefix};

/// How long an event may take that is due.
const SOON: Duration = Duration::from_secs(10);

/// An engine of its own, empty, with its feed.
pub struct Bench {
    pub store: Box<dyn Store>,
    pub feed: mpsc::Receiver<FeedEvent>,
    pub node: NodeId,
    /// Where an engine without a server keeps its file.
    _dir: Option<TempDir>,
}

impl Bench {
    pub async fn on_embedded() -> Bench {
        let node = NodeId::fresh();
        let dir = TempDir::with_prefix("shoprelay-store-").unwrap();
        let (store, feed) = EmbeddedStore::start(dir.path().join("data"), node.clone(), settings()).await.unwrap();
        Bench { store: Box::new(store), feed, node, _dir: Some(dir) }
    }

    pub async fn on_redis(url: &str) -> Bench {
        let node = NodeId::fresh();
        let (store, feed) = RedisStore::start(url, None, node.clone(), settings()).await.unwrap();
        Bench { store: Box::new(store), feed, node, _dir: None }
    }

    pub async fn next(&mut self) -> FeedEvent {
        tokio::time::timeout(SOON, self.feed.recv()).await.expect("an event is due").expect("the feed is open")
    }
}

pub fn settings() -> StoreSettings {
    StoreSettings {
        log_entries_max: 1000,
        key_retention: Duration::from_secs(60),
        deadline: Duration::from_secs(2),
        prefix: fresh_prefix(),
        device_groups_max: 3,
        attrs_bytes_max: 200,
        events_max: 1000,
    }
}

macro_rules! conformance {
    ($($name:ident),+ $(,)?) => {
        mod on_redis {
            $(#[tokio::test]
            async fn $name() {
                let mut bench = super::Bench::on_redis(&super::RedisServer::shared().url()).await;
                super::$name(&mut bench).await;
                bench.store.close().await;
            })+
        }
        mod on_embedded {
            $(#[tokio::test]
            async fn $name() {
                let mut bench = super::Bench::on_embedded().await;
                super::$name(&mut bench).await;
                bench.store.close().await;
            })+
        }
    };
}

conformance! {
    a_stored_message_is_read_back_as_it_was,
    a_retry_under_one_key_stores_one_message,
    a_message_for_nobody_registered_is_refused,
    a_full_log_refuses_messages_and_takes_them_again_after_a_trim,
    a_page_ends_at_its_limit_and_reading_on_finds_the_rest,
    entries_come_through_the_feed_in_order_each_naming_the_one_before,
    signals_and_receipts_come_through_the_feed_and_store_nothing,
    a_cursor_never_goes_back,
    two_marks_of_one_delivery_count_once,
    an_expired_message_names_who_did_not_see_it,
    a_newer_login_takes_over_and_the_older_connection_is_told,
    a_late_disconnect_does_not_remove_the_newer_presence,
    a_device_seen_for_the_first_time_starts_at_the_head,
    the_registry_keeps_what_a_device_told_of_itself,
    of_fifty_who_deal_at_once_one_wins,
    a_deal_is_told_through_the_log_and_shown_with_the_message,
    a_deal_with_an_expectation_holds_only_while_it_is_true,
    a_forgotten_device_is_gone_and_a_connected_one_is_kept,
    a_task_is_claimed_by_one_node_at_a_time,
    a_node_is_heard_of_until_it_leaves,
    every_shop_that_was_listened_to_is_remembered,
    an_unsubscribed_shop_is_no_longer_heard,
    many_shops_are_subscribed_at_once,
}

pub fn shop() -> ShopId {
    "shop 1".parse().unwrap()
}

pub fn device(name: &str) -> DeviceId {
    name.parse().unwrap()
}

fn conn(name: &str) -> ConnId {
    name.parse().unwrap()
}

pub fn message(to: Audience) -> Publish {
    let content = Content {
        from: Origin::Device { device: device("hand"), role: Role::Sub },
        to,
        except: Vec::new().into(),
        kind: "add".parse().unwrap(),
        table: Some("12".parse().unwrap()),
        data: Some(Value::MsgPack([0x0a, 0xff, 0x00].into())),
        user_info: None,
    };
    let message = Message { content, status: "open".parse().unwrap(), ttl: None, receipt: false };
    Publish { message, key: None }
}

pub fn with_key(mut publish: Publish, key: &str) -> Publish {
    publish.key = Some(OnceKey::try_from(key.to_owned()).unwrap());
    publish
}

pub async fn stored(store: &dyn Store) -> MessageId {
    match store.publish(&shop(), &message(Audience::All)).await.unwrap() {
        Published::Stored(id) => id,
        other => panic!("{other:?}"),
    }
}

/// A login that tells nothing of itself.
pub fn login(name: &str, role: Role, conn_name: &str) -> Connect {
    let (device, conn, node) = (device(name), conn(conn_name), "node".parse().unwrap());
    Connect { device, role, conn, node, meta: None, groups: None, user: None }
}

pub async fn connect(store: &dyn Store, name: &str, role: Role, conn_name: &str) -> Connected {
    store.connect(&shop(), &login(name, role, conn_name)).await.unwrap()
}

async fn read(store: &dyn Store, after: MessageId, entries: usize) -> Page {
    store.read(&shop(), after, PageLimit { entries, bytes: 1 << 20 }).await.unwrap()
}

pub fn mark(name: &str, through: MessageId) -> Mark {
    Mark { device: device(name), through, expired: Vec::new() }
}

fn deal(message: MessageId, by: &str, status: &str) -> SetStatus {
    SetStatus {
        message,
        status: status.parse().unwrap(),
        expect: None,
        by: Origin::Device { device: device(by), role: Role::Main },
        initial: "open".parse().unwrap(),
        sender: Some(device("hand")),
    }
}

fn ids(page: &Page) -> Vec<MessageId> {
    page.entries.iter().map(|entry| entry.id).collect()
}

async fn a_stored_message_is_read_back_as_it_was(bench: &mut Bench) {
    let store = &*bench.store;
    let empty = read(store, MessageId::ZERO, 10).await;
    assert!(empty.is_end && empty.entries.is_empty() && empty.last == MessageId::ZERO);
    let id = stored(store).await;
    let page = read(store, MessageId::ZERO, 10).await;
    assert!(page.is_end && page.last == id);
    let Entry::Message(read) = &page.entries[0].entry else { panic!() };
    assert_eq!(format!("{read:?}"), format!("{:?}", message(Audience::All).message));
    let Some(Value::MsgPack(data)) = &read.content.data else { panic!() };
    assert_eq!(data.as_ref(), [0x0a, 0xff, 0x00]);
    assert_eq!(store.heads(&[shop(), "other".parse().unwrap()]).await.unwrap(), [id, MessageId::ZERO]);
    assert_eq!(store.log_len(&shop()).await.unwrap(), 1);
}

async fn a_retry_under_one_key_stores_one_message(bench: &mut Bench) {
    let store = &*bench.store;
    let keyed = with_key(message(Audience::All), "k {1}\n");
    let tries = join_all((0..20).map(|_| store.publish(shop_ref(), &keyed))).await;
    let mut seen = HashSet::new();
    let mut first = 0;
    for outcome in tries {
        match outcome.unwrap() {
            Published::Stored(id) => {
                first += 1;
                seen.insert(id);
            }
            Published::Duplicate(id) => {
                seen.insert(id);
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((first, seen.len()), (1, 1));
    assert_eq!(store.log_len(&shop()).await.unwrap(), 1);
}

/// A reference for futures that are made in a loop.
fn shop_ref() -> &'static ShopId {
    static SHOP: std::sync::LazyLock<ShopId> = std::sync::LazyLock::new(shop);
    &SHOP
}

async fn a_message_for_nobody_registered_is_refused(bench: &mut Bench) {
    let store = &*bench.store;
    let publish = async |to| store.publish(&shop(), &message(to)).await.unwrap();
    let devices = || Audience::Devices(vec![device("till"), device("other")].into());
    assert_eq!(publish(Audience::Mains).await, Published::NoMainDevice);
    assert_eq!(publish(devices()).await, Published::NoSuchDevice);
    connect(store, "till", Role::Main, "c1").await;
    assert!(matches!(publish(Audience::Mains).await, Published::Stored(_)));
    assert!(matches!(publish(devices()).await, Published::Stored(_)));
    connect(store, "till", Role::Sub, "c2").await;
    assert_eq!(publish(Audience::Mains).await, Published::NoMainDevice, "it came back as a sub");
}

async fn a_full_log_refuses_messages_and_takes_them_again_after_a_trim(bench: &mut Bench) {
    let store = &*bench.store;
    let messages: Vec<Publish> = (0..1000).map(|_| message(Audience::All)).collect();
    let outcomes = join_all(messages.iter().map(|message| store.publish(shop_ref(), message))).await;
    let mut ids: Vec<MessageId> = outcomes
        .into_iter()
        .map(|outcome| match outcome.unwrap() {
            Published::Stored(id) => id,
            other => panic!("{other:?}"),
        })
        .collect();
    ids.sort();
    assert_eq!(store.publish(&shop(), &message(Audience::All)).await.unwrap(), Published::BacklogFull);
    assert!(matches!(store.set_status(&shop(), &deal(ids[0], "till", "done")).await.unwrap(), StatusSet::Set(_)));
    assert_eq!(store.trim(&shop(), ids[999], 2).await.unwrap(), 2);
    assert_eq!(store.trim(&shop(), ids[2], 100).await.unwrap(), 1, "what lies beyond stays");
    assert_eq!(store.trim(&shop(), ids[2], 100).await.unwrap(), 0);
    assert_eq!(store.log_len(&shop()).await.unwrap(), 998);
    stored(store).await;
    assert_eq!(read(store, MessageId::ZERO, 1).await.entries[0].id, ids[3]);
}

async fn a_page_ends_at_its_limit_and_reading_on_finds_the_rest(bench: &mut Bench) {
    let store = &*bench.store;
    let mut all = Vec::new();
    for _ in 0..10 {
        all.push(stored(store).await);
    }
    let mut found = Vec::new();
    let mut after = MessageId::ZERO;
    loop {
        let page = read(store, after, 3).await;
        assert!(page.entries.len() <= 3);
        found.extend(ids(&page));
        after = page.last;
        if page.is_end {
            break;
        }
    }
    assert_eq!(found, all);
    let small = store.read(&shop(), MessageId::ZERO, PageLimit { entries: 10, bytes: 1 }).await.unwrap();
    assert_eq!((ids(&small), small.is_end), (vec![all[0]], false));
}

async fn entries_come_through_the_feed_in_order_each_naming_the_one_before(bench: &mut Bench) {
    bench.store.subscribe(&shop()).await.unwrap();
    let mut expected = Vec::new();
    for _ in 0..100 {
        expected.push(stored(&*bench.store).await);
    }
    let mut before = MessageId::ZERO;
    for id in expected {
        let FeedEvent::Entry { shop: of, prev, stored, publisher } = bench.next().await else { panic!() };
        assert_eq!((of, prev, stored.id), (shop(), before, id));
        assert_eq!(publisher.as_ref(), Some(&bench.node));
        before = id;
    }
}

async fn signals_and_receipts_come_through_the_feed_and_store_nothing(bench: &mut Bench) {
    bench.store.subscribe(&shop()).await.unwrap();
    let store = &*bench.store;
    let signal = |to| Signal { at_ms: 7, content: message(to).message.content };
    let nobody = Audience::Devices(vec![device("nobody")].into());
    assert_eq!(store.signal(&shop(), &signal(nobody.clone())).await.unwrap(), Signalled::NoSuchDevice);
    connect(store, "till", Role::Main, "c1").await;
    let one = Audience::Devices(vec![device("nobody"), device("till")].into());
    assert_eq!(store.signal(&shop(), &signal(one)).await.unwrap(), Signalled::Sent);
    assert_eq!(store.signal(&shop(), &signal(Audience::Mains)).await.unwrap(), Signalled::Sent);
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

async fn of_fifty_who_deal_at_once_one_wins(bench: &mut Bench) {
    let store = &*bench.store;
    let id = stored(store).await;
    let deals: Vec<SetStatus> = (0..50).map(|n| deal(id, &format!("till-{n}"), &format!("s{n}"))).collect();
    let outcomes: Vec<StatusSet> = join_all(deals.iter().map(|deal| store.set_status(shop_ref(), deal)))
        .await
        .into_iter()
        .map(Result::unwrap)
        .collect();
    let winner: Vec<usize> = (0..50).filter(|&n| matches!(outcomes[n], StatusSet::Set(_))).collect();
    assert_eq!(winner.len(), 1);
    let won = &deals[winner[0]];
    for (n, outcome) in outcomes.iter().enumerate() {
        if n != winner[0] {
            let conflict = StatusSet::Conflict { status: won.status.clone(), by: Some(won.by.clone()) };
            assert_eq!(*outcome, conflict);
        }
    }
    assert_eq!(store.log_len(&shop()).await.unwrap(), 2);
}

async fn a_deal_is_told_through_the_log_and_shown_with_the_message(bench: &mut Bench) {
    bench.store.subscribe(&shop()).await.unwrap();
    let store = &*bench.store;
    let id = stored(store).await;
    let change = deal(id, "till", "done");
    let StatusSet::Set(told) = store.set_status(&shop(), &change).await.unwrap() else { panic!() };
    assert_eq!(store.set_status(&shop(), &change).await.unwrap(), StatusSet::Unchanged);
    let page = read(store, MessageId::ZERO, 10).await;
    assert_eq!(ids(&page), [id, told], "the repeat told nothing");
    let dealt = Dealt { status: "done".parse().unwrap(), by: change.by.clone() };
    assert_eq!((&page.entries[0].dealt, &page.entries[1].dealt), (&Some(dealt), &None));
    let Entry::Status(entry) = &page.entries[1].entry else { panic!() };
    assert_eq!((entry.message, &entry.by, &entry.sender), (id, &change.by, &change.sender));
    bench.next().await;
    let FeedEvent::Entry { prev, stored, .. } = bench.next().await else { panic!() };
    assert_eq!((prev, stored.id), (id, told));
    let missing = deal(MessageId { ms: 1, n: 1 }, "till", "done");
    assert_eq!(bench.store.set_status(&shop(), &missing).await.unwrap(), StatusSet::NotFound);
}

async fn a_deal_with_an_expectation_holds_only_while_it_is_true(bench: &mut Bench) {
    let store = &*bench.store;
    let id = stored(store).await;
    let mut change = deal(id, "till", "done");
    change.expect = Some("paid".parse().unwrap());
    let conflict = StatusSet::Conflict { status: "open".parse().unwrap(), by: None };
    assert_eq!(store.set_status(&shop(), &change).await.unwrap(), conflict);
    change.expect = Some("open".parse().unwrap());
    assert!(matches!(store.set_status(&shop(), &change).await.unwrap(), StatusSet::Set(_)));
    let mut api = deal(id, "x", "late");
    api.by = Origin::Api { name: "pos".parse().unwrap() };
    api.expect = Some("done".parse().unwrap());
    assert!(matches!(store.set_status(&shop(), &api).await.unwrap(), StatusSet::Set(_)));
    let conflict = StatusSet::Conflict { status: "late".parse().unwrap(), by: Some(api.by) };
    assert_eq!(store.set_status(&shop(), &change).await.unwrap(), conflict);
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
    store.beat(&other, &NodeReport { connections: 3, rooms: 1, ..NodeReport::default() }).await.unwrap();
    let mut beats = store.beat(&bench.node, &NodeReport::default()).await.unwrap();
    beats.sort_by_key(|beat| beat.node != other);
    assert_eq!((beats.len(), &beats[0].node, &beats[1].node), (2, &other, &bench.node));
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
