//! What a fault did to publishers and devices: counted from their journals, and printed as one line.
//!
//! `cargo test --test it faults -- --show-output | grep ^FAULT` shows the lines of all faults.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::{Duration, Instant};

use super::publisher::{Published, Publisher};
use super::recorder::{Record, Recorder};
use super::wire::{Id, id_of};

/// A message that its device has this long after its publisher first tried to send it is not late.
const PROMPT: Duration = Duration::from_secs(1);
/// How long devices may take to get the last of what was accepted.
const SETTLED_WITHIN: Duration = Duration::from_secs(60);

/// A fault and what it met: made when the fault begins, told when it is over.
pub struct Fault {
    name: &'static str,
    over_at: Instant,
    shops: Vec<(Vec<Published>, Vec<Record>)>,
}

impl Fault {
    /// The fault of this name begins; without [`Fault::over`] it takes no time, as a kill does.
    pub fn begin(name: &'static str) -> Fault {
        Fault { name, over_at: Instant::now(), shops: Vec::new() }
    }

    /// The fault is over; where it comes several times, the last one counts.
    pub fn over(&mut self) {
        self.over_at = Instant::now();
    }

    /// Waits until the publishers of a shop are through and each of its devices has everything they
    /// published, or has had its time; gives what the devices were sent.
    pub async fn shop(
        &mut self,
        publishers: impl IntoIterator<Item = Publisher>,
        devices: impl IntoIterator<Item = Recorder>,
    ) -> Vec<Record> {
        let mut published = Vec::new();
        for publisher in publishers {
            published.extend(publisher.finish_journal().await);
        }
        let due: BTreeSet<Id> = published.iter().map(|published| published.id).collect();
        let end = Instant::now() + SETTLED_WITHIN;
        let mut records = Vec::new();
        for device in devices {
            while !device.record().ids("message").is_superset(&due) && Instant::now() < end {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            records.push(device.stop().await);
        }
        self.shops.push((published, records.clone()));
        records
    }

    /// Counts, prints the line, and checks that nothing was lost, repeated on one connection, sent out
    /// of order or to the wrong device.
    ///
    /// # Panics
    /// Where something was, with what.
    pub fn assert_survived(&self) -> Summary {
        let summary = self.summary();
        println!("{summary}");
        assert!(summary.wrongs.is_empty(), "{summary}\n{}", summary.wrongs.join("\n"));
        summary
    }

    /// What came of the fault.
    pub fn summary(&self) -> Summary {
        let mut summary = Summary { name: self.name, ..Summary::default() };
        for (published, records) in &self.shops {
            summary.accepted += published.len();
            for record in records {
                summary.count(published, record, self.over_at);
            }
        }
        summary
    }
}

/// What became of the messages of some shops during a fault.
#[derive(Debug, Default)]
pub struct Summary {
    name: &'static str,
    /// Messages accepted.
    pub accepted: usize,
    /// How many of them came to a device they were for, each counted once for each device.
    pub delivered: usize,
    /// How many did not, counted alike.
    pub lost: usize,
    /// Messages that came to a connection that had been sent them, or whose device had proven them
    /// before it began. What was not proven comes again on the next connection and does not count.
    pub repeated: usize,
    /// Messages that came after a newer one on the same connection, or were left out there.
    pub disordered: usize,
    /// Messages that came to a device they were not for.
    pub misdirected: usize,
    /// The longest time in which a device was sent nothing, between the first and the last acceptance.
    pub longest_silence: Duration,
    /// The longest time from a publisher's first attempt until a device had the message.
    pub latest: Duration,
    /// From the end of the fault until everything is prompt: the time of the last message that a device
    /// got more than a second after its publisher first tried to send it. Zero where none was late then.
    pub heal: Duration,
    /// Everything that must not be, in words.
    wrongs: Vec<String>,
}

impl Summary {
    fn count(&mut self, published: &[Published], record: &Record, over_at: Instant) {
        let asked: BTreeMap<Id, Instant> = published.iter().map(|one| (one.id, one.asked_at)).collect();
        // When each message first came.
        let mut came: BTreeMap<Id, Instant> = BTreeMap::new();
        for (n, connection) in record.connections.iter().enumerate() {
            let place = format!("{}, connection {n}", record.device);
            let cursor = id_of(&connection.welcome, "cursor");
            let mut here = BTreeSet::new();
            for entry in connection.entries.iter().filter(|entry| entry.op["op"] == "message") {
                let id = id_of(&entry.op, "id");
                let first = came.entry(id).or_insert(entry.at);
                *first = entry.at.min(*first);
                if !asked.contains_key(&id) {
                    self.misdirected += 1;
                    self.wrongs.push(format!("{place}: {id} was not for it"));
                } else if id <= cursor || here.contains(&id) {
                    self.repeated += 1;
                    self.wrongs.push(format!("{place}: {id} was repeated (its cursor was {cursor})"));
                } else if here.last().is_some_and(|newest| *newest > id) {
                    self.disordered += 1;
                    self.wrongs.push(format!("{place}: {id} came after {:?}", here.last()));
                }
                here.insert(id);
            }
            let newest = here.last().copied().unwrap_or(cursor).max(cursor);
            for id in asked.keys().filter(|id| **id > cursor && **id <= newest && !here.contains(*id)) {
                self.disordered += 1;
                self.wrongs.push(format!("{place}: {id} was left out, and {newest} came"));
            }
        }
        for (id, asked_at) in &asked {
            let Some(at) = came.get(id) else {
                self.lost += 1;
                self.wrongs.push(format!("{}: {id} never came", record.device));
                continue;
            };
            self.delivered += 1;
            let age = at.saturating_duration_since(*asked_at);
            self.latest = self.latest.max(age);
            if age > PROMPT {
                self.heal = self.heal.max(at.saturating_duration_since(over_at));
            }
        }
        self.longest_silence = self.longest_silence.max(longest_silence(published, record));
    }
}

fn longest_silence(published: &[Published], record: &Record) -> Duration {
    let accepted = || published.iter().map(|one| one.accepted_at);
    let (Some(first), Some(last)) = (accepted().min(), accepted().max()) else { return Duration::ZERO };
    let entries = record.connections.iter().flat_map(|connection| &connection.entries);
    let mut times: Vec<Instant> = entries.filter(|entry| entry.op["op"] == "message").map(|entry| entry.at).collect();
    times.push(first);
    times.sort();
    let gaps = times.windows(2).filter(|gap| gap[0] <= last).map(|gap| gap[1] - gap[0]);
    gaps.max().unwrap_or_default()
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Summary { name, accepted, delivered, lost, repeated, disordered, misdirected, .. } = self;
        write!(f, "FAULT {name} accepted={accepted} delivered={delivered} lost={lost} repeated={repeated} ")?;
        write!(f, "disordered={disordered} misdirected={misdirected} ")?;
        let [silence, latest, heal] = [self.longest_silence, self.latest, self.heal].map(|time| time.as_millis());
        write!(f, "longest_silence_ms={silence} latest_ms={latest} heal_ms={heal}")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::recorder::{Connection, Entry};
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// A device whose connections had these cursors and were sent these ids, at these seconds.
    fn record(start: Instant, connections: &[(u64, &[(u64, u32)])]) -> Record {
        let connection = |(cursor, sent): &(u64, &[(u64, u32)])| Connection {
            url: "ws://nowhere".into(),
            welcome: json!({"cursor": format!("{cursor}-0")}),
            entries: sent
                .iter()
                .map(|(id, second)| Entry {
                    at: start + *second * SECOND,
                    op: json!({"op": "message", "id": format!("{id}-0")}),
                })
                .collect(),
            goaway: None,
            end: None,
        };
        Record { device: "till".into(), connections: connections.iter().map(connection).collect() }
    }

    fn summary(connections: &[(u64, &[(u64, u32)])]) -> Summary {
        let start = Instant::now();
        let publish = |n: u32| Published {
            id: Id(u64::from(n), 0),
            asked_at: start + n * SECOND,
            accepted_at: start + n * SECOND,
        };
        let over_at = start + 2 * SECOND;
        let shops = vec![((1..=4).map(publish).collect(), vec![record(start, connections)])];
        Fault { name: "test", over_at, shops }.summary()
    }

    #[test]
    fn what_comes_in_order_on_two_connections_is_all_well_and_what_is_late_shows_when_it_healed() {
        let summary = summary(&[(0, &[(1, 1), (2, 2)]), (1, &[(2, 6), (3, 6), (4, 6)])]);
        assert!(summary.wrongs.is_empty(), "{:?}", summary.wrongs);
        assert_eq!((summary.accepted, summary.delivered), (4, 4));
        assert_eq!(
            summary.to_string(),
            "FAULT test accepted=4 delivered=4 lost=0 repeated=0 disordered=0 misdirected=0 \
             longest_silence_ms=4000 latest_ms=3000 heal_ms=4000"
        );
    }

    #[test]
    fn everything_that_must_not_be_is_counted() {
        let of = |connections: &[(u64, &[(u64, u32)])]| {
            let summary = summary(connections);
            (summary.lost, summary.repeated, summary.disordered, summary.misdirected)
        };
        assert_eq!(of(&[(0, &[(1, 1), (2, 2), (3, 3)])]), (1, 0, 0, 0), "the last is lost");
        assert_eq!(of(&[(0, &[(1, 1), (2, 2), (4, 4)])]), (1, 0, 1, 0), "one is lost, and was left out");
        assert_eq!(of(&[(0, &[(1, 1), (2, 2), (2, 2), (3, 3), (4, 4)])]), (0, 1, 0, 0), "repeated");
        assert_eq!(of(&[(0, &[(1, 1), (2, 2)]), (2, &[(2, 3), (3, 3), (4, 4)])]), (0, 1, 0, 0), "below its cursor");
        assert_eq!(of(&[(0, &[(2, 2), (1, 2), (3, 3), (4, 4)])]), (0, 0, 1, 0), "out of order");
        assert_eq!(of(&[(0, &[(2, 2)]), (0, &[(1, 2), (2, 2), (3, 3), (4, 4)])]), (0, 0, 1, 0), "left out, came later");
        assert_eq!(of(&[(0, &[(1, 1), (2, 2), (3, 3), (4, 4), (9, 4)])]), (0, 0, 0, 1), "not for it");
    }
}
