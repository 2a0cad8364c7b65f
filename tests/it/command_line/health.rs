//! `shoprelay health`, as a container's health check runs it.

use std::net::TcpListener;
use std::time::Duration;

use super::{refusal, settings_file, shoprelay, stdout};
use crate::harness::{NodeOptions, NodeProcess, SOON, eventually};
use crate::redis_server::RedisServer;

#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_asked_on_loopback_whether_it_is_alive_and_whether_it_is_ready() {
    let redis = RedisServer::start().await;
    let node = NodeProcess::start(&NodeOptions::new(redis.url()).set("METRICS_LISTEN", "0.0.0.0:0")).await;
    let port = node.metrics_listen().rsplit_once(':').unwrap().1.to_owned();
    for ask in [&["health"][..], &["health", "--ready"]] {
        let output = shoprelay(ask).env("SHOPRELAY_METRICS_LISTEN", format!("0.0.0.0:{port}")).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{ask:?}: {output:?}");
        assert!(["ok\n", "ready\n"].contains(&stdout(&output).as_str()), "{output:?}");
    }

    assert!(node.get("/metrics").await.1.contains("\nshoprelay_ready 1\n"));

    drop(redis);
    eventually(SOON, "the node to miss its store", async || node.get("/readyz").await.0 == 503).await;
    assert!(node.get("/metrics").await.1.contains("\nshoprelay_ready 0\n"));
    let listen = format!("127.0.0.1:{port}");
    let line = refusal(&mut shoprelay(&["health", "--ready", "--metrics-listen", &listen]));
    assert!(line.contains("/readyz answers 503"), "{line}");
    let output = shoprelay(&["health", "--metrics-listen", &listen]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "a node whose store is away is alive: {output:?}");
}

#[test]
fn where_nobody_can_answer_health_says_why_and_fails() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent_at = silent.local_addr().unwrap().to_string();
    let closed_at = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let off = settings_file("metrics_listen = \"none\"\n");
    let cases = [
        (["--metrics-listen", &closed_at], "nothing answers on"),
        (["--metrics-listen", &silent_at], "no answer from"),
        (["--metrics-listen", "9090"], "which is no address"),
        (["--config", super::path(off.path())], "metrics_listen is none"),
    ];
    for (args, part) in cases {
        let line = refusal(shoprelay(&["health"]).args(args));
        assert!(line.contains(part), "{args:?}: {line}");
    }
}

#[test]
fn health_does_not_take_another_program_for_a_node() {
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = other.local_addr().unwrap().to_string();
    let greeter = std::thread::spawn(move || {
        use std::io::{Read as _, Write as _};
        let (mut stream, _) = other.accept().unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let _ = stream.read(&mut [0; 64]);
        stream.write_all(b"220 mail.example ESMTP\r\n").unwrap();
    });
    let line = refusal(&mut shoprelay(&["health", "--metrics-listen", &address]));
    greeter.join().unwrap();
    assert!(line.contains("does not speak HTTP"), "{line}");
}
