//! A load through the whole relay, with shops of one handheld and one till each: two nodes on Redis, one
//! node on Redis, and one on the embedded store, side by side.
//!
//! `cargo bench --bench relay -- [SHOPS] [SECONDS]`. Measures messages a second at saturation, the time from
//! notify to message at a moderate pace and at so many notifies at once, and the CPU time that relay and
//! Redis spent a message. Client, relay and Redis share the machine, so compare only figures of one run.
//!
//! At the end one shop sends a hundred times what it may, beside shops that send what they should: their time from
//! notify to message, before and meanwhile.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod client;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::Semaphore;

use client::{Process, Reader, connect, frame, free_port, start_node, start_redis};

/// Notifies that one handheld has under way at saturation.
const IN_FLIGHT: usize = 16;
/// Notifies a second that a shop may send where one is loud.
const QUOTA: u64 = 50;
/// Handhelds with one notify under way each.
const AT_ONCE: [usize; 3] = [1, 16, 256];

/// What every shop shares.
struct Load {
    epoch: Instant,
    accepted: AtomicU64,
    received: AtomicU64,
    is_over: AtomicBool,
    latency_us: parking_lot::Mutex<Histogram<u64>>,
    /// Notifies that one handheld has under way.
    in_flight: usize,
    /// Time between two notifies of a handheld; None for as fast as they are answered.
    pace: Option<Duration>,
}

fn after<'a>(frame: &'a [u8], key: &str) -> &'a [u8] {
    let at = frame.windows(key.len()).position(|window| window == key.as_bytes()).expect(key);
    &frame[at + key.len()..]
}

