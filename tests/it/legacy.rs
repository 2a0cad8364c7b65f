//! The hand-made server's clients, as they are.

mod dialect;

use crate::harness::World;

/// Runs each function, which takes a `World` that serves legacy devices, as a test on one node, across
/// two, and on one with an embedded store.
macro_rules! on_every_legacy_world {
    ($($name:ident),+ $(,)?) => {
        mod on_one_node {
            $(#[tokio::test] async fn $name() { super::$name(&mut crate::legacy::world(1).await).await; })+
        }
        mod across_two_nodes {
            $(#[tokio::test] async fn $name() { super::$name(&mut crate::legacy::world(2).await).await; })+
        }
        mod on_an_embedded_store {
            $(#[tokio::test] async fn $name() { super::$name(&mut crate::legacy::embedded().await).await; })+
        }
    };
}
use on_every_legacy_world;

async fn world(count: usize) -> World {
    World::with(count, &[("LEGACY", "true")]).await
}

async fn embedded() -> World {
    World::embedded(&[("LEGACY", "true")]).await
}

/// The public listener of the `n`th node.
fn address(world: &World, n: usize) -> &str {
    world.nodes[n % world.nodes.len()].listen()
}
