//! What was promised to the devices of one shop, and what came of it.
//!
//! Pure: told of what happens and when, never asks. Owns a record of each message and of each status
//! change: whom it is for, and who has proven to have it. One that everybody has is forgotten a while
//! later, so that the journal of a run that goes well is as long as what is under way, plus about 100 bytes
//! for each message of the last minute, however long the run.
//!
//! A device *has* a message once it has acknowledged it. What it was sent and did not acknowledge before
//! its connection was lost it has forgotten, as a device does that crashes, and it counts as lost unless
//! it comes again.

mod deals;
mod messages;
mod tally;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::client::Item;
use crate::ids::MessageId;
use crate::prove::crew::{Crew, Mask, bit};
use crate::prove::line::Came;
use crate::prove::payload::{Mark, Payload};
use deals::{Deals, Dealt};
use messages::{Messages, Stored};
pub use tally::Tally;

/// How long a record is kept after everybody has what it is of.
const KEPT: Duration = Duration::from_secs(60);
/// The newest accepted messages that the relay's own list is compared with, and its pages.
const LISTED_MAX: usize = 400;
/// What went wrong is described so many times; the rest is only counted.
const EXAMPLES_MAX: usize = 10;

/// What a device was sent, to be named again when it acknowledges it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Received {
    Message(u64),
    /// The message that was dealt with.
    Status(MessageId),
    /// Of no concern: a stranger's, or what should not have come.
    Other,
}

/// Which shop the journal is of.
#[derive(Debug, Clone)]
pub struct Of {
    pub run: u64,
    pub shop: u32,
    pub name: String,
    pub crew: Crew,
    /// The devices that are always there.
    pub steady: Mask,
}

/// See the module.
pub struct Journal {
    of: Of,
    messages: Messages,
    deals: Deals,
    tally: Tally,
    /// Ids of the newest messages, the oldest first.
    newest: VecDeque<MessageId>,
    heard_at: Vec<Option<Instant>>,
    measures_silence: bool,
    ready: Mask,
    listing: Option<u64>,
    /// Connections that a newer one took over from and that are still there.
    pub lingering: u64,
    /// Deals whose answer is awaited.
    pub dealing: u64,
}

impl Journal {
    pub fn new(of: Of) -> Journal {
        let devices = usize::from(of.crew.size());
        Journal {
            of,
            messages: Messages::default(),
            deals: Deals::default(),
            tally: Tally::default(),
            newest: VecDeque::new(),
            heard_at: vec![None; devices],
            measures_silence: false,
            ready: 0,
            listing: None,
            lingering: 0,
            dealing: 0,
        }
    }

    /// The figures so far.
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// The figures, to count in what needs no record.
    pub fn tally_mut(&mut self) -> &mut Tally {
        &mut self.tally
    }

    /// A device is logged in and has what it needs.
    pub fn ready(&mut self, device: u8) {
        self.ready |= bit(device);
    }

    /// How many devices have not been ready yet.
    pub fn unready(&self) -> u32 {
        (self.of.crew.all() & !self.ready).count_ones()
    }

    /// A message is about to be sent for the first time; the number that names it.
    pub fn publish(&mut self, due: Mask, now: Instant) -> u64 {
        self.messages.forget(now, KEPT);
        self.deals.forget(now, KEPT);
        self.messages.publish(due, now)
    }

    /// The relay has accepted it as `id`. `floor` is the newest id that its sender knew when it sent it
    /// first, which a later message must be above.
    pub fn accepted(&mut self, number: u64, id: MessageId, floor: MessageId, now: Instant) {
        match self.messages.accepted(number, id, now) {
            Stored::First => {
                self.tally.accepted += 1;
                self.newest.push_back(id);
                if self.newest.len() > LISTED_MAX {
                    self.newest.pop_front();
                }
                if id <= floor {
                    self.tally.disordered += 1;
                    self.note(format!(
                        "disordered: message {number} was accepted as {id}, after its sender had {floor}"
                    ));
                }
            }
            Stored::Again => {}
            Stored::Otherwise(before) => self.doubled(number, before, id),
        }
    }

    /// The relay refused it for good.
    pub fn refused(&mut self, number: u64, now: Instant) {
        self.messages.refused(number, now);
        self.tally.refused_for_good += 1;
    }

