//! The figures of a shop.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;

/// The longest time that is told from longer ones.
const LATENCY_MAX: Duration = Duration::from_secs(24 * 3600);
/// Digits that a time is kept by.
const DIGITS: u8 = 2;

/// What is counted. A count of messages counts each once, one of deliveries once for each device.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    /// Messages that the relay accepted.
    pub accepted: u64,
    /// Messages that it refused and would refuse again.
    pub refused_for_good: u64,
    /// Deliveries that were acknowledged.
    pub delivered: u64,
    /// Status changes that were acknowledged, once for each device.
    pub told: u64,
    /// Entries that came again on a later connection, after they had been acknowledged.
    pub again: u64,
    pub signals: u64,
    pub receipts: u64,
    /// Entries that are none of this run's.
    pub strangers: u64,
    pub wrong: u64,
    pub disordered: u64,
    pub repeated: u64,
    pub doubled: u64,
    pub split: u64,
    pub ghosts: u64,
    /// Deliveries that the relay's list does not show at the end; None where no list could be had.
    pub unproven: Option<u64>,
    pub logins: u64,
    /// Welcomes whose cursor was behind that of an earlier one.
    pub cursors_back: u64,
    /// Orders that found their device's queue full.
    pub unsent: u64,
    /// Answers that refused something, by code.
    pub refusals: BTreeMap<String, u64>,
    /// Connections that the relay closed, by close code; 0 for those that just ended.
    pub closes: BTreeMap<u16, u64>,
    pub latency: Latency,
    pub silence_max: Duration,
    /// Some of what went wrong, in words.
    pub examples: Vec<String>,
}

impl Tally {
    /// Adds another shop's figures.
    pub fn add(&mut self, other: &Tally) {
        self.accepted += other.accepted;
        self.refused_for_good += other.refused_for_good;
        self.delivered += other.delivered;
        self.told += other.told;
        self.again += other.again;
        self.signals += other.signals;
        self.receipts += other.receipts;
        self.strangers += other.strangers;
        self.wrong += other.wrong;
        self.disordered += other.disordered;
        self.repeated += other.repeated;
        self.doubled += other.doubled;
        self.split += other.split;
        self.ghosts += other.ghosts;
        self.logins += other.logins;
        self.cursors_back += other.cursors_back;
        self.unsent += other.unsent;
        for (code, count) in &other.refusals {
            *self.refusals.entry(code.clone()).or_default() += count;
        }
        for (code, count) in &other.closes {
            *self.closes.entry(*code).or_default() += count;
        }
        self.latency.add(&other.latency);
        self.silence_max = self.silence_max.max(other.silence_max);
        self.examples.extend(other.examples.iter().cloned());
    }
}

/// Times from sending a message to its acknowledgement by a device that is always there.
#[derive(Debug, Clone)]
pub struct Latency(Histogram<u64>);

impl Default for Latency {
    #[expect(clippy::expect_used, reason = "the bounds are constants that the library takes")]
    fn default() -> Latency {
        let bounds = (1, LATENCY_MAX.as_micros() as u64, DIGITS);
        Latency(Histogram::new_with_bounds(bounds.0, bounds.1, bounds.2).expect("the bounds are in order"))
    }
}

impl Latency {
    pub fn record(&mut self, latency: Duration) {
        self.0.saturating_record(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX).max(1));
    }

    fn add(&mut self, other: &Latency) {
        // Both have the same bounds, so there is nothing that would not fit.
        let _ = self.0.add(&other.0);
    }

    /// The time that so many of a hundred did not exceed; None where nothing was measured.
    pub fn percentile(&self, percent: f64) -> Option<Duration> {
        (!self.0.is_empty()).then(|| Duration::from_micros(self.0.value_at_percentile(percent)))
    }

    pub fn max(&self) -> Option<Duration> {
        (!self.0.is_empty()).then(|| Duration::from_micros(self.0.max()))
    }
}
