//! A device that stays logged in, whatever happens to nodes and connections, and writes down what it
//! was sent.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::device::{Device, Event};
use super::eventually;
use super::login::Login;
use super::wire::{Id, id_of};

/// The addresses of the nodes that can be tried, shared by all who connect: a node that comes back
/// on another port is changed in one place.
#[derive(Debug, Clone)]
pub struct Urls(Arc<Mutex<Vec<String>>>);

impl Urls {
    /// These addresses.
    pub fn new(urls: impl IntoIterator<Item = String>) -> Urls {
        Urls(Arc::new(Mutex::new(urls.into_iter().collect())))
    }

    /// The address to try at the `attempt`th time.
    pub fn pick(&self, attempt: usize) -> String {
        let urls = self.0.lock().expect("no panic holds it");
        urls[attempt % urls.len()].clone()
    }

    /// Says where the `index`th node is now.
    pub fn replace(&self, index: usize, url: String) {
        self.0.lock().expect("no panic holds it")[index] = url;
    }
}

/// One connection of a recorder.
#[derive(Debug, Clone)]
pub struct Connection {
    pub url: String,
    pub welcome: Value,
    /// Every `message` and `status`, in the order in which they came.
    pub entries: Vec<Entry>,
    /// How it ended; nothing while it lasts or where the recorder left.
    pub end: Option<Event>,
}

/// A `message` or `status`, and when it came.
#[derive(Debug, Clone)]
pub struct Entry {
    pub at: Instant,
    pub op: Value,
}

impl Connection {
    fn ids(&self) -> Vec<Id> {
        self.entries.iter().map(|entry| id_of(&entry.op, "id")).collect()
    }
}

/// What a recorder was sent.
#[derive(Debug, Clone, Default)]
pub struct Record {
    pub device: String,
    pub connections: Vec<Connection>,
}

impl Record {
    /// The ids of all entries with this op, `message` or `status`, over all connections.
    pub fn ids(&self, op: &str) -> BTreeSet<Id> {
        let entries = self.connections.iter().flat_map(|connection| &connection.entries);
        entries.filter(|entry| entry.op["op"] == op).map(|entry| id_of(&entry.op, "id")).collect()
    }

    /// Checks that each connection was sent ids above its cursor, ascending, each once.
    ///
    /// # Panics
    /// Where one was not.
    pub fn assert_ordered(&self) {
        for (n, connection) in self.connections.iter().enumerate() {
            let mut last = id_of(&connection.welcome, "cursor");
            for id in connection.ids() {
                assert!(
                    id > last,
                    "{}, connection {n}: {id} came after {last} (a repeat, or out of order)",
                    self.device
                );
                last = id;
            }
        }
    }

    /// Checks that on each connection nothing of `expected` above its cursor was left out before
    /// something newer came, and nothing beyond it came. `expected` are all the entries for this device.
    ///
    /// # Panics
    /// Where something was skipped.
    pub fn assert_unbroken(&self, expected: &BTreeSet<Id>) {
        for (n, connection) in self.connections.iter().enumerate() {
            let came = connection.ids();
            let cursor = id_of(&connection.welcome, "cursor");
            let due: Vec<Id> = expected.iter().copied().filter(|id| *id > cursor).take(came.len()).collect();
            let first = came.iter().zip(&due).find(|(came, due)| came != due);
            assert_eq!(came, due, "{}, connection {n} from {cursor}: first difference {first:?}", self.device);
        }
    }

    /// Checks that exactly these messages came.
    ///
    /// # Panics
    /// Where one is missing or too many.
    pub fn assert_exactly(&self, expected: &BTreeSet<Id>) {
        let came = self.ids("message");
        let missing: Vec<_> = expected.difference(&came).collect();
        let beyond: Vec<_> = came.difference(expected).collect();
        assert!(
            missing.is_empty() && beyond.is_empty(),
            "{}: missing {missing:?}, not meant for it {beyond:?}",
            self.device
        );
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wish {
    Online,
    Offline,
    Stop,
}

/// How a recorder acknowledges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acks {
    Each,
    /// Every third entry only: what it was sent after that comes again on the next connection.
    EveryThird,
}

/// A device in the background.
pub struct Recorder {
    record: Arc<Mutex<Record>>,
    /// The wish, and a count of connections to be lost so far.
    wish: watch::Sender<(Wish, u64)>,
    task: JoinHandle<()>,
    name: String,
}

impl Recorder {
    /// Logs in at the `first`th of the nodes and stays logged in.
    pub fn start(login: Login, urls: &Urls, first: usize, acks: Acks) -> Recorder {
        let name = format!("{}/{}", login.shop, login.device);
        let record = Arc::new(Mutex::new(Record { device: name.clone(), connections: Vec::new() }));
        let (wish, wishes) = watch::channel((Wish::Online, 0));
        let stay = Stay { login, urls: urls.clone(), attempt: first, acks, record: record.clone(), wishes };
        Recorder { record, wish, task: tokio::spawn(stay.run()), name }
    }

