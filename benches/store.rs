//! What the two engines do on this machine, side by side: publishes a second and how long one takes,
//! bytes on disk, and the start with a million messages.
//!
//! `cargo bench --bench store`, with redis-server installed. A name as argument runs only the engines
//! whose name contains it.

// A bench may panic: that is how it says that something is wrong.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use shoprelay::ids::{MessageId, NodeId, OnceKey, ShopId};
use shoprelay::message::{Audience, Content, Message, Origin, Role, Value};
use shoprelay::store::{self, PageLimit, Publish, Published, Store, StoreSettings};
use tempfile::TempDir;

/// How long each load lasts.
const LOAD: Duration = Duration::from_secs(4);
const AT_ONCE: [usize; 3] = [1, 16, 256];
const SHOPS: u64 = 20;
const MANY: u64 = 1_000_000;

/// A Redis that ends with this process's handle to it.
struct Redis(Child);

impl Drop for Redis {
    fn drop(&mut self) {
        // It is gone then, or was before.
        let _ = self.0.kill().and_then(|()| self.0.wait());
    }
}

/// An engine to be measured: its name, its address, and what it stands on.
struct Engine {
    name: &'static str,
    url: String,
    dir: TempDir,
    _redis: Option<Redis>,
}

fn embedded() -> Engine {
    let dir = tempfile::tempdir().unwrap();
    Engine { name: "embedded", url: format!("embedded:{}", dir.path().join("data").display()), dir, _redis: None }
}

fn redis(name: &'static str, options: &[&str]) -> Engine {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("socket");
    let mut command = Command::new("redis-server");
    command.args(["--port", "0", "--save", "", "--dir"]).arg(dir.path()).arg("--unixsocket").arg(&socket);
    command.args(options).stdout(Stdio::null());
    let redis = Redis(command.spawn().expect("the bench needs redis-server: apt-get install redis-server"));
    while !socket.exists() {
        std::thread::sleep(Duration::from_millis(20));
    }
    Engine { name, url: format!("redis+unix://{}", socket.display()), dir, _redis: Some(redis) }
}

/// An order of two dishes, some 200 bytes of it.
fn order(key: Option<u64>) -> Publish {
    let data =
        br#"{"dishes":[{"name":"Mapo Tofu","count":2,"note":"less hot"},{"name":"Rice","count":3}],"sum":"38.50"}"#;
    let content = Content {
        from: Origin::Device { device: "handheld-7".parse().unwrap(), role: Role::Sub },
        to: Audience::All,
        except: Vec::new().into(),
        kind: "add".parse().unwrap(),
        table: Some("12".parse().unwrap()),
        data: Some(Value::MsgPack(data.as_slice().into())),
        user_info: None,
        legacy: None,
    };
    let message = Message { content, status: "open".parse().unwrap(), ttl: None, receipt: false };
    // As random as the keys of real devices.
    let key = key.map(|n| format!("{:016x}-{n}", n.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
    Publish { message, key: key.map(|key| OnceKey::try_from(key).unwrap()) }
}

fn settings() -> StoreSettings {
    StoreSettings {
        log_entries_max: u64::MAX >> 12,
        key_retention: Duration::from_secs(86400),
        message_retention: Duration::from_secs(7 * 86400),
        deadline: Duration::from_secs(30),
        prefix: "bench:".to_owned(),
        device_groups_max: 1000,
        attrs_bytes_max: 65536,
        wait_replicas: 0,
        events_max: 1000,
    }
}

async fn open(url: &str) -> Arc<dyn Store> {
    let (store, mut feed) = store::open(url, None, NodeId::fresh(), settings()).await.unwrap();
    tokio::spawn(async move { while feed.recv().await.is_some() {} });
    store
}

fn shop(n: u64) -> ShopId {
    format!("shop-{}", n % SHOPS).parse().unwrap()
}

/// Of microseconds, up to a minute.
fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000, 2).unwrap()
}

/// Publishes from so many tasks until the count or the time is reached; how many, and how long each took.
async fn load(store: &Arc<dyn Store>, at_once: usize, count_max: u64, time: Duration, keyed: bool) -> Histogram<u64> {
    let next = Arc::new(AtomicU64::new(0));
    let end = Instant::now() + time;
    let tasks: Vec<_> = (0..at_once)
        .map(|_| {
            let (store, next) = (store.clone(), next.clone());
            tokio::spawn(async move {
                let mut took = histogram();
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= count_max || Instant::now() >= end {
                        return took;
                    }
                    let began = Instant::now();
                    let outcome = store.publish(&shop(n), &order(keyed.then_some(n))).await.unwrap();
                    assert!(matches!(outcome, Published::Stored(_) | Published::Duplicate(_)), "{outcome:?}");
                    took.saturating_record(began.elapsed().as_micros() as u64);
                }
            })
        })
        .collect();
    let mut all = histogram();
    for task in tasks {
        all.add(task.await.unwrap()).unwrap();
    }
    all
}

