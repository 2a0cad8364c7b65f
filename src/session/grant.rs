//! What a login may do, as whoever let it in says.

use std::collections::BTreeSet;

use crate::ids::Name;

/// Ops that no grant can withhold.
const ALWAYS: [&str; 4] = ["login", "ack", "ping", "logout"];

/// Ops by their names on the wire. A name that is no op allows nothing and is no fault, so that one may
/// name the ops of a later version.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OpSet(BTreeSet<Box<str>>);

impl<'a> FromIterator<&'a str> for OpSet {
    fn from_iter<I: IntoIterator<Item = &'a str>>(ops: I) -> OpSet {
        OpSet(ops.into_iter().map(Box::from).collect())
    }
}

/// What a login is given beyond its identity. The default is everything, for ever.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Grant {
    /// The groups it is in, and no others, which it cannot change; None leaves them as they are.
    pub groups: Option<Vec<Name>>,
    /// The user it belongs to, which it cannot change; None leaves it as it is.
    pub user: Option<Name>,
    /// The ops it may send, see [`Grant::allows`]; None for all.
    pub ops: Option<OpSet>,
    /// When the connection is to end, in seconds since 1970; None for never.
    pub expires_at_s: Option<u64>,
}

impl Grant {
    /// Whether the device may send this op.
    pub fn allows(&self, op: &str) -> bool {
        ALWAYS.contains(&op) || self.ops.as_ref().is_none_or(|ops| ops.0.contains(op))
    }

    /// Why the device may not send this op; None where it may.
    pub fn refusal(&self, op: &str) -> Option<&'static str> {
        match op {
            "join" | "leave" if self.groups.is_some() => Some("the token fixes the device's groups"),
            "bind" | "unbind" if self.user.is_some() => Some("the token fixes the device's user"),
            _ if !self.allows(op) => Some("the token does not allow this op"),
            _ => None,
        }
    }
}
