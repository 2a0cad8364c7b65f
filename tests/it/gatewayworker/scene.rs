//! Two nodes, a shop with a till and a handheld on different ones, and a row of the page that says what
//! may be asked of them.

use std::collections::BTreeSet;
use std::path::Path;

use hyper::Method;
use serde_json::{Map, Value, json};

use crate::harness::api::Reply;
use crate::harness::{Api, Device, Login, NodeOptions, NodeProcess, SOON, eventually, eventually_get, unique};
use crate::redis_server::RedisServer;

/// The page.
pub fn page() -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/gatewayworker.md")).unwrap()
}

/// The rows of the page's tables: the call, and the cells after it.
pub fn rows() -> Vec<(String, String)> {
    let page = page();
    let cells = page.lines().filter_map(|line| line.strip_prefix("| `")?.strip_suffix(" |"));
    let rows = cells.map(|cells| cells.split_once("` | ").unwrap_or_else(|| panic!("no row: {cells}")));
    rows.map(|(call, rest)| (call.to_owned(), rest.to_owned())).collect()
}

/// What a row names that can be asked for: requests, ops, events and commands of Redis.
fn named(row: &str) -> BTreeSet<String> {
    let mut named = BTreeSet::new();
    let mut before = "";
    for (n, part) in row.split('`').enumerate() {
        let is_code = n % 2 == 1;
        let first = part.split(' ').next().unwrap_or_default();
        if !is_code {
            before = part;
        } else if matches!(first, "GET" | "POST" | "PUT" | "PATCH" | "DELETE" | "XGROUP" | "XAUTOCLAIM")
            && part != first
        {
            named.insert(part.to_owned());
        } else if let Some(kind) = ["op ", "event "].iter().find(|kind| before.ends_with(*kind)) {
            named.insert(format!("{kind}{part}"));
        }
    }
    named
}

/// See the module.
pub struct Scene {
    pub nodes: [NodeProcess; 2],
    pub options: NodeOptions,
    pub redis: &'static RedisServer,
    pub shop: String,
    /// A main on the first node.
    pub till: Device,
    /// A sub on the second.
    pub hand: Device,
    names: BTreeSet<String>,
    asked: BTreeSet<String>,
    requests: usize,
}

impl Scene {
    /// The scene of the row that has this call, on nodes with these settings.
    pub async fn start(call: &str, settings: &[(&str, &str)]) -> Scene {
        let row = rows().into_iter().find(|(name, _)| name == call);
        let names = named(&row.unwrap_or_else(|| panic!("the page has no row for {call}")).1);
        let redis = RedisServer::shared();
        let options =
            settings.iter().fold(NodeOptions::new(redis.url()), |options, (name, value)| options.set(name, value));
        let (first, second) = tokio::join!(NodeProcess::start(&options), NodeProcess::start(&options));
        let nodes = [first, second];
        let shop = unique("shop");
        let till = Login::main(&shop, "till").on(&nodes[0].ws_url()).await;
        let hand = Login::sub(&shop, "hand").on(&nodes[1].ws_url()).await;
        Scene { nodes, options, redis, shop, till, hand, names, asked: BTreeSet::new(), requests: 0 }
    }

    /// Checks that everything that the row names was asked for.
    pub fn assert_all_was_asked(&self) {
        assert_eq!(self.names, self.asked, "what the row names, and what was asked for");
    }

    fn asks(&mut self, what: &str) {
        assert!(self.names.contains(what), "the row does not name {what}, but {:?}", self.names);
        self.asked.insert(what.to_owned());
    }

    /// Sends a request that the row names, with these names in the place of those in braces, to one node
    /// after the other.
    pub async fn ask(&mut self, template: &str, names: &[(&str, &str)], body: Option<Value>) -> Reply {
        self.asks(template);
        self.prepare(template, names, body).await
    }

    /// Sends a request that belongs to no row.
    pub async fn prepare(&mut self, template: &str, names: &[(&str, &str)], body: Option<Value>) -> Reply {
        let (method, path) = template.split_once(' ').expect("a method and a path");
        let shop = ("shop", self.shop.as_str());
        let path = names
            .iter()
            .chain([&shop])
            .fold(path.to_owned(), |path, (name, value)| path.replace(&format!("{{{name}}}"), value));
        assert!(!path.contains('{'), "{path}: a name is missing");
        self.requests += 1;
        let api = Api::at(self.nodes[self.requests % 2].api_listen());
        api.send(method.parse::<Method>().expect("a method"), &path, body.map(|body| body.to_string())).await
    }

    /// Gets what the row names; it must be there.
    pub async fn get(&mut self, template: &str, names: &[(&str, &str)]) -> Value {
        let reply = self.ask(template, names, None).await;
        assert_eq!(reply.status, 200, "{template}: {}", reply.text);
        reply.json
    }

    /// The items of a list that the row names.
    pub async fn list(&mut self, template: &str, names: &[(&str, &str)]) -> Vec<Value> {
        self.get(template, names).await["items"].as_array().expect("a list").clone()
    }

    /// Does what the row names and answers nothing.
    pub async fn done(&mut self, template: &str, names: &[(&str, &str)], body: Option<Value>) {
        let reply = self.ask(template, names, body).await;
        assert_eq!((reply.status, reply.text.as_str()), (204, ""), "{template}");
    }

    /// The row's `POST` of a message, answered with this status.
    pub async fn send(&mut self, body: Value, status: u16) -> Reply {
        let reply = self.ask("POST /v1/shops/{shop}/messages", &[], Some(body.clone())).await;
        assert_eq!(reply.status, status, "{body}: {}", reply.text);
        reply
    }

