//! The numbers by which legacy peers know messages: in every engine, between two nodes, over a restart.

use std::collections::HashSet;

use futures_util::future::join_all;
use redb::{Database, TableDefinition};
use shoprelay::ids::{MessageId, ShopId};
use shoprelay::message::Audience;
use shoprelay::store::{Published, Store, StoreError};

use super::file;
use super::suite::{Bench, SOON, conformance, message, shop, shop_ref, stored};
use crate::redis_server::{Proxy, RedisServer, eventually};

conformance! {
    a_message_keeps_the_number_that_it_was_first_given,
    no_two_messages_of_whatever_shops_have_one_number,
    who_ask_at_once_are_told_the_same_numbers,
    many_messages_are_numbered_in_the_order_of_the_question,
    a_trimmed_message_loses_its_number_which_nobody_gets_again,
    a_message_that_is_not_in_the_log_gets_a_number_that_leads_nowhere,
    a_number_that_nobody_has_leads_nowhere,
}

fn other_shop() -> ShopId {
    "店 2".parse().unwrap()
}

async fn stored_in(store: &dyn Store, shop: &ShopId) -> MessageId {
    match store.publish(shop, &message(Audience::All)).await.unwrap() {
        Published::Stored(id) => id,
        other => panic!("{other:?}"),
    }
}

async fn many_stored(store: &dyn Store, count: usize) -> Vec<MessageId> {
    let message = message(Audience::All);
    let outcomes = join_all((0..count).map(|_| store.publish(shop_ref(), &message))).await;
    let id = |outcome: Result<Published, StoreError>| match outcome.unwrap() {
        Published::Stored(id) => id,
        other => panic!("{other:?}"),
    };
    outcomes.into_iter().map(id).collect()
}

async fn numbers(store: &dyn Store, messages: &[MessageId]) -> Vec<u64> {
    store.numbers(&shop(), messages).await.unwrap()
}

async fn message_of(store: &dyn Store, number: u64) -> Option<MessageId> {
    let (of, message) = store.numbered(number).await.unwrap()?;
    assert_eq!(of, shop());
    Some(message)
}

async fn a_message_keeps_the_number_that_it_was_first_given(bench: &mut Bench) {
    let store = &*bench.store;
    let [a, b, c] = [stored(store).await, stored(store).await, stored(store).await];
    assert!(numbers(store, &[]).await.is_empty());
    assert_eq!(numbers(store, &[b]).await, [1], "they begin with 1");
    assert_eq!(numbers(store, &[b]).await, [1], "the repeat");
    let all = numbers(store, &[a, b, c]).await;
    assert_eq!(all, [2, 1, 3]);
    assert_eq!(numbers(store, &[c, a, b]).await, [3, 2, 1]);
    for (message, number) in [a, b, c].into_iter().zip(all) {
        assert_eq!(store.numbered(number).await.unwrap(), Some((shop(), message)));
    }
    let d = stored(store).await;
    let [first, again] = numbers(store, &[d, d]).await[..] else { panic!() };
    assert_eq!((first, message_of(store, first).await), (again, Some(d)), "named twice in one question");
}

async fn no_two_messages_of_whatever_shops_have_one_number(bench: &mut Bench) {
    let store = &*bench.store;
    let mut seen = HashSet::new();
    for _ in 0..3 {
        for shop in [shop(), other_shop()] {
            let messages = [stored_in(store, &shop).await, stored_in(store, &shop).await];
            for (message, number) in messages.iter().zip(store.numbers(&shop, &messages).await.unwrap()) {
                assert!(seen.insert(number), "{number} was given twice");
                assert_eq!(store.numbered(number).await.unwrap(), Some((shop.clone(), *message)));
            }
        }
    }
    assert!(seen.iter().all(|number| (1..=12).contains(number)), "they stay small: {seen:?}");
}

async fn who_ask_at_once_are_told_the_same_numbers(bench: &mut Bench) {
    let store = &*bench.store;
    let messages = many_stored(store, 10).await;
    let told = join_all((0..20).map(|_| store.numbers(shop_ref(), &messages))).await;
    let told: Vec<Vec<u64>> = told.into_iter().map(Result::unwrap).collect();
    assert!(told.iter().all(|numbers| *numbers == told[0]), "{told:?}");
    for (message, number) in messages.iter().zip(&told[0]) {
        assert_eq!(message_of(store, *number).await, Some(*message));
    }
}

async fn many_messages_are_numbered_in_the_order_of_the_question(bench: &mut Bench) {
    let store = &*bench.store;
    let messages = many_stored(store, 700).await;
    let known: Vec<MessageId> = messages.iter().copied().step_by(3).collect();
    let known = numbers(store, &known).await;
    let all = numbers(store, &messages).await;
    assert_eq!(all.iter().copied().step_by(3).collect::<Vec<_>>(), known);
    assert_eq!(all.iter().collect::<HashSet<_>>().len(), messages.len());
    for at in [0, 1, 255, 256, 257, 512, 699] {
        assert_eq!(message_of(store, all[at]).await, Some(messages[at]), "{at}");
    }
}

