//! A shop of the proof, and a device's place in it.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::client::Dial;
use crate::ids::MessageId;
use crate::prove::crew::Crew;
use crate::prove::journal::Journal;
use crate::prove::payload::{Facts, Mark, Payload};
use crate::prove::plan::{Draft, Manner};
use crate::prove::trail::Trail;

/// How far the run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Devices log in.
    Gathering,
    /// Messages flow, and devices follow their habits.
    Traffic,
    /// No new messages; every device is there and takes what is still to come.
    Settling,
    Over,
}

/// What a device is told to do.
#[derive(Debug)]
pub enum Order {
    Send(Draft),
    /// Have the relay list the newest messages, for the journal.
    List,
}

/// A shop with its journal, which its devices share.
pub struct Shop {
    pub run: u64,
    pub number: u32,
    pub name: String,
    pub crew: Crew,
    pub journal: Mutex<Journal>,
    pub online: AtomicUsize,
    /// Why a device last could not be there.
    pub trouble: Mutex<Option<Trouble>>,
}

/// See [`Shop::trouble`].
#[derive(Debug, Clone)]
pub struct Trouble {
    pub why: String,
    /// It would be the same another time.
    pub is_final: bool,
}

impl Shop {
    /// Notes why a device cannot be there.
    pub fn trouble(&self, why: String, is_final: bool) {
        *self.trouble.lock() = Some(Trouble { why, is_final });
    }
}

/// A device's place.
pub struct Seat {
    pub shop: Arc<Shop>,
    pub device: u8,
    pub manner: Manner,
    pub dials: Arc<[Dial]>,
    pub login: Value,
    /// How often a habit shows, roughly.
    pub period: Duration,
    pub phase: watch::Receiver<Phase>,
    pub trail: Option<Trail>,
}

impl Seat {
    pub fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Waits for the run's end. Cancel-safe.
    pub async fn is_over(&self) {
        // Whoever would tell is gone only at the end.
        let _ = self.phase.clone().wait_for(|phase| *phase == Phase::Over).await;
    }

    pub fn is_in_group(&self) -> bool {
        self.shop.crew.group() & crate::prove::crew::bit(self.device) != 0
    }

    /// Writes down what happened, where that is asked for.
    pub async fn tell(&self, event: &'static str, facts: impl FnOnce() -> Value) {
        if let Some(trail) = &self.trail {
            let (shop, device) = (&self.shop.name, self.shop.crew.name(self.device));
            trail
                .write(json!({
                    "at": crate::ids::unix_ms(), "shop": shop, "device": device, "event": event, "facts": facts(),
                }))
                .await;
        }
    }

    /// The op that sends a message, or a signal where it has no number.
    pub fn notify(&self, draft: &Draft, number: Option<u64>) -> Value {
        let (run, shop) = (self.shop.run, self.shop.number);
        let facts = Facts { run, shop, from: self.device, due: draft.due, deal: draft.deal };
        let mut op = json!({
            "op": "notify", "type": "prove", "to": draft.to, "durable": !draft.is_signal,
            "data": Payload::new(number.unwrap_or(0), facts),
        });
        if let (Some(number), Some(fields)) = (number, op.as_object_mut()) {
            fields.insert("ref".into(), format!("n{number}").into());
            fields.insert("key".into(), self.key(number).into());
            fields.insert("receipt".into(), number.is_multiple_of(3).into());
            fields.insert("table".into(), (number % 20).to_string().into());
        }
        if let (false, Some(fields)) = (draft.except.is_empty(), op.as_object_mut()) {
            fields.insert("except".into(), draft.except.clone().into());
        }
        op
    }

    /// The idempotency key of a message.
    pub fn key(&self, number: u64) -> String {
        format!("prove-{:x}-{}-{number}", self.shop.run, self.shop.number)
    }

    /// The op that deals with a message of this sender.
    pub fn deal(&self, message: MessageId, from: u8) -> Value {
        json!({"op": "deal", "id": message, "status": self.mark(from).to_string(), "ref": message.to_string()})
    }

    /// The status that this device sets.
    pub fn mark(&self, from: u8) -> Mark {
        Mark { run: self.shop.run, by: self.device, from }
    }
}
