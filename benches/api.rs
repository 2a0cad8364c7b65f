//! Publishes over the HTTP API to a shop with one main that acknowledges: on one kept-alive connection
//! and on 32, without and with an idempotency key, and beside them a sub's notifies by WebSocket, on Redis
//! and on the embedded store.
//!
//! `cargo bench --bench api -- [SECONDS]`, for each turn of a lane. Each connection has one publish under
//! way. The lanes take many short turns, so that what else the machine does falls on all of them alike, and
//! the median of a lane's turns is shown; the latencies are of all of them. Client, relay and Redis share
//! the machine, so compare only figures of one run. `ratio` is to the notifies by WebSocket on as many
//! connections.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1::SendRequest;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

/// Connections that publish, each one message at a time.
const CONNECTIONS: [usize; 2] = [1, 32];
/// How often each lane has its turn.
const ROUNDS: usize = 9;
/// How long a connection of a lane warms up before its turn is measured.
const WARM_UP: Duration = Duration::from_millis(300);
const LANES: [Lane; 3] = [Lane::WebSocket, Lane::Api, Lane::ApiWithKey];

/// A way to publish.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lane {
    WebSocket,
    Api,
    ApiWithKey,
}

impl Score {
    /// The median of its turns, so that one that something else disturbed does not count.
    fn rate(&self) -> f64 {
        let mut rates = self.rates.clone();
        rates.sort_by(f64::total_cmp);
        rates[rates.len() / 2]
    }
}

impl Lane {
    fn name(self) -> &'static str {
        match self {
            Lane::WebSocket => "notify by WebSocket",
            Lane::Api => "API",
            Lane::ApiWithKey => "API, Idempotency-Key",
        }
    }
}

struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill(); // it may be gone already
        let _ = self.0.wait();
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

