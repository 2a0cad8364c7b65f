//! The program as one meets it: its command line, its settings and what it says when it cannot start.

mod auth;
mod demo;
mod health;
mod tls;

use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use tempfile::{NamedTempFile, TempDir};

use crate::harness::{NodeOptions, NodeProcess};
use crate::redis_server::RedisServer;

/// The program, with none of the variables that whoever runs the tests may have set.
fn shoprelay(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_shoprelay"));
    for (variable, _) in std::env::vars_os() {
        if variable.to_string_lossy().starts_with("SHOPRELAY_") {
            command.env_remove(variable);
        }
    }
    command.args(args).stdin(Stdio::null());
    command
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("standard output is text")
}

/// The one line that says why it did not start.
fn refusal(command: &mut Command) -> String {
    let output = command.output().expect("the program can be started");
    let stderr = String::from_utf8(output.stderr).expect("standard error is text");
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    let [line] = stderr.lines().collect::<Vec<_>>()[..] else { panic!("not one line:\n{stderr}") };
    line.to_owned()
}

fn settings_file(text: &str) -> NamedTempFile {
    let file = NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    file
}

fn path(path: &Path) -> &str {
    path.to_str().expect("a temporary directory has a plain name")
}

/// The value and the source of a setting, as `check` prints them.
fn shown(printed: &str, key: &str) -> (String, String) {
    let line = printed.lines().find(|line| line.split_whitespace().next() == Some(key));
    let line = line.unwrap_or_else(|| panic!("{key} is not in:\n{printed}"));
    let mut words = line.split_whitespace().skip(1).map(str::to_owned);
    (words.next().unwrap(), words.collect::<Vec<_>>().join(" "))
}

const STORE: [&str; 2] = ["--store", "redis://127.0.0.1:6379"];

#[test]
fn an_unknown_flag_stops_the_start_and_is_named() {
    for command in ["serve", "check", "demo"] {
        let line = refusal(&mut shoprelay(&[command, "--frobnicate"]));
        assert!(line.contains("--frobnicate"), "{line}");
    }
    let line = refusal(&mut shoprelay(&["dance"]));
    assert!(line.contains("dance"), "{line}");
    let line = refusal(&mut shoprelay(&["demo", "--seconds", "soon"]));
    assert!(line.contains("soon") && line.contains("--seconds"), "{line}");
}

#[test]
fn an_unknown_key_of_the_file_stops_the_start_and_is_named() {
    let file = settings_file("[limits]\nwindows = 7\n");
    let line = refusal(&mut shoprelay(&["serve", "--config", path(file.path())]));
    assert!(line.contains("limits.windows") && line.contains(path(file.path())), "{line}");
}

#[test]
fn a_bad_value_stops_the_start_and_is_named_with_where_it_came_from() {
    let line = refusal(shoprelay(&["serve"]).args(STORE).env("SHOPRELAY_LIMITS_WINDOW", "many"));
    assert!(line.contains("SHOPRELAY_LIMITS_WINDOW") && line.contains("many"), "{line}");
    let line = refusal(shoprelay(&["serve", "--log", "loud"]).args(STORE));
    assert!(line.contains("--log") && line.contains("loud"), "{line}");
    let line = refusal(shoprelay(&["serve", "--drain-window", "soon", "--auth", "magic"]).args(STORE));
    assert!(line.contains("--auth") && line.contains("1 more"), "{line}");
}

#[test]
fn a_taken_port_stops_the_start_and_the_line_says_what_to_do() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let line = refusal(shoprelay(&["serve", "--listen", &address]).args(STORE));
    assert!(line.contains(&address) && line.contains("--listen") && line.contains("choose another"), "{line}");
}

#[test]
fn a_redis_that_is_not_there_stops_the_start_and_its_password_is_not_repeated() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = format!("redis://me:hunter2@{free}");
    let listen = ["--listen", "127.0.0.1:0", "--api-listen", "none", "--metrics-listen", "none"];
    let line = refusal(shoprelay(&["serve", "--store", &url]).args(listen));
    assert!(line.contains(&free.to_string()) && !line.contains("hunter2"), "{line}");
}

