//! The hand-made server's clients, as they are.

mod admin;
mod dialect;
mod frames;
mod http;
mod receipts;
mod shop;
mod tokens;

use serde_json::Value;

use crate::harness::raw::{PING, PONG, TEXT};
use crate::harness::{Frame, RawSocket, World};

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

/// A raw connection in the old dialect, which answers no Ping of itself.
async fn raw(address: &str) -> RawSocket {
    RawSocket::open(&format!("ws://{address}/")).await
}

/// The same, with this login sent.
async fn raw_login(address: &str, shop: &str, client: &str, role: &str) -> RawSocket {
    let mut socket = raw(address).await;
    socket.send(&Frame::text(login_text(shop, client, role))).await;
    socket
}

fn login_text(shop: &str, client: &str, role: &str) -> String {
    format!(r#"{{"op":"login","shop_id":"{shop}","client_id":"{client}","type":"{role}"}}"#)
}

/// The next text of a raw connection; Pings stay unanswered.
async fn next_text(socket: &mut RawSocket) -> String {
    loop {
        let frame = socket.read_frame().await.unwrap_or_else(|cause| panic!("{cause}"));
        match frame.opcode {
            TEXT => return String::from_utf8(frame.payload).expect("a text"),
            PING | PONG => {}
            _ => panic!("waited for a text, but {frame:?} came"),
        }
    }
}

/// The payload of the next Ping of a raw connection that has one.
async fn next_ping(socket: &mut RawSocket) -> Vec<u8> {
    loop {
        let frame = socket.read_frame().await.unwrap_or_else(|cause| panic!("{cause}"));
        if frame.opcode == PING && !frame.payload.is_empty() {
            return frame.payload;
        }
    }
}

fn number_of(push: &Value) -> u64 {
    push["id"].as_u64().unwrap_or_else(|| panic!("a push with a number, not {push}"))
}
