//! What a device is sent, and what it is never sent: whole nodes driven by fake devices.

mod acks;
mod audience;
mod deal;
mod encodings;
mod groups;
mod invariants;
mod list;
mod notify;
mod presence;

/// Runs each function, which takes a `World`, as a test on one node, across two, and on one with an
/// embedded store.
macro_rules! on_one_and_two_nodes {
    ($($name:ident),+ $(,)?) => {
        mod on_one_node {
            $(#[tokio::test] async fn $name() { super::$name(&mut crate::harness::World::start(1).await).await; })+
        }
        mod across_two_nodes {
            $(#[tokio::test] async fn $name() { super::$name(&mut crate::harness::World::start(2).await).await; })+
        }
        mod on_an_embedded_store {
            $(#[tokio::test] async fn $name() { super::$name(&mut crate::harness::World::embedded(&[]).await).await; })+
        }
    };
}
pub(crate) use on_one_and_two_nodes;

/// Runs each function, which takes a `World`, as a test across two nodes on a cluster, and behind sentinels.
macro_rules! in_every_redis {
    ($($name:ident),+ $(,)?) => {
        mod on_a_cluster {
            $(#[tokio::test] async fn $name() { super::$name(&mut crate::harness::World::on_a_cluster(2).await).await; })+
        }
        mod behind_sentinels {
            $(#[tokio::test] async fn $name() { super::$name(&mut crate::harness::World::behind_sentinels(2).await).await; })+
        }
    };
}
use in_every_redis;