async fn a_trimmed_message_loses_its_number_which_nobody_gets_again(bench: &mut Bench) {
    let store = &*bench.store;
    let [old, young] = [stored(store).await, stored(store).await];
    assert_eq!(numbers(store, &[young, old]).await, [1, 2]);
    assert_eq!(store.trim(&shop(), old, 10).await.unwrap(), 1);
    assert_eq!(store.numbered(2).await.unwrap(), None);
    assert_eq!(store.numbered(1).await.unwrap(), Some((shop(), young)));
    let next = stored(store).await;
    assert_eq!(numbers(store, &[next, young]).await, [3, 1]);
    assert_eq!(store.trim(&shop(), next, 10).await.unwrap(), 2);
    for number in 0..5 {
        assert_eq!(store.numbered(number).await.unwrap(), None, "{number}");
    }
    let last = stored(store).await;
    assert_eq!(numbers(store, &[last]).await, [4], "after all were gone too");
}

async fn a_message_that_is_not_in_the_log_gets_a_number_that_leads_nowhere(bench: &mut Bench) {
    let store = &*bench.store;
    let present = stored(store).await;
    store.numbers(&other_shop(), &[present]).await.unwrap();
    let [zero, found, max] = numbers(store, &[MessageId::ZERO, present, MessageId::MAX]).await[..] else { panic!() };
    assert_eq!(message_of(store, found).await, Some(present));
    let [again] = numbers(store, &[MessageId::MAX]).await[..] else { panic!() };
    let others = HashSet::from([zero, max, again, 1]);
    assert_eq!((others.len(), others.contains(&found), others.contains(&0)), (4, false, false));
    for number in others {
        assert_eq!(store.numbered(number).await.unwrap(), None, "{number}");
    }
}

async fn a_number_that_nobody_has_leads_nowhere(bench: &mut Bench) {
    let store = &*bench.store;
    for number in [0, 1, 2, u64::MAX] {
        assert_eq!(store.numbered(number).await.unwrap(), None, "{number}");
    }
    let only = stored(store).await;
    assert_eq!(numbers(store, &[only]).await, [1]);
    for number in [0, 2, 10, 11, i64::MAX as u64, u64::MAX] {
        assert_eq!(store.numbered(number).await.unwrap(), None, "{number}");
    }
}

#[tokio::test]
async fn two_nodes_that_show_messages_at_once_tell_one_number_each_and_leave_no_other() {
    let redis = RedisServer::start().await;
    let (one, other) = Bench::pair_on_redis(&redis.url()).await;
    for _ in 0..20 {
        let messages = many_stored(&*one.store, 5).await;
        let asked = join_all((0..10).map(|n| [&one, &other][n % 2].store.numbers(shop_ref(), &messages)));
        let told: Vec<Vec<u64>> = asked.await.into_iter().map(Result::unwrap).collect();
        assert!(told.iter().all(|numbers| *numbers == told[0]), "{told:?}");
        for (message, number) in messages.iter().zip(&told[0]) {
            assert_eq!(message_of(&*other.store, *number).await, Some(*message));
        }
    }
    let leading = redis.cli(&["KEYS", "*legacy:[0-9]*"]);
    assert_eq!(leading.lines().count(), 100, "what no message took is dropped");
    let key = leading.lines().next().unwrap();
    let ttl: i64 = redis.cli(&["TTL", key]).parse().unwrap();
    assert!((8 * 86400..10 * 86400).contains(&ttl), "longer than a message is kept, and no more than that: {ttl}");
}

/// A failover can lose the newest draws of the counter, and an operator can remove it. Numbers were then
/// given a second time.
#[tokio::test]
async fn a_counter_that_was_put_back_gives_no_number_twice() {
    let redis = RedisServer::start().await;
    let bench = Bench::on_redis(&redis.url()).await;
    let store = &*bench.store;
    let early = many_stored(store, 300).await;
    let given = numbers(store, &early).await;
    let counter = redis.cli(&["KEYS", "*legacy:next"]);
    assert_eq!(redis.cli(&["GET", &counter]), "300");
    for put_back in ["295", "10", "0"] {
        redis.cli(&["SET", &counter, put_back]);
        let late = many_stored(store, 7).await;
        for (message, number) in late.iter().zip(numbers(store, &late).await) {
            assert!(!given.contains(&number), "{number} is another message's");
            assert_eq!(message_of(store, number).await, Some(*message));
        }
    }
    assert_eq!(numbers(store, &early).await, given);
    for (message, number) in early.iter().zip(&given) {
        assert_eq!(message_of(store, *number).await, Some(*message));
    }
    for nonsense in ["-5", "x"] {
        redis.cli(&["SET", &counter, nonsense]);
        let refused = store.numbers(&shop(), &[stored(store).await]).await;
        assert!(matches!(refused, Err(StoreError::Nonsense { .. })), "{nonsense}: {refused:?}");
    }
}