async fn till(load: Arc<Load>, mut reader: Reader, mut write: OwnedWriteHalf) {
    loop {
        let message = reader.next().await;
        let id = after(&message, r#""id":""#).split(|byte| *byte == b'"').next().unwrap().to_vec();
        let sent: String =
            after(&message, r#""data":"#).iter().map(|b| *b as char).take_while(char::is_ascii_digit).collect();
        let took = load.epoch.elapsed().as_micros() as u64 - sent.parse::<u64>().unwrap();
        load.latency_us.lock().record(took.max(1)).unwrap();
        load.received.fetch_add(1, Ordering::Relaxed);
        let ack = format!(r#"{{"op":"ack","id":"{}"}}"#, String::from_utf8(id).unwrap());
        write.write_all(&frame(&ack)).await.unwrap();
    }
}

async fn handheld(load: Arc<Load>, mut reader: Reader, mut write: OwnedWriteHalf) {
    let under_way = Arc::new(Semaphore::new(load.in_flight));
    let counting = load.clone();
    let freed = under_way.clone();
    let answers = tokio::spawn(async move {
        loop {
            let answer = reader.next().await;
            assert!(answer.starts_with(br#"{"op":"accepted""#), "{}", String::from_utf8_lossy(&answer));
            counting.accepted.fetch_add(1, Ordering::Relaxed);
            freed.add_permits(1);
        }
    });
    while !load.is_over.load(Ordering::Relaxed) {
        under_way.acquire().await.unwrap().forget();
        let sent = load.epoch.elapsed().as_micros();
        let notify = format!(
            r#"{{"op":"notify","type":"add","table":"12","user_info":{{"name":"waiter","id":7}},"data":{sent}}}"#
        );
        write.write_all(&frame(&notify)).await.unwrap();
        if let Some(pace) = load.pace {
            tokio::time::sleep(pace).await;
        }
    }
    let _ = tokio::time::timeout(Duration::from_secs(5), under_way.acquire_many(load.in_flight as u32)).await;
    answers.abort();
}

/// One deployment under test.
struct Relay {
    name: &'static str,
    nodes: Vec<Process>,
    redis: Option<Process>,
    ports: Vec<u16>,
    /// Shops that were used already.
    shops: AtomicUsize,
}

impl Relay {
    async fn start(
        name: &'static str,
        nodes: usize,
        redis: Option<u16>,
        store: &str,
        settings: &[(&str, &str)],
    ) -> Relay {
        let redis = redis.map(start_redis);
        // Redis is asked for by the nodes, which give up after a few seconds.
        tokio::time::sleep(Duration::from_millis(500)).await;
        let ports: Vec<u16> = (0..nodes).map(|_| free_port()).collect();
        let nodes = ports.iter().map(|port| start_node(store, *port, settings)).collect();
        for port in &ports {
            while TcpStream::connect(("127.0.0.1", *port)).await.is_err() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        Relay { name, nodes, redis, ports, shops: AtomicUsize::new(0) }
    }

    fn cpu(&self) -> (Duration, Duration) {
        (self.nodes.iter().map(Process::cpu).sum(), self.redis.as_ref().map(Process::cpu).unwrap_or_default())
    }

    async fn measure(&self, what: &str, shops: usize, in_flight: usize, pace: Option<Duration>, seconds: u64) {
        let load = Arc::new(Load {
            epoch: Instant::now(),
            accepted: AtomicU64::new(0),
            received: AtomicU64::new(0),
            is_over: AtomicBool::new(false),
            latency_us: parking_lot::Mutex::new(Histogram::new(3).unwrap()),
            in_flight,
            pace,
        });
        let (mut tills, mut handhelds) = (Vec::new(), Vec::new());
        let first = self.shops.fetch_add(shops, Ordering::Relaxed);
        for shop in first..first + shops {
            let (reader, write) = connect(self.ports[shop % self.ports.len()], shop, "till", "main").await;
            tills.push(tokio::spawn(till(load.clone(), reader, write)));
            let (reader, write) = connect(self.ports[(shop + 1) % self.ports.len()], shop, "hand", "sub").await;
            handhelds.push(tokio::spawn(handheld(load.clone(), reader, write)));
        }
        // The first second warms up.
        tokio::time::sleep(Duration::from_secs(1)).await;
        load.latency_us.lock().reset();
        let (before, start, cpu) = (load.received.load(Ordering::Relaxed), Instant::now(), self.cpu());
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        let (count, took) = (load.received.load(Ordering::Relaxed) - before, start.elapsed().as_secs_f64());
        let spent = |now: Duration, before: Duration| (now - before).as_micros() as f64 / count as f64;
        let (relay, redis) = (spent(self.cpu().0, cpu.0), spent(self.cpu().1, cpu.1));
        let latency = load.latency_us.lock().clone();
        load.is_over.store(true, Ordering::Relaxed);
        for handheld in handhelds {
            handheld.await.unwrap();
        }
        let memory: Vec<u64> = self.nodes.iter().map(Process::rss_mb).collect();
        println!(
            "{:<20} {what:<16} {:>6.0} messages/s  p50 {:>6} us  p99 {:>6} us  CPU a message: relay {relay:>5.1} us, Redis {redis:>5.1} us  memory {memory:?} MB",
            self.name,
            count as f64 / took,
            latency.value_at_quantile(0.5),
            latency.value_at_quantile(0.99),
        );
        let deadline = Instant::now() + Duration::from_secs(10);
        while load.received.load(Ordering::Relaxed) < load.accepted.load(Ordering::Relaxed) {
            assert!(Instant::now() < deadline, "messages are missing");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        tills.into_iter().for_each(|till| till.abort());
    }
}

/// Sends as fast as it is answered, whatever the answer is; how much was accepted, and how much was asked.
async fn shout(port: u16, shop: usize, device: String, is_over: Arc<AtomicBool>) -> (u64, u64) {
    let (mut reader, mut write) = connect(port, shop, &device, "sub").await;
    let notify = frame(r#"{"op":"notify","type":"add","data":0}"#).repeat(IN_FLIGHT);
    let (mut accepted, mut asked) = (0, 0);
    while !is_over.load(Ordering::Relaxed) {
        write.write_all(&notify).await.unwrap();
        for _ in 0..IN_FLIGHT {
            asked += 1;
            accepted += u64::from(reader.next().await.starts_with(br#"{"op":"accepted""#));
        }
        // Ten of them ask for a hundred times the quota together.
        tokio::time::sleep(Duration::from_millis(1000 * 10 * IN_FLIGHT as u64 / (100 * QUOTA))).await;
    }
    (accepted, asked)
}

/// What a loud shop does to the others.
async fn neighbours(shops: usize, seconds: u64) {
    let redis = free_port();
    let quota = QUOTA.to_string();
    let settings = [("LIMITS_SHOP_PUBLISHES_PER_S", quota.as_str())];
    let store = format!("redis://127.0.0.1:{redis}");
    let relay = Relay::start("two nodes on Redis", 2, Some(redis), &store, &settings).await;
    let pace = Duration::from_secs(1) / 10;
    for turn in 1..=3 {
        relay.measure(&format!("quiet, {turn}"), shops, 1, Some(pace), seconds).await;
        let (is_over, shop) = (Arc::new(AtomicBool::new(false)), relay.shops.fetch_add(1, Ordering::Relaxed));
        let _till = connect(relay.ports[0], shop, "till", "main").await;
        let loud = (0..10).map(|n| tokio::spawn(shout(relay.ports[n % 2], shop, format!("loud-{n}"), is_over.clone())));
        let loud: Vec<_> = loud.collect();
        relay.measure(&format!("one is loud, {turn}"), shops, 1, Some(pace), seconds).await;
        is_over.store(true, Ordering::Relaxed);
        let (mut accepted, mut asked) = (0, 0);
        for loud in loud {
            let (its_accepted, its_asked) = loud.await.unwrap();
            accepted += its_accepted;
            asked += its_asked;
        }
        println!(
            "  the loud shop asked for {} times its quota, and was granted {accepted} of {asked}",
            asked / (QUOTA * (seconds + 1))
        );
    }
}

#[tokio::main]
async fn main() {
    let mut numbers = std::env::args().skip(1).filter_map(|arg| arg.parse::<u64>().ok());
    let shops = numbers.next().unwrap_or(64) as usize;
    let seconds = numbers.next().unwrap_or(6);
    let directory = tempfile::tempdir().unwrap();
    let embedded = format!("embedded:{}", directory.path().display());
    for (name, nodes) in [("two nodes on Redis", 2), ("one node on Redis", 1), ("one node, embedded", 1)] {
        let redis = (name != "one node, embedded").then(free_port);
        let store = redis.map_or_else(|| embedded.clone(), |port| format!("redis://127.0.0.1:{port}"));
        let relay = Relay::start(name, nodes, redis, &store, &[]).await;
        relay.measure("saturation", shops, IN_FLIGHT, None, seconds).await;
        let pace = Duration::from_micros(1_000_000 * shops as u64 / 1000);
        relay.measure("1000 a second", shops, IN_FLIGHT, Some(pace), seconds).await;
        for at_once in AT_ONCE {
            relay.measure(&format!("{at_once} at once"), at_once, 1, None, seconds).await;
        }
    }
    neighbours(shops, seconds).await;
}
