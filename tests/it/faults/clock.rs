//! A node whose machine's clock jumps: an hour forward, then an hour back.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;

use super::load::Load;
use crate::harness::token::{SECRET, with_token};
use crate::harness::{Fault, Id, Login, NodeOptions, NodeProcess, SOON, World, eventually, unique, unix_ms};

/// The clock of a node that runs on libfaketime: what the file holds is added to the real one.
struct Clock(PathBuf);

impl Clock {
    /// A clock that is right, and the options of a node that goes by it.
    ///
    /// # Panics
    /// Where libfaketime is not installed.
    fn of(options: NodeOptions, dir: &Path) -> (Clock, NodeOptions) {
        let clock = Clock(dir.join("clock"));
        clock.jump_to("+0");
        let library = std::fs::read_dir("/usr/lib").unwrap().flatten();
        let library = library.map(|dir| dir.path().join("faketime/libfaketimeMT.so.1")).find(|path| path.exists());
        let library = library.expect("the tests need libfaketime: apt-get install faketime");
        let options = options
            .env("LD_PRELOAD", &library.to_string_lossy())
            .env("FAKETIME_TIMESTAMP_FILE", &clock.0.to_string_lossy())
            .env("FAKETIME_NO_CACHE", "1")
            // A step of the wall clock leaves the clock that only counts alone.
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            .env("DONT_FAKE_MONOTONIC", "1");
        (clock, options)
    }

    /// Puts the clock so far from the right time, at once.
    fn jump_to(&self, offset: &str) {
        let new = self.0.with_extension("new");
        std::fs::write(&new, offset).unwrap();
        std::fs::rename(new, &self.0).unwrap();
    }
}

/// Logins went by the machine's clock: with it an hour ahead a good token had expired, and with it an hour
/// behind a token of today was not valid yet, so that devices were turned away for good.
#[tokio::test]
async fn a_clock_that_jumps_on_one_node_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let secret = dir.path().join("secret");
    std::fs::write(&secret, SECRET).unwrap();
    let auth = [("AUTH", "jwt"), ("JWT_SECRET_FILE", secret.to_str().unwrap())];
    let mut world = World::with(1, &auth).await;
    let (clock, options) = Clock::of(world.options.clone(), dir.path());
    world.nodes.push(NodeProcess::start(&options).await);
    let urls = world.urls();
    let load = Load::of_logins(&urls, |login| with_token(login, json!({}))).await;
    load.go_on(30).await;
    let now_s = unix_ms() / 1000;
    // Good for half an hour, since a minute ago.
    let shop = unique("shop");
    let token = json!({"exp": now_s + 1800, "nbf": now_s - 60});
    let till = with_token(Login::main(&shop, "till"), token.clone());
    let hand = with_token(Login::sub(&shop, "hand"), token);
    till.on(&world.url(0)).await.close().await;
    let mut sub = hand.on(&world.url(1)).await;
    let mut fault = Fault::begin("clock-jumps-an-hour-forth-and-back");
    for offset in ["+3600", "-3600", "+0"] {
        clock.jump_to(offset);
        fault.over();
        // What is good for ten minutes is still good, and so is the token, on the node with the odd clock.
        let sent = sub.notify(json!({"type": "add", "ttl_s": 600})).await;
        let mut main = till.on(&world.url(1)).await;
        assert_eq!(main.take(1).await, [Id::of(&sent)], "{offset}");
        let told = main.welcome["server_time"].as_u64().unwrap();
        assert!(told.abs_diff(unix_ms()) < 60_000, "{offset}: the welcome says {told}");
        let online = sub.request(json!({"op": "online", "role": "main"})).await;
        assert_eq!(online["devices"][0]["state"], "online", "{offset}: {online}");
        let since = online["devices"][0]["since"].as_u64().unwrap();
        assert!(since.abs_diff(unix_ms()) < 60_000, "{offset}: {online}");
        let signal = sub.notify(json!({"type": "look", "durable": false})).await;
        assert_eq!(signal, "");
        let at = main.expect("signal").await["at"].as_u64().unwrap();
        assert!(at.abs_diff(unix_ms()) < 60_000, "{offset}: a signal of {at}");
        main.close().await;
        load.go_on(60).await;
        eventually(SOON, "both nodes to be ready", async || {
            world.nodes[0].is_ready().await && world.nodes[1].is_ready().await
        })
        .await;
    }
    load.enough();
    let (_, records) = load.assert_survived(fault).await;
    assert!(records.iter().all(|record| record.connections.len() == 1), "no connection noticed");
    assert!(world.nodes[1].metrics().await.get("shoprelay_messages_expired_total") == 0.0);
    tokio::time::timeout(Duration::from_secs(30), sub.close()).await.expect("it is still served");
}
