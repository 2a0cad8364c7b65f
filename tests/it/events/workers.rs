//! The example worker at work: workers share the calls, take over what a dead one left, and lose none.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};
use tokio::time::timeout;

use super::{Stream, conn, entry, world_with_events};
use crate::harness::{Device, Event, Login, NodeProcess, RedisProxy, SOON, Worker, World, eventually, unique};

const GROUP: &str = "call-workers";

/// What a worker is told: where Redis and the stream are, and the API to answer by.
fn start(name: &str, stream: &Stream<'_>, api: &str, more: &[(&str, &str)]) -> Worker {
    let (redis, stream) = (stream.redis.url(), stream.key.as_str());
    let place = [("REDIS_URL", redis.as_str()), ("STREAM", stream), ("API", api)];
    Worker::start(name, &[place.as_slice(), more].concat())
}

/// A world with a stream, and with a worker that need not be built any more.
async fn world_for_workers(nodes: usize, settings: &[(&str, &str)]) -> World {
    Worker::binary();
    world_with_events(nodes, settings).await
}

/// The ids that a worker of the group was given and has not acknowledged.
fn pending(stream: &Stream<'_>, worker: &str) -> Vec<String> {
    let answer = stream.ask(&["XPENDING", &stream.key, GROUP, "-", "+", "1000", worker]);
    let items = answer.as_array().expect("a list");
    items.iter().map(|item| item[0].as_str().expect("an id").to_owned()).collect()
}

/// Waits until the group has been given everything, and acknowledged it.
async fn settled(stream: &Stream<'_>) {
    eventually(SOON, "every entry to be acknowledged", async || {
        let groups = stream.ask(&["XINFO", "GROUPS", &stream.key]);
        (&groups[0]["pending"], &groups[0]["lag"]) == (&json!(0), &json!(0))
    })
    .await;
}

/// Puts a call into the stream that no device made, with more than the fields it has to have.
fn forge_call(stream: &Stream<'_>, fields: &[(&str, &str)]) {
    let fields: Vec<&str> = fields.iter().flat_map(|(name, value)| [*name, *value]).collect();
    let command = [&["XADD", &stream.key, "*", "event", "call", "at", "0", "node", "none"], fields.as_slice()];
    stream.redis.cli(&command.concat());
}

/// The data of the next answer.
async fn answer(device: &mut Device) -> Value {
    let signal = device.expect("signal").await;
    assert_eq!(signal["type"], "answer");
    signal["data"].clone()
}

/// Calls so many times without waiting, and collects answers by `ref` until each call has one.
async fn call_and_collect(mut hand: Device, calls: usize, answered: Arc<AtomicUsize>) -> BTreeMap<String, Vec<Value>> {
    for n in 0..calls {
        let dish = ["tea", "rice", "noodles"][n % 3];
        hand.send(json!({"op": "call", "method": "price", "ref": n, "data": {"dish": dish}})).await;
    }
    let mut answers: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    let mut accepted = 0;
    while answers.len() < calls {
        let op = match timeout(2 * SOON, hand.event()).await {
            Ok(Event::Op(op)) => op,
            Ok(Event::Ping(_)) => continue,
            other => panic!("{other:?} after {} answers of {calls}", answers.len()),
        };
        match op["op"].as_str() {
            Some("ok") => accepted += 1,
            Some("signal") => {
                let reference = op["data"]["ref"].as_str().expect("a ref of text").to_owned();
                let n: usize = reference.parse().expect("one of ours");
                assert_eq!(op["data"]["result"]["price"], [300, 250, 1200][n % 3], "{op}");
                let again = answers.entry(reference).or_default();
                again.push(op["data"].clone());
                answered.fetch_add(usize::from(again.len() == 1), Ordering::SeqCst);
            }
            _ => panic!("{op}"),
        }
    }
    assert_eq!(accepted, calls, "an answer comes only to a call that was accepted before");
    answers
}

