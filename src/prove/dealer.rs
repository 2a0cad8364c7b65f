//! What a main has to deal with, until the relay has said who did.
//!
//! Pure. A deal whose answer is missing is asked again, which is harmless.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::ids::MessageId;

/// Deals at once; a main that has more to do leaves it to the others.
const TODO_MAX: usize = 64;
/// How long an answer is waited for before the deal is asked again.
const ASK_AGAIN: Duration = Duration::from_secs(5);

/// See the module.
#[derive(Debug, Default)]
pub struct Dealer {
    todo: BTreeMap<MessageId, Todo>,
}

#[derive(Debug)]
struct Todo {
    from: u8,
    ask_at: Instant,
}

impl Dealer {
    /// Takes on a message of this sender; whether there was room, and it was not taken on before.
    pub fn add(&mut self, message: MessageId, from: u8, now: Instant) -> bool {
        if self.todo.len() >= TODO_MAX || self.todo.contains_key(&message) {
            return false;
        }
        self.todo.insert(message, Todo { from, ask_at: now });
        true
    }

    /// When [`Dealer::next`] has something.
    pub fn wake(&self) -> Option<Instant> {
        self.todo.values().map(|todo| todo.ask_at).min()
    }

    /// A message to be dealt with now, and its sender.
    pub fn next(&mut self, now: Instant) -> Option<(MessageId, u8)> {
        let (message, todo) = self.todo.iter_mut().find(|(_, todo)| todo.ask_at <= now)?;
        todo.ask_at = now + ASK_AGAIN;
        Some((*message, todo.from))
    }

    /// The relay wants to be asked later.
    pub fn postponed(&mut self, message: MessageId, until: Instant) {
        if let Some(todo) = self.todo.get_mut(&message) {
            todo.ask_at = until;
        }
    }

    /// It is known who dealt with it: its sender, where that was awaited.
    pub fn done(&mut self, message: MessageId) -> Option<u8> {
        self.todo.remove(&message).map(|todo| todo.from)
    }

    /// The connection is gone, and with it the answers.
    pub fn connection_lost(&mut self, now: Instant) {
        self.todo.values_mut().for_each(|todo| todo.ask_at = now);
    }
}
