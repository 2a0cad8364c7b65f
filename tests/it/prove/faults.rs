//! Every fault that can be planted is caught, and called by its name.

use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::Proof;
use crate::harness::World;

/// Runs at the same time: mostly they wait.
const AT_ONCE: usize = 6;

/// What is planted, and one of the breaches that each has to be told as.
const CAUGHT: [(&str, &[&str]); 18] = [
    ("lose-push,ignore-prev", &["lost"]),
    ("lose-push,drop-read", &["lost"]),
    ("skip-mark", &["unproven"]),
    ("prove-too-much", &["lost"]),
    ("written-is-proven", &["lost"]),
    ("double-push", &["repeated"]),
    ("reorder-outbox", &["lost"]),
    ("swap-frames", &["disordered"]),
    ("skip-at-boundary", &["lost"]),
    ("drop-when-full", &["lost"]),
    ("lose-takeover", &["ghosts"]),
    ("ignore-except", &["wrong"]),
    ("wrong-shop", &["wrong"]),
    ("accept-unstored", &["lost"]),
    ("ignore-key", &["doubled"]),
    ("drop-status", &["lost"]),
    ("two-winners", &["split"]),
    ("forget-subscribe", &["lost"]),
];

/// A node with this planted, and a run against it: what was wrong with what the run said.
async fn plant(planted: &str, told_as: &[&str]) -> Option<String> {
    // A small window, so that it is full now and then.
    let world = World::embedded(&[("PLANTED_FAULT", planted), ("LIMITS_WINDOW", "8")]).await;
    // A ghost is one only after a while, and is waited for.
    let settle = if told_as == ["ghosts"] { "20s" } else { "4s" };
    let outcome =
        Proof::start(&[world.url(0)], &["--seconds", "5", "--rate", "80", "--settle", settle]).outcome().await;
    let planted_of = planted.split(',').count();
    assert_eq!(world.nodes[0].log_text().matches("planted on purpose").count(), planted_of, "{planted}");
    let breaches = outcome.breaches();
    let is_caught = outcome.code == 1 && told_as.iter().all(|breach| breaches.contains(breach));
    (!is_caught).then(|| format!("{planted}: exit {}, told as {breaches:?}\n{:#}", outcome.code, outcome.verdict))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_planted_fault_is_caught_and_told_as_what_it_is() {
    let turns = Arc::new(Semaphore::new(AT_ONCE));
    let mut runs = JoinSet::new();
    for (planted, told_as) in CAUGHT {
        let turns = turns.clone();
        runs.spawn(async move {
            let _turn = turns.acquire().await.unwrap();
            plant(planted, told_as).await
        });
    }
    let missed: Vec<String> = runs.join_all().await.into_iter().flatten().collect();
    assert!(missed.is_empty(), "{} of {} were not caught:\n{}", missed.len(), CAUGHT.len(), missed.join("\n"));
}

#[tokio::test]
async fn pushes_that_are_lost_are_no_fault_where_the_relay_makes_up_for_them() {
    let world = World::embedded(&[("PLANTED_FAULT", "lose-push"), ("AUDIT", "2s")]).await;
    let outcome = Proof::start(&[world.url(0)], &["--seconds", "5", "--rate", "60"]).outcome().await;
    outcome.assert_kept(100);
    assert!(world.metric("shoprelay_feed_gaps_total").await > 0.0);
}
