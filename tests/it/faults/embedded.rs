//! A node with a store of its own that dies, and starts that must not be.

use std::path::Path;
use std::process::{Command, Output};

use super::nodes::Load;
use crate::harness::{Fault, Login, NodeProcess, World, unique};

#[tokio::test]
async fn a_node_on_an_embedded_store_that_is_killed_under_load_loses_nothing() {
    let mut world = World::embedded(&[]).await;
    let urls = world.urls();
    let load = Load::start(&urls, 150).await;
    let mut fault = Fault::begin("embedded-node-killed-twice");
    for accepted in [40, 90] {
        load.publishers[0].wait_accepted(accepted).await;
        world.nodes[0].sigkill();
        world.nodes[0].wait_exit().await;
        world.nodes[0] = NodeProcess::start(&world.options).await;
        urls.replace(0, world.nodes[0].ws_url());
        fault.over();
    }
    load.assert_survived(fault).await;
}

#[tokio::test]
async fn who_was_online_when_a_node_was_killed_is_not_online_at_its_next_start() {
    let mut world = World::embedded(&[]).await;
    let shop = unique("shop");
    let _main = Login::main(&shop, "till").on(&world.url(0)).await;
    world.nodes[0].sigkill();
    world.nodes[0].wait_exit().await;
    world.nodes[0] = NodeProcess::start(&world.options).await;
    let mut sub = Login::sub(&shop, "hand").on(&world.url(0)).await;
    let presence = sub.request(serde_json::json!({"op": "online", "role": "main"})).await;
    assert_eq!(presence["devices"], serde_json::json!([]), "{presence}");
}

/// Starts a node that is to fail, and gives what it printed.
fn start_in_vain(store: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_shoprelay"));
    for listener in ["LISTEN", "API_LISTEN", "METRICS_LISTEN"] {
        command.env(format!("SHOPRELAY_{listener}"), "127.0.0.1:0");
    }
    command.arg("serve").env("SHOPRELAY_STORE", store).output().expect("the node's binary can be started")
}

fn assert_refused(output: &Output, why: &str) {
    let printed = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{printed}");
    assert!(printed.contains(why) && printed.trim_end().lines().count() == 1, "{printed}");
}

#[tokio::test]
async fn a_second_node_on_a_directory_is_refused_and_the_first_goes_on() {
    let world = World::embedded(&[]).await;
    assert_refused(&start_in_vain(&world.options.store), "is in use by another process");
    world.assert_serves().await;
}

#[test]
fn a_directory_that_cannot_be_made_and_a_file_that_is_none_of_ours_stop_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("shoprelay.redb");
    std::fs::write(&file, "this is no database, and somebody may need it").unwrap();
    let store = |dir: &Path| format!("embedded:{}", dir.display());
    assert_refused(&start_in_vain(&store(dir.path())), "is damaged and was left as it is");
    assert_refused(&start_in_vain(&store(&file)), "cannot be used");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "this is no database, and somebody may need it");
}