    /// Has a device send an op that the row names, and gives the answer.
    pub async fn op_of_hand(&mut self, op: Value) -> Value {
        self.asks(&format!("op {}", op["op"].as_str().expect("an op")));
        self.hand.request(op).await
    }

    /// Puts the handheld into a group; no part of the row.
    pub async fn join(&mut self, device: &str, group: &str) {
        let names = [("group", group), ("device", device)];
        let joined = self.prepare("PUT /v1/shops/{shop}/groups/{group}/devices/{device}", &names, None).await;
        assert_eq!(joined.status, 204, "{}", joined.text);
    }

    /// Binds a device to a user; no part of the row.
    pub async fn bind(&mut self, device: &str, user: &str) {
        let names = [("user", user), ("device", device)];
        let bound = self.prepare("PUT /v1/shops/{shop}/users/{user}/devices/{device}", &names, None).await;
        assert_eq!(bound.status, 204, "{}", bound.text);
    }

    /// Another handheld, on the first node.
    pub async fn another(&self, device: &str) -> Device {
        Login::sub(&self.shop, device).on(&self.nodes[0].ws_url()).await
    }

    /// A handheld of another shop, on the second node.
    pub async fn stranger(&self) -> Device {
        Login::sub(&unique("other"), "hand").on(&self.nodes[1].ws_url()).await
    }

    /// A handheld that was here once and is away.
    pub async fn absent(&mut self, device: &str) {
        self.another(device).await.close().await;
        self.is_away(device).await;
    }

    /// The handheld leaves.
    pub async fn hand_leaves(&mut self) {
        self.hand.send(json!({"op": "logout"})).await;
        assert_eq!(self.hand.close_code().await.0, 1000);
        self.is_away("hand").await;
    }

    /// Waits until a device is not among those that are online.
    async fn is_away(&mut self, device: &str) {
        let devices = async || {
            let online = self.prepare("GET /v1/shops/{shop}/online", &[], None).await;
            online.items().iter().all(|online| online["device"] != device)
        };
        eventually(SOON, "the device is away", devices).await;
    }

    /// The handheld comes back.
    pub async fn hand_returns(&mut self) {
        self.hand = Login::sub(&self.shop, "hand").on(&self.nodes[0].ws_url()).await;
    }

    /// Checks that these have been sent nothing more: the next is a mark.
    pub async fn assert_nothing_more(&mut self, others: &mut [&mut Device]) {
        for is_durable in [true, false] {
            let mark = json!({"type": "mark", "to": "all", "durable": is_durable});
            let sent = self.prepare("POST /v1/shops/{shop}/messages", &[], Some(mark)).await;
            assert!(sent.status < 300, "{}", sent.text);
        }
        for device in others.iter_mut().map(|device| &mut **device).chain([&mut self.till, &mut self.hand]) {
            // A message and a signal may overtake each other.
            for _ in 0..2 {
                assert_eq!(device.next().await["type"], "mark");
            }
        }
    }

    /// The first event of the stream that the row names and that fits.
    pub async fn event(&mut self, name: &str, fits: impl Fn(&Map<String, Value>) -> bool) -> Map<String, Value> {
        self.asks(&format!("event {name}"));
        let found = async || self.events().into_iter().find(|event| event["event"] == name && fits(event));
        eventually_get(SOON, "the event is in the stream", found).await
    }

    /// The newest event of this name that the handheld caused, which the row does not name.
    pub async fn own_event(&self, name: &str) -> Map<String, Value> {
        let found = async || {
            self.events().into_iter().rfind(|event| event["event"] == name && event["conn"] == conn(&self.hand))
        };
        eventually_get(SOON, "the event is in the stream", found).await
    }

    fn events(&self) -> Vec<Map<String, Value>> {
        let key = format!("{}events", self.options.prefix);
        entries(&self.redis_json(&["XRANGE", &key, "-", "+"])).into_iter().map(|(_, event)| event).collect()
    }

    /// A command of Redis that the row names, on the stream of this deployment.
    pub fn redis(&mut self, command: &[&str]) -> Value {
        let whole = command.join(" ");
        let template = self.names.iter().find(|name| whole.starts_with(name.as_str())).cloned();
        self.asks(&template.unwrap_or(whole));
        self.own_redis(command)
    }

    /// Another command of Redis on it.
    pub fn own_redis(&self, command: &[&str]) -> Value {
        let key = format!("{}events", self.options.prefix);
        let command: Vec<&str> =
            command.iter().map(|part| if *part == "sr:events" { key.as_str() } else { part }).collect();
        self.redis_json(&command)
    }

    fn redis_json(&self, command: &[&str]) -> Value {
        let printed = self.redis.cli(&[&["--json"], command].concat());
        serde_json::from_str(&printed).unwrap_or(Value::String(printed))
    }
}

/// The entries that Redis gives of a stream: ids and fields.
pub fn entries(reply: &Value) -> Vec<(String, Map<String, Value>)> {
    let entries = reply.as_array().unwrap_or_else(|| panic!("no entries: {reply}"));
    let entry = |entry: &Value| {
        let fields: Vec<Value> = entry[1].as_array().expect("fields").clone();
        let pairs = fields.chunks(2).map(|pair| (pair[0].as_str().expect("a name").to_owned(), pair[1].clone()));
        (entry[0].as_str().expect("an id").to_owned(), pairs.collect())
    };
    entries.iter().map(entry).collect()
}

/// A connection's id.
pub fn conn(device: &Device) -> String {
    device.welcome["conn"].as_str().expect("a conn").to_owned()
}

/// These members of objects, in order.
pub fn each(items: &[Value], member: &str) -> Vec<String> {
    let mut each: Vec<String> = items.iter().map(|item| item[member].as_str().unwrap_or_default().to_owned()).collect();
    each.sort();
    each
}
