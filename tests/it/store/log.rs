//! The log of every engine: what is stored, read, dealt with and trimmed.

use std::collections::HashSet;

use futures_util::future::join_all;
use serde_json::value::RawValue;
use shoprelay::ids::{DeviceId, MessageId, ShopId};
use shoprelay::message::{Audience, Entry, Origin, Role, Value};
use shoprelay::store::{Dealt, FeedEvent, PageLimit, Publish, Published, SetStatus, StatusSet, Store};

use super::suite::{
    Bench, conformance, connect, device, ids, login, message, message_of_api, read, shop, shop_ref, signal, stored,
    with_key,
};

conformance! {
    a_stored_message_is_read_back_as_it_was,
    what_a_legacy_device_gave_is_stored_and_told_with_its_message,
    a_retry_under_one_key_stores_one_message,
    what_many_shops_publish_at_once_is_stored_in_each,
    what_is_for_thousands_of_devices_goes_beside_what_is_for_few,
    a_message_for_nobody_registered_is_refused,
    a_back_ends_message_for_a_shop_that_nobody_registered_in_is_refused,
    a_full_log_refuses_messages_and_takes_them_again_after_a_trim,
    a_page_ends_at_its_limit_and_reading_on_finds_the_rest,
    entries_come_through_the_feed_in_order_each_naming_the_one_before,
    of_fifty_who_deal_at_once_one_wins,
    a_deal_is_told_through_the_log_and_shown_with_the_message,
    a_deal_with_an_expectation_holds_only_while_it_is_true,
}

/// What is asked for at once goes to Redis together; each shop is to have its own all the same, and each caller
/// its own answer.
async fn what_many_shops_publish_at_once_is_stored_in_each(bench: &mut Bench) {
    let store = &*bench.store;
    let shops: Vec<ShopId> = (0..100).map(|number| format!("shop-{number}").parse().unwrap()).collect();
    let publish = async |n: usize| {
        store.publish(&shops[n % 100], &with_key(message(Audience::All), &format!("key-{}", n / 100))).await.unwrap()
    };
    let first = join_all((0..400).map(&publish)).await;
    let again = join_all((0..400).map(&publish)).await;
    let mut stored: Vec<Vec<MessageId>> = vec![Vec::new(); 100];
    for (n, (first, again)) in first.into_iter().zip(again).enumerate() {
        let Published::Stored(id) = first else { panic!("{n}: {first:?}") };
        assert_eq!(again, Published::Duplicate(id), "{n}");
        stored[n % 100].push(id);
    }
    for (shop, mut stored) in shops.iter().zip(stored) {
        stored.sort();
        let page = store.read(shop, MessageId::ZERO, PageLimit { entries: 10, bytes: 1 << 20 }).await.unwrap();
        assert_eq!(ids(&page), stored, "{shop}");
    }
}

/// A script holds a few thousand values at once, so that such a call goes by itself.
async fn what_is_for_thousands_of_devices_goes_beside_what_is_for_few(bench: &mut Bench) {
    let store = &*bench.store;
    connect(store, "till", Role::Main, "c").await;
    let strangers: Vec<DeviceId> = (0..9000).map(|n| device(&format!("stranger-{n}"))).collect();
    let everybody = [&strangers[..], &[device("till")]].concat();
    let publish = async |n: usize| {
        let to = match n % 3 {
            0 => Audience::Devices(everybody.clone().into()),
            1 => Audience::Devices(strangers.clone().into()),
            _ => Audience::Mains,
        };
        store.publish(&shop(), &message(to)).await.unwrap()
    };
    for (n, published) in join_all((0..12).map(&publish)).await.into_iter().enumerate() {
        let is_stored = matches!(published, Published::Stored(_));
        assert!(is_stored == (n % 3 != 1) && (is_stored || published == Published::NoSuchDevice), "{n}: {published:?}");
    }
    assert_eq!(store.log_len(&shop()).await.unwrap(), 8);
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
    assert_eq!(store.heads(&[shop(), "other".parse().unwrap()]).await.unwrap(), [Some(id), Some(MessageId::ZERO)]);
    assert_eq!(store.log_len(&shop()).await.unwrap(), 1);
}

async fn what_a_legacy_device_gave_is_stored_and_told_with_its_message(bench: &mut Bench) {
    bench.store.subscribe(&shop()).await.unwrap();
    let given = r#"{ "table_id": 12, "x": "店\n" }"#;
    let mut publish = message(Audience::All);
    publish.message.content.legacy = Some(RawValue::from_string(given.to_owned()).unwrap());
    bench.store.publish(&shop(), &publish).await.unwrap();
    bench.store.signal(&shop(), &signal(publish)).await.unwrap();
    let page = read(&*bench.store, MessageId::ZERO, 1).await;
    let FeedEvent::Entry { stored, .. } = bench.next().await else { panic!() };
    for entry in [&page.entries[0].entry, &stored.entry] {
        let Entry::Message(read) = entry else { panic!() };
        assert_eq!(read.content.legacy.as_ref().unwrap().get(), given);
    }
    let FeedEvent::Signal { signal, .. } = bench.next().await else { panic!() };
    assert_eq!(signal.content.legacy.unwrap().get(), given);
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

async fn a_back_ends_message_for_a_shop_that_nobody_registered_in_is_refused(bench: &mut Bench) {
    let store = &*bench.store;
    let publish = async |to| store.publish(&shop(), &message_of_api(to)).await.unwrap();
    let audiences =
        || [Audience::All, Audience::Subs, Audience::Group("g".parse().unwrap()), Audience::User("u".parse().unwrap())];
    connect_elsewhere(store).await;
    for to in audiences() {
        assert_eq!(publish(to.clone()).await, Published::NoSuchDevice, "{to:?}");
    }
    assert_eq!(publish(Audience::Mains).await, Published::NoMainDevice);
    assert!(
        matches!(store.publish(&shop(), &message(Audience::All)).await.unwrap(), Published::Stored(_)),
        "a device's"
    );
    connect(store, "hand", Role::Sub, "c1").await;
    for to in audiences() {
        assert!(matches!(publish(to.clone()).await, Published::Stored(_)), "{to:?}");
    }
    assert_eq!(publish(Audience::Mains).await, Published::NoMainDevice);
    assert_eq!(publish(Audience::Devices(vec![device("other")].into())).await, Published::NoSuchDevice);
}

/// Logs a device in at the shops whose names are next to this one's.
async fn connect_elsewhere(store: &dyn Store) {
    for name in ["shop 0", "shop 10", "shop 2"] {
        store.connect(&name.parse().unwrap(), &login("hand", Role::Sub, "c1")).await.unwrap();
    }
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
