//! A benchmark's outcome, for people and for programs.
//!
//! Owns the words and the digits of the table, and the form of the JSON. Never measures. Called by
//! [`mod@super::run`] and by `main`.

use std::fmt::{self, Write as _};

use serde::Serialize;

use super::figures::{self, Figures, Totals, Unit};

/// What came of a lane.
#[derive(Debug, Clone, Serialize)]
pub struct LaneOutcome {
    pub name: String,
    /// Medians over the turns; of a maximum, the maximum.
    pub figures: Figures,
    pub totals: Totals,
    /// Each turn by itself.
    pub rounds: Vec<Figures>,
    /// Why the figures may say more of the benchmark than of what it measures.
    pub doubts: Vec<String>,
}

/// What came of a benchmark.
#[derive(Debug, Clone, Serialize)]
pub struct Outcome {
    pub scenario: &'static str,
    /// What was done, in a line.
    pub what: String,
    pub machine: String,
    pub unit: Unit,
    pub lanes: Vec<LaneOutcome>,
    /// Median time of a small write and its sync to disk, in milliseconds, where that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sync_ms: Option<f64>,
    /// Whether the generator was fast enough for the figures to be the deployment's.
    pub is_trustworthy: bool,
    /// Why it ended early, with fewer turns than were asked for, or shorter ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cut_short: Option<String>,
    #[serde(skip)]
    pub is_json: bool,
}

impl Outcome {
    /// Whether every message that was accepted came to every device once.
    pub fn is_clean(&self) -> bool {
        self.lanes.iter().all(|lane| lane.totals.is_clean())
    }
}

/// A figure's name, its words and its digits after the point. One that ends in a dot stands for all that
/// begin with it.
const ROWS: [(&str, &str, usize); 21] = [
    ("deliveries_per_s", "deliveries a second", 0),
    ("publishes_per_s", "publishes a second", 0),
    ("logins_per_s", "logins a second", 0),
    ("proven", "part that the relay says is proven", 3),
    ("rate_held", "part of the rate that was held", 3),
    ("cpu_us", "CPU", 1),
    ("cpu_us.", "  ", 1),
    ("cores.", "cores used by ", 2),
    ("latency_ms.", "latency, ms, ", 2),
    ("answered_ms.", "publish to answer, ms, ", 2),
    ("first_to_last_ms", "first to last device, ms", 1),
    ("first_to_last_ms.max", "the same, max", 1),
    ("due_to_last_ms", "due to last device, ms", 1),
    ("memory_mib.", "memory, MiB, ", 1),
    ("session_kib.", "memory a session, KiB, ", 2),
    ("connect_s", "time until all were logged in, s", 1),
    ("generator.cpu", "generator: part of its core", 2),
    ("generator.waited", "generator: waited for its core", 2),
    ("generator.late_ms.p99", "generator: late, ms, p99", 2),
    ("generator.late_ms.max", "generator: late, ms, max", 2),
    ("generator.sockets", "generator: sockets", 0),
];

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_json {
            let json = serde_json::to_string_pretty(self).map_err(|_| fmt::Error)?;
            return writeln!(f, "{json}");
        }
        writeln!(f, "{}: {}\n{}\n", self.scenario, self.what, self.machine)?;
        self.header(f)?;
        for (key, words, digits) in ROWS {
            for name in self.names(key) {
                let label = self.label(key, words, &name);
                self.row(f, &label, &name, digits)?;
            }
        }
        if let Some(sync_ms) = self.sync_ms {
            writeln!(f, "{:<34}{sync_ms:>14.2}", "a sync of this disk, ms, p50")?;
        }
        self.troubles(f)
    }
}

impl Outcome {
    fn header(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<34}", "")?;
        self.lanes.iter().try_for_each(|lane| write!(f, "{:>18}", lane.name))?;
        let first = self.lanes.first().map(|lane| lane.name.as_str()).unwrap_or_default();
        for lane in self.lanes.iter().skip(1) {
            write!(f, "   {first} / {}", lane.name)?;
        }
        writeln!(f)
    }

    /// The figures that a row stands for.
    fn names(&self, key: &str) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        for name in self.lanes.iter().flat_map(|lane| lane.figures.keys()) {
            let fits = if key.ends_with('.') { name.starts_with(key) } else { name == key };
            if fits && !names.contains(name) {
                names.push(name.clone());
            }
        }
        // As text, p50 comes before p90 and max before both.
        names.sort_by_key(|name| name.ends_with(".max"));
        names
    }

    fn label(&self, key: &str, words: &str, name: &str) -> String {
        let of = match self.unit {
            Unit::Delivery => "a delivery, us",
            Unit::Publish => "a publish, us",
            Unit::Login => "a login, us",
            Unit::Second => "a second, us",
        };
        match key {
            "cpu_us" => format!("{words} {of}"),
            _ => format!("{words}{}", name.strip_prefix(key).unwrap_or_default()),
        }
    }

    fn row(&self, f: &mut fmt::Formatter<'_>, label: &str, name: &str, digits: usize) -> fmt::Result {
        write!(f, "{label:<34}")?;
        let values: Vec<Option<f64>> = self.lanes.iter().map(|lane| lane.figures.get(name).copied()).collect();
        for value in &values {
            let text = value.map_or("-".to_owned(), |value| format!("{value:.digits$}"));
            write!(f, "{text:>18}")?;
        }
        let first = values.first().copied().flatten();
        for (lane, value) in self.lanes.iter().zip(&values).skip(1) {
            let width = 6 + self.lanes.first().map_or(0, |lane| lane.name.len()) + lane.name.len();
            match (first, value.filter(|value| *value > 0.0)) {
                (Some(first), Some(value)) if !name.starts_with("generator") => {
                    write!(f, "{:>width$.2}", first / value)?;
                }
                _ => write!(f, "{:>width$}", "")?,
            }
        }
        writeln!(f)
    }

    /// What went wrong, and what is doubtful.
    fn troubles(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f)?;
        for lane in &self.lanes {
            let totals = &lane.totals;
            let mut line = format!(
                "{}: published {}, lost {}, repeated {}, unanswered {}",
                lane.name, totals.published, totals.lost, totals.repeated, totals.unanswered
            );
            for (word, counts) in [("refused", &totals.refused), ("connections ended", &totals.closed)] {
                for (what, count) in counts {
                    write!(line, ", {word} {count} ({what})")?;
                }
            }
            if figures::is_held(&lane.figures) == Some(false) {
                line.push_str("; THE RATE WAS NOT HELD");
            }
            writeln!(f, "{line}")?;
        }
        if let Some(why) = &self.cut_short {
            writeln!(f, "ended early: {why}")?;
        }
        if !self.is_trustworthy {
            writeln!(f, "NOT TRUSTWORTHY:")?;
        }
        for lane in &self.lanes {
            lane.doubts.iter().try_for_each(|doubt| writeln!(f, "  {}: {doubt}", lane.name))?;
        }
        Ok(())
    }
}