#[tokio::test]
async fn a_full_redis_gives_no_new_number_and_tells_the_ones_that_are_given() {
    let redis = RedisServer::start().await;
    let bench = Bench::on_redis(&redis.url()).await;
    let store = &*bench.store;
    let [known, new] = [stored(store).await, stored(store).await];
    assert_eq!(numbers(store, &[known]).await, [1]);
    redis.cli(&["CONFIG", "SET", "maxmemory", "1"]);
    let refused = store.numbers(&shop(), &[known, new]).await;
    assert!(matches!(refused, Err(StoreError::Full)), "{refused:?}");
    assert_eq!(numbers(store, &[known]).await, [1]);
    assert_eq!(message_of(store, 1).await, Some(known));
    assert_eq!(store.trim(&shop(), known, 10).await.unwrap(), 1);
    assert_eq!(store.numbered(1).await.unwrap(), None);
}

#[tokio::test]
async fn a_question_whose_answer_was_lost_is_answered_the_second_time() {
    let redis = RedisServer::start().await;
    let proxy = Proxy::start(redis.port()).await;
    let bench = Bench::on_redis(&proxy.url()).await;
    let store = &*bench.store;
    for step in ["HMGET", "INCRBY", "NX", "EVALSHA"] {
        let message = stored(store).await;
        proxy.lose_answer_to(step);
        let lost = store.numbers(&shop(), &[message]).await;
        assert!(matches!(lost, Err(StoreError::Unavailable(_))), "{step}: {lost:?}");
        eventually(SOON, "the connection is back", async || store.log_len(&shop()).await.is_ok()).await;
        let [number] = numbers(store, &[message]).await[..] else { panic!() };
        assert_eq!(message_of(store, number).await, Some(message), "{step}");
    }
}

#[tokio::test]
async fn a_number_that_leads_to_something_else_leads_nowhere() {
    let redis = RedisServer::start().await;
    let bench = Bench::on_redis(&redis.url()).await;
    let store = &*bench.store;
    let message = stored(store).await;
    assert_eq!(numbers(store, &[message]).await, [1]);
    let key = redis.cli(&["KEYS", "*legacy:1"]);
    let next = format!("{}2", key.trim_end_matches('1'));
    for (key, text) in [(&key, "junk"), (&key, "shop 1\n1-x"), (&next, &redis.cli(&["GET", &key]))] {
        redis.cli(&["SET", key, text]);
        let number = if *key == next { 2 } else { 1 };
        assert_eq!(store.numbered(number).await.unwrap(), None, "{text:?}");
    }
    let hash = redis.cli(&["KEYS", "*numbers"]);
    redis.cli(&["HSET", &hash, &message.to_string(), "junk"]);
    let refused = store.numbers(&shop(), &[message]).await;
    assert!(matches!(refused, Err(StoreError::Nonsense { .. })), "{refused:?}");
}

#[tokio::test]
async fn a_restart_keeps_the_numbers_and_gives_none_again() {
    let dir = tempfile::tempdir().unwrap();
    let (store, feed) = file::open(dir.path()).await;
    let [old, kept] = [stored(&store).await, stored(&store).await];
    assert_eq!(numbers(&store, &[kept, old]).await, [1, 2]);
    store.trim(&shop(), old, 1).await.unwrap();
    store.close().await;
    drop((store, feed));

    let (store, _feed) = file::open(dir.path()).await;
    assert_eq!((message_of(&store, 1).await, message_of(&store, 2).await), (Some(kept), None));
    assert_eq!(numbers(&store, &[kept]).await, [1]);
    assert_eq!(store.commits(), 0, "what is known is told without a write");
    let new = stored(&store).await;
    assert_eq!(numbers(&store, &[new, kept]).await, [3, 1]);
    store.close().await;
}

#[tokio::test]
async fn a_file_of_a_version_without_numbers_has_none_and_takes_them() {
    let numbers_table: TableDefinition<'_, (&str, u64, u64), u64> = TableDefinition::new("numbers");
    let numbered_table: TableDefinition<'_, u64, (&str, u64, u64)> = TableDefinition::new("numbered");
    let dir = tempfile::tempdir().unwrap();
    let (store, feed) = file::open(dir.path()).await;
    let message = stored(&store).await;
    store.close().await;
    drop((store, feed));
    let database = Database::open(dir.path().join(file::FILE)).unwrap();
    let transaction = database.begin_write().unwrap();
    assert!(transaction.delete_table(numbers_table).unwrap(), "it was there");
    assert!(transaction.delete_table(numbered_table).unwrap(), "it was there");
    transaction.commit().unwrap();
    drop(database);

    let (store, _feed) = file::open(dir.path()).await;
    assert_eq!(store.numbered(1).await.unwrap(), None);
    assert_eq!(numbers(&store, &[message]).await, [1]);
    assert_eq!(message_of(&store, 1).await, Some(message));
    store.close().await;
}
