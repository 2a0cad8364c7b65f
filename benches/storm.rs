//! Everybody comes back at once: so many devices log in within one moment on two nodes, and each is owed a message.
//!
//! `cargo bench --bench storm -- [DEVICES] [SHOPS]`, 10000 and 500 without. Measures the time until each has its
//! message, how long Redis takes to answer a PING meanwhile, and what it was asked for; with the pace of the
//! relay, and without one. Needs as many open files as there are devices. Client, relay and Redis share the
//! machine, so compare only figures of one run.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod client;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use client::{Process, Reader, connect, frame, free_port, start_node, start_redis};

/// What a device that is refused waits before it tries again.
const RETRY: Duration = Duration::from_secs(1);

struct Storm {
    ports: [u16; 2],
    redis: u16,
    refused: AtomicU64,
}

/// Logs in, once: the connection, or none where it was refused.
async fn try_log_in(port: u16, shop: usize, device: usize) -> Option<(Reader, tokio::net::tcp::OwnedWriteHalf)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
    let request = "GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n";
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(stream.read_u8().await.ok()?);
    }
    if !answer.starts_with(b"HTTP/1.1 101") {
        return None;
    }
    let (read, mut write) = stream.into_split();
    let login = format!(r#"{{"op":"login","shop":"s{shop}","device":"till-{device}","role":"main"}}"#);
    write.write_all(&frame(&login)).await.ok()?;
    let mut reader = Reader { stream: read, buffer: Vec::new(), start: 0 };
    reader.next().await.starts_with(br#"{"op":"welcome""#).then_some((reader, write))
}

impl Storm {
    /// Everybody logs in at the same moment; with `owed` each waits for its message too. How long each took.
    async fn come(self: &Arc<Self>, devices: usize, shops: usize, owed: bool) -> Histogram<u64> {
        let began = Instant::now();
        let comings: Vec<_> = (0..devices)
            .map(|device| {
                let storm = self.clone();
                tokio::spawn(async move {
                    let port = storm.ports[device % 2];
                    let (mut reader, write) = loop {
                        match try_log_in(port, device % shops, device).await {
                            Some(connection) => break connection,
                            None => {
                                storm.refused.fetch_add(1, Ordering::Relaxed);
                                tokio::time::sleep(RETRY).await;
                            }
                        }
                    };
                    if owed {
                        assert!(reader.next().await.starts_with(br#"{"op":"message""#));
                    }
                    (began.elapsed(), reader, write)
                })
            })
            .collect();
        let mut took = Histogram::new(3).unwrap();
        let mut connections = Vec::new();
        for coming in comings {
            let (elapsed, reader, write) = coming.await.unwrap();
            took.record(elapsed.as_millis() as u64).unwrap();
            connections.push((reader, write));
        }
        took
    }

    /// How long Redis takes to answer, in microseconds, until it is over.
    async fn ping(self: Arc<Self>, is_over: Arc<AtomicBool>) -> Histogram<u64> {
        let mut redis = TcpStream::connect(("127.0.0.1", self.redis)).await.unwrap();
        redis.set_nodelay(true).unwrap();
        let mut took = Histogram::new(3).unwrap();
        while !is_over.load(Ordering::Relaxed) {
            let asked = Instant::now();
            redis.write_all(b"PING\r\n").await.unwrap();
            redis.read_exact(&mut [0; 7]).await.unwrap();
            took.record(asked.elapsed().as_micros().max(1) as u64).unwrap();
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        took
    }
}

async fn measure(what: &str, devices: usize, shops: usize, settings: &[(&str, &str)]) {
    let redis = free_port();
    let _redis = start_redis(redis);
    tokio::time::sleep(Duration::from_millis(500)).await;
    let ports = [free_port(), free_port()];
    let store = format!("redis://127.0.0.1:{redis}");
    let nodes: Vec<Process> = ports.iter().map(|port| start_node(&store, *port, settings)).collect();
    for port in ports {
        while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    let storm = Arc::new(Storm { ports, redis, refused: AtomicU64::new(0) });
    // They are registered, and gone.
    storm.come(devices, shops, false).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    for shop in 0..shops {
        let (mut reader, mut write) = connect(ports[shop % 2], shop, "hand", "sub").await;
        write.write_all(&frame(r#"{"op":"notify","type":"add"}"#)).await.unwrap();
        assert!(reader.next().await.starts_with(br#"{"op":"accepted""#));
    }
    storm.refused.store(0, Ordering::Relaxed);
    let is_over = Arc::new(AtomicBool::new(false));
    let pings = tokio::spawn(storm.clone().ping(is_over.clone()));
    let began = Instant::now();
    let took = storm.come(devices, shops, true).await;
    let healed = began.elapsed();
    is_over.store(true, Ordering::Relaxed);
    let pings = pings.await.unwrap();
    let memory: Vec<u64> = nodes.iter().map(Process::rss_mb).collect();
    println!(
        "{what:<14} {devices} devices of {shops} shops back in {:.1} s (half of them in {:.1} s), {} refusals; Redis answers a PING in p50 {} us, p99 {} us, max {} us; memory {memory:?} MB",
        healed.as_secs_f64(),
        took.value_at_quantile(0.5) as f64 / 1000.0,
        storm.refused.load(Ordering::Relaxed),
        pings.value_at_quantile(0.5),
        pings.value_at_quantile(0.99),
        pings.max(),
    );
}

#[tokio::main]
async fn main() {
    let mut numbers = std::env::args().skip(1).filter_map(|arg| arg.parse::<usize>().ok());
    let devices = numbers.next().unwrap_or(10_000);
    let shops = numbers.next().unwrap_or(500).max(1);
    let unpaced = [
        ("LIMITS_HANDSHAKES_PER_S", "1000000"),
        ("LIMITS_LOGINS_PER_S", "1000000"),
        ("LIMITS_LOGINS_AT_ONCE", "10000"),
        ("LIMITS_LOGIN_DELAY", "10s"),
    ];
    measure("paced", devices, shops, &[]).await;
    measure("not paced", devices, shops, &unpaced).await;
    measure("paced", devices, shops, &[]).await;
}
