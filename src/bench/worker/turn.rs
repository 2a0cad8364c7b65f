//! A turn as it goes: when the next publish is due, how many are under way, and what was seen.
//!
//! Owns the histograms and the counts of one turn. Never touches a socket. Asked by [`super`].

use std::collections::BTreeMap;

use hdrhistogram::Histogram;

use crate::bench::clock::own_cpu_ns;
use crate::bench::figures::histogram;
use crate::bench::plan::{Broadcast, Pace, Report, Turn};

/// How long a worker that does not publish goes on listening after the end.
const LISTEN_ON_NS: u64 = 2_000_000_000;

/// A turn under way.
pub struct Running {
    pub turn: Turn,
    pub report: Report,
    /// Publishes, or logins, that are not over.
    pub in_flight: usize,
    /// When the next publish is due, in an open loop.
    next_due_ns: u64,
    latency: Histogram<u64>,
    answered: Histogram<u64>,
    late: Histogram<u64>,
    broadcasts: BTreeMap<u32, Broadcast>,
    /// CPU time and waiting time when counting began.
    began: Option<(u64, u64, u64)>,
    /// When it ended.
    ended_ns: Option<u64>,
}

impl Running {
    /// # Errors
    /// Where no histogram can be made, which does not depend on the turn.
    pub fn new(turn: Turn) -> Result<Running, String> {
        let next_due_ns = match turn.pace {
            Pace::Every { first_ns, .. } => first_ns,
            _ => turn.starts_ns,
        };
        Ok(Running {
            turn,
            report: Report::default(),
            in_flight: 0,
            next_due_ns,
            latency: histogram()?,
            answered: histogram()?,
            late: histogram()?,
            broadcasts: BTreeMap::new(),
            began: None,
            ended_ns: None,
        })
    }

    /// Notes that time has passed.
    pub fn on_time(&mut self, now_ns: u64) {
        if self.began.is_none() && now_ns >= self.turn.counts_from_ns {
            self.began = Some((now_ns, own_cpu_ns(), waited_ns()));
        }
        if self.ended_ns.is_none() && now_ns >= self.turn.ends_ns {
            self.end(now_ns);
        }
    }

    /// Ends it now.
    pub fn end(&mut self, now_ns: u64) {
        self.turn.ends_ns = self.turn.ends_ns.min(now_ns);
        self.ended_ns = Some(now_ns);
        if let Some((began_ns, cpu_ns, waited)) = self.began {
            self.report.counted_ns = now_ns.saturating_sub(began_ns);
            self.report.cpu_ns = own_cpu_ns().saturating_sub(cpu_ns);
            self.report.waited_ns = waited_ns().saturating_sub(waited);
        }
    }

    /// Whether its time is over and nothing is awaited any more.
    pub fn is_over(&self, now_ns: u64, patience_ns: u64, listens_only: bool) -> bool {
        self.ended_ns.is_some_and(|ended_ns| {
            let waited_ns = now_ns.saturating_sub(ended_ns);
            match listens_only {
                true => waited_ns >= LISTEN_ON_NS.min(patience_ns),
                false => self.in_flight == 0 || waited_ns >= patience_ns,
            }
        })
    }

    /// The moment at which the next publish is due, where one is due now. Each is asked for once.
    pub fn due(&mut self, now_ns: u64) -> Option<u64> {
        if self.ended_ns.is_some() || now_ns < self.turn.starts_ns {
            return None;
        }
        match self.turn.pace {
            Pace::InFlight(most) | Pace::Logins { in_flight: most, .. } => (self.in_flight < most).then_some(now_ns),
            Pace::Every { ns, .. } => {
                let due_ns = Some(self.next_due_ns).filter(|due_ns| *due_ns <= now_ns)?;
                self.next_due_ns += ns.max(1);
                Some(due_ns)
            }
            Pace::Silence => None,
        }
    }

    /// When something is to happen next without anything arriving.
    pub fn wakes_ns(&self, now_ns: u64) -> u64 {
        if self.ended_ns.is_some() {
            return u64::MAX;
        }
        let turn = &self.turn;
        let next_due_ns = if let Pace::Every { .. } = turn.pace { self.next_due_ns } else { turn.starts_ns };
        let moments = [turn.starts_ns, turn.counts_from_ns, turn.ends_ns, next_due_ns];
        moments.into_iter().filter(|at_ns| *at_ns > now_ns).min().unwrap_or(u64::MAX)
    }

    /// Whether what happens at this moment counts.
    pub fn counts(&self, now_ns: u64) -> bool {
        now_ns >= self.turn.counts_from_ns && now_ns < self.turn.ends_ns
    }

    pub fn on_sent(&mut self, due_ns: u64, now_ns: u64) {
        self.report.published += 1;
        self.in_flight += 1;
        if self.counts(due_ns) {
            record(&mut self.late, now_ns.saturating_sub(due_ns));
        }
    }

    pub fn on_answered(&mut self, due_ns: u64, now_ns: u64) {
        self.report.accepted += u64::from(self.counts(now_ns));
        if self.counts(due_ns) {
            record(&mut self.answered, now_ns.saturating_sub(due_ns));
        }
    }

    /// A device got a message that it did not have, or a new device is logged in.
    pub fn on_arrival(&mut self, due_ns: u64, now_ns: u64) {
        self.report.arrived += 1;
        self.report.deliveries += u64::from(self.counts(now_ns));
        self.took(due_ns, now_ns);
    }

    pub fn on_login(&mut self, began_ns: u64, now_ns: u64) {
        self.report.logins += u64::from(self.counts(now_ns));
        self.took(began_ns, now_ns);
    }

    // What was due in time counts however late it comes: to leave it out would be to praise the slowest.
    fn took(&mut self, due_ns: u64, now_ns: u64) {
        if self.counts(due_ns) {
            record(&mut self.latency, now_ns.saturating_sub(due_ns));
        }
    }

    pub fn on_signal(&mut self, seq: u32, due_ns: u64, now_ns: u64) {
        let new = Broadcast { seq, due_ns, first_ns: now_ns, last_ns: now_ns, received: 0 };
        let seen = self.broadcasts.entry(seq).or_insert(new);
        seen.last_ns = now_ns;
        seen.received += 1;
    }

    /// What is told of it; the rest is the caller's to fill in.
    pub fn into_report(self) -> Report {
        let (counts_from, ends) = (self.turn.counts_from_ns, self.turn.ends_ns);
        let counted = |broadcast: &Broadcast| (counts_from..ends).contains(&broadcast.due_ns);
        Report {
            latency: buckets(&self.latency),
            answered: buckets(&self.answered),
            late: buckets(&self.late),
            broadcasts: self.broadcasts.into_values().filter(counted).collect(),
            ..self.report
        }
    }
}

fn record(histogram: &mut Histogram<u64>, ns: u64) {
    histogram.saturating_record(ns.max(1));
}

fn buckets(histogram: &Histogram<u64>) -> Vec<(u64, u64)> {
    histogram.iter_recorded().map(|bucket| (bucket.value_iterated_to(), bucket.count_at_value())).collect()
}

/// How long this process could have run and had no core, in nanoseconds; 0 where the kernel does not tell.
fn waited_ns() -> u64 {
    let text = std::fs::read_to_string("/proc/self/schedstat").unwrap_or_default();
    text.split_whitespace().nth(1).and_then(|number| number.parse().ok()).unwrap_or(0)
}
