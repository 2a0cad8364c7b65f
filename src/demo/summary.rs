//! What the demo amounts to: the figures, and whether they are as they must be.
//!
//! Pure. Filled in by the model, printed at the end and drawn while it runs.

use std::fmt;
use std::time::Duration;

use crate::demo::news::short;

/// The figures. `stored`, `delivered`, `dealt` and `missed` count messages of the demo's own handhelds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    pub ran: Duration,
    pub stored: u64,
    /// By main.
    pub delivered: Vec<(&'static str, u64)>,
    pub dealt: u64,
    /// Deals that came second.
    pub conflicts: u64,
    pub cut_offs: u64,
    /// Messages that waited for a main to come back, and were delivered then.
    pub caught_up: u64,
    /// Messages that a main has not got, by main.
    pub missed: usize,
    /// Entries that came twice on one connection.
    pub twice: u64,
    /// Messages that came again on a later connection, because the acknowledgement was lost with the first.
    pub again: u64,
    /// Receipts that came back to the senders.
    pub receipts: u64,
    pub refused: u64,
    /// Messages of which nobody knows whether they were stored.
    pub unanswered: u64,
    /// Messages of devices that are not the demo's.
    pub of_guests: u64,
    /// From sending to having, of mains that were connected.
    pub latency_p50: Option<Duration>,
    pub latency_p99: Option<Duration>,
}

impl Summary {
    /// Whether everything stored was delivered to every main, and nothing twice on one connection.
    pub fn is_clean(&self) -> bool {
        self.missed == 0 && self.twice == 0 && self.unanswered == 0
    }
}

/// A time, or a dash where there is none.
pub fn time_or_dash(time: Option<Duration>) -> String {
    time.map_or_else(|| "-".into(), short)
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let delivered: Vec<String> = self.delivered.iter().map(|(main, count)| format!("{main} {count}")).collect();
        writeln!(f, "after {} s:", self.ran.as_secs())?;
        writeln!(f, "  stored     {}", self.stored)?;
        writeln!(f, "  delivered  {}", delivered.join("  "))?;
        writeln!(f, "  dealt with {}, and {} times a till came second", self.dealt, self.conflicts)?;
        writeln!(f, "  receipts   {}", self.receipts)?;
        writeln!(f, "  cut-offs   {}, with {} messages caught up", self.cut_offs, self.caught_up)?;
        writeln!(f, "  missed     {}", self.missed)?;
        writeln!(f, "  twice      {} on one connection, {} again on a later one", self.twice, self.again)?;
        let (p50, p99) = (time_or_dash(self.latency_p50), time_or_dash(self.latency_p99));
        writeln!(f, "  latency    p50 {p50}  p99 {p99}  (sent until a connected main has it)")?;
        for (count, what) in [
            (self.refused, "refused"),
            (self.unanswered, "unanswered: stored or not, nobody said"),
            (self.of_guests, "messages of guests, not counted above"),
        ] {
            if count > 0 {
                writeln!(f, "  {count} {what}")?;
            }
        }
        if self.is_clean() {
            writeln!(f, "everything stored was delivered to every main, and nothing twice")
        } else {
            writeln!(f, "this must not be: a message was missed, came twice, or was never answered")
        }
    }
}
