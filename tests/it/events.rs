//! The event stream: what back-end workers are told, and when.

mod outages;
mod stream;
mod workers;

use std::collections::BTreeMap;

use serde_json::Value;

use crate::harness::{SOON, World, eventually_get};
use crate::redis_server::RedisServer;

/// An entry's fields, all of them text.
type Entry = BTreeMap<String, String>;

/// The stream as a worker sees it, with what redis-cli can do.
struct Stream<'a> {
    redis: &'a RedisServer,
    key: String,
}

impl<'a> Stream<'a> {
    fn of(world: &'a World) -> Stream<'a> {
        Stream { redis: world.redis(), key: format!("{}events", world.options.prefix) }
    }

    fn exists(&self) -> bool {
        self.redis.cli(&["EXISTS", &self.key]) == "1"
    }

    /// What a command of Redis answers.
    fn ask(&self, command: &[&str]) -> Value {
        let printed = self.redis.cli(&[&["--json"], command].concat());
        serde_json::from_str(&printed).unwrap_or_else(|cause| panic!("{command:?}: {cause}: {printed}"))
    }

    /// Everything in it, the oldest first.
    fn entries(&self) -> Vec<Entry> {
        let answer = self.ask(&["XRANGE", &self.key, "-", "+"]);
        answer.as_array().expect("a list of entries").iter().map(entry).collect()
    }

    /// What it holds of a connection.
    fn of_conn(&self, conn: &str) -> Vec<Entry> {
        self.entries().into_iter().filter(|entry| entry.get("conn").is_some_and(|of| of == conn)).collect()
    }

    /// What it holds of a connection, once that has closed.
    async fn of_closed_conn(&self, conn: &str) -> Vec<Entry> {
        eventually_get(SOON, "the connection's close in the stream", async || {
            Some(self.of_conn(conn)).filter(|entries| entries.iter().any(|entry| entry["event"] == "close"))
        })
        .await
    }
}

/// The fields of an entry as Redis gives it: an id, and a flat list of names and values.
fn entry(item: &Value) -> Entry {
    let fields = item[1].as_array().unwrap_or_else(|| panic!("an entry, not {item}"));
    let texts: Vec<&str> = fields.iter().map(|field| field.as_str().expect("a field is text")).collect();
    let entry: Entry = texts.chunks(2).map(|pair| (pair[0].to_owned(), pair[1].to_owned())).collect();
    assert_eq!(entry.len() * 2, texts.len(), "no field comes twice: {item}");
    entry
}

/// The kinds of these entries.
fn kinds(entries: &[Entry]) -> Vec<&str> {
    entries.iter().map(|entry| entry["event"].as_str()).collect()
}

/// A world of some nodes with a stream.
async fn world_with_events(nodes: usize, settings: &[(&str, &str)]) -> World {
    World::with(nodes, &[&[("EVENTS", "true")], settings].concat()).await
}

/// The `conn` in a welcome.
fn conn(welcome: &Value) -> String {
    welcome["conn"].as_str().expect("a welcome names the connection").to_owned()
}