async fn until_it_listens(port: u16) {
    while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn start_redis(port: u16) -> Process {
    let mut redis = Command::new("redis-server");
    redis.args(["--port", &port.to_string(), "--save", "", "--appendonly", "no"]).stdout(Stdio::null());
    let redis = Process(redis.spawn().expect("redis-server; install it with apt-get install redis-server"));
    until_it_listens(port).await;
    redis
}

async fn start_node(store: &str, ports: Ports) -> Process {
    let mut node = Command::new(env!("CARGO_BIN_EXE_shoprelay"));
    node.args(["serve", "--metrics-listen", "none", "--log", "warn", "--store", store]);
    node.args(["--listen", &format!("127.0.0.1:{}", ports.devices)]);
    node.args(["--api-listen", &format!("127.0.0.1:{}", ports.api)]);
    for (name, value) in [
        ("LIMITS_SESSION_OPS_PER_S", "1000000"),
        ("LIMITS_SHOP_PUBLISHES_PER_S", "1000000"),
        ("LIMITS_LOG_ENTRIES", "100000000"),
        ("LIMITS_WINDOW", "10000"),
    ] {
        node.env(format!("SHOPRELAY_{name}"), value);
    }
    let node = Process(node.spawn().unwrap());
    until_it_listens(ports.devices).await;
    until_it_listens(ports.api).await;
    node
}

#[derive(Clone, Copy)]
struct Ports {
    devices: u16,
    api: u16,
}

/// One device's connection, whose frames are masked with zeros and read as far as needed.
struct Device {
    read: OwnedReadHalf,
    write: OwnedWriteHalf,
    buffer: Vec<u8>,
    start: usize,
}

impl Device {
    async fn log_in(port: u16, device: &str, role: &str) -> Device {
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
        let (read, write) = stream.into_split();
        let mut opened = Device { read, write, buffer: Vec::new(), start: 0 };
        opened.send(&format!(r#"{{"op":"login","shop":"s1","device":"{device}","role":"{role}"}}"#)).await;
        assert!(opened.next().await.starts_with(br#"{"op":"welcome""#));
        opened
    }

    async fn send(&mut self, text: &str) {
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
        self.write.write_all(&frame).await.unwrap();
    }

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
            assert!(self.read.read_buf(&mut self.buffer).await.unwrap() > 0, "the relay closed a connection");
        }
    }
}

/// Receives and acknowledges.
async fn till(mut device: Device, received: Arc<AtomicU64>) {
    loop {
        let message = device.next().await;
        let key = br#""id":""#;
        let at = message.windows(key.len()).position(|window| window == key).expect("an id") + key.len();
        let id = message[at..].split(|byte| *byte == b'"').next().unwrap();
        let ack = format!(r#"{{"op":"ack","id":"{}"}}"#, std::str::from_utf8(id).unwrap());
        device.send(&ack).await;
        received.fetch_add(1, Ordering::Relaxed);
    }
}

/// A connection that publishes.
enum Publisher {
    WebSocket(Box<Device>),
    Api { sender: SendRequest<Full<Bytes>>, with_key: bool },
}

/// The content, which is the same on every lane, as an op and as a body.
const NOTIFY: &str =
    r#"{"op":"notify","to":"mains","type":"add","table":"12","user_info":{"name":"waiter","id":7},"data":{"dish":42}}"#;
const BODY: &str =
    r#"{"to":"mains","type":"add","table":"12","user_info":{"name":"waiter","id":7},"data":{"dish":42}}"#;

impl Publisher {
    async fn connect(lane: Lane, ports: Ports) -> Publisher {
        if lane == Lane::WebSocket {
            // A new one begins at the head; one from an earlier turn would read through all that came since.
            let name = format!("hand-{:016x}", rand::random::<u64>());
            return Publisher::WebSocket(Box::new(Device::log_in(ports.devices, &name, "sub").await));
        }
        let stream = TcpStream::connect(("127.0.0.1", ports.api)).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        Publisher::Api { sender, with_key: lane == Lane::ApiWithKey }
    }

    /// Publishes a message and waits until it is stored.
    async fn publish(&mut self) {
        match self {
            Publisher::WebSocket(device) => {
                device.send(NOTIFY).await;
                // Nothing else comes to a sub that asks for no receipt.
                let answer = device.next().await;
                assert!(answer.starts_with(br#"{"op":"accepted""#), "{}", String::from_utf8_lossy(&answer));
            }
            Publisher::Api { sender, with_key } => {
                let mut request = Request::post("/v1/shops/s1/messages").header("host", "127.0.0.1");
                request = request.header("content-type", "application/json");
                if *with_key {
                    request = request.header("idempotency-key", format!("{:032x}", rand::random::<u128>()));
                }
                let request = request.body(Full::new(Bytes::from_static(BODY.as_bytes()))).unwrap();
                sender.ready().await.unwrap();
                let response = sender.send_request(request).await.unwrap();
                let status = response.status();
                let body = response.into_body().collect().await.unwrap().to_bytes();
                assert_eq!(status, StatusCode::CREATED, "{}", String::from_utf8_lossy(&body));
            }
        }
    }
}

/// What one lane has done in all its turns.
struct Score {
    /// Publishes a second in each of its turns.
    rates: Vec<f64>,
    latency_us: Histogram<u64>,
}

/// One turn of a lane; how many messages were published in it, with those of its warming up.
async fn turn(lane: Lane, connections: usize, ports: Ports, seconds: u64, score: &mut Score) -> u64 {
    let mut publishers = Vec::new();
    for _ in 0..connections {
        publishers.push(Publisher::connect(lane, ports).await);
    }
    let begin = Instant::now() + WARM_UP;
    let end = begin + Duration::from_secs(seconds);
    let turns = publishers.into_iter().map(|mut publisher| {
        tokio::spawn(async move {
            let (mut latency_us, mut all) = (Histogram::<u64>::new(3).unwrap(), 0);
            while Instant::now() < end {
                let sent = Instant::now();
                publisher.publish().await;
                all += 1;
                if sent >= begin {
                    latency_us.record(sent.elapsed().as_micros().max(1) as u64).unwrap();
                }
            }
            (latency_us, all)
        })
    });
    let (mut all, mut measured) = (0, 0);
    for turn in turns.collect::<Vec<_>>() {
        let (latency_us, published) = turn.await.unwrap();
        measured += latency_us.len();
        score.latency_us.add(latency_us).unwrap();
        all += published;
    }
    score.rates.push(measured as f64 / seconds as f64);
    all
}

async fn measure(name: &str, ports: Ports, seconds: u64) {
    let received = Arc::new(AtomicU64::new(0));
    let till = tokio::spawn(till(Device::log_in(ports.devices, "till", "main").await, received.clone()));
    let mut published = 0;
    for connections in CONNECTIONS {
        let mut scores = LANES.map(|_| Score { rates: Vec::new(), latency_us: Histogram::new(3).unwrap() });
        for _ in 0..ROUNDS {
            for (lane, score) in LANES.into_iter().zip(&mut scores) {
                published += turn(lane, connections, ports, seconds, score).await;
                // Nobody's turn is spent on what another's left to be delivered.
                let deadline = Instant::now() + Duration::from_secs(20);
                while received.load(Ordering::Relaxed) < published {
                    assert!(Instant::now() < deadline, "messages are missing");
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            }
        }
        let base = scores[0].rate();
        for (lane, score) in LANES.into_iter().zip(&scores) {
            println!(
                "{name:<9} {connections:>2} connections  {:<21} {:>6.0} publishes/s  ratio {:.2}  p50 {:>6} us  p99 {:>6} us",
                lane.name(),
                score.rate(),
                score.rate() / base,
                score.latency_us.value_at_quantile(0.5),
                score.latency_us.value_at_quantile(0.99),
            );
        }
    }
    assert_eq!(received.load(Ordering::Relaxed), published, "each message once");
    till.abort();
}

#[tokio::main]
async fn main() {
    let seconds = std::env::args().skip(1).find_map(|arg| arg.parse::<u64>().ok()).unwrap_or(1);
    let directory = tempfile::tempdir().unwrap();
    for name in ["Redis", "embedded"] {
        let (redis, store) = match name {
            "Redis" => {
                let port = free_port();
                (Some(start_redis(port).await), format!("redis://127.0.0.1:{port}"))
            }
            _ => (None, format!("embedded:{}", directory.path().join("data").display())),
        };
        let ports = Ports { devices: free_port(), api: free_port() };
        let node = start_node(&store, ports).await;
        measure(name, ports, seconds).await;
        drop((node, redis));
    }
}
