//! A load through the whole relay: two nodes, one Redis, shops of one handheld and one till each.
//!
//! `cargo bench --bench relay -- [SHOPS] [SECONDS]`. Measures messages a second at saturation, then the
//! time from notify to message at a moderate pace, and the CPU time that relay and Redis spent a
//! message. Client, relay and Redis share the machine, so compare only figures of one run.
//!
//! The client is as thin as can be (frames masked with zeros, answers found by searching), so that it
//! measures the relay and not itself.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::Semaphore;

/// Notifies that one handheld has under way at saturation.
const IN_FLIGHT: usize = 16;

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

fn start_node(redis: u16, port: u16) -> Process {
    let mut node = Command::new(env!("CARGO_BIN_EXE_shoprelay"));
    node.args(["serve", "--api-listen", "none", "--metrics-listen", "none", "--log", "warn"]);
    node.args(["--listen", &format!("127.0.0.1:{port}"), "--store", &format!("redis://127.0.0.1:{redis}")]);
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

async fn handheld(load: Arc<Load>, mut reader: Reader, mut write: OwnedWriteHalf, pace: Option<Duration>) {
    let under_way = Arc::new(Semaphore::new(IN_FLIGHT));
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
        if let Some(pace) = pace {
            tokio::time::sleep(pace).await;
        }
    }
    let _ = tokio::time::timeout(Duration::from_secs(5), under_way.acquire_many(IN_FLIGHT as u32)).await;
    answers.abort();
}

async fn measure(
    name: &str,
    shops: std::ops::Range<usize>,
    ports: [u16; 2],
    pace: Option<Duration>,
    seconds: u64,
    parts: &[&Process; 3],
) {
    let load = Arc::new(Load {
        epoch: Instant::now(),
        accepted: AtomicU64::new(0),
        received: AtomicU64::new(0),
        is_over: AtomicBool::new(false),
        latency_us: parking_lot::Mutex::new(Histogram::new(3).unwrap()),
    });
    let (mut tills, mut handhelds) = (Vec::new(), Vec::new());
    for shop in shops {
        let (reader, write) = connect(ports[shop % 2], shop, "till", "main").await;
        tills.push(tokio::spawn(till(load.clone(), reader, write)));
        let (reader, write) = connect(ports[(shop + 1) % 2], shop, "hand", "sub").await;
        handhelds.push(tokio::spawn(handheld(load.clone(), reader, write, pace)));
    }
    // The first second warms up.
    tokio::time::sleep(Duration::from_secs(1)).await;
    load.latency_us.lock().reset();
    let (before, start) = (load.received.load(Ordering::Relaxed), Instant::now());
    let cpu = parts.map(Process::cpu);
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let took = start.elapsed().as_secs_f64();
    let count = load.received.load(Ordering::Relaxed) - before;
    let spent: Vec<f64> =
        parts.iter().zip(cpu).map(|(part, before)| (part.cpu() - before).as_micros() as f64 / count as f64).collect();
    let latency = load.latency_us.lock().clone();
    load.is_over.store(true, Ordering::Relaxed);
    for handheld in handhelds {
        handheld.await.unwrap();
    }
    println!(
        "{name}: {:.0} messages/s; notify to message p50 {} us, p99 {} us; CPU a message: relay {:.1} us (two nodes), Redis {:.1} us; nodes' memory {} and {} MB",
        count as f64 / took,
        latency.value_at_quantile(0.5),
        latency.value_at_quantile(0.99),
        spent[0] + spent[1],
        spent[2],
        parts[0].rss_mb(),
        parts[1].rss_mb(),
    );
    let deadline = Instant::now() + Duration::from_secs(10);
    while load.received.load(Ordering::Relaxed) < load.accepted.load(Ordering::Relaxed) {
        assert!(Instant::now() < deadline, "messages are missing");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    tills.into_iter().for_each(|till| till.abort());
}

#[tokio::main]
async fn main() {
    let mut numbers = std::env::args().skip(1).filter_map(|arg| arg.parse::<u64>().ok());
    let shops = numbers.next().unwrap_or(64) as usize;
    let seconds = numbers.next().unwrap_or(10);
    let (redis_port, ports) = (free_port(), [free_port(), free_port()]);
    let redis = start_redis(redis_port);
    tokio::time::sleep(Duration::from_millis(500)).await;
    let nodes = ports.map(|port| start_node(redis_port, port));
    for port in ports {
        while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    let parts = [&nodes[0], &nodes[1], &redis];
    measure("saturation", 0..shops, ports, None, seconds, &parts).await;
    let pace = Duration::from_micros(1_000_000 * shops as u64 / 1000);
    measure("1000 messages/s", shops..2 * shops, ports, Some(pace), seconds, &parts).await;
}