    fn doubled(&mut self, number: u64, before: MessageId, id: MessageId) {
        self.tally.doubled += 1;
        self.note(format!("doubled: message {number} stands in the log as {before} and as {id}"));
    }

    /// A device was sent an entry, which came on its connection like this.
    pub fn came(&mut self, device: u8, id: MessageId, came: Came, now: Instant) {
        self.hear(device, now);
        let what = match came {
            Came::InOrder => return,
            Came::Repeated => {
                self.tally.repeated += 1;
                "repeated"
            }
            Came::Disordered => {
                self.tally.disordered += 1;
                "disordered"
            }
        };
        self.note(format!("{what}: {id} came to {}", self.of.crew.name(device)));
    }

    fn hear(&mut self, device: u8, now: Instant) {
        let Some(heard_at) = self.heard_at.get_mut(usize::from(device)) else { return };
        let before = heard_at.replace(now);
        if self.measures_silence && self.of.steady & bit(device) != 0 {
            let silence = before.map_or(Duration::ZERO, |before| now.saturating_duration_since(before));
            self.tally.silence_max = self.tally.silence_max.max(silence);
        }
    }

    /// From now on, until it is called with `false`, the time between two entries is measured.
    pub fn measure_silence(&mut self, is_on: bool, now: Instant) {
        self.measures_silence = is_on;
        if is_on {
            self.heard_at.fill(Some(now));
        }
    }

    /// A device was sent a message: what to name when it acknowledges it, and the payload where it is one
    /// that it should have.
    pub fn message(&mut self, device: u8, id: MessageId, data: &Value) -> (Received, Option<Payload>) {
        let Some(payload) = self.judge(device, &id.to_string(), data) else { return (Received::Other, None) };
        match self.messages.seen(payload.number, device, id) {
            Some(Stored::Otherwise(before)) => self.doubled(payload.number, before, id),
            Some(Stored::Again) => self.tally.again += 1,
            Some(Stored::First) => {}
            // So long ago that everybody has it.
            None => self.tally.again += 1,
        }
        (Received::Message(payload.number), Some(payload))
    }

    /// A device was sent a signal.
    pub fn signal(&mut self, device: u8, data: &Value) {
        if self.judge(device, "a signal", data).is_some() {
            self.tally.signals += 1;
        }
    }

    /// The payload of a message of this run that is for this device.
    fn judge(&mut self, device: u8, what: &str, data: &Value) -> Option<Payload> {
        let payload = Payload::read(data).filter(|payload| payload.run == self.of.run);
        let Some(payload) = payload else {
            self.tally.strangers += 1;
            return None;
        };
        let why = if payload.shop != self.of.shop {
            "is another shop's"
        } else if payload.due & bit(device) == 0 {
            "is for other devices"
        } else if !payload.is_intact() {
            "is not what was sent"
        } else {
            return Some(payload);
        };
        self.wrong(device, what, why);
        None
    }

    fn wrong(&mut self, device: u8, what: &str, why: &str) {
        self.tally.wrong += 1;
        self.note(format!("wrong: {what} came to {} and {why}", self.of.crew.name(device)));
    }

    /// A device was told that a message was dealt with.
    pub fn status(&mut self, device: u8, message: MessageId, status: &str, by: &str) -> Received {
        let mark = Mark::read(status).filter(|mark| mark.run == self.of.run);
        let Some(mark) = mark else {
            self.tally.strangers += 1;
            return Received::Other;
        };
        if self.of.crew.name(mark.by) != by {
            self.split(
                message,
                &format!("its status is {}'s, and {by} is said to have set it", self.of.crew.name(mark.by)),
            );
        }
        self.deal(message, mark);
        if self.told_of(mark) & bit(device) == 0 {
            self.wrong(device, &format!("the status of {message}"), "is for others");
            return Received::Other;
        }
        if self.deals.has(message, device) {
            self.tally.again += 1;
        }
        Received::Status(message)
    }

    /// Whom a status is for: the mains and the message's sender, less the one who dealt with it.
    fn told_of(&self, mark: Mark) -> Mask {
        (self.of.crew.mains() | bit(mark.from)) & !bit(mark.by)
    }

