//! A relay that keeps its promises is said to, whatever is done to it.

use std::io::Write as _;
use std::time::Duration;

use tempfile::{NamedTempFile, TempDir};
use tokio::process::Command;

use super::Proof;
use crate::harness::tls::TlsFiles;
use crate::harness::{NodeOptions, NodeProcess, World, eventually};
use crate::redis_server::RedisServer;

#[tokio::test]
async fn one_node_that_is_well_keeps_every_promise() {
    let world = World::embedded(&[("LIMITS_WINDOW", "8")]).await;
    let journal = TempDir::new().unwrap();
    let report = NamedTempFile::new().unwrap();
    let args = ["--seconds", "5", "--rate", "80", "--journal", journal.path().to_str().unwrap()];
    let args = [&args[..], &["--report", report.path().to_str().unwrap()]].concat();
    let outcome = Proof::start(&[world.url(0)], &args).outcome().await;
    outcome.assert_kept(200);
    assert!(outcome.count("logins") > 30, "the habits show: {:#}", outcome.verdict);
    assert!(outcome.count("statuses") > 20, "{:#}", outcome.verdict);
    assert!(outcome.verdict["latency_ms"]["p99"].as_f64().unwrap() > 0.0, "{:#}", outcome.verdict);
    let reported: serde_json::Value = serde_json::from_reader(report.as_file()).unwrap();
    assert_eq!(reported, outcome.verdict);
    let [file] = &std::fs::read_dir(journal.path()).unwrap().collect::<Result<Vec<_>, _>>().unwrap()[..] else {
        panic!("one file a run");
    };
    let lines = std::fs::read_to_string(file.path()).unwrap();
    let accepted = lines.lines().filter(|line| line.contains(r#""event":"accepted""#)).count() as u64;
    assert!(accepted >= outcome.count("accepted"), "{accepted} of {}", outcome.count("accepted"));
}

#[tokio::test]
async fn two_nodes_keep_every_promise_while_each_is_killed_in_turn() {
    let redis = RedisServer::start().await;
    let mut places: Vec<NodeOptions> = Vec::new();
    let mut nodes: Vec<NodeProcess> = Vec::new();
    let options = NodeOptions::new(redis.url());
    for _ in 0..2 {
        let node = NodeProcess::start(&options).await;
        let mut place = options.clone();
        place.listen = node.listen().to_owned();
        places.push(place);
        nodes.push(node);
    }
    let urls: Vec<String> = nodes.iter().map(NodeProcess::ws_url).collect();
    let proof = Proof::start(&urls, &["--seconds", "10", "--rate", "60"]);
    for (node, place) in nodes.iter_mut().zip(&places) {
        let what = "traffic before the node is killed";
        eventually(Duration::from_secs(60), what, async || {
            node.metrics().await.get("shoprelay_messages_delivered_total") > 50.0
        })
        .await;
        node.sigkill();
        node.wait_exit().await;
        *node = NodeProcess::start(place).await;
    }
    let outcome = proof.outcome().await;
    outcome.assert_kept(200);
    assert!(outcome.count("redelivered") + outcome.verdict["closes"]["0"].as_u64().unwrap_or(0) > 0, "nobody noticed");
}

#[tokio::test]
async fn an_interrupt_ends_the_run_early_and_there_is_a_verdict() {
    let world = World::embedded(&[]).await;
    let proof = Proof::start(&[world.url(0)], &["--seconds", "3600", "--rate", "60", "--shops", "1"]);
    let what = "some traffic";
    eventually(Duration::from_secs(60), what, async || {
        world.metric("shoprelay_messages_delivered_total").await > 100.0
    })
    .await;
    proof.interrupt();
    proof.outcome().await.assert_kept(20);
}

#[tokio::test]
async fn devices_have_tokens_where_the_relay_asks_for_them() {
    let mut secret = NamedTempFile::new().unwrap();
    secret.write_all(b"the proof's secret has more than 32 bytes").unwrap();
    let secret = secret.path().to_str().unwrap();
    let world = World::embedded(&[("AUTH", "jwt"), ("JWT_SECRET_FILE", secret)]).await;
    let args = ["--seconds", "2", "--shops", "1", "--mains", "1", "--subs", "1"];
    let outcome =
        Proof::start(&[world.url(0)], &[&args[..], &["--token-secret-file", secret]].concat()).outcome().await;
    outcome.assert_kept(1);
    let line = refusal(&["--url", &world.url(0)]).await;
    assert!(line.contains("could not log in") && line.contains("unauthorized"), "{line}");
}

/// The one line that says why there is no verdict.
async fn refusal(args: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_shoprelay")).arg("prove").args(args).output().await.unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), stderr.lines().count()), (Some(1), 1), "{stderr}");
    stderr
}

#[tokio::test]
async fn what_cannot_be_run_is_refused_with_advice() {
    let url = ["--url", "ws://127.0.0.1:1"];
    for (args, part) in [
        (&["--seconds", "5"][..], "--url"),
        (&["--url", "http://relay"], "ws://host:port"),
        (&["--url", "wss://relay", "--tls-ca", "/nowhere.pem"], "/nowhere.pem"),
        (&[url[0], url[1], "--rate", "0"], "--rate"),
        (&[url[0], url[1], "--mains", "40", "--subs", "40"], "--mains"),
        (&[url[0], url[1], "--settle", "soon"], "--settle"),
        (&[url[0], url[1], "--kid", "k1"], "--token-secret-file"),
        (&[url[0], url[1], "--token-secret-file", "/nowhere.secret"], "/nowhere.secret"),
        (&[url[0], url[1], "--shop-prefix", "a{b"], "--shop-prefix"),
        (&[url[0], url[1], "--frobnicate"], "--frobnicate"),
    ] {
        let line = refusal(args).await;
        assert!(line.contains(part), "{args:?}: {line}");
    }
}

#[tokio::test]
async fn devices_come_over_tls_where_the_address_says_so_and_the_certificate_is_trusted() {
    let files = TlsFiles::new();
    files.write("ca.pem", &files.authority.pem());
    let settings = files.settings();
    let settings: Vec<(&str, &str)> = settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let world = World::embedded(&settings).await;
    let port = world.nodes[0].tls_listen().rsplit(':').next().unwrap().to_owned();
    let url = format!("wss://localhost:{port}");
    let args = ["--seconds", "2", "--shops", "1", "--mains", "1", "--subs", "2", "--tls-ca", &files.text("ca.pem")];
    Proof::start(&[url], &args).outcome().await.assert_kept(1);
}