    /// The same, acknowledging everything, and waits for the first welcome.
    ///
    /// # Panics
    /// Without one in 20 s.
    pub async fn logged_in(login: Login, urls: &Urls, first: usize) -> Recorder {
        let recorder = Recorder::start(login, urls, first, Acks::Each);
        recorder.wait_login().await;
        recorder
    }

    /// Waits until it has been logged in once.
    ///
    /// # Panics
    /// Where it takes longer than 20 s.
    pub async fn wait_login(&self) {
        let what = format!("{} to log in", self.name);
        eventually(Duration::from_secs(20), &what, async || !self.record().connections.is_empty()).await;
    }

    /// What it was sent so far.
    pub fn record(&self) -> Record {
        self.record.lock().expect("no panic holds it").clone()
    }

    /// Waits until it has received all these messages.
    ///
    /// # Panics
    /// At the deadline, with what is missing.
    pub async fn wait_for(&self, expected: &BTreeSet<Id>, deadline: Duration) {
        let end = tokio::time::Instant::now() + deadline;
        loop {
            let came = self.record().ids("message");
            if came.is_superset(expected) {
                return;
            }
            if tokio::time::Instant::now() > end {
                let missing: Vec<_> = expected.difference(&came).collect();
                panic!(
                    "{}: after {deadline:?} {} of {} are missing: {missing:?}",
                    self.name,
                    missing.len(),
                    expected.len()
                );
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Loses the connection, if there is one; it comes back by itself.
    pub fn lose_connection(&self) {
        self.wish.send_modify(|(_, lost)| *lost += 1);
    }

    /// Goes away and stays away.
    pub fn go_offline(&self) {
        self.wish_for(Wish::Offline);
    }

    /// Comes back.
    pub fn come_back(&self) {
        self.wish_for(Wish::Online);
    }

    fn wish_for(&self, new: Wish) {
        self.wish.send_if_modified(|(wish, _)| std::mem::replace(wish, new) != new);
    }

    /// Ends it and gives what it was sent.
    ///
    /// # Panics
    /// Where the device itself met something that must not be.
    pub async fn stop(mut self) -> Record {
        self.wish_for(Wish::Stop);
        (&mut self.task).await.unwrap_or_else(|cause| panic!("{}: {cause}", self.name));
        self.record()
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Stay {
    login: Login,
    urls: Urls,
    attempt: usize,
    acks: Acks,
    record: Arc<Mutex<Record>>,
    wishes: watch::Receiver<(Wish, u64)>,
}

impl Stay {
    async fn run(mut self) {
        let mut backoff = Duration::from_millis(20);
        // A connection of a node that is leaving stays open until the next one is there.
        let mut leaving = None;
        loop {
            let wish = self.wishes.borrow_and_update().0;
            match wish {
                Wish::Stop => return,
                Wish::Offline => {
                    if self.wishes.changed().await.is_err() {
                        return;
                    }
                    continue;
                }
                Wish::Online => {}
            }
            let url = self.urls.pick(self.attempt);
            self.attempt += 1;
            match self.login.try_on(&url).await {
                Ok(device) => {
                    backoff = Duration::from_millis(20);
                    drop(leaving.take());
                    leaving = self.stay_on(url, device).await;
                }
                Err(_) => {
                    tokio::time::sleep(backoff).await;
                    backoff = (backoff * 2).min(Duration::from_secs(1));
                }
            }
        }
    }

    /// Records one connection to its end; gives it back where its node asked the device to leave.
    async fn stay_on(&mut self, url: String, mut device: Device) -> Option<Device> {
        let connection = Connection { url, welcome: device.welcome.clone(), entries: Vec::new(), end: None };
        let index = {
            let mut record = self.record.lock().expect("no panic holds it");
            record.connections.push(connection);
            record.connections.len() - 1
        };
        let mut entries = 0;
        loop {
            let event = tokio::select! {
                event = device.event() => event,
                changed = self.wishes.changed() => {
                    if changed.is_ok() {
                        device.reset();
                    }
                    return None;
                }
            };
            let op = match event {
                Event::Op(op) => op,
                Event::Ping(_) => continue,
                end => {
                    self.with(index, |connection| connection.end = Some(end));
                    return None;
                }
            };
            match op["op"].as_str() {
                Some("message" | "status") => {
                    let id = id_of(&op, "id").to_string();
                    let entry = Entry { at: Instant::now(), op };
                    self.with(index, |connection| connection.entries.push(entry));
                    entries += 1;
                    if self.acks == Acks::Each || entries % 3 == 0 {
                        let ack = serde_json::json!({"op": "ack", "id": id});
                        // A connection that is gone says so when it is read.
                        let _ = device.try_send_op(ack).await;
                    }
                }
                Some("goaway") => {
                    let wait_ms = op["reconnect_in_ms"].as_u64().expect("goaway says when to come back");
                    tokio::time::sleep(Duration::from_millis(wait_ms)).await;
                    return Some(device);
                }
                Some("signal" | "receipt") => {}
                _ => panic!("{} was sent {op}", self.login.device),
            }
        }
    }

    fn with(&self, index: usize, change: impl FnOnce(&mut Connection)) {
        let mut record = self.record.lock().expect("no panic holds it");
        change(&mut record.connections[index]);
    }
}
