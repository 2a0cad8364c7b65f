//! What a session says when its node leaves.

use std::time::Duration;

use crate::protocol::{Close, ServerOp};
use crate::session::{Action, Session};

/// How long a connection that cannot be told by `goaway` is asked to wait before it comes back: its moment
/// to be told is its own already.
const COMEBACK: Duration = Duration::from_millis(100);

impl Session {
    /// The node leaves, and this connection is to hear of it now; it is served for `stays` more. Who is
    /// logged in is told to log in elsewhere meanwhile. Who is not has nothing to lose by a close, and a
    /// legacy device knows no other word.
    pub fn on_goaway(&self, stays: Duration, out: &mut Vec<Action>) {
        if self.logged_in().is_none() || self.is_legacy() {
            return out.push(Action::Close(Close::restart(COMEBACK)));
        }
        self.send(&ServerOp::Goaway { reconnect_in_ms: 0, deadline_ms: stays.as_millis() as u64 }, out);
    }
}
