//! The order of what comes on one connection.
//!
//! Pure. Owns the two promises that hold for a connection by itself: ids go up, and each comes once.

use std::collections::{HashSet, VecDeque};

use crate::ids::MessageId;

/// Ids that a repeat is told from a disorder by; of an older one it is not known any more which it is.
const RECENT_MAX: usize = 512;

/// What an entry's id says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Came {
    InOrder,
    /// It came on this connection before.
    Repeated,
    /// It stands before what came already, or before the cursor that the welcome named.
    Disordered,
}

/// One connection.
#[derive(Debug)]
pub struct Line {
    newest: MessageId,
    recent: HashSet<MessageId>,
    order: VecDeque<MessageId>,
}

impl Line {
    /// A connection that begins after this cursor.
    pub fn new(cursor: MessageId) -> Line {
        Line { newest: cursor, recent: HashSet::new(), order: VecDeque::new() }
    }

    /// An entry came.
    pub fn take(&mut self, id: MessageId) -> Came {
        if !self.recent.insert(id) {
            return Came::Repeated;
        }
        self.order.push_back(id);
        if self.order.len() > RECENT_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.recent.remove(&oldest);
        }
        if id <= self.newest {
            return Came::Disordered;
        }
        self.newest = id;
        Came::InOrder
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repeat_and_a_disorder_are_told_apart() {
        let id = |ms| MessageId { ms, n: 0 };
        let mut line = Line::new(id(10));
        let came: Vec<Came> = [11, 13, 13, 12, 12, 9, 14].map(|ms| line.take(id(ms))).into();
        use Came::{Disordered, InOrder, Repeated};
        assert_eq!(came, [InOrder, InOrder, Repeated, Disordered, Repeated, Disordered, InOrder]);
    }

    #[test]
    fn a_long_connection_is_remembered_in_bounded_memory() {
        let mut line = Line::new(MessageId::ZERO);
        for ms in 1..=2 * RECENT_MAX as u64 {
            assert_eq!(line.take(MessageId { ms, n: 0 }), Came::InOrder);
        }
        assert_eq!(line.recent.len(), RECENT_MAX);
        assert_eq!(line.order.len(), RECENT_MAX);
    }
}
