//! Random schedules, checked against a model of a few lines: who is to get what.
//!
//! The seed is printed; `SHOPRELAY_TEST_SEED` repeats the schedule, as far as two nodes and a clock
//! can be repeated.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use serde_json::{Value, json};

use crate::harness::recorder::Acks;
use crate::harness::{Encoding, Event, Id, Login, NodeProcess, Recorder, SOON, Seed, Urls, World, id_of, unique};

const STEPS: usize = 250;
const SHOPS: usize = 3;

/// A device of the model.
struct Member {
    name: String,
    is_main: bool,
    /// Nothing before its first login; it starts at the head then.
    recorder: Option<Recorder>,
    /// What it is to get.
    expected: BTreeSet<Id>,
}

struct Shop {
    name: String,
    members: Vec<Member>,
    /// What keys have been used for, to be used again.
    keys: BTreeMap<String, Id>,
}

/// An audience, in the model and on the wire.
#[derive(Debug, Clone)]
enum To {
    Mains,
    Subs,
    All,
    Devices(Vec<String>),
}

impl To {
    fn random(random: &mut StdRng, shop: &Shop) -> To {
        match random.random_range(0..6) {
            0..=2 => To::Mains,
            3 => To::Subs,
            4 => To::All,
            _ => {
                let names: Vec<String> = shop.members.iter().map(|member| member.name.clone()).collect();
                let count = random.random_range(1..=names.len());
                To::Devices(names.choose_multiple(random, count).cloned().collect())
            }
        }
    }

    fn wire(&self) -> Value {
        match self {
            To::Mains => json!("mains"),
            To::Subs => json!("subs"),
            To::All => json!("all"),
            To::Devices(names) => json!({"devices": names}),
        }
    }

    fn includes(&self, member: &Member, sender: &str) -> bool {
        match self {
            To::Mains => member.is_main && member.name != sender,
            To::Subs => !member.is_main && member.name != sender,
            To::All => member.name != sender,
            To::Devices(names) => names.contains(&member.name),
        }
    }
}

impl Shop {
    fn new(random: &mut StdRng) -> Shop {
        let member = |name: String, is_main| Member { name, is_main, recorder: None, expected: BTreeSet::new() };
        let mains = (0..random.random_range(1..=3)).map(|n| member(format!("main-{n}"), true));
        let subs = (0..random.random_range(1..=3)).map(|n| member(format!("sub-{n}"), false));
        Shop { name: unique("shop"), members: mains.chain(subs).collect(), keys: BTreeMap::new() }
    }

    /// The code that the relay must refuse this with, by the model.
    fn refusal(&self, to: &To) -> Option<&'static str> {
        let is_registered = |member: &&Member| member.recorder.is_some();
        let mut registered = self.members.iter().filter(is_registered);
        match to {
            To::Mains if !registered.any(|member| member.is_main) => Some("no_main_device"),
            To::Devices(names) if !registered.any(|member| names.contains(&member.name)) => Some("not_found"),
            _ => None,
        }
    }
}

struct Schedule {
    random: StdRng,
    world: World,
    urls: Urls,
    shops: Vec<Shop>,
}

impl Schedule {
    async fn step(&mut self) {
        let index = self.random.random_range(0..self.shops.len());
        match self.random.random_range(0..100) {
            0..70 => self.publish(index).await,
            70..80 => self.bring(index).await,
            80..90 => self.disturb(index),
            90..98 => self.disturb_all(index),
            _ => self.restart_a_node().await,
        }
    }

    /// A message from a sender of its own, which is a device of the shop like any other but only sends.
    async fn publish(&mut self, index: usize) {
        let shop = &mut self.shops[index];
        let to = To::random(&mut self.random, shop);
        let except: Vec<String> =
            shop.members.iter().filter(|_| self.random.random_ratio(1, 8)).map(|member| member.name.clone()).collect();
        let used: Vec<String> = shop.keys.keys().cloned().collect();
        let is_retry = self.random.random_ratio(1, 10) && !used.is_empty();
        let key = if is_retry { used[self.random.random_range(0..used.len())].clone() } else { unique("key") };
        println!("publish to {to:?} except {except:?} under {key}");
        let op = json!({"op": "notify", "type": "t", "to": to.wire(), "except": except, "durable": true, "key": key});
        let attempt = self.random.random_range(0..2);
        let answer = ask(&self.urls, attempt, &Login::sub(&shop.name, "sender"), op).await;
        if answer["op"] == "error" {
            assert_eq!(Some(answer["code"].as_str().unwrap_or_default()), shop.refusal(&to), "{answer}");
            return;
        }
        let id = id_of(&answer, "id");
        if let Some(first) = shop.keys.get(&key) {
            assert_eq!((id, &answer["duplicate"]), (*first, &json!(true)), "a retry is not a second message");
            return;
        }
        assert_eq!(shop.refusal(&to), None, "it had to be refused: {answer}");
        shop.keys.insert(key, id);
        for member in &mut shop.members {
            if member.recorder.is_some() && to.includes(member, "sender") && !except.contains(&member.name) {
                member.expected.insert(id);
            }
        }
    }

