//! A node as a process: started as an operator starts it, watched by its log, its metrics and its
//! exit status, and stopped in every way in which a node can stop.

use std::collections::{BTreeMap, VecDeque};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStderr, Command};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::{http, unique_prefix};

/// How long a node may take to be ready.
const READY_WITHIN: Duration = Duration::from_secs(20);
/// Lines of a node's log that are kept for a test that fails.
const LINES_KEPT: usize = 20_000;

/// What a node is started with.
#[derive(Debug, Clone)]
pub struct NodeOptions {
    pub store: String,
    pub prefix: String,
    /// The public listener; port 0 by default.
    pub listen: String,
    settings: Vec<(String, String)>,
    /// Variables that are none of the product's.
    environment: Vec<(String, String)>,
}

impl NodeOptions {
    /// A node on this store, with a prefix that no other test has. Nodes that are to form one
    /// deployment are started with the same options.
    pub fn new(store: impl Into<String>) -> NodeOptions {
        NodeOptions {
            store: store.into(),
            prefix: unique_prefix(),
            listen: "127.0.0.1:0".into(),
            settings: Vec::new(),
            environment: Vec::new(),
        }
    }

    /// Adds a setting, by the part of its variable after `SHOPRELAY_`.
    pub fn set(mut self, name: &str, value: &str) -> NodeOptions {
        self.settings.push((name.into(), value.into()));
        self
    }

    /// Adds a variable of this very name.
    pub fn env(mut self, name: &str, value: &str) -> NodeOptions {
        self.environment.push((name.into(), value.into()));
        self
    }
}

type Log = Arc<Mutex<VecDeque<String>>>;

struct Addresses {
    listen: String,
    tls: String,
    api: String,
    metrics: String,
}

/// A running node. It is killed when this is dropped; where that happens in a panic, its log is printed.
pub struct NodeProcess {
    child: Child,
    pid: u32,
    log: Log,
    addresses: Addresses,
}

impl NodeProcess {
    /// Starts a node and waits until it says that it is ready.
    ///
    /// # Panics
    /// Where it does not, with what it logged.
    pub async fn start(options: &NodeOptions) -> NodeProcess {
        let mut command = Command::new(env!("CARGO_BIN_EXE_shoprelay"));
        command
            .arg("serve")
            .env("SHOPRELAY_LISTEN", &options.listen)
            .env("SHOPRELAY_API_LISTEN", "127.0.0.1:0")
            .env("SHOPRELAY_METRICS_LISTEN", "127.0.0.1:0")
            .env("SHOPRELAY_STORE", &options.store)
            .env("SHOPRELAY_STORE_PREFIX", &options.prefix)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        for (name, value) in &options.settings {
            command.env(format!("SHOPRELAY_{name}"), value);
        }
        command.envs(options.environment.iter().map(|(name, value)| (name, value)));
        let mut child = command.spawn().expect("the node's binary can be started");
        let pid = child.id().expect("a new process has an id");
        let log = Log::default();
        let (ready_tx, ready) = oneshot::channel();
        tokio::spawn(keep_log(child.stderr.take().expect("stderr is piped"), log.clone(), ready_tx));
        let addresses = match timeout(READY_WITHIN, ready).await {
            Ok(Ok(addresses)) => addresses,
            Ok(Err(_)) => panic!("the node exited with {:?} before it was ready:\n{}", child.wait().await, text(&log)),
            Err(_) => panic!("the node was not ready within {READY_WITHIN:?}:\n{}", text(&log)),
        };
        NodeProcess { child, pid, log, addresses }
    }

    /// The process.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Where devices connect.
    pub fn ws_url(&self) -> String {
        format!("ws://{}/ws", self.addresses.listen)
    }

    /// The public listener, as `ip:port`.
    pub fn listen(&self) -> &str {
        &self.addresses.listen
    }

    /// The TLS listener, as `ip:port`; `none` where there is none.
    pub fn tls_listen(&self) -> &str {
        &self.addresses.tls
    }

    /// The API listener, as `ip:port`.
    pub fn api_listen(&self) -> &str {
        &self.addresses.api
    }

    /// The metrics listener, as `ip:port`.
    pub fn metrics_listen(&self) -> &str {
        &self.addresses.metrics
    }

    /// `GET` on the metrics listener, where health and readiness are too.
    ///
    /// # Panics
    /// Without an answer within 10 s.
    pub async fn get(&self, path: &str) -> (u16, String) {
        http::get(&self.addresses.metrics, path).await.unwrap_or_else(|cause| panic!("{cause}"))
    }

    /// `GET` on the public listener.
    ///
    /// # Panics
    /// Without an answer within 10 s.
    pub async fn get_public(&self, path: &str) -> (u16, String) {
        http::get(&self.addresses.listen, path).await.unwrap_or_else(|cause| panic!("{cause}"))
    }

    /// Whether the node says that a device that logs in now is served.
    pub async fn is_ready(&self) -> bool {
        self.get("/readyz").await.0 == 200
    }

    /// What `/metrics` says now.
    ///
    /// # Panics
    /// Without an answer of status 200.
    pub async fn metrics(&self) -> Metrics {
        let (status, body) = self.get("/metrics").await;
        assert_eq!(status, 200, "{body}");
        Metrics::parse(&body)
    }

