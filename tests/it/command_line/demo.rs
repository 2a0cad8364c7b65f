//! The demo, piped and on a terminal.

use std::process::Stdio;
use std::time::Duration;

use serde_json::json;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::harness::{Login, SOON};

/// The longest that a demo of some seconds takes, on a machine that does much else.
const DEMO_MAX: Duration = Duration::from_secs(60);

/// What the demo's command line begins with. The temporary directory is the test's, so that it can see
/// what is left behind.
fn demo(temporary: &TempDir, args: &[&str]) -> Command {
    let mut command = Command::from(super::shoprelay(&["demo"]));
    command.args(args).env("TMPDIR", temporary.path()).kill_on_drop(true);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn assert_empty(temporary: &TempDir) {
    let left: Vec<_> = std::fs::read_dir(temporary.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(left.is_empty(), "left behind: {left:?}");
}

/// What is printed until the end, which must be a good one.
async fn printed(child: Child) -> String {
    let output = timeout(DEMO_MAX, child.wait_with_output()).await.expect("the demo ends by itself").unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{:?}\n{printed}\n{stderr}", output.status);
    printed
}

/// The figure of a line of the summary.
fn figure(printed: &str, name: &str) -> u64 {
    let value = printed.lines().find_map(|line| line.trim_start().strip_prefix(name));
    let value = value.unwrap_or_else(|| panic!("no {name} in:\n{printed}"));
    let digits: String = value.trim_start().chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap_or_else(|_| panic!("{name} is no number in:\n{printed}"))
}

#[tokio::test]
async fn every_message_is_seen_stored_delivered_and_dealt_with_and_a_till_comes_back() {
    let temporary = TempDir::new().unwrap();
    let printed = printed(demo(&temporary, &["--seconds", "5"]).spawn().unwrap()).await;
    // The summary's lines are indented, those of the news begin with the time.
    let news: Vec<&str> = printed.lines().filter(|line| line.starts_with("00:")).collect();
    let count = |verb: &str| news.iter().filter(|line| line.split("  ").nth(1) == Some(verb)).count() as u64;
    let stored = count("stored");
    assert!(stored > 3, "{printed}");
    assert_eq!(count("delivered"), 3 * stored, "{printed}");
    assert_eq!(count("dealt with"), stored, "{printed}");
    assert_eq!((count("cut off"), count("back")), (1, 1), "{printed}");
    assert_eq!((figure(&printed, "stored"), figure(&printed, "dealt with")), (stored, stored));
    assert_eq!((figure(&printed, "missed"), figure(&printed, "twice")), (0, 0));
    assert_eq!(figure(&printed, "receipts"), 3 * stored);
    assert_empty(&temporary);
}

#[tokio::test]
async fn a_guest_may_join_deal_send_and_even_take_a_tills_name() {
    let temporary = TempDir::new().unwrap();
    let mut child = demo(&temporary, &["--listen", "127.0.0.1:0", "--seconds", "6"]).spawn().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let url = timeout(SOON, async {
        loop {
            let mut line = String::new();
            assert_ne!(stdout.read_line(&mut line).await.unwrap(), 0, "the demo ended");
            if let Some(url) = line.trim().strip_prefix("devices") {
                return url.trim().to_owned();
            }
        }
    });
    let url = url.await.expect("the banner names the URL");
    let mut me = Login::main("demo", "me").ack_by_pong().on(&url).await;
    for n in 0..3 {
        me.request(json!({"op": "notify", "to": "mains", "type": "order", "data": format!("\u{1b}[2J{n}")})).await;
    }
    let to_one = json!({"op": "notify", "to": {"devices": ["kitchen"]}, "type": "hello"});
    me.request(to_one).await;
    let order = me.expect("message").await;
    // Whoever is first: the answer is `dealt` or `conflict`, and the tills take it well.
    me.request(json!({"op": "deal", "id": order["id"], "status": "taken"})).await;
    let _thief = Login::main("demo", "till-2").on(&url).await;
    let mut rest = String::new();
    timeout(DEMO_MAX, stdout.read_to_string(&mut rest)).await.expect("the demo ends by itself").unwrap();
    assert!(child.wait().await.unwrap().success(), "{rest}");
    assert_eq!(figure(&rest, "missed"), 0);
    assert!(rest.contains("4 messages of guests"), "{rest}");
    assert!(rest.contains("somebody else logged in as till-2"), "{rest}");
    assert!(!rest.contains('\u{1b}'), "a guest's escape sequences reach no terminal");
    assert_empty(&temporary);
}

#[tokio::test]
async fn a_signal_ends_it_in_good_order() {
    let temporary = TempDir::new().unwrap();
    let mut child = demo(&temporary, &[]).spawn().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    while !line.contains("  delivered  ") {
        line.clear();
        assert_ne!(timeout(SOON, stdout.read_line(&mut line)).await.unwrap().unwrap(), 0, "the demo ended");
    }
    let pid = child.id().unwrap().to_string();
    assert!(std::process::Command::new("kill").args(["-s", "TERM", &pid]).status().unwrap().success());
    let mut rest = String::new();
    timeout(DEMO_MAX, stdout.read_to_string(&mut rest)).await.expect("it ends when asked").unwrap();
    assert!(child.wait().await.unwrap().success(), "{rest}");
    assert_eq!(figure(&rest, "missed"), 0);
    assert_empty(&temporary);
}

/// `script`, of util-linux, gives the demo a terminal.
#[tokio::test]
async fn on_a_terminal_it_draws_and_gives_the_terminal_back() {
    let temporary = TempDir::new().unwrap();
    let program = demo(&temporary, &[]);
    let words: Vec<_> = std::iter::once(program.as_std().get_program()).chain(program.as_std().get_args()).collect();
    let words: Vec<_> = words.iter().map(|word| format!("'{}'", word.to_str().unwrap())).collect();
    let mut child = Command::new("script")
        .args(["-qefc", &format!("stty cols 80 rows 24; exec {}", words.join(" ")), "/dev/null"])
        .env("TMPDIR", temporary.path())
        .env("TERM", "xterm-256color")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("the tests need script: apt-get install bsdutils");
    let mut terminal = child.stdout.take().unwrap();
    let mut keyboard = child.stdin.take().unwrap();
    let mut seen = Vec::new();
    let shows = |seen: &[u8], text: &str| String::from_utf8_lossy(seen).contains(text);
    while !shows(&seen, "till-1") || !shows(&seen, "ms") {
        assert_ne!(timeout(SOON, terminal.read_buf(&mut seen)).await.unwrap().unwrap(), 0, "the demo ended");
    }
    keyboard.write_all(b"q").await.unwrap();
    timeout(DEMO_MAX, terminal.read_to_end(&mut seen)).await.expect("q ends it").unwrap();
    assert!(child.wait().await.unwrap().success());
    let seen = String::from_utf8_lossy(&seen).into_owned();
    let (_, screen) = seen.split_once("\u{1b}[?1049h").expect("it takes the alternate screen");
    let (screen, after) = screen.split_once("\u{1b}[?1049l").expect("it gives the screen back");
    assert!(screen.contains("join in"), "{screen}");
    assert_eq!(figure(after, "missed"), 0);
    assert_empty(&temporary);
}
