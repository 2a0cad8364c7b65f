//! A device that publishes steadily and gives nothing up: each notify has a key and is repeated under
//! it, on whatever connection, until it is accepted.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::device::{Device, Event, op};
use super::login::Login;
use super::recorder::Urls;
use super::wire::{Id, id_of};
use super::{eventually, unique};

/// A message that was accepted.
#[derive(Debug, Clone, Copy)]
pub struct Published {
    pub id: Id,
    /// When it was first tried, and when it was accepted.
    pub asked_at: Instant,
    pub accepted_at: Instant,
}

/// A sender in the background.
pub struct Publisher {
    accepted: Arc<Mutex<Vec<Published>>>,
    has_enough: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Publisher {
    /// Publishes `count` messages of these fields, `pace` apart at least, by any of the nodes.
    pub fn start(login: Login, urls: &Urls, count: usize, pace: Duration, fields: Value) -> Publisher {
        Publisher::start_at(usize::from(rand::random::<u8>()), login, urls, count, pace, fields)
    }

    /// The same, by this one of the nodes to begin with.
    pub fn start_at(first: usize, login: Login, urls: &Urls, count: usize, pace: Duration, fields: Value) -> Publisher {
        let accepted = Arc::new(Mutex::new(Vec::new()));
        let has_enough = Arc::new(AtomicBool::new(false));
        let publish = Publish {
            login,
            urls: urls.clone(),
            attempt: first,
            device: None,
            accepted: accepted.clone(),
            has_enough: has_enough.clone(),
        };
        Publisher { accepted, has_enough, task: tokio::spawn(publish.run(count, pace, fields)) }
    }

    /// Ends it after the message under way, however many were asked for.
    pub fn enough(&self) {
        self.has_enough.store(true, Ordering::SeqCst);
    }

    /// The ids of what has been accepted so far.
    pub fn accepted(&self) -> BTreeSet<Id> {
        self.accepted.lock().expect("no panic holds it").iter().map(|accepted| accepted.id).collect()
    }

    /// Waits until so many have been accepted.
    ///
    /// # Panics
    /// Where it takes longer than a minute.
    pub async fn wait_accepted(&self, count: usize) {
        let what = format!("{count} accepted messages");
        eventually(Duration::from_secs(60), &what, async || self.accepted().len() >= count).await;
    }

    /// Waits until everything has been accepted, and gives the ids.
    ///
    /// # Panics
    /// Where something was refused for good, or one id was given twice.
    pub async fn finish(self) -> BTreeSet<Id> {
        self.finish_journal().await.iter().map(|accepted| accepted.id).collect()
    }

    /// As [`Publisher::finish`], with the times, in the order of acceptance.
    ///
    /// # Panics
    /// As [`Publisher::finish`].
    pub async fn finish_journal(mut self) -> Vec<Published> {
        (&mut self.task).await.expect("every notify was accepted in the end");
        let accepted = self.accepted.lock().expect("no panic holds it").clone();
        let distinct: BTreeSet<Id> = accepted.iter().map(|accepted| accepted.id).collect();
        assert_eq!(distinct.len(), accepted.len(), "two keys got one id");
        accepted
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Publish {
    login: Login,
    urls: Urls,
    attempt: usize,
    device: Option<Device>,
    accepted: Arc<Mutex<Vec<Published>>>,
    has_enough: Arc<AtomicBool>,
}

impl Publish {
    async fn run(mut self, count: usize, pace: Duration, fields: Value) {
        let run = unique("key");
        let mut ticks = tokio::time::interval(pace.max(Duration::from_millis(1)));
        for n in 0..count {
            ticks.tick().await;
            if self.has_enough.load(Ordering::SeqCst) {
                return;
            }
            let mut notify = op("notify", fields.clone());
            notify["key"] = format!("{run}-{n}").into();
            let asked_at = Instant::now();
            let answer = loop {
                match self.ask(&notify).await {
                    Ok(answer) => break answer,
                    Err(wait) => tokio::time::sleep(wait).await,
                }
            };
            let published = Published { id: id_of(&answer, "id"), asked_at, accepted_at: Instant::now() };
            self.accepted.lock().expect("no panic holds it").push(published);
        }
    }

    /// One attempt: the acceptance, or how long to wait before the next.
    async fn ask(&mut self, notify: &Value) -> Result<Value, Duration> {
        const SOON: Duration = Duration::from_millis(50);
        let mut device = match self.device.take() {
            Some(device) => device,
            None => {
                let url = self.urls.pick(self.attempt);
                self.attempt += 1;
                self.login.try_on(&url).await.map_err(|_| SOON)?
            }
        };
        let answer = device.try_request(notify.clone()).await.map_err(|_| SOON)?;
        let mut newest = None;
        for event in device.take_held() {
            match event {
                Event::Op(op) if op["op"] == "message" || op["op"] == "status" => newest = Some(op["id"].clone()),
                // The answer counts all the same; the next attempt is on another connection.
                Event::Op(op) if op["op"] == "goaway" => return accepted(answer),
                Event::Closed(..) | Event::Lost(_) => return accepted(answer),
                _ => {}
            }
        }
        if let Some(id) = newest {
            // A connection that is gone shows at the next notify.
            let _ = device.try_send_op(json!({"op": "ack", "id": id})).await;
        }
        self.device = Some(device);
        accepted(answer)
    }
}

fn accepted(answer: Value) -> Result<Value, Duration> {
    if answer["op"] == "accepted" {
        return Ok(answer);
    }
    let may_retry = ["unavailable", "rate_limited", "backlog_full"].iter().any(|code| answer["code"] == *code);
    assert!(may_retry, "a notify was refused for good: {answer}");
    let wait_ms = answer["retry_after_ms"].as_u64().unwrap_or_else(|| panic!("no retry_after_ms in {answer}"));
    Err(Duration::from_millis(wait_ms))
}
