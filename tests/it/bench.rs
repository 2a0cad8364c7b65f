//! The load generator against real nodes, at sizes that measure nothing: its figures have to add up, and
//! what goes wrong has to be told.

use std::process::{Output, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::process::Command;
use tokio::time::timeout;

use crate::harness::tls::TlsFiles;
use crate::harness::{NodeOptions, NodeProcess, World, eventually, token, two_nodes};
use crate::redis_server::RedisServer;

/// The longest that a tiny benchmark takes, on a machine that does much else.
const BENCH_MAX: Duration = Duration::from_secs(90);
/// As short as a turn can be, and once.
const BRIEF: [&str; 6] = ["--seconds", "0.5", "--warm-up", "0.1", "--rounds", "1"];

fn bench(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_shoprelay"));
    command.arg("bench").args(args).kill_on_drop(true).stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

async fn run(args: &[&str]) -> Output {
    let child = bench(args).spawn().unwrap();
    timeout(BENCH_MAX, child.wait_with_output()).await.expect("the benchmark ends by itself").unwrap()
}

/// What a benchmark that goes well prints as JSON.
async fn measured(args: &[&str]) -> Value {
    let output = run(&[args, &BRIEF, &["--json"]].concat()).await;
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{:?}\n{stderr}\n{}", output.status, String::from_utf8_lossy(&output.stdout));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The one line that says why nothing was measured.
async fn refusal(args: &[&str]) -> String {
    let output = run(args).await;
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    let [line] = stderr.lines().collect::<Vec<_>>()[..] else { panic!("not one line:\n{stderr}") };
    line.to_owned()
}

fn lane<'a>(outcome: &'a Value, name: &str) -> &'a Value {
    let lanes = outcome["lanes"].as_array().unwrap();
    lanes.iter().find(|lane| lane["name"] == name).unwrap_or_else(|| panic!("no lane {name} in {outcome}"))
}

fn figure(lane: &Value, name: &str) -> f64 {
    lane["figures"][name].as_f64().unwrap_or_else(|| panic!("no {name} in {lane}"))
}

fn total(lane: &Value, name: &str) -> u64 {
    lane["totals"][name].as_u64().unwrap_or_else(|| panic!("no {name} in {lane}"))
}

/// Checks that a lane lost nothing, and that each of `devices` devices got each message once.
fn assert_adds_up(lane: &Value, devices: u64) {
    assert!(total(lane, "published") > 0, "{lane}");
    assert_eq!(total(lane, "arrived"), total(lane, "published") * devices, "{lane}");
    for trouble in ["lost", "repeated", "unanswered"] {
        assert_eq!(total(lane, trouble), 0, "{trouble}: {lane}");
    }
    assert_eq!((&lane["totals"]["refused"], &lane["totals"]["closed"]), (&json!({}), &json!({})), "{lane}");
}

async fn world() -> (World, String, String, String) {
    let world = World::start(1).await;
    let (url, pid) = (world.url(0), format!("relay={}", world.nodes[0].pid()));
    let metrics = format!("http://{}/metrics", world.nodes[0].metrics_listen());
    (world, url, pid, metrics)
}

#[tokio::test]
async fn at_saturation_every_message_comes_to_every_device_and_the_relay_counts_as_many_proofs() {
    let (_world, url, pid, metrics) = world().await;
    for encoding in ["json", "msgpack"] {
        let args = ["saturate", "--url", &url, "--pid", &pid, "--metrics-url", &metrics, "--encoding", encoding];
        let size = ["--shops", "5", "--devices", "3", "--in-flight", "8", "--processes", "2", "--floor"];
        let outcome = measured(&[&args[..], &size].concat()).await;
        let (relay, floor) = (lane(&outcome, "relay"), lane(&outcome, "floor"));
        assert_adds_up(relay, 3);
        assert_adds_up(floor, 3);
        assert_eq!(figure(relay, "proven"), 1.0, "{relay}");
        assert!(figure(relay, "deliveries_per_s") > 0.0 && figure(relay, "cpu_us.relay") > 0.0, "{relay}");
        assert!(figure(relay, "latency_ms.p50") <= figure(relay, "latency_ms.max"), "{relay}");
        assert_eq!(figure(relay, "generator.sockets"), 20.0);
        assert!(outcome["is_trustworthy"].is_boolean() && relay["doubts"].is_array(), "{outcome}");
        assert_eq!(relay["rounds"].as_array().unwrap().len(), 1);
    }
}

#[tokio::test]
async fn an_open_loop_keeps_its_rate_over_two_nodes() {
    let redis = RedisServer::start().await;
    let nodes = two_nodes(&redis).await;
    let (one, other) = (nodes[0].ws_url(), nodes[1].ws_url());
    let size = ["--shops", "4", "--rate", "100", "--ack-delay", "20ms"];
    let outcome = measured(&[&["rate", "--url", &one, "--url", &other], &size[..]].concat()).await;
    let relay = lane(&outcome, "relay");
    assert_adds_up(relay, 4);
    // Due from the start of the warm-up to the end, 0.6 s in all.
    assert!((50..=60).contains(&total(relay, "published")), "{relay}");
    assert!(figure(relay, "rate_held") > 0.5 && figure(relay, "generator.late_ms.p50") > 0.0, "{relay}");
    let outcome = measured(&["one-main", "--url", &one, "--shops", "4", "--rate", "100"]).await;
    assert_adds_up(lane(&outcome, "relay"), 1);
}

#[tokio::test]
async fn a_second_deployment_takes_turns_with_the_first() {
    let redis = RedisServer::start().await;
    let nodes = two_nodes(&redis).await;
    let (one, other) = (nodes[0].ws_url(), nodes[1].ws_url());
    let output = run(&[
        "saturate",
        "--url",
        &one,
        "--versus-url",
        &other,
        "--shops",
        "2",
        "--in-flight",
        "2",
        "--seconds",
        "0.2",
        "--warm-up",
        "0",
        "--rounds",
        "2",
    ])
    .await;
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{table}");
    for part in ["relay / versus", "deliveries a second", "latency, ms, p99", "relay: published", "versus: published"] {
        assert!(table.contains(part), "{part} is not in:\n{table}");
    }
}

#[tokio::test]
async fn a_broadcast_has_a_first_and_a_last_device() {
    let (_world, url, _, _) = world().await;
    let size = ["--sessions", "60", "--rate", "10", "--processes", "2", "--floor", "--floor-cores", "0"];
    let outcome = measured(&[&["broadcast", "--url", &url], &size[..]].concat()).await;
    for name in ["relay", "floor"] {
        let lane = lane(&outcome, name);
        assert_adds_up(lane, 60);
        assert!(figure(lane, "first_to_last_ms") > 0.0, "{lane}");
        assert!(figure(lane, "due_to_last_ms") > figure(lane, "first_to_last_ms"), "{lane}");
    }
}

#[tokio::test]
async fn idle_sessions_logins_and_both_beside_a_load_are_measured() {
    let (world, url, pid, _) = world().await;
    let base = ["--url", &url, "--pid", &pid, "--sessions", "40"];
    let idle = measured(&[&["idle"], &base[..]].concat()).await;
    let relay = lane(&idle, "relay");
    assert!(figure(relay, "session_kib.relay") >= 0.0 && figure(relay, "memory_mib.relay") > 1.0, "{relay}");
    assert_eq!((figure(relay, "generator.sockets"), total(relay, "published")), (40.0, 0));

    let logins = measured(&[&["logins", "--in-flight", "4"], &base[..]].concat()).await;
    let relay = lane(&logins, "relay");
    assert!(figure(relay, "logins_per_s") > 0.0 && figure(relay, "latency_ms.p50") > 0.0, "{relay}");
    assert_eq!(relay["totals"]["closed"], json!({}), "{relay}");

    let mixed = measured(&[&["mixed", "--shops", "2", "--in-flight", "2"], &base[..]].concat()).await;
    assert_adds_up(lane(&mixed, "relay beside 40"), 4);
    assert_adds_up(lane(&mixed, "relay alone"), 4);
    // Whoever was there has gone with the benchmark.
    eventually(BENCH_MAX, "no session is left", async || world.metric("shoprelay_sessions").await == 0.0).await;
}

#[tokio::test]
async fn durable_publishes_are_measured_on_the_embedded_store_beside_what_a_sync_costs() {
    let world = World::embedded(&[]).await;
    let dir = tempfile::TempDir::new().unwrap();
    let (url, sync_dir) = (world.url(0), dir.path().to_str().unwrap());
    let size = ["--shops", "4", "--in-flight", "8", "--sync-dir", sync_dir];
    let outcome = measured(&[&["embedded", "--url", &url], &size[..]].concat()).await;
    for name in ["relay, 8", "relay, 1"] {
        let lane = lane(&outcome, name);
        assert!(figure(lane, "publishes_per_s") > 0.0 && figure(lane, "answered_ms.p50") > 0.0, "{lane}");
        assert_adds_up(lane, 0);
    }
    assert!(outcome["sync_ms"].as_f64().unwrap() > 0.0, "{outcome}");
}

#[tokio::test]
async fn what_cannot_be_measured_is_refused_with_advice() {
    let cases: [(&[&str], &[&str]); 13] = [
        (&["dance"], &["dance", "saturate", "embedded"]),
        (&["rate", "--frobnicate"], &["--frobnicate"]),
        (&["rate", "--shops", "0"], &["--shops", "from 1"]),
        (&["rate", "--size", "10"], &["--size", "from 64"]),
        (&["rate", "--encoding", "xml"], &["--encoding", "json or msgpack"]),
        (&["rate", "--url", "http://x"], &["--url", "ws://host:port or wss://host:port"]),
        (&["rate", "--pid", "relay"], &["--pid", "name=pid"]),
        (&["rate", "--pid", "relay=999999999"], &["no process 999999999"]),
        (&["rate", "--versus-pid", "relay=1"], &["--versus-url"]),
        (&["idle", "--floor"], &["--floor", "delivers nothing"]),
        (&["saturate", "--ack-delay", "31s"], &["--ack-delay", "less"]),
        (&["idle", "--sessions", "3000000", "--processes", "1"], &["--processes", "ulimit"]),
        (&["rate", "--url", "ws://127.0.0.1:1"], &["cannot", "is a relay listening there?"]),
    ];
    for (args, parts) in cases {
        let line = refusal(args).await;
        assert!(parts.iter().all(|part| line.contains(part)), "{args:?}: {line}");
    }
}

#[tokio::test]
async fn a_relay_that_wants_tokens_is_told_and_with_its_secret_they_are_made() {
    let (world, files) = token::world().await;
    let url = world.url(0);
    let line = refusal(&["saturate", "--url", &url, "--shops", "1"]).await;
    assert!(line.contains("unauthorized") && line.contains("--jwt-secret-file"), "{line}");
    let secret = std::fs::read_dir(files.path()).unwrap().next().unwrap().unwrap().path();
    let with_secret = ["--jwt-secret-file", secret.to_str().unwrap(), "--shops", "2", "--in-flight", "2"];
    let outcome = measured(&[&["saturate", "--url", &url], &with_secret[..]].concat()).await;
    assert_adds_up(lane(&outcome, "relay"), 4);
}

#[tokio::test]
async fn devices_come_by_tls_and_trust_only_whom_they_were_told_to() {
    let files = TlsFiles::new();
    let settings = files.settings();
    let settings: Vec<(&str, &str)> = settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let world = World::embedded(&settings).await;
    files.write("authority.pem", &files.authority.pem());
    let ca = files.path("authority.pem");
    let port = world.nodes[0].tls_listen().rsplit_once(':').unwrap().1.to_owned();
    let url = format!("wss://localhost:{port}");
    let size = ["--shops", "2", "--in-flight", "2", "--size", "20000"];
    let args = ["saturate", "--url", &url, "--tls-ca", ca.to_str().unwrap()];
    let outcome = measured(&[&args[..], &size[..]].concat()).await;
    assert_adds_up(lane(&outcome, "relay"), 4);
    files.write("authority.pem", &TlsFiles::new().authority.pem());
    let line = refusal(&args).await;
    assert!(line.contains("certificate"), "{line}");
}

#[tokio::test]
async fn refusals_are_counted_by_code_and_are_no_losses() {
    let world = World::with(1, &[("LIMITS_SHOP_PUBLISHES_PER_S", "5")]).await;
    let size = ["--shops", "1", "--rate", "200"];
    let outcome = measured(&[&["rate", "--url", &world.url(0)], &size[..]].concat()).await;
    let relay = lane(&outcome, "relay");
    assert!(relay["totals"]["refused"]["rate_limited"].as_u64().unwrap() > 0, "{relay}");
    assert!(figure(relay, "rate_held") < 0.9, "{relay}");
    assert_eq!(total(relay, "lost"), 0, "{relay}");
}

/// A node that dies takes the connections of its devices with it: what they lack of the messages that the
/// other node's publishers had accepted is lost to them.
#[tokio::test]
async fn what_devices_of_a_killed_node_lack_is_reported_as_lost() {
    let redis = RedisServer::start().await;
    let options = NodeOptions::new(redis.url());
    let (lives, dies) = (NodeProcess::start(&options).await, NodeProcess::start(&options).await);
    let (one, other) = (lives.ws_url(), dies.ws_url());
    // Five connections a shop take turns at two nodes, so every shop has devices on both.
    let args = [
        "rate",
        "--url",
        &one,
        "--url",
        &other,
        "--shops",
        "4",
        "--rate",
        "200",
        "--seconds",
        "2",
        "--warm-up",
        "0",
        "--rounds",
        "1",
        "--patience",
        "1s",
        "--json",
    ];
    let child = bench(&args).spawn().unwrap();
    eventually(BENCH_MAX, "messages are delivered", async || {
        dies.metrics().await.get("shoprelay_messages_delivered_total") > 0.0
    })
    .await;
    dies.sigkill();
    let output = timeout(BENCH_MAX, child.wait_with_output()).await.expect("it ends by itself").unwrap();
    assert_eq!(output.status.code(), Some(1), "a loss is no success");
    let outcome: Value = serde_json::from_slice(&output.stdout).unwrap();
    let relay = lane(&outcome, "relay");
    assert!(total(relay, "lost") > 0, "{relay}");
    assert_eq!(total(relay, "repeated"), 0, "{relay}");
    let closed: u64 =
        relay["totals"]["closed"].as_object().unwrap().values().map(|count| count.as_u64().unwrap()).sum();
    assert_eq!(closed, 10, "half of the connections: {relay}");
}

#[tokio::test]
async fn an_interrupt_ends_it_early_with_what_there_is() {
    let (world, url, _, _) = world().await;
    let args = ["saturate", "--url", &url, "--shops", "2", "--in-flight", "2", "--seconds", "600", "--json"];
    let child = bench(&args).spawn().unwrap();
    let delivered = async || world.metric("shoprelay_messages_delivered_total").await > 0.0;
    eventually(BENCH_MAX, "messages are delivered", delivered).await;
    let pid = child.id().unwrap().to_string();
    std::process::Command::new("kill").args(["-INT", &pid]).status().unwrap();
    let output = timeout(BENCH_MAX, child.wait_with_output()).await.expect("it ends when it is told").unwrap();
    assert!(output.status.success(), "{:?}", output.status);
    let outcome: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(outcome["cut_short"], "interrupted");
    assert_adds_up(lane(&outcome, "relay"), 4);
}