    /// Somebody is known to have dealt with a message.
    pub fn deal(&mut self, message: MessageId, mark: Mark) {
        let due = self.told_of(mark);
        if let Dealt::Otherwise(first) = self.deals.dealt(message, mark.by, due) {
            let (first, second) = (self.of.crew.name(first), self.of.crew.name(mark.by));
            self.split(message, &format!("{first} and {second} both dealt with it"));
        }
    }

    fn split(&mut self, message: MessageId, why: &str) {
        self.tally.split += 1;
        self.note(format!("split: of message {message}, {why}"));
    }

    /// A device has acknowledged what it was sent.
    pub fn proven(&mut self, device: u8, received: Received, now: Instant) {
        match received {
            Received::Message(number) => {
                let Some(sent_at) = self.messages.proven(number, device, now) else { return };
                self.tally.delivered += 1;
                if self.of.steady & bit(device) != 0 {
                    self.tally.latency.record(now.saturating_duration_since(sent_at));
                }
            }
            Received::Status(message) => self.tally.told += u64::from(self.deals.proven(message, device, now)),
            Received::Other => {}
        }
    }

    /// An old connection was served long after a newer one took over.
    pub fn ghost(&mut self, device: u8) {
        self.tally.ghosts += 1;
        self.note(format!("ghost: {} kept its older connection, beside a newer one", self.of.crew.name(device)));
    }

    /// After which id the relay's list is to be compared.
    pub fn list_after(&self) -> MessageId {
        self.newest.front().map_or(MessageId::ZERO, |oldest| oldest.before())
    }

    /// A list begins; [`Journal::listed`] and [`Journal::list_ended`] follow.
    pub fn list_begins(&mut self) {
        self.listing = Some(0);
    }

    /// A page of the relay's list: each message of this run has to be delivered to whom it is for.
    pub fn listed(&mut self, items: &[Item]) {
        let mut unproven = 0;
        for item in items {
            let payload = Payload::read(&item.data).filter(|payload| payload.run == self.of.run);
            let Some(payload) = payload else { continue };
            let lacks = |device: &u8| item.delivered.get(&self.of.crew.name(*device)) != Some(&true);
            unproven += self.of.crew.members(payload.due).filter(lacks).count() as u64;
            if let Some(by) = &item.dealt_by
                && let Some(first) = self.deals.winner(item.id).map(|first| self.of.crew.name(first))
                && first != by.device
            {
                self.split(item.id, &format!("{first} dealt with it, and the list says {}", by.device));
            }
        }
        if let Some(listing) = &mut self.listing {
            *listing += unproven;
        }
    }

    /// The list is through.
    pub fn list_ended(&mut self) {
        if let Some(unproven) = self.listing.take() {
            self.tally.unproven = Some(unproven);
        }
    }

    /// Forgets what lists said: one that counts is made from now on.
    pub fn list_anew(&mut self) {
        self.tally.unproven = None;
        self.listing = None;
    }

    /// Messages of which nobody knows yet whether they are stored.
    pub fn unanswered(&self) -> u64 {
        self.messages.unanswered()
    }

    /// Messages and status changes that a device lacks, once for each device.
    pub fn lacking(&self) -> u64 {
        self.messages.lacking() + self.deals.lacking()
    }

    /// Whether nothing is awaited any more.
    pub fn is_settled(&self) -> bool {
        self.lacking() == 0 && self.unanswered() == 0 && self.dealing == 0 && self.lingering == 0
    }

    /// Whether no list is under way.
    pub fn is_listed(&self) -> bool {
        self.listing.is_none()
    }

    /// Describes what is lacking, so far as there is room for examples.
    pub fn note_lacking(&mut self) {
        let crew = self.of.crew;
        let messages = self.messages.lacks().map(|(number, id, lacking)| {
            format!("lost: message {number} ({id}) never came to {}", crew.names(lacking).join(", "))
        });
        let statuses = self.deals.lacks().map(|(id, lacking)| {
            format!("lost: that message {id} was dealt with never came to {}", crew.names(lacking).join(", "))
        });
        let notes: Vec<String> = messages.chain(statuses).take(EXAMPLES_MAX).collect();
        notes.into_iter().for_each(|note| self.note(note));
    }

    fn note(&mut self, what: String) {
        if self.tally.examples.len() < EXAMPLES_MAX {
            self.tally.examples.push(format!("{}: {what}", self.of.name));
        }
    }
}

#[cfg(test)]
mod tests;
