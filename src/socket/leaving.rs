//! A connection of a node that leaves: it hears of that at a moment of its own, and is closed at the end.

use std::time::Instant;

use crate::protocol::Close;
use crate::relay::{Drain, Stage};
use crate::session::Action;
use crate::socket::connection::Connection;

impl Connection {
    /// The node begins to leave, or is over with it.
    pub(super) fn on_stage(&mut self, stage: Stage) {
        if matches!(stage, Stage::Over) && self.session.identity().is_none() {
            // A login may wait in a queue for longer than there is time.
            self.answering = None;
        }
        self.leaves_at = match stage {
            Stage::Serving => None,
            Stage::Leaving(plan) => Some(plan.moment_of(self.number)),
            Stage::Over => Some(Instant::now()),
        };
    }

    /// When the device is to hear that the node leaves. A call that is under way is answered first: the
    /// answer may be a welcome, or the word that a message is stored.
    pub(super) fn leaves_at(&self) -> Option<Instant> {
        self.leaves_at.filter(|_| self.answering.is_none())
    }

    /// Tells the device that the node leaves, if its moment has come.
    pub(super) fn leave_if_due(&mut self, now: Instant) {
        if self.leaves_at().is_none_or(|at| now < at) {
            return;
        }
        self.leaves_at = None;
        match self.relay.drain.now() {
            Stage::Serving => {}
            Stage::Leaving(plan) => {
                self.session.on_goaway(plan.until.saturating_duration_since(now), &mut self.actions);
                match self.actions.last() {
                    Some(Action::Close(_)) => self.relay.drain.closed(),
                    _ => self.relay.drain.told(),
                }
            }
            Stage::Over => {
                self.relay.drain.closed();
                self.close = Some(self.restart());
            }
        }
    }

    /// Has the device come back after a while of its own.
    pub(super) fn restart(&self) -> Close {
        Close::restart(Drain::comeback(self.number))
    }
}
