//! What a run amounts to: the figures, and whether every promise was kept.
//!
//! Pure. Made of the journals when the run is over; printed as a table or as JSON.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::Serialize;

use crate::prove::journal::{Journal, Tally};

/// Descriptions of what went wrong that a verdict carries.
const EXAMPLES_MAX: usize = 20;

/// The figures of a run. Deliveries are counted once for each device, messages once.
#[derive(Debug, Clone, Serialize)]
pub struct Verdict {
    /// Whether every promise was kept: the exit status.
    pub kept: bool,
    pub run: String,
    pub seconds: f64,
    pub shops: usize,
    pub devices: usize,
    pub accepted: u64,
    pub delivered: u64,
    pub statuses: u64,
    #[serde(flatten)]
    pub broken: Broken,
    pub redelivered: u64,
    pub unanswered: u64,
    pub refused_for_good: u64,
    pub unsent: u64,
    pub signals: u64,
    pub receipts: u64,
    pub strangers: u64,
    pub logins: u64,
    pub cursors_back: u64,
    pub refusals: BTreeMap<String, u64>,
    pub closes: BTreeMap<u16, u64>,
    pub longest_silence_ms: u64,
    pub latency_ms: LatencyMs,
    pub examples: Vec<String>,
}

/// Each is a broken promise where it is not 0.
#[derive(Debug, Clone, Default, Serialize, PartialEq, Eq)]
pub struct Broken {
    pub lost: u64,
    pub wrong: u64,
    pub disordered: u64,
    pub repeated: u64,
    pub doubled: u64,
    pub split: u64,
    pub unproven: u64,
    pub ghosts: u64,
    /// Shops of which no list could be had at the end.
    pub unchecked: u64,
}

impl Broken {
    /// Each promise: what its breach is called, how often it was broken, and what that means.
    fn promises(&self) -> [(&'static str, u64, &'static str); 9] {
        [
            ("lost", self.lost, "accepted, and a device that it was for does not have it"),
            ("wrong", self.wrong, "came to a device that it was not for, or not as it was sent"),
            ("disordered", self.disordered, "came after a newer one on its connection"),
            ("repeated", self.repeated, "came twice on one connection"),
            ("doubled", self.doubled, "one message, two entries in the log"),
            ("split", self.split, "two devices are said to have dealt with one message"),
            ("unproven", self.unproven, "acknowledged, and the relay's list does not show it"),
            ("ghosts", self.ghosts, "an older connection went on beside a newer one"),
            ("unchecked", self.unchecked, "shops whose list could not be had at the end"),
        ]
    }
}

/// In milliseconds; null where nothing was measured.
#[derive(Debug, Clone, Serialize)]
pub struct LatencyMs {
    pub p50: Option<f64>,
    pub p99: Option<f64>,
    pub max: Option<f64>,
}

/// What the verdict says of the run beside its figures.
#[derive(Debug, Clone)]
pub struct Run {
    pub name: String,
    pub lasted: Duration,
    pub devices: usize,
}

impl Verdict {
    /// The verdict on these shops.
    pub fn of<'a>(run: Run, journals: impl IntoIterator<Item = &'a Journal>) -> Verdict {
        let mut sum = Tally::default();
        let mut broken = Broken::default();
        let (mut shops, mut unanswered) = (0, 0);
        for journal in journals {
            let tally = journal.tally();
            shops += 1;
            unanswered += journal.unanswered();
            broken.lost += journal.lacking();
            broken.unproven += tally.unproven.unwrap_or(0);
            broken.unchecked += u64::from(tally.unproven.is_none());
            sum.add(tally);
        }
        let broken = Broken {
            wrong: sum.wrong,
            disordered: sum.disordered,
            repeated: sum.repeated,
            doubled: sum.doubled,
            split: sum.split,
            ghosts: sum.ghosts,
            ..broken
        };
        let millis = |time: Duration| time.as_micros() as f64 / 1000.0;
        sum.examples.truncate(EXAMPLES_MAX);
        Verdict {
            // A run in which nothing was accepted proves nothing.
            kept: broken == Broken::default() && sum.accepted > 0,
            run: run.name,
            seconds: run.lasted.as_secs_f64(),
            shops,
            devices: run.devices,
            accepted: sum.accepted,
            delivered: sum.delivered,
            statuses: sum.told,
            broken,
            redelivered: sum.again,
            unanswered,
            refused_for_good: sum.refused_for_good,
            unsent: sum.unsent,
            signals: sum.signals,
            receipts: sum.receipts,
            strangers: sum.strangers,
            logins: sum.logins,
            cursors_back: sum.cursors_back,
            refusals: sum.refusals,
            closes: sum.closes,
            longest_silence_ms: sum.silence_max.as_millis() as u64,
            latency_ms: LatencyMs {
                p50: sum.latency.percentile(50.0).map(millis),
                p99: sum.latency.percentile(99.0).map(millis),
                max: sum.latency.max().map(millis),
            },
            examples: sum.examples,
        }
    }
}

