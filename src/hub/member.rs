//! A session as its room knows it, and what happens to one before its room does.

use std::sync::Arc;
use std::time::Duration;

use crate::hub::outbox::Outbox;
use crate::ids::{ConnId, DeviceId, MessageId};
use crate::message::{Membership, MembershipChange, MembershipStep, Recipient, Role};
use crate::protocol::Close;

/// Closings remembered for logins that are under way.
const CLOSED_MAX: usize = 256;
/// Changes of membership remembered for them.
const CHANGED_MAX: usize = 1024;

/// A logged-in session, as its room knows it.
pub struct Member {
    pub conn: ConnId,
    pub device: DeviceId,
    pub role: Role,
    /// As of an entry of the log: changes up to it are in it.
    pub membership: Membership,
    pub member_as_of: MessageId,
    /// When it logged in, by the store's clock.
    pub since_ms: u64,
    pub outbox: Arc<Outbox>,
}

/// Who is here, and by which connection.
#[derive(Debug, Clone)]
pub struct Present {
    pub device: DeviceId,
    pub conn: ConnId,
    pub role: Role,
    /// By the store's clock, in milliseconds since 1970.
    pub since_ms: u64,
}

impl Member {
    pub(super) fn recipient(&self) -> Recipient<'_> {
        Recipient {
            device: &self.device,
            role: self.role,
            groups: &self.membership.groups,
            user: self.membership.user.as_ref(),
            conn: Some(&self.conn),
        }
    }

    /// Takes a step that stands in the log under `id`, unless the registry had it at the login.
    pub(super) fn take(&mut self, id: MessageId, step: &MembershipStep) {
        if id > self.member_as_of {
            self.membership.take(step);
        }
    }
}

/// What was told of connections whose logins were still under way: they have asked the store and not
/// joined their room yet.
#[derive(Default)]
pub(super) struct Latecomers {
    closed: Vec<(ConnId, Close)>,
    changed: Vec<(MessageId, MembershipChange)>,
}

impl Latecomers {
    /// A connection that may be one of them is to be closed.
    pub(super) fn note_close(&mut self, conn: &ConnId, close: Close) {
        if self.closed.len() < CLOSED_MAX {
            self.closed.push((conn.clone(), close));
        }
    }

    /// What devices are members of has changed; one of them may have read the registry before.
    pub(super) fn note_change(&mut self, id: MessageId, change: &MembershipChange) {
        if self.changed.len() < CHANGED_MAX {
            self.changed.push((id, change.clone()));
        }
    }

    /// One of them joins: it makes up for what it missed.
    pub(super) fn receive(&self, member: &mut Member) {
        if let Some((_, close)) = self.closed.iter().find(|(conn, _)| *conn == member.conn) {
            member.outbox.close(close.clone());
        }
        for (id, change) in &self.changed {
            if change.device.as_ref().is_none_or(|device| *device == member.device) {
                member.take(*id, &change.step);
            }
        }
        if self.changed.len() >= CHANGED_MAX {
            // Some were forgotten; the next login reads the registry anew.
            member.outbox.close(restart());
        }
    }

    /// No login is under way any more.
    pub(super) fn clear(&mut self) {
        *self = Latecomers::default();
    }
}

/// Has a device log in again at once.
pub(super) fn restart() -> Close {
    Close::restart(Duration::from_millis(100))
}