#[tokio::test]
async fn an_unknown_variable_is_only_a_warning() {
    let node =
        NodeProcess::start(&NodeOptions::new(RedisServer::shared().url()).set("PORT_8080_TCP", "tcp://10.0.0.1:8080"))
            .await;
    assert!(node.log_text().contains("SHOPRELAY_PORT_8080_TCP"));
    let output = shoprelay(&["check"]).args(STORE).env("SHOPRELAY_PORT", "1").output().unwrap();
    assert!(stdout(&output).contains("warning: SHOPRELAY_PORT "), "{}", stdout(&output));
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn check_shows_which_of_flag_variable_and_file_won() {
    let file = settings_file("drain_window = \"1s\"\nheartbeat = \"3s\"\naudit = \"9s\"\n");
    let output = shoprelay(&["check", "--config", path(file.path()), "--drain-window", "3s"])
        .args(STORE)
        .env("SHOPRELAY_DRAIN_WINDOW", "2s")
        .env("SHOPRELAY_HEARTBEAT", "4s")
        .output()
        .unwrap();
    let printed = stdout(&output);
    assert_eq!(output.status.code(), Some(0), "{printed}");
    assert_eq!(shown(&printed, "drain_window"), ("3s".into(), "--drain-window".into()));
    assert_eq!(shown(&printed, "heartbeat"), ("4s".into(), "SHOPRELAY_HEARTBEAT".into()));
    assert_eq!(shown(&printed, "audit"), ("9s".into(), format!("{}: audit", path(file.path()))));
    assert_eq!(shown(&printed, "limits.window"), ("256".into(), "default".into()));
}

#[test]
fn check_tells_everything_that_is_wrong_and_no_password() {
    let file = settings_file("heartbeat = \"never\"\nstore = \"redis://me:hunter2@host\"\n[limits]\nspeed = 1\n");
    let output = shoprelay(&["check", "--config", path(file.path()), "--listen", "0.0.0.0:8080", "--tls-cert=x"])
        .env("SHOPRELAY_LIMITS_WINDOW", "0")
        .output()
        .unwrap();
    let printed = stdout(&output);
    assert_eq!(output.status.code(), Some(1), "{printed}");
    for part in ["limits.speed", "heartbeat", "0.0.0.0:8080", "tls_cert is given", "SHOPRELAY_LIMITS_WINDOW"] {
        assert!(printed.lines().any(|line| line.starts_with("wrong: ") && line.contains(part)), "{part}:\n{printed}");
    }
    assert!(printed.contains("5 problems"), "{printed}");
    assert!(!printed.contains("hunter2") && printed.contains("redis://***@host"), "{printed}");
}

#[test]
fn check_finds_what_only_two_settings_or_a_file_can_say() {
    let directory = TempDir::new().unwrap();
    let missing = directory.path().join("ca.pem");
    let output = shoprelay(&["check", "--store-ca", path(&missing), "--api-listen", "127.0.0.1:8080"])
        .args(STORE)
        .output()
        .unwrap();
    let printed = stdout(&output);
    assert_eq!(output.status.code(), Some(1), "{printed}");
    assert!(printed.contains("listen and api_listen are both 127.0.0.1:8080"), "{printed}");
    assert!(printed.contains("ca.pem cannot be read"), "{printed}");
}

#[test]
fn an_event_stream_on_an_embedded_store_stops_the_start_with_advice() {
    let line = refusal(&mut shoprelay(&["serve", "--events", "--store", "embedded:./never-made"]));
    assert!(line.contains("events") && line.contains("Redis"), "{line}");
    assert!(!Path::new("./never-made").exists());
    let line = refusal(shoprelay(&["serve"]).env("SHOPRELAY_EVENTS", "true"));
    assert!(line.contains("events") && line.contains("embedded"), "{line}");
}