/// Counts by name, or a dash.
fn counts<'a>(counts: impl Iterator<Item = (String, &'a u64)>) -> String {
    let counts: Vec<String> = counts.map(|(name, count)| format!("{name} {count}×")).collect();
    if counts.is_empty() { "-".into() } else { counts.join(", ") }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Verdict { run, seconds, shops, devices, .. } = self;
        writeln!(f, "run {run}: {seconds:.1} s, {devices} devices in {shops} shops")?;
        let time = |ms: Option<f64>| ms.map_or_else(|| "-".into(), |ms| format!("{ms:.1} ms"));
        let LatencyMs { p50, p99, max } = self.latency_ms;
        for (name, figure, what) in [
            ("accepted", self.accepted, "messages"),
            ("delivered", self.delivered, "of them to devices, each acknowledged"),
            ("statuses", self.statuses, "news of who dealt with a message, each acknowledged"),
            ("redelivered", self.redelivered, "again on a later connection, which is allowed"),
        ] {
            writeln!(f, "  {name:<12}{figure:>9}  {what}")?;
        }
        for (name, figure, what) in self.broken.promises() {
            let mark = if figure == 0 { ' ' } else { '!' };
            writeln!(f, "{mark} {name:<12}{figure:>9}  {what}")?;
        }
        writeln!(
            f,
            "  {:<12}{:>9}  longest, at a device that was always there",
            "silence",
            format!("{} ms", self.longest_silence_ms)
        )?;
        writeln!(f, "  latency      p50 {}  p99 {}  max {}", time(p50), time(p99), time(max))?;
        let closes = self.closes.iter().map(|(code, count)| match code {
            0 => ("lost".to_owned(), count),
            code => (code.to_string(), count),
        });
        writeln!(f, "  logins       {}; connections that ended: {}", self.logins, counts(closes))?;
        let refusals = self.refusals.iter().map(|(code, count)| (code.clone(), count));
        writeln!(f, "  refused      {}", counts(refusals))?;
        for (count, what) in [
            (self.unanswered, "messages of which nobody knows whether they were stored"),
            (self.refused_for_good, "messages refused for good"),
            (self.unsent, "messages not sent, because their devices could not send as fast or were away"),
            (self.cursors_back, "welcomes with an older cursor than before: a log was rewound"),
            (self.strangers, "entries of other senders or other runs"),
        ] {
            if count > 0 {
                writeln!(f, "  {count} {what}")?;
            }
        }
        for example in &self.examples {
            writeln!(f, "! {example}")?;
        }
        writeln!(f, "{}", self.in_words())
    }
}

impl Verdict {
    fn in_words(&self) -> String {
        if self.kept {
            return "every promise was kept".into();
        }
        let broken: Vec<&str> =
            self.broken.promises().into_iter().filter(|(_, count, _)| *count > 0).map(|(name, ..)| name).collect();
        match broken[..] {
            [] => "nothing was accepted, so nothing is proven".into(),
            _ => format!("promises were broken: {}", broken.join(", ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_breach_breaks_the_verdict_and_is_named_in_table_and_json() {
        let fine = Verdict::of(Run { name: "r".into(), lasted: Duration::from_secs(1), devices: 2 }, []);
        assert!(!fine.kept && fine.to_string().contains("nothing is proven"), "{fine}");
        for (name, ..) in Broken::default().promises() {
            let mut json = serde_json::to_value(&fine.broken).unwrap();
            assert!(json.get(name).is_some(), "{name} is not in the JSON");
            json[name] = 3.into();
            let read = |field: &str| json[field].as_u64().unwrap();
            let broken = Broken {
                lost: read("lost"),
                wrong: read("wrong"),
                disordered: read("disordered"),
                repeated: read("repeated"),
                doubled: read("doubled"),
                split: read("split"),
                unproven: read("unproven"),
                ghosts: read("ghosts"),
                unchecked: read("unchecked"),
            };
            assert_ne!(broken, Broken::default());
            let verdict = Verdict { broken, accepted: 1, ..fine.clone() };
            assert!(verdict.to_string().contains(&format!("broken: {name}")), "{verdict}");
        }
    }
}
