//! What the benchmarks share: servers as processes, and a device as thin as can be (frames masked with zeros,
//! answers found by searching), so that they measure the relay and not its client.

#![allow(dead_code, reason = "each benchmark uses its own part")]

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

/// A server, killed when dropped.
pub struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill(); // it may be gone already
        let _ = self.0.wait();
    }
}

impl Process {
    /// CPU time so far, user and system.
    pub fn cpu(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.0.id())).unwrap();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
        Duration::from_millis(ticks * 10)
    }

    pub fn rss_mb(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
    }
}

pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

pub fn start_redis(port: u16) -> Process {
    let mut redis = Command::new("redis-server");
    redis.args(["--port", &port.to_string(), "--save", "", "--appendonly", "no"]).stdout(Stdio::null());
    Process(redis.spawn().expect("redis-server; install it with apt-get install redis-server"))
}

/// A node without limits of rates, but for what `settings` say: `("LIMITS_WINDOW", "4")`.
pub fn start_node(store: &str, port: u16, settings: &[(&str, &str)]) -> Process {
    let mut node = Command::new(env!("CARGO_BIN_EXE_shoprelay"));
    node.args(["serve", "--api-listen", "none", "--metrics-listen", "none", "--log", "warn"]);
    node.args(["--listen", &format!("127.0.0.1:{port}"), "--store", store]);
    let unlimited = [
        ("LIMITS_SESSION_OPS_PER_S", "1000000"),
        ("LIMITS_SESSION_BYTES_PER_S", "1000000000"),
        ("LIMITS_SHOP_PUBLISHES_PER_S", "1000000"),
        ("LIMITS_LOG_ENTRIES", "100000000"),
        ("LIMITS_WINDOW", "10000"),
    ];
    for (name, value) in unlimited.iter().chain(settings) {
        node.env(format!("SHOPRELAY_{name}"), value);
    }
    Process(node.spawn().unwrap())
}

/// One device's connection.
pub struct Reader {
    pub stream: OwnedReadHalf,
    pub buffer: Vec<u8>,
    pub start: usize,
}

impl Reader {
    /// The payload of the next data frame.
    pub async fn next(&mut self) -> Vec<u8> {
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

pub fn frame(text: &str) -> Vec<u8> {
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

pub async fn connect(port: u16, shop: usize, device: &str, role: &str) -> (Reader, OwnedWriteHalf) {
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