#[tokio::test]
async fn when_a_worker_is_killed_another_takes_its_calls_over_and_none_is_lost() {
    const DEVICES: usize = 20;
    const CALLS: usize = 20;
    let world = world_for_workers(2, &[]).await;
    let (stream, shop) = (Stream::of(&world), unique("店"));
    let quick = [("IDLE_MS", "1500"), ("DELAY_MS", "10"), ("BATCH", "10")];
    let doomed = start("doomed", &stream, world.nodes[0].api_listen(), &quick);
    let heir = start("heir", &stream, world.nodes[1].api_listen(), &quick);
    let answered = Arc::new(AtomicUsize::new(0));
    let (mut conns, mut shifts) = (Vec::new(), Vec::new());
    for n in 0..DEVICES {
        let hand = Login::sub(&shop, &format!("hand-{n}")).on(&world.url(n)).await;
        conns.push(conn(&hand.welcome));
        shifts.push(tokio::spawn(call_and_collect(hand, CALLS, answered.clone())));
    }
    eventually(3 * SOON, "half of the calls to be answered", async || {
        answered.load(Ordering::SeqCst) >= DEVICES * CALLS / 2
    })
    .await;
    // Killed with calls in its hands: held still, so that they do not go meanwhile.
    let mut left = Vec::new();
    eventually(SOON, "the worker to hold calls that it has not answered", async || {
        doomed.pause();
        left = pending(&stream, "doomed");
        // Logins and closes are among the entries too.
        left.retain(|id| entry(&stream.ask(&["XRANGE", &stream.key, id, id])[0])["event"] == "call");
        if left.len() < 5 {
            doomed.resume();
        }
        left.len() >= 5
    })
    .await;
    doomed.sigkill();

    let mut answers = BTreeMap::new();
    for (conn, shift) in conns.into_iter().zip(shifts) {
        answers.insert(conn, shift.await.expect("each of its calls was answered rightly"));
    }
    let by = |answers: &[Value]| -> BTreeSet<String> {
        answers.iter().map(|data| data["by"].as_str().expect("a worker").to_owned()).collect()
    };
    let all: Vec<Value> = answers.values().flat_map(|of_conn| of_conn.values().flatten().cloned()).collect();
    assert_eq!(by(&all), BTreeSet::from(["doomed".into(), "heir".into()]), "both had a share of the calls");
    // The first one it may have answered, and died before it acknowledged that.
    let mut taken_over = 0;
    for id in left.iter().skip(1) {
        let range = stream.ask(&["XRANGE", &stream.key, id, id]);
        let entry = entry(&range[0]);
        assert_eq!(by(&answers[&entry["conn"]][&entry["ref"]]), BTreeSet::from(["heir".into()]), "{entry:?}");
        taken_over += 1;
    }
    assert!(taken_over >= 4, "of {left:?}");
    assert!(heir.said().contains("takes over"), "{}", heir.said());
    settled(&stream).await;
    assert_eq!(pending(&stream, "doomed"), [""; 0]);
}

#[tokio::test]
async fn a_worker_that_starts_later_answers_what_was_called_before_and_says_what_is_wrong_with_a_call() {
    let world = world_for_workers(1, &[]).await;
    let (stream, shop) = (Stream::of(&world), unique("shop"));
    let mut hand = Login::sub(&shop, "hand").on(&world.url(0)).await;
    for (n, (method, data)) in [
        ("price", json!({"dish": "tea"})),
        ("price", json!({"dish": "x"})),
        ("price", Value::Null),
        ("dance", json!(1)),
    ]
    .into_iter()
    .enumerate()
    {
        hand.send(json!({"op": "call", "method": method, "data": data, "ref": format!("r{n}")})).await;
        hand.expect("ok").await;
    }
    let _worker = start("late", &stream, world.nodes[0].api_listen(), &[]);
    let priced = json!({"ref": "r0", "by": "late", "result": {"dish": "tea", "price": 300}});
    assert_eq!(answer(&mut hand).await, priced);
    for (reference, said) in
        [("r1", "no dish is called x"), ("r2", "price needs data"), ("r3", "no method is called dance")]
    {
        let answer = answer(&mut hand).await;
        assert_eq!((&answer["ref"], &answer["result"]), (&json!(reference), &Value::Null));
        assert!(answer["error"].as_str().is_some_and(|error| error.contains(said)), "{answer}");
    }
    settled(&stream).await;
}

