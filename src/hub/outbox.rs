//! What waits to be sent on one connection: bounded, and empty of memory when empty.
//!
//! A full outbox loses no message: it ends being live, and the session reads on from the log. Only
//! signals and receipts are dropped there, and counted.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};

use futures_util::task::AtomicWaker;
use parking_lot::Mutex;

use crate::hub::push::{Push, SignalPush};
use crate::ids::{DeviceId, MessageId};
use crate::message::Membership;
use crate::metrics;
use crate::planted::{self, Fault};
use crate::protocol::Close;

/// Pushes and signals that may wait for one connection.
const QUEUE_MAX: usize = 128;

/// The way from a room to one connection.
#[derive(Default)]
pub struct Outbox {
    state: Mutex<State>,
    /// Whether something was put in since the connection looked; it is the only one that waits.
    has_news: AtomicBool,
    waker: AtomicWaker,
    /// Bytes that the connection has taken out and not written yet.
    unwritten: AtomicUsize,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Parcel>,
    /// Whether entries are put in; otherwise the session reads the log.
    is_live: bool,
    fell_behind_at: Option<MessageId>,
    rewound: Option<Box<Rewound>>,
    close: Option<Close>,
}

/// Where a session stands after its log was rewound.
#[derive(Debug, Clone)]
pub struct Rewound {
    /// It has to read from here.
    pub cursor: MessageId,
    /// What the registry knows of the device, where the log ends at `head`.
    pub membership: Membership,
    pub head: MessageId,
}

/// Something for a connection.
pub enum Parcel {
    Entry(Arc<Push>),
    Signal(Arc<SignalPush>),
    /// A text for a legacy connection, as it is.
    Text(Arc<str>),
    /// A device has a message that this one sent.
    Receipt {
        message: MessageId,
        device: DeviceId,
        at_ms: u64,
    },
}

/// What was taken from an outbox, to be dealt with in this order.
#[derive(Default)]
pub struct Taken {
    pub parcels: VecDeque<Parcel>,
    /// The outbox was full: whatever was for the session up to here is among the parcels, the rest
    /// is in the log.
    pub fell_behind_at: Option<MessageId>,
    /// The log was rewound.
    pub rewound: Option<Box<Rewound>>,
    /// The connection is to be closed.
    pub close: Option<Close>,
}

impl Outbox {
    /// Puts in an entry that follows `prev`, where the session is live.
    pub(super) fn push(&self, push: &Arc<Push>, prev: MessageId) {
        let mut state = self.state.lock();
        if !state.is_live {
            return;
        }
        if state.queue.len() >= QUEUE_MAX {
            state.is_live = false;
            state.fell_behind_at = Some(prev);
        } else {
            state.queue.push_back(Parcel::Entry(push.clone()));
            if planted::strikes(Fault::ReorderOutbox) {
                state.queue.rotate_right(1);
            }
        }
        drop(state);
        self.wake();
    }

    /// Puts in what is not stored anywhere: dropped and counted where there is no room.
    pub(super) fn push_unstored(&self, parcel: Parcel) {
        let mut state = self.state.lock();
        if state.queue.len() >= QUEUE_MAX {
            metrics::signal_dropped();
            return;
        }
        state.queue.push_back(parcel);
        drop(state);
        self.wake();
    }

    /// Has the connection closed, once what is in here is dealt with.
    pub fn close(&self, close: Close) {
        let mut state = self.state.lock();
        state.close.get_or_insert(close);
        drop(state);
        self.wake();
    }

    /// Notes what the connection holds for a client that does not take it.
    pub fn note_unwritten(&self, bytes: usize) {
        self.unwritten.store(bytes, Ordering::Relaxed);
    }

    /// How much that is.
    pub fn unwritten(&self) -> usize {
        self.unwritten.load(Ordering::Relaxed)
    }

    pub(super) fn rewind(&self, rewound: Rewound) {
        let mut state = self.state.lock();
        state.queue.retain(|parcel| !matches!(parcel, Parcel::Entry(_)));
        state.is_live = false;
        state.fell_behind_at = None;
        state.rewound = Some(Box::new(rewound));
        drop(state);
        self.wake();
    }

    pub(super) fn set_live(&self) {
        self.state.lock().is_live = true;
    }

    /// From now on the session reads the log; entries that wait in here are dropped.
    pub fn fall_behind(&self) {
        let mut state = self.state.lock();
        state.is_live = false;
        state.queue.retain(|parcel| !matches!(parcel, Parcel::Entry(_)));
    }

    /// Whether entries are put in.
    #[cfg(test)]
    pub(super) fn is_live(&self) -> bool {
        self.state.lock().is_live
    }

    /// Takes out only what the connection is told to do, and leaves what is to be sent.
    pub fn take_orders(&self) -> Taken {
        let mut state = self.state.lock();
        Taken { rewound: state.rewound.take(), close: state.close.take(), ..Taken::default() }
    }

    /// Takes everything out.
    pub fn take(&self) -> Taken {
        let mut state = self.state.lock();
        Taken {
            parcels: std::mem::take(&mut state.queue),
            fell_behind_at: state.fell_behind_at.take(),
            rewound: state.rewound.take(),
            close: state.close.take(),
        }
    }

    /// Ready where something was put in since the last look; otherwise, and afterwards, that wakes. For the
    /// connection alone.
    pub fn poll_changed(&self, context: &mut Context<'_>) -> Poll<()> {
        // Before the look, and also where there is something: what is put in from now on wakes.
        self.waker.register(context.waker());
        if self.has_news.swap(false, Ordering::AcqRel) { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Has the connection look, as if something had been put in.
    pub fn wake(&self) {
        // Whoever put something in before has woken it, and it has not looked since.
        if !self.has_news.swap(true, Ordering::AcqRel) {
            self.waker.wake();
        }
    }
}
