//! What is due and when: the login, the token's end, proofs, heartbeats.

use std::time::Instant;

use crate::protocol::{AckMode, Close, CloseCode};
use crate::session::{Action, Phase, Session};

impl Session {
    /// The store is asked about a login.
    pub(super) fn login_asked(&mut self, now: Instant) {
        if let Phase::Anonymous { asked_at, .. } = &mut self.phase {
            asked_at.get_or_insert(now);
        }
    }

    /// It said no: the time to log in runs on.
    pub(super) fn login_refused(&mut self, now: Instant) {
        if let Phase::Anonymous { until, asked_at } = &mut self.phase
            && let Some(asked_at) = asked_at.take()
        {
            *until = until.map(|until| until + now.saturating_duration_since(asked_at));
        }
    }

    /// When [`Session::on_tick`] is next needed.
    pub fn deadline(&self) -> Instant {
        let silence = self.last_heard + 2 * self.settings.heartbeat;
        let other = match &self.phase {
            Phase::Anonymous { until, asked_at: None } => *until,
            Phase::Anonymous { asked_at: Some(_), .. } => None,
            Phase::LoggedIn(login) => {
                let acknowledged_by = login.window.deadline(self.settings.ack_timeout);
                [acknowledged_by, login.expires_at].into_iter().flatten().min()
            }
        };
        let soonest = silence.min(self.next_ping);
        other.map_or(soonest, |other| other.min(soonest))
    }

    /// Time has passed.
    pub fn on_tick(&mut self, now: Instant, out: &mut Vec<Action>) {
        match &self.phase {
            Phase::Anonymous { until: Some(until), asked_at: None } if now >= *until => {
                out.push(Action::Close(Close::new(CloseCode::Unauthorized, "no login in time")));
                return;
            }
            Phase::LoggedIn(login) if login.expires_at.is_some_and(|at| now >= at) => {
                out.push(Action::Close(Close::new(
                    CloseCode::Unauthorized,
                    "the token or the certificate has expired",
                )));
                return;
            }
            Phase::LoggedIn(login) if login.window.deadline(self.settings.ack_timeout).is_some_and(|at| now >= at) => {
                out.push(Action::Close(Close::new(CloseCode::TooSlow, "too slow to acknowledge")));
                return;
            }
            _ => {}
        }
        if now >= self.last_heard + 2 * self.settings.heartbeat {
            out.push(Action::Close(Close::new(CloseCode::Silent, "silent for two heartbeats")));
            return;
        }
        if now >= self.next_ping {
            self.next_ping = now + self.settings.heartbeat;
            // A client may answer the newest Ping only, so a heartbeat must not hide a request for a
            // proof.
            let unproven =
                self.logged_in().filter(|login| login.ack == AckMode::Pong).and_then(|login| login.window.newest());
            out.push(Action::Ping(unproven.map(|id| id.to_string().into_bytes()).unwrap_or_default()));
        }
    }
}