#[tokio::test]
async fn calls_of_connections_that_are_gone_and_calls_that_are_none_are_skipped() {
    let world = world_for_workers(1, &[]).await;
    let (stream, shop) = (Stream::of(&world), unique("shop"));
    let hand = Login::sub(&shop, "hand").on(&world.url(0)).await;
    let gone = conn(&hand.welcome);
    hand.close().await;
    stream.of_closed_conn(&gone).await;
    forge_call(&stream, &[("shop", &shop), ("conn", &gone), ("method", "price"), ("device", "hand")]);
    forge_call(&stream, &[("shop", &shop)]);
    forge_call(&stream, &[("shop", "no {shop}"), ("conn", &gone), ("method", "price")]);
    let worker = start("one", &stream, world.nodes[0].api_listen(), &[]);
    eventually(SOON, "the group", async || stream.redis.cli(&["XINFO", "GROUPS", &stream.key]).contains(GROUP)).await;
    settled(&stream).await;
    let said = worker.said();
    assert!(said.contains("without shop, conn or method") && said.contains("400"), "{said}");
}

#[tokio::test]
async fn an_answer_that_the_api_cannot_take_now_is_tried_again() {
    let world = world_for_workers(1, &[]).await;
    let proxy = RedisProxy::before(world.redis().port()).await;
    let mut options = world.options.clone();
    options.store = proxy.url();
    let node = NodeProcess::start(&options).await;
    let (stream, shop) = (Stream::of(&world), unique("shop"));
    let mut hand = Login::sub(&shop, "hand").on(&node.ws_url()).await;
    // The node loses Redis, the worker does not.
    proxy.hold(true);
    let conn = conn(&hand.welcome);
    forge_call(&stream, &[("shop", &shop), ("conn", &conn), ("method", "price"), ("data", r#"{"dish":"tea"}"#)]);
    let worker = start("one", &stream, node.api_listen(), &[("IDLE_MS", "500")]);
    eventually(2 * SOON, "the worker to be told 503", async || worker.said().contains("503")).await;
    assert_eq!(pending(&stream, "one").len(), 1, "not acknowledged");
    proxy.hold(false);
    let priced = json!({"ref": null, "by": "one", "result": {"dish": "tea", "price": 300}});
    assert_eq!(answer(&mut hand).await, priced);
    settled(&stream).await;
}

#[tokio::test]
async fn a_worker_whose_key_is_refused_ends_and_says_so_without_losing_the_call() {
    let keys = tempfile::NamedTempFile::new().unwrap();
    let text =
        "[[keys]]\nname = \"kitchen\"\nkey = \"a-right-key-of-the-kitchen\"\nshops = [\"*\"]\nscopes = [\"write\"]\n";
    std::fs::write(keys.path(), text).unwrap();
    let world = world_for_workers(1, &[("API_KEYS_FILE", keys.path().to_str().unwrap())]).await;
    let stream = Stream::of(&world);
    let mut hand = Login::sub(&unique("shop"), "hand").on(&world.url(0)).await;
    hand.request(json!({"op": "call", "method": "price", "data": {"dish": "rice"}})).await;
    let api = world.nodes[0].api_listen();
    let mut wrong = start("wrong", &stream, api, &[("API_KEY", "a-wrong-key-of-the-kitchen")]);
    assert!(!wrong.wait_exit().await.success());
    assert!(wrong.said().contains("401") && wrong.said().contains("API_KEY"), "{}", wrong.said());
    // It finds nothing at first, neither new nor idle long enough, and stays.
    let _right = start("right", &stream, api, &[("API_KEY", "a-right-key-of-the-kitchen"), ("IDLE_MS", "1500")]);
    let answer = answer(&mut hand).await;
    assert_eq!((&answer["by"], &answer["result"]["price"]), (&json!("right"), &json!(250)));
}

#[tokio::test]
async fn a_worker_that_cannot_work_says_what_is_wrong() {
    let mut nowhere = Worker::start("one", &[("REDIS_URL", "redis://127.0.0.1:1")]);
    assert!(!nowhere.wait_exit().await.success());
    assert!(nowhere.said().contains("redis://127.0.0.1:1"), "{}", nowhere.said());
    let mut confused = Worker::start("one", &[("IDLE_MS", "soon")]);
    assert!(!confused.wait_exit().await.success());
    assert!(confused.said().contains("IDLE_MS=soon"), "{}", confused.said());
}
