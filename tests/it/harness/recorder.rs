//! A device that stays logged in, whatever happens to nodes and connections, and writes down what it
//! was sent.

use std::collections::BTreeSet;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use super::device::{Device, Event};
use super::login::Login;
use super::wire::{Id, id_of};
use super::{SOON, eventually};

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
    /// What its node said when it left.
    pub goaway: Option<Value>,
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
        let stay = Stay {
            login,
            urls: urls.clone(),
            attempt: first,
            acks,
            record: record.clone(),
            wishes,
            replaced: JoinSet::new(),
        };
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
    /// Connections that a newer one has taken over from, until they are closed.
    replaced: JoinSet<()>,
}

/// The first and the longest wait before another attempt.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

type Moving = Pin<Box<dyn Future<Output = (String, Device)> + Send>>;

impl Stay {
    async fn run(mut self) {
        let mut next = None;
        loop {
            let wish = self.wishes.borrow_and_update().0;
            match wish {
                Wish::Stop => break,
                Wish::Offline => {
                    next = None;
                    if self.wishes.changed().await.is_err() {
                        return;
                    }
                    continue;
                }
                Wish::Online => {}
            }
            let (url, device) = match next.take() {
                Some(moved) => moved,
                None => {
                    let logging_in = self.log_in(Duration::ZERO);
                    tokio::select! {
                        logged_in = logging_in => logged_in,
                        _ = self.wishes.changed() => continue,
                    }
                }
            };
            next = self.stay_on(url, device).await;
        }
        while self.replaced.join_next().await.is_some() {}
    }

    /// Tries one node after the other, after a wait, until one lets the device in.
    fn log_in(&mut self, wait: Duration) -> Moving {
        let (login, urls, mut attempt) = (self.login.clone(), self.urls.clone(), self.attempt);
        // The next login begins with another node than this one.
        self.attempt += 1;
        Box::pin(async move {
            tokio::time::sleep(wait).await;
            let mut backoff = BACKOFF.0;
            loop {
                let url = urls.pick(attempt);
                attempt += 1;
                if let Ok(device) = login.try_on(&url).await {
                    return (url, device);
                }
                tokio::time::sleep(backoff).await;
                backoff = (backoff * 2).min(BACKOFF.1);
            }
        })
    }

    /// Records one connection to its end; gives the next one where its node asked the device to move. It
    /// is read and acknowledged as before until that one is there, and then until it is closed.
    async fn stay_on(&mut self, url: String, mut device: Device) -> Option<(String, Device)> {
        let mut journal = Journal::begin(&self.record, url, &device, self.acks);
        let mut moving: Option<Moving> = None;
        loop {
            let moved = async {
                match &mut moving {
                    Some(moving) => moving.await,
                    None => std::future::pending().await,
                }
            };
            let event = tokio::select! {
                event = device.event() => event,
                next = moved => {
                    self.replaced.spawn(journal.finish(device));
                    return Some(next);
                }
                changed = self.wishes.changed() => {
                    if changed.is_ok() {
                        device.reset();
                    }
                    return None;
                }
            };
            match journal.note(&mut device, event).await {
                Noted::Goes => {}
                Noted::Goaway(wait) => moving = Some(self.log_in(wait)),
                Noted::Ended => return None,
            }
        }
    }
}

/// Writes down one connection.
struct Journal {
    record: Arc<Mutex<Record>>,
    index: usize,
    acks: Acks,
    entries: usize,
    device: String,
}

/// What an event means for the connection.
enum Noted {
    Goes,
    /// Its node leaves; the device is to log in elsewhere after this wait.
    Goaway(Duration),
    Ended,
}

impl Journal {
    fn begin(record: &Arc<Mutex<Record>>, url: String, device: &Device, acks: Acks) -> Journal {
        let connection =
            Connection { url, welcome: device.welcome.clone(), entries: Vec::new(), goaway: None, end: None };
        let mut connections = record.lock().expect("no panic holds it");
        connections.connections.push(connection);
        let (index, device) = (connections.connections.len() - 1, connections.device.clone());
        Journal { record: record.clone(), index, acks, entries: 0, device }
    }

    async fn note(&mut self, device: &mut Device, event: Event) -> Noted {
        let op = match event {
            Event::Op(op) => op,
            Event::Ping(_) => return Noted::Goes,
            end => {
                self.with(|connection| connection.end = Some(end));
                return Noted::Ended;
            }
        };
        match op["op"].as_str() {
            Some("message" | "status") => {
                let id = id_of(&op, "id").to_string();
                self.with(|connection| connection.entries.push(Entry { at: Instant::now(), op }));
                self.entries += 1;
                if self.acks == Acks::Each || self.entries.is_multiple_of(3) {
                    // A connection that is gone says so when it is read.
                    let _ = device.try_send_op(serde_json::json!({"op": "ack", "id": id})).await;
                }
            }
            Some("goaway") => {
                let wait_ms = op["reconnect_in_ms"].as_u64().expect("goaway says when to come back");
                self.with(|connection| {
                    assert_eq!(connection.goaway, None, "a connection is told once");
                    connection.goaway = Some(op);
                });
                return Noted::Goaway(Duration::from_millis(wait_ms));
            }
            Some("signal" | "receipt") => {}
            _ => panic!("{} was sent {op}", self.device),
        }
        Noted::Goes
    }

    /// To the end of a connection that a newer one has taken over from.
    async fn finish(mut self, mut device: Device) {
        while let Some(event) = device.event_within(2 * SOON).await {
            if matches!(self.note(&mut device, event).await, Noted::Ended) {
                return;
            }
        }
    }

    fn with(&self, change: impl FnOnce(&mut Connection)) {
        let mut record = self.record.lock().expect("no panic holds it");
        change(&mut record.connections[self.index]);
    }
}