    /// A device comes for the first time, or comes back.
    async fn bring(&mut self, index: usize) {
        let first = self.random.random_range(0..2);
        let acks = if self.random.random_bool(0.5) { Acks::Each } else { Acks::EveryThird };
        let encoding = if self.random.random_bool(0.5) { Encoding::Json } else { Encoding::MsgPack };
        let shop = &mut self.shops[index];
        let which = self.random.random_range(0..shop.members.len());
        let member = &mut shop.members[which];
        println!("bring {} of shop {index}", member.name);
        if let Some(recorder) = &member.recorder {
            recorder.come_back();
            return;
        }
        let login =
            if member.is_main { Login::main(&shop.name, &member.name) } else { Login::sub(&shop.name, &member.name) };
        let recorder = Recorder::start(login.encoding(encoding), &self.urls, first, acks);
        recorder.wait_login().await;
        member.recorder = Some(recorder);
    }

    /// A device loses its connection, or goes away.
    fn disturb(&mut self, index: usize) {
        let shop = &self.shops[index];
        let member = &shop.members[self.random.random_range(0..shop.members.len())];
        let Some(recorder) = &member.recorder else { return };
        if self.random.random_bool(0.5) {
            println!("{} of shop {index} loses its connection", member.name);
            recorder.lose_connection();
        } else {
            println!("{} of shop {index} goes away", member.name);
            recorder.go_offline();
        }
    }

    fn disturb_all(&mut self, index: usize) {
        println!("all of shop {index} lose their connections");
        for recorder in self.shops[index].members.iter().filter_map(|member| member.recorder.as_ref()) {
            recorder.lose_connection();
        }
    }

    async fn restart_a_node(&mut self) {
        let index = self.random.random_range(0..self.world.nodes.len());
        println!("node {index} is killed and started");
        self.world.nodes[index].sigkill();
        self.world.nodes[index].wait_exit().await;
        self.world.nodes[index] = NodeProcess::start(&self.world.options).await;
        self.urls.replace(index, self.world.nodes[index].ws_url());
    }

    /// Everyone comes back, and each device has exactly what the model says.
    async fn check(&mut self) {
        for member in self.shops.iter_mut().flat_map(|shop| &mut shop.members) {
            let Some(recorder) = member.recorder.take() else {
                continue;
            };
            recorder.come_back();
            recorder.wait_for(&member.expected, 3 * SOON).await;
            let record = recorder.stop().await;
            record.assert_exactly(&member.expected);
            record.assert_ordered();
            record.assert_unbroken(&member.expected);
        }
    }
}

/// Asks on a fresh connection until there is an answer that is no "try again".
async fn ask(urls: &Urls, mut attempt: usize, login: &Login, op: Value) -> Value {
    let end = tokio::time::Instant::now() + 2 * SOON;
    loop {
        assert!(tokio::time::Instant::now() < end, "no answer to {op}");
        attempt += 1;
        if let Ok(mut device) = login.try_on(&urls.pick(attempt)).await
            && let Ok(answer) = device.try_request(op.clone()).await
        {
            let may_retry = ["unavailable", "rate_limited", "backlog_full"].iter().any(|code| answer["code"] == *code);
            for event in device.take_held() {
                let is_push = matches!(&event, Event::Op(op) if op["op"] == "message" || op["op"] == "status");
                assert!(!is_push, "a sender got its own message: {event:?}");
            }
            device.close().await;
            if !may_retry {
                return answer;
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn on_random_schedules_every_device_gets_exactly_what_is_for_it() {
    let seed = Seed::chosen();
    let mut random = seed.random();
    let world = World::with(2, &[("LIMITS_WINDOW", "8"), ("AUDIT", "2s"), ("TIMEOUTS_ACK", "2s")]).await;
    let urls = world.urls();
    let shops = (0..SHOPS).map(|_| Shop::new(&mut random)).collect();
    let mut schedule = Schedule { random, world, urls, shops };
    for _ in 0..STEPS {
        schedule.step().await;
    }
    schedule.check().await;
}