    /// Asks it to drain and leave.
    pub fn sigterm(&self) {
        self.signal("TERM");
    }

    /// Asks it the same from a terminal.
    pub fn sigint(&self) {
        self.signal("INT");
    }

    /// Asks it to read its files with keys anew.
    pub fn sighup(&self) {
        self.signal("HUP");
    }

    /// Ends it as a power cut would.
    pub fn sigkill(&self) {
        self.signal("KILL");
    }

    /// Stops its clock, as a machine that swaps or a suspended container does.
    pub fn pause(&self) {
        self.signal("STOP");
    }

    /// Lets it go on.
    pub fn resume(&self) {
        self.signal("CONT");
    }

    fn signal(&self, name: &str) {
        let status = std::process::Command::new("kill").args(["-s", name, &self.pid.to_string()]).status();
        assert!(status.as_ref().is_ok_and(ExitStatus::success), "kill -s {name} {}: {status:?}", self.pid);
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// Where it is still there after 60 s.
    pub async fn wait_exit(&mut self) -> ExitStatus {
        match timeout(Duration::from_secs(60), self.child.wait()).await {
            Ok(status) => status.expect("the node can be waited for"),
            Err(_) => panic!("the node is still there after 60 s"),
        }
    }

    /// The memory that it has of the system, in MiB.
    ///
    /// # Panics
    /// Where it is gone.
    pub fn rss_mib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid)).expect("the node runs");
        let line = status.lines().find(|line| line.starts_with("VmRSS")).expect("it has memory");
        line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).expect("a number") / 1024
    }

    /// What it logged, the newest lines of it.
    pub fn log_text(&self) -> String {
        text(&self.log)
    }
}

impl Drop for NodeProcess {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- log of node {} on {}\n{}", self.pid, self.addresses.listen, text(&self.log));
        }
    }
}

fn text(log: &Log) -> String {
    let lines = log.lock().expect("no panic holds the log");
    lines.iter().map(|line| format!("{line}\n")).collect()
}

async fn keep_log(stderr: ChildStderr, log: Log, ready: oneshot::Sender<Addresses>) {
    let mut ready = Some(ready);
    let mut lines = BufReader::new(stderr).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        if let Some(addresses) = ready_line(&line)
            && let Some(ready) = ready.take()
        {
            // The test may have given up on it.
            let _ = ready.send(addresses);
        }
        let mut log = log.lock().expect("no panic holds the log");
        if log.len() == LINES_KEPT {
            log.pop_front();
        }
        log.push_back(line);
    }
}

fn ready_line(line: &str) -> Option<Addresses> {
    let line: Value = serde_json::from_str(line).ok()?;
    let fields = line.get("fields")?;
    if fields.get("message")?.as_str()? != "ready" {
        return None;
    }
    let address = |name| Some(fields.get(name)?.as_str()?.to_owned());
    Some(Addresses {
        listen: address("listen")?,
        tls: address("tls_listen")?,
        api: address("api_listen")?,
        metrics: address("metrics_listen")?,
    })
}

/// A scrape.
#[derive(Debug)]
pub struct Metrics(Vec<Sample>);

#[derive(Debug)]
struct Sample {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

impl Metrics {
    /// Reads Prometheus text.
    ///
    /// # Panics
    /// Where a line is none.
    pub fn parse(text: &str) -> Metrics {
        let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        Metrics(lines.map(|line| sample(line).unwrap_or_else(|| panic!("no sample: {line}"))).collect())
    }

    /// Whether the metric is there at all.
    pub fn has(&self, name: &str) -> bool {
        self.0.iter().any(|sample| sample.name == name)
    }

    /// The sum of a metric's series; 0 where there is none.
    pub fn get(&self, name: &str) -> f64 {
        self.labelled(name, &[])
    }

    /// The sum of the series that have these labels; 0 where there is none.
    pub fn labelled(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let fits = |sample: &&Sample| {
            sample.name == name
                && labels.iter().all(|(key, value)| sample.labels.get(*key).is_some_and(|have| have == value))
        };
        self.0.iter().filter(fits).map(|sample| sample.value).sum()
    }
}

fn sample(line: &str) -> Option<Sample> {
    let (series, value) = line.rsplit_once(' ')?;
    let (name, labels) = match series.split_once('{') {
        None => (series, ""),
        Some((name, labels)) => (name, labels.strip_suffix('}')?),
    };
    // No label of ours holds a comma or a quotation mark.
    let labels = labels
        .split(',')
        .filter(|label| !label.is_empty())
        .map(|label| {
            let (key, value) = label.split_once('=')?;
            Some((key.to_owned(), value.trim_matches('"').to_owned()))
        })
        .collect::<Option<_>>()?;
    Some(Sample { name: name.to_owned(), labels, value: value.parse().ok()? })
}

#[test]
fn a_scrape_is_read_with_its_labels() {
    let metrics = Metrics::parse("# TYPE a counter\na{code=\"x\",op=\"y\"} 2\na{code=\"z\"} 3\nb 1.5e3\n");
    assert_eq!(metrics.get("a"), 5.0);
    assert_eq!(metrics.labelled("a", &[("code", "x")]), 2.0);
    assert_eq!(metrics.get("b"), 1500.0);
    assert!(metrics.has("b") && !metrics.has("c"));
}
