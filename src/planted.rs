//! Faults that a test plants into the relay, to see that the proof catches them.
//!
//! Owns the list of faults, and when one strikes: every so many times that the code comes to it, as real
//! ones do. A build without debug assertions, such as `--release`, has none of them: there the question is
//! a constant. Each is one line where such a bug would be; the variable [`VARIABLE`] of a debug build
//! names those that are planted, parted by commas.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// The environment variable that names the faults.
pub const VARIABLE: &str = "SHOPRELAY_PLANTED_FAULT";

macro_rules! faults {
    ($($(#[$doc:meta])* $fault:ident $name:literal every $every:literal;)*) => {
        /// A fault of the relay.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Fault {
            $($(#[$doc])* $fault,)*
        }

        /// Every fault, what the variable calls it, and every how many times it strikes.
        const FAULTS: &[(Fault, &str, u32)] = &[$((Fault::$fault, $name, $every),)*];
    };
}

faults! {
    /// No fault but bad weather, for others to fail in: the feed loses an entry, as pub/sub may.
    LosePush "lose-push" every 9;
    /// An entry is taken from the feed although the room does not stand at the one before it.
    IgnorePrev "ignore-prev" every 1;
    /// A room that has fallen behind its log does not read it.
    DropRead "drop-read" every 2;
    /// A proof of receipt is not written down.
    SkipMark "skip-mark" every 4;
    /// An acknowledgement is taken for everything that was sent.
    ProveTooMuch "prove-too-much" every 3;
    /// What was written is taken for received.
    WrittenIsProven "written-is-proven" every 3;
    /// An entry is sent twice on a connection.
    DoublePush "double-push" every 20;
    /// Two entries change places in an outbox.
    ReorderOutbox "reorder-outbox" every 2;
    /// Two frames change places on their way out.
    SwapFrames "swap-frames" every 3;
    /// The last entry of the last page of a log is left out.
    SkipAtBoundary "skip-at-boundary" every 2;
    /// What comes to a full window is dropped, and not left to the log.
    DropWhenFull "drop-when-full" every 1;
    /// A connection that a newer one took over from goes on.
    LoseTakeover "lose-takeover" every 1;
    /// A message goes to those whom it excepts.
    IgnoreExcept "ignore-except" every 1;
    /// A connection gets the entries of another shop.
    WrongShop "wrong-shop" every 5;
    /// A message is accepted and not stored.
    AcceptUnstored "accept-unstored" every 25;
    /// A message is stored without its key, so that a retry is a second one.
    IgnoreKey "ignore-key" every 1;
    /// A change of status is not sent.
    DropStatus "drop-status" every 10;
    /// A second deal is told that it was the first.
    TwoWinners "two-winners" every 5;
    /// A room believes that it is subscribed, and is not.
    ForgetSubscribe "forget-subscribe" every 2;
}

/// Whether the fault strikes here and now.
#[inline]
pub fn strikes(fault: Fault) -> bool {
    cfg!(debug_assertions) && armed().iter().any(|armed| armed.fault == fault && armed.strikes())
}

struct Armed {
    fault: Fault,
    every: u32,
    passed: AtomicU32,
}

impl Armed {
    fn strikes(&self) -> bool {
        self.passed.fetch_add(1, Ordering::Relaxed) % self.every == self.every - 1
    }
}

/// What the variable names, read once.
fn armed() -> &'static [Armed] {
    static ARMED: OnceLock<Vec<Armed>> = OnceLock::new();
    ARMED.get_or_init(|| arm(&std::env::var(VARIABLE).unwrap_or_default()))
}

fn arm(names: &str) -> Vec<Armed> {
    let mut armed = Vec::new();
    for name in names.split(',').filter(|name| !name.is_empty()) {
        match FAULTS.iter().find(|(_, known, _)| *known == name) {
            Some((fault, _, every)) => {
                tracing::warn!(name, "a fault is planted on purpose; this node is for tests only");
                armed.push(Armed { fault: *fault, every: *every, passed: AtomicU32::new(0) });
            }
            None => tracing::error!(name, "no such fault can be planted; see the list in src/planted.rs"),
        }
    }
    armed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_strikes_every_so_many_times_and_only_where_it_is_named() {
        let [swap, push] = &arm("swap-frames,no-such-fault,double-push")[..] else { panic!() };
        assert_eq!((swap.fault, push.fault), (Fault::SwapFrames, Fault::DoublePush));
        let struck: Vec<bool> = (0..6).map(|_| swap.strikes()).collect();
        assert_eq!(struck, [false, false, true, false, false, true]);
        assert!(!strikes(Fault::SkipMark), "nothing is planted where nobody asked");
    }
}
