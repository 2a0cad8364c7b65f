//! What a login may do, as whoever let it in says.

use crate::ids::Name;

/// Ops that no grant can withhold.
const ALWAYS: [&str; 4] = ["login", "ack", "ping", "logout"];

/// What a device's login may do. The default is everything, for ever.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Grant {
    /// The device is in these groups and no others, and cannot change that itself.
    pub groups: Option<Vec<Name>>,
    /// The device belongs to this user, and cannot change that itself.
    pub user: Option<Name>,
    /// The ops it may send beside those that everyone may; None for all.
    pub ops: Option<Vec<Box<str>>>,
    /// When it ends, in seconds since 1970.
    pub expires_at_s: Option<u64>,
}

impl Grant {
    /// Whether an op of this name may be sent.
    pub fn allows(&self, op: &str) -> bool {
        ALWAYS.contains(&op) || self.ops.as_ref().is_none_or(|ops| ops.iter().any(|allowed| **allowed == *op))
    }

    /// Why an op of this name is refused; None where it is not.
    pub fn refusal(&self, op: &str) -> Option<&'static str> {
        match op {
            "join" | "leave" if self.groups.is_some() => Some("the token fixes the device's groups"),
            "bind" | "unbind" if self.user.is_some() => Some("the token fixes the device's user"),
            _ if !self.allows(op) => Some("the token does not allow this op"),
            _ => None,
        }
    }
}
