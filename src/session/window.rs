//! What was sent on a connection and is not proven received yet, and how far the session has come.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::ids::{DeviceId, MessageId};
use crate::planted::{self, Fault};

/// How many acknowledged ids are remembered, so that a rewound log is not sent twice.
const REMEMBERED_MAX: usize = 32;

/// Expired messages that may wait behind outstanding ones.
const EXPIRED_MAX: usize = 1000;

/// The entries that a connection has not proven yet.
#[derive(Debug)]
pub struct Window {
    /// Most entries that may be outstanding.
    size: usize,
    items: VecDeque<Item>,
    /// How many of the items were sent; the others expired.
    sent: usize,
    /// Everything up to here was sent, or was not for this device.
    position: MessageId,
    /// The last acknowledged ids.
    acknowledged: VecDeque<MessageId>,
}

#[derive(Debug)]
struct Item {
    id: MessageId,
    sent_at: Option<Instant>,
    kind: ItemKind,
}

/// What an entry of the window is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ItemKind {
    /// A message; the device that wants a receipt, if one does.
    Message { receipt_to: Option<DeviceId> },
    /// A status change, which is not counted as a delivery.
    Status,
    /// A message that came too late to be sent.
    Expired,
}

/// What an acknowledgement proves.
#[derive(Debug, PartialEq, Eq)]
pub struct Proven {
    /// The cursor may go here.
    pub through: MessageId,
    /// Messages the device has, with whom to tell.
    pub delivered: Vec<(MessageId, Option<DeviceId>)>,
    /// Messages that it was to get and that expired.
    pub expired: Vec<MessageId>,
    /// How many entries are not outstanding any more.
    pub freed: usize,
}

impl Window {
    /// An empty window of a session that stands at `cursor`.
    pub fn new(size: usize, cursor: MessageId) -> Window {
        Window { size, items: VecDeque::new(), sent: 0, position: cursor, acknowledged: VecDeque::new() }
    }

    /// How far the session has come.
    pub fn position(&self) -> MessageId {
        self.position
    }

    /// How many more entries may be sent. What expired behind an outstanding entry is bounded too.
    pub fn room(&self) -> usize {
        if self.items.len() >= self.size + EXPIRED_MAX { 0 } else { self.size.saturating_sub(self.sent) }
    }

    /// How many entries were sent and are not proven.
    pub fn outstanding(&self) -> usize {
        self.sent
    }

    /// The newest entry that is outstanding.
    pub fn newest(&self) -> Option<MessageId> {
        self.items.iter().rev().find(|item| item.sent_at.is_some()).map(|item| item.id)
    }

    /// Whether this id went out on the connection, as far as is remembered.
    pub fn was_sent(&self, id: MessageId) -> bool {
        self.items.iter().any(|item| item.id == id) || self.acknowledged.contains(&id)
    }

    /// Goes past an entry that is not for this device.
    pub fn skip(&mut self, id: MessageId) {
        self.position = self.position.max(id);
    }

    /// Notes an entry as sent; the caller saw that there is room.
    pub fn push_sent(&mut self, id: MessageId, kind: ItemKind, now: Instant) {
        self.skip(id);
        self.sent += 1;
        self.items.push_back(Item { id, sent_at: Some(now), kind });
    }

    /// Notes a message that was for this device and came too late. Where nothing is outstanding
    /// before it, the cursor may pass it at once.
    pub fn push_expired(&mut self, id: MessageId) -> Option<Proven> {
        self.skip(id);
        self.items.push_back(Item { id, sent_at: None, kind: ItemKind::Expired });
        (self.sent == 0).then(|| self.take_through(id))
    }

    /// Takes the proof that everything sent up to and including `id` was received. An id that was
    /// never sent proves what was sent below it.
    pub fn acknowledge(&mut self, id: MessageId) -> Option<Proven> {
        self.items.front().filter(|item| item.id <= id)?;
        let id = if planted::strikes(Fault::ProveTooMuch) { MessageId::MAX } else { id };
        Some(self.take_through(id))
    }

