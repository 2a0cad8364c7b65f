//! Figures out of what the workers and the kernel told.
//!
//! Owns the name of each figure, which is its key in the JSON, and the judgement whether a run can be
//! trusted. Never reads a clock or a process. Called by [`mod@super::run`] and [`super::table`].

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::plan::{Broadcast, Report};
use super::processes::Sample;

/// Figures by name. A name with a dot in it ends in that of a process or a percentile.
pub type Figures = BTreeMap<String, f64>;

/// Percentiles that are shown.
const PERCENTILES: [(&str, f64); 5] = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0)];
/// A generator that uses more of its cores than this may be what is measured.
const GENERATOR_CPU_MAX: f64 = 0.85;
/// A generator that waits for a core longer than this part of the time sees what is not there.
const GENERATOR_WAITED_MAX: f64 = 0.1;
/// A generator that publishes later than this does not keep the pace.
const GENERATOR_LATE_MS_MAX: f64 = 1.0;
/// By how much the relay's own count of receipts may differ.
const PROVEN_OFF_MAX: f64 = 0.001;
/// A rate that is not reached to this part is not held.
const HELD: f64 = 0.99;

/// The longest time that a histogram tells from longer ones: ten minutes.
const LONGEST_NS: u64 = 600_000_000_000;

/// What a cost is divided by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Unit {
    Delivery,
    Publish,
    Login,
    /// Nothing happens.
    Second,
}

/// All that is known of one turn.
pub struct Seen {
    pub reports: Vec<Report>,
    pub before: Sample,
    pub after: Sample,
    /// Resident bytes at the end, by process.
    pub memory: BTreeMap<String, u64>,
    pub unit: Unit,
    /// Devices that each signal is for; 0 where none are sent.
    pub hearers: u64,
    /// Publishes a second that were due; None in a closed loop.
    pub rate: Option<f64>,
    /// Receipts that the relay itself counted as proven in this turn, where it was asked.
    pub proven: Option<f64>,
}

/// What went wrong in a lane, over all its turns.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Totals {
    pub published: u64,
    /// Messages and signals that were new to a device.
    pub arrived: u64,
    /// Messages that were accepted and that a device has not got.
    pub lost: u64,
    /// Messages that a device got twice.
    pub repeated: u64,
    pub refused: BTreeMap<String, u64>,
    pub unanswered: u64,
    pub closed: BTreeMap<String, u64>,
}

impl Totals {
    /// Adds a turn.
    pub fn add(&mut self, seen: &Seen) {
        let sum = |count: fn(&Report) -> u64| seen.reports.iter().map(count).sum::<u64>();
        self.published += sum(|report| report.published);
        self.arrived += sum(|report| report.arrived);
        self.unanswered += sum(|report| report.unanswered);
        self.repeated = sum(|report| report.repeated);
        // A worker counts from its beginning; of signals each turn is told by itself.
        match seen.hearers {
            0 => self.lost = sum(|report| report.lost),
            hearers => self.lost += merged(seen).iter().map(|it| hearers.saturating_sub(it.received)).sum::<u64>(),
        }
        for report in &seen.reports {
            for (all, some) in [(&mut self.refused, &report.refused), (&mut self.closed, &report.closed)] {
                some.iter().for_each(|(what, count)| *all.entry(what.clone()).or_default() += count);
            }
        }
    }

    /// Whether every message that was accepted came to every device once.
    pub fn is_clean(&self) -> bool {
        self.lost == 0 && self.repeated == 0
    }
}

/// The figures of one turn.
pub fn figures(seen: &Seen) -> Figures {
    let mut figures = Figures::new();
    throughput(seen, &mut figures);
    times(seen, &mut figures);
    let mut put = |name: &str, value: f64| {
        figures.insert(name.to_owned(), value);
    };
    for (process, bytes) in &seen.memory {
        put(&format!("memory_mib.{process}"), *bytes as f64 / f64::from(1 << 20));
    }
    let busiest = |share: fn(&Report) -> u64| {
        let shares = seen.reports.iter().map(|report| share(report) as f64 / report.counted_ns.max(1) as f64);
        shares.fold(0.0, f64::max)
    };
    put("generator.cpu", busiest(|report| report.cpu_ns));
    put("generator.waited", busiest(|report| report.waited_ns));
    put("generator.sockets", seen.reports.iter().map(|report| report.sockets).sum::<usize>() as f64);
    figures
}

