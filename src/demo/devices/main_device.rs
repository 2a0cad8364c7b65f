//! A main device: a till, or the kitchen's screen.
//!
//! Owns what it has seen and what it still has to deal with. Acknowledges a message only after it has
//! told of it; deals, if it is a till, after a while, and takes it well when the other one was first.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::json;

use super::{End, Seat, obey};
use crate::client::{Heard, Link, LinkError, Pushed, StatusNews};
use crate::demo::report::{Content, Report, TILLS};
use crate::ids::MessageId;

/// The status a message starts with, and what a till sets.
const OPEN: &str = "open";
const DONE: &str = "done";
/// How long a till takes over an order.
const CARE: (Duration, Duration) = (Duration::from_millis(700), Duration::from_millis(2_400));
/// When the other till steps in, because the one whose turn it is does not come to it.
const STEP_IN: Duration = Duration::from_secs(4);
/// Of so many orders, both tills reach for one at the same moment.
const RACE_ONE_IN: u64 = 7;
/// How long an answer to a deal is waited for before it is asked again.
const ASK_AGAIN: Duration = Duration::from_secs(5);

/// A till or the kitchen's screen.
pub struct MainDevice {
    seat: Seat,
    index: usize,
    /// Newest entry that it has processed, on whichever connection.
    newest: MessageId,
    /// What it will deal with, and when. As long as the list of open orders.
    todo: BTreeMap<MessageId, Instant>,
}

/// What belongs to one connection.
struct Stay {
    since: Instant,
    newest: MessageId,
}

impl MainDevice {
    pub fn new(index: usize, seat: Seat) -> MainDevice {
        MainDevice { seat, index, newest: MessageId::ZERO, todo: BTreeMap::new() }
    }

    /// Lives until it is told to stop.
    pub async fn run(mut self) {
        while let Some(link) = self.seat.connect().await {
            let end = self.stay(link).await;
            if !self.seat.after(end).await {
                return;
            }
        }
    }

    async fn stay(&mut self, mut link: Link) -> End {
        let mut stay = Stay { since: Instant::now(), newest: MessageId::ZERO };
        loop {
            let due = self.todo.iter().min_by_key(|(_, due)| **due).map(|(id, due)| (*id, *due));
            let wake = due.map_or_else(|| Instant::now() + ASK_AGAIN, |(_, due)| due);
            let went = tokio::select! {
                heard = link.next() => match heard {
                    Ok(Heard::Goaway { reconnect_in_ms }) => return End::Leaving(Duration::from_millis(reconnect_in_ms)),
                    Ok(heard) => self.on(heard, &mut stay, &mut link).await,
                    Err(error) => return End::Lost(error),
                },
                () = tokio::time::sleep_until(wake.into()) => self.deal(due, &mut link).await,
                changed = self.seat.wishes.changed() => {
                    let wish = *self.seat.wishes.borrow_and_update();
                    match obey(if changed.is_ok() { wish } else { super::Wish::Stop }, link).await {
                        Ok(kept) => link = kept,
                        Err(end) => return end,
                    }
                    Ok(())
                }
            };
            if let Err(error) = went {
                return End::Lost(error);
            }
        }
    }

    async fn on(&mut self, heard: Heard, stay: &mut Stay, link: &mut Link) -> Result<(), LinkError> {
        let at = Instant::now();
        match heard {
            Heard::Message(pushed) => {
                let id = pushed.id;
                if self.is_new(id, stay).await {
                    self.take(pushed, stay.since, at).await;
                }
                self.ack(id, link).await?;
            }
            Heard::Status(StatusNews { id, message, status, by }) => {
                if self.is_new(id, stay).await {
                    self.todo.remove(&message);
                    self.seat.tell(Report::Dealt { id: message, by: by.device, status, at }).await;
                }
                self.ack(id, link).await?;
            }
            Heard::Dealt { id, status } => {
                self.todo.remove(&id);
                let by = self.seat.who.name().to_owned();
                self.seat.tell(Report::Dealt { id, by, status, at }).await;
            }
            Heard::Error(refusal) => {
                // A deal's `ref` is the message's id.
                let asked = refusal.reference.and_then(|reference| reference.parse().ok());
                match (refusal.code.as_str(), asked) {
                    ("conflict", Some(id)) => {
                        self.todo.remove(&id);
                        let by = refusal.by.map_or_else(|| "nobody".into(), |by| by.device);
                        self.seat.tell(Report::Conflict { id, main: self.index, by: by.clone(), at }).await;
                        let status = refusal.status.unwrap_or_default();
                        self.seat.tell(Report::Dealt { id, by, status, at }).await;
                    }
                    // The log has let go of it, or never held it: there is nothing to deal with.
                    ("not_found", Some(id)) => drop(self.todo.remove(&id)),
                    // Anything else is asked again by and by.
                    (code, _) => {
                        let (who, code) = (self.seat.who, code.to_owned());
                        self.seat.tell(Report::Refused { who, code, message: refusal.message, at }).await;
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Whether it sees the entry for the first time. Again on another connection is what the protocol
    /// allows, since an ack can be lost; again on this one is not.
    async fn is_new(&mut self, id: MessageId, stay: &mut Stay) -> bool {
        if id <= stay.newest {
            self.seat.tell(Report::Twice { main: self.index, id, at: Instant::now() }).await;
        } else if id <= self.newest {
            self.seat.tell(Report::Again).await;
        }
        let is_new = id > self.newest;
        stay.newest = stay.newest.max(id);
        self.newest = self.newest.max(id);
        is_new
    }

    async fn take(&mut self, pushed: Pushed, since: Instant, at: Instant) {
        let content =
            Content { text: pushed.text(), from: pushed.from.device, table: pushed.table.unwrap_or_default() };
        if self.index < TILLS && pushed.status == OPEN {
            let care = self.care(pushed.id);
            self.todo.insert(pushed.id, at + care);
        }
        self.seat.tell(Report::Delivered { id: pushed.id, main: self.index, content, since, at }).await;
    }

    /// How long it will be before this till deals with the message. The tills divide the work by the
    /// ids, which both see alike.
    fn care(&mut self, id: MessageId) -> Duration {
        let lot = id.ms.wrapping_add(id.n);
        if lot.is_multiple_of(RACE_ONE_IN) {
            return CARE.0 * 2;
        }
        let care = self.seat.dice.between(CARE.0, CARE.1);
        let is_mine = lot % TILLS as u64 == self.index as u64;
        if is_mine { care } else { care + STEP_IN }
    }

    async fn ack(&self, id: MessageId, link: &mut Link) -> Result<(), LinkError> {
        link.send(&json!({"op": "ack", "id": id})).await
    }

    /// Deals with a message whose time has come. It stays on the list until the answer is there; the
    /// same deal twice is harmless.
    async fn deal(&mut self, due: Option<(MessageId, Instant)>, link: &mut Link) -> Result<(), LinkError> {
        let Some((id, _)) = due else { return Ok(()) };
        self.todo.insert(id, Instant::now() + ASK_AGAIN);
        link.send(&json!({"op": "deal", "id": id, "status": DONE, "ref": id.to_string()})).await
    }
}
