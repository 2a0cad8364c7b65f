//! A load through the whole relay, with shops of one handheld and one till each: two nodes on Redis, one
//! node on Redis, and one on the embedded store, side by side.
//!
//! `cargo bench --bench relay -- [SHOPS] [SECONDS]`. Measures messages a second at saturation, the time from
//! notify to message at a moderate pace and at so many notifies at once, and the CPU time that relay and
//! Redis spent a message. Client, relay and Redis share the machine, so compare only figures of one run.
//!
//! The client is as thin as can be (frames masked with zeros, answers found by searching), so that it
//! measures the relay and not itself.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::Semaphore;

/// Notifies that one handheld has under way at saturation.
const IN_FLIGHT: usize = 16;
/// Handhelds with one notify under way each.
const AT_ONCE: [usize; 3] = [1, 16, 256];

struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill(); // it may be gone already
        let _ = self.0.wait();
    }
}

impl Process {
    /// CPU time so far, user and system.
    fn cpu(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.0.id())).unwrap();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
        Duration::from_millis(ticks * 10)
    }

    fn rss_mb(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn start_redis(port: u16) -> Process {
    let mut redis = Command::new("redis-server");
    redis.args(["--port", &port.to_string(), "--save", "", "--appendonly", "no"]).stdout(Stdio::null());
    Process(redis.spawn().expect("redis-server; install it with apt-get install redis-server"))
}

fn start_node(store: &str, port: u16) -> Process {
    let mut node = Command::new(env!("CARGO_BIN_EXE_shoprelay"));
    node.args(["serve", "--api-listen", "none", "--metrics-listen", "none", "--log", "warn"]);
    node.args(["--listen", &format!("127.0.0.1:{port}"), "--store", store]);
    for (name, value) in [
        ("LIMITS_SESSION_OPS_PER_S", "1000000"),
        ("LIMITS_SHOP_PUBLISHES_PER_S", "1000000"),
        ("LIMITS_LOG_ENTRIES", "100000000"),
        ("LIMITS_WINDOW", "10000"),
    ] {
        node.env(format!("SHOPRELAY_{name}"), value);
    }
    Process(node.spawn().unwrap())
}

/// One device's connection.
struct Reader {
    stream: OwnedReadHalf,
    buffer: Vec<u8>,
    start: usize,
}

impl Reader {
    /// The payload of the next data frame.
    async fn next(&mut self) -> Vec<u8> {
        loop {
            let waiting = &self.buffer[self.start..];
            if waiting.len() >= 2 {
                let (header, len) = match waiting[1] {
                    126 if waiting.len() >= 4 => (4, usize::from(u16::from_be_bytes([waiting[2], waiting[3]]))),
                    126 => (usize::MAX, 0),
                    short => (2, usize::from(short)),
                };
                if header != usize::MAX && waiting.len() >= header + len {
                    let is_data = waiting[0] & 0x08 == 0;
                    let payload = waiting[header..header + len].to_vec();
                    self.start += header + len;
                    if is_data {
                        return payload;
                    }
                    continue;
                }
            }
            self.buffer.drain(..self.start);
            self.start = 0;
            assert!(self.stream.read_buf(&mut self.buffer).await.unwrap() > 0, "the relay closed a connection");
        }
    }
}

fn frame(text: &str) -> Vec<u8> {
    let mut frame = vec![0x81];
    match text.len() {
        len @ 0..=125 => frame.push(0x80 | len as u8),
        len => {
            frame.push(0x80 | 126);
            frame.extend((len as u16).to_be_bytes());
        }
    }
    frame.extend([0; 4]);
    frame.extend(text.as_bytes());
    frame
}

async fn connect(port: u16, shop: usize, device: &str, role: &str) -> (Reader, OwnedWriteHalf) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let request = "GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(stream.read_u8().await.unwrap());
    }
    assert!(answer.starts_with(b"HTTP/1.1 101"));
    let (read, mut write) = stream.into_split();
    let login = format!(r#"{{"op":"login","shop":"s{shop}","device":"{device}","role":"{role}"}}"#);
    write.write_all(&frame(&login)).await.unwrap();
    let mut reader = Reader { stream: read, buffer: Vec::new(), start: 0 };
    assert!(reader.next().await.starts_with(br#"{"op":"welcome""#));
    (reader, write)
}

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
    async fn start(name: &'static str, nodes: usize, redis: Option<u16>, store: &str) -> Relay {
        let redis = redis.map(start_redis);
        // Redis is asked for by the nodes, which give up after a few seconds.
        tokio::time::sleep(Duration::from_millis(500)).await;
        let ports: Vec<u16> = (0..nodes).map(|_| free_port()).collect();
        let nodes = ports.iter().map(|port| start_node(store, *port)).collect();
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
        let relay = Relay::start(name, nodes, redis, &store).await;
        relay.measure("saturation", shops, IN_FLIGHT, None, seconds).await;
        let pace = Duration::from_micros(1_000_000 * shops as u64 / 1000);
        relay.measure("1000 a second", shops, IN_FLIGHT, Some(pace), seconds).await;
        for at_once in AT_ONCE {
            relay.measure(&format!("{at_once} at once"), at_once, 1, None, seconds).await;
        }
    }
}