/// How much was done in a second, and what each of it cost.
fn throughput(seen: &Seen, figures: &mut Figures) {
    let mut put = |name: &str, value: f64| {
        figures.insert(name.to_owned(), value);
    };
    let (deliveries, publishes, logins) = (
        per_s(seen, |report| report.deliveries),
        per_s(seen, |report| report.accepted),
        per_s(seen, |report| report.logins),
    );
    let units = match seen.unit {
        Unit::Delivery => deliveries,
        Unit::Publish => publishes,
        Unit::Login => logins,
        Unit::Second => 1.0,
    };
    for (name, value) in [("deliveries_per_s", deliveries), ("publishes_per_s", publishes), ("logins_per_s", logins)] {
        if value > 0.0 {
            put(name, value);
        }
    }
    let cores = seen.after.cores_since(&seen.before);
    if units > 0.0 && !cores.is_empty() {
        put("cpu_us", cores.values().sum::<f64>() * 1e6 / units);
    }
    for (process, used) in &cores {
        put(&format!("cores.{process}"), *used);
        if units > 0.0 {
            put(&format!("cpu_us.{process}"), used * 1e6 / units);
        }
    }
    let arrived = seen.reports.iter().map(|report| report.arrived).sum::<u64>();
    if let Some(proven) = seen.proven.filter(|_| arrived > 0) {
        put("proven", proven / arrived as f64);
    }
    if let Some(rate) = seen.rate {
        put("rate_held", publishes / rate);
    }
}

/// How long it took.
fn times(seen: &Seen, figures: &mut Figures) {
    for (name, pick) in [
        ("latency_ms", (|report| &report.latency) as fn(&Report) -> &Vec<(u64, u64)>),
        ("answered_ms", |report| &report.answered),
        ("generator.late_ms", |report| &report.late),
    ] {
        let all = percentiles(seen, pick).into_iter();
        figures.extend(all.map(|(percentile, ms)| (format!("{name}.{percentile}"), ms)));
    }
    let spans = spans(&merged(seen), seen.hearers);
    let first_to_last = || spans.iter().map(|span| span.0);
    for (name, ms) in [
        ("first_to_last_ms", median(first_to_last())),
        ("first_to_last_ms.max", first_to_last().reduce(f64::max)),
        ("due_to_last_ms", median(spans.iter().map(|span| span.1))),
    ] {
        figures.extend(ms.map(|ms| (name.to_owned(), ms)));
    }
}

/// The median of each figure over the turns; of a maximum, the maximum.
pub fn medians(rounds: &[Figures]) -> Figures {
    let mut by_name: BTreeMap<&String, Vec<f64>> = BTreeMap::new();
    for (name, value) in rounds.iter().flatten() {
        by_name.entry(name).or_default().push(*value);
    }
    let one = |name: &str, values: Vec<f64>| match name.ends_with(".max") {
        true => values.into_iter().reduce(f64::max),
        false => median(values.into_iter()),
    };
    by_name.into_iter().filter_map(|(name, values)| Some((name.clone(), one(name, values)?))).collect()
}

/// Why the figures of a lane may say more of the benchmark than of what it measures. Nothing where all is well.
pub fn doubts(figures: &Figures) -> Vec<String> {
    let get = |name: &str| figures.get(name).copied().unwrap_or_default();
    let percent = |part: f64| format!("{:.0} %", part * 100.0);
    let mut doubts = Vec::new();
    if get("generator.cpu") > GENERATOR_CPU_MAX {
        let used = percent(get("generator.cpu"));
        doubts.push(format!("the generator used {used} of its core: what it measures may be faster; give more --processes, and cores to run them on"));
    }
    if get("generator.waited") > GENERATOR_WAITED_MAX {
        let waited = percent(get("generator.waited"));
        doubts.push(format!("the generator waited {waited} of the time for a core that others used: latencies hold that wait; pin it with taskset to a core of its own"));
    }
    if get("generator.late_ms.p99") > GENERATOR_LATE_MS_MAX {
        let late = get("generator.late_ms.p99");
        doubts.push(format!("the generator published up to {late:.1} ms late (p99), which latencies hold"));
    }
    if figures.get("proven").is_some_and(|part| (part - 1.0).abs() > PROVEN_OFF_MAX) {
        let proven = percent(get("proven"));
        doubts.push(format!("the relay counted {proven} of what devices acknowledged; does somebody else use it, or is a --metrics-url missing?"));
    }
    doubts
}

/// Whether an open loop's rate was reached; None in a closed loop.
pub fn is_held(figures: &Figures) -> Option<bool> {
    figures.get("rate_held").map(|part| *part >= HELD)
}

/// An empty histogram of nanoseconds, to three digits.
///
/// # Errors
/// Where its bounds are none, which they are not.
pub fn histogram() -> Result<Histogram<u64>, String> {
    Histogram::new_with_bounds(1, LONGEST_NS, 3).map_err(|error| error.to_string())
}

/// The value in the middle, or the mean of the two there.
pub fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    let upper = *values.get(middle)?;
    match values.len() % 2 {
        0 => Some((upper + *values.get(middle.checked_sub(1)?)?) / 2.0),
        _ => Some(upper),
    }
}

fn per_s(seen: &Seen, count: fn(&Report) -> u64) -> f64 {
    let each = seen.reports.iter().filter(|report| report.counted_ns > 0);
    each.map(|report| count(report) as f64 * 1e9 / report.counted_ns as f64).sum()
}