/// What the files of a directory take on disk.
fn on_disk(dir: &Path) -> u64 {
    let files = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    let size = |entry: std::fs::DirEntry| match entry.metadata().unwrap() {
        dir if dir.is_dir() => on_disk(&entry.path()),
        _ if entry.file_name() == "reserve" => 0,
        file => file.blocks() * 512,
    };
    files.map(size).sum()
}

fn resident_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
}

async fn measure_loads(engine: &Engine) {
    let store = open(&engine.url).await;
    for keyed in [false, true] {
        for at_once in AT_ONCE {
            let began = Instant::now();
            let took = load(&store, at_once, u64::MAX, LOAD, keyed).await;
            let a_second = took.len() as f64 / began.elapsed().as_secs_f64();
            let (p50, p99) = (took.value_at_quantile(0.5), took.value_at_quantile(0.99));
            let key = if keyed { "with a key" } else { "" };
            println!(
                "{:<22} {at_once:>4} at once {a_second:>9.0}/s   p50 {p50:>6} µs   p99 {p99:>6} µs   {key}",
                engine.name
            );
        }
    }
    store.close().await;
}

async fn measure_size(engine: &Engine) {
    let store = open(&engine.url).await;
    let before = on_disk(engine.dir.path());
    load(&store, 256, 100_000, Duration::MAX / 4, false).await;
    let bytes = on_disk(engine.dir.path()).saturating_sub(before);
    if bytes > 0 {
        println!("{:<22} {:>9} bytes on disk a message", engine.name, bytes / 100_000);
    }
    store.close().await;
}

async fn measure_start() {
    let engine = embedded();
    let data = engine.dir.path().join("data");
    let resident = resident_mib();
    let store = open(&engine.url).await;
    println!("{:<22} {:>9} MiB more memory when open and empty", engine.name, resident_mib() - resident);
    let began = Instant::now();
    load(&store, 1024, MANY, Duration::MAX / 4, false).await;
    println!("{:<22} {:>9.1?} to take a million messages, 1024 at once", engine.name, began.elapsed());
    println!("{:<22} {:>9} MiB more memory then", engine.name, resident_mib() - resident);
    println!("{:<22} {:>9} bytes on disk a message", engine.name, on_disk(&data) / MANY);
    // What lies on disk now is what a kill would leave.
    let killed = engine.dir.path().join("killed");
    std::fs::create_dir(&killed).unwrap();
    std::fs::copy(data.join("shoprelay.redb"), killed.join("shoprelay.redb")).unwrap();
    store.close().await;
    drop(store);
    for (url, how) in [(engine.url.clone(), "after a stop"), (format!("embedded:{}", killed.display()), "after a kill")]
    {
        let (began, resident) = (Instant::now(), resident_mib());
        let store = open(&url).await;
        let took = began.elapsed();
        println!(
            "{:<22} {took:>9.0?} to start with a million messages, {how}; {} MiB more memory",
            engine.name,
            resident_mib().saturating_sub(resident)
        );
        let began = Instant::now();
        let page = store.read(&shop(0), MessageId::ZERO, PageLimit { entries: 500, bytes: 1 << 20 }).await.unwrap();
        println!("{:<22} {:>9.1?} to read a page of {}", engine.name, began.elapsed(), page.entries.len());
        store.close().await;
    }
}

fn main() {
    let chosen = std::env::args().skip(1).find(|arg| !arg.starts_with('-')).unwrap_or_default();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let engines: [fn() -> Engine; 3] = [
            embedded,
            || {
                redis(
                    "redis, synced always",
                    &["--appendonly", "yes", "--appendfsync", "always", "--auto-aof-rewrite-percentage", "0"],
                )
            },
            || redis("redis, in memory", &["--appendonly", "no"]),
        ];
        for engine in engines {
            let engine = engine();
            if engine.name.contains(&chosen) {
                measure_loads(&engine).await;
                measure_size(&engine).await;
            }
        }
        if "embedded".contains(&chosen) {
            measure_start().await;
        }
    });
}