    fn take_through(&mut self, id: MessageId) -> Proven {
        let mut proven = Proven { through: MessageId::ZERO, delivered: Vec::new(), expired: Vec::new(), freed: 0 };
        // What expired right behind the acknowledged entries waits for nothing more.
        while let Some(item) = self.items.pop_front_if(|item| item.id <= id || item.sent_at.is_none()) {
            proven.through = item.id;
            match item.kind {
                ItemKind::Message { receipt_to } => proven.delivered.push((item.id, receipt_to)),
                ItemKind::Status => {}
                ItemKind::Expired => proven.expired.push(item.id),
            }
            if item.sent_at.is_some() {
                proven.freed += 1;
                if self.acknowledged.len() == REMEMBERED_MAX {
                    self.acknowledged.pop_front();
                }
                self.acknowledged.push_back(item.id);
            }
        }
        self.sent -= proven.freed;
        if self.items.is_empty() {
            // An idle connection holds no memory for messages it once had.
            self.items = VecDeque::new();
        }
        proven
    }

    /// When the oldest outstanding entry has waited too long.
    pub fn deadline(&self, ack_timeout: Duration) -> Option<Instant> {
        let oldest = self.items.iter().find_map(|item| item.sent_at)?;
        Some(oldest + ack_timeout)
    }

    /// Goes back to a cursor, because the log was rewound. Says whether everything sent above the
    /// cursor is still remembered, so that nothing is sent twice.
    pub fn rewind(&mut self, cursor: MessageId) -> bool {
        let remembers = self.acknowledged.len() < REMEMBERED_MAX
            || self.acknowledged.front().is_some_and(|oldest| *oldest <= cursor);
        self.position = cursor;
        remembers
    }

    /// Where the cursor may go when the connection ends: past everything that was not for this
    /// device, unless something is outstanding.
    pub fn settled(&self) -> Option<MessageId> {
        self.items.is_empty().then_some(self.position)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(ms: u64) -> MessageId {
        MessageId { ms, n: 0 }
    }

    fn message() -> ItemKind {
        ItemKind::Message { receipt_to: None }
    }

    #[test]
    fn an_acknowledgement_proves_everything_up_to_it() {
        let now = Instant::now();
        let mut window = Window::new(4, id(10));
        for ms in [11, 12, 14] {
            window.push_sent(id(ms), message(), now);
        }
        assert_eq!(window.room(), 1);
        let proven = window.acknowledge(id(13)).unwrap();
        assert_eq!(proven.through, id(12), "an id that was never sent proves only what is below it");
        assert_eq!(proven.delivered, [(id(11), None), (id(12), None)]);
        assert_eq!(window.acknowledge(id(12)), None, "a second one proves nothing more");
        assert_eq!(window.room(), 3);
    }

    #[test]
    fn what_expired_is_passed_in_order() {
        let now = Instant::now();
        let mut window = Window::new(4, id(0));
        let proven = window.push_expired(id(1)).unwrap();
        assert_eq!((proven.through, proven.expired), (id(1), vec![id(1)]));
        window.push_sent(id(2), message(), now);
        assert_eq!(window.push_expired(id(3)), None, "it waits for the one before it");
        let proven = window.acknowledge(id(2)).unwrap();
        assert_eq!((proven.through, proven.expired, proven.freed), (id(3), vec![id(3)], 1));
        assert_eq!(window.settled(), Some(id(3)));
    }

    #[test]
    fn the_oldest_outstanding_entry_sets_the_deadline() {
        let now = Instant::now();
        let second = Duration::from_secs(1);
        let mut window = Window::new(4, id(0));
        assert_eq!(window.deadline(second), None);
        window.push_sent(id(1), message(), now);
        window.push_sent(id(2), message(), now + second);
        assert_eq!(window.deadline(second), Some(now + second));
        window.acknowledge(id(1));
        assert_eq!(window.deadline(second), Some(now + 2 * second));
    }

    #[test]
    fn a_rewind_knows_what_was_sent_or_says_that_it_does_not() {
        let now = Instant::now();
        let mut window = Window::new(100, id(0));
        for ms in 1..=33 {
            window.push_sent(id(ms), message(), now);
        }
        window.acknowledge(id(32));
        assert!(window.was_sent(id(32)) && window.was_sent(id(33)) && !window.was_sent(id(34)));
        assert!(window.rewind(id(1)));
        window.acknowledge(id(33));
        assert!(!window.rewind(id(1)), "id 1 is forgotten");
        assert!(window.rewind(id(2)));
    }
}