fn percentiles(seen: &Seen, pick: fn(&Report) -> &Vec<(u64, u64)>) -> Vec<(&'static str, f64)> {
    let Ok(mut all) = histogram() else { return Vec::new() };
    for (value, count) in seen.reports.iter().flat_map(pick) {
        all.saturating_record_n(*value, *count);
    }
    if all.is_empty() {
        return Vec::new();
    }
    PERCENTILES.iter().map(|(name, quantile)| (*name, all.value_at_quantile(*quantile) as f64 / 1e6)).collect()
}

/// Each signal, as all workers together saw it.
fn merged(seen: &Seen) -> Vec<Broadcast> {
    let mut all: BTreeMap<u32, Broadcast> = BTreeMap::new();
    for seen in seen.reports.iter().flat_map(|report| &report.broadcasts) {
        match all.get_mut(&seen.seq) {
            Some(one) => {
                one.first_ns = one.first_ns.min(seen.first_ns);
                one.last_ns = one.last_ns.max(seen.last_ns);
                one.received += seen.received;
            }
            None => {
                all.insert(seen.seq, seen.clone());
            }
        }
    }
    all.into_values().collect()
}

/// From the first to the last, and from due to the last, in milliseconds; of signals that all devices got.
fn spans(broadcasts: &[Broadcast], hearers: u64) -> Vec<(f64, f64)> {
    let whole = broadcasts.iter().filter(|broadcast| broadcast.received == hearers);
    let ms = |from: u64, to: u64| to.saturating_sub(from) as f64 / 1e6;
    whole.map(|it| (ms(it.first_ns, it.last_ns), ms(it.due_ns, it.last_ns))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(reports: Vec<Report>) -> Seen {
        Seen {
            reports,
            before: Sample { at_ns: 0, cpu_ns: [("relay".to_owned(), 0)].into() },
            after: Sample { at_ns: 1_000_000_000, cpu_ns: [("relay".to_owned(), 500_000_000)].into() },
            memory: BTreeMap::new(),
            unit: Unit::Delivery,
            hearers: 0,
            rate: None,
            proven: None,
        }
    }

    fn report(deliveries: u64) -> Report {
        Report {
            deliveries,
            counted_ns: 1_000_000_000,
            latency: vec![(1_000_000, 99), (9_000_000, 1)],
            ..Report::default()
        }
    }

    #[test]
    fn rates_add_up_over_workers_and_costs_are_shared_out() {
        let figures = figures(&seen(vec![report(600), report(400)]));
        assert_eq!(figures["deliveries_per_s"], 1000.0);
        assert_eq!(figures["cores.relay"], 0.5);
        assert_eq!(figures["cpu_us"], 500.0);
        assert!((figures["latency_ms.p50"] - 1.0).abs() < 0.01 && (figures["latency_ms.max"] - 9.0).abs() < 0.01);
    }

    #[test]
    fn a_median_is_of_the_rounds_and_a_maximum_the_greatest() {
        let rounds = [1.0, 9.0, 2.0].map(|value| Figures::from([("a".to_owned(), value), ("b.max".to_owned(), value)]));
        assert_eq!(medians(&rounds), Figures::from([("a".to_owned(), 2.0), ("b.max".to_owned(), 9.0)]));
        assert_eq!(median([4.0, 1.0].into_iter()), Some(2.5));
        assert_eq!(median([].into_iter()), None);
    }

    #[test]
    fn a_generator_at_its_limit_is_told() {
        let busy = Report { cpu_ns: 900_000_000, late: vec![(5_000_000, 1)], ..report(1) };
        assert_eq!(doubts(&figures(&seen(vec![report(1), busy]))).len(), 2);
        let kept_waiting = Report { waited_ns: 200_000_000, ..report(1) };
        assert_eq!(doubts(&figures(&seen(vec![kept_waiting]))).len(), 1);
        assert!(doubts(&figures(&seen(vec![report(1)]))).is_empty());
    }

    #[test]
    fn a_signal_that_one_device_lacks_is_lost_and_has_no_last() {
        let signal = |received, first_ns, last_ns| Broadcast { seq: 1, due_ns: 0, first_ns, last_ns, received };
        let workers = [signal(2, 3_000_000, 5_000_000), signal(1, 1_000_000, 4_000_000)];
        let reports = workers.map(|signal| Report { broadcasts: vec![signal], ..report(1) }).to_vec();
        let whole = Seen { hearers: 3, ..seen(reports) };
        assert_eq!(figures(&whole)["first_to_last_ms"], 4.0);
        assert_eq!(figures(&whole)["due_to_last_ms"], 5.0);
        let short = Seen { hearers: 4, ..whole };
        assert_eq!(figures(&short).get("first_to_last_ms"), None);
        let mut totals = Totals::default();
        totals.add(&short);
        assert_eq!((totals.lost, totals.is_clean()), (1, false));
    }
}
