//! A benchmark from its beginning to its end.
//!
//! Owns the order of things: everything is opened, lanes take turns, the kernel is asked at the edges of
//! what counts, and figures are made of it. Plays no device itself. Called by `main`.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::clock::{now_ns, ns};
use super::crew::{Crew, FloorProcess};
use super::figures::{self, Figures, Seen, Totals};
use super::floor::FloorJob;
use super::lanes::{self, Lane};
use super::options::{Deployment, Scenario, Settings};
use super::plan::{Command, Encoding, Pace, Report, Turn};
use super::processes::{self, Sample};
use super::relay_metrics::{self, Page};
use super::table::{LaneOutcome, Outcome};

/// From telling the workers of a turn to its start.
const LEAD: Duration = Duration::from_millis(200);
/// What a relay that has just been opened is left in peace.
const SETTLE: Duration = Duration::from_secs(1);
/// Writes of which the median is the cost of a sync, and the bytes of each.
const SYNCS: usize = 200;
const SYNC_BYTES: usize = 4096;

/// A deployment with its workers.
struct Open {
    crew: Crew,
    pids: Vec<(String, u32)>,
    /// Where its nodes tell their metrics.
    metrics: Vec<Page>,
    /// Resident bytes before the first device came.
    memory_before: BTreeMap<String, u64>,
    connect: Duration,
}

/// What is known of a lane so far.
#[derive(Default)]
struct Track {
    rounds: Vec<Figures>,
    totals: Totals,
}

struct Bench<'a> {
    settings: &'a Settings,
    interrupt: Signal,
    is_interrupted: bool,
    open: Vec<Open>,
}

/// Measures what the settings say. Ctrl-C ends it early, with what there is by then.
///
/// # Errors
/// Why nothing could be measured, and what to do.
pub async fn run(settings: &Settings) -> Result<Outcome, String> {
    let machine = processes::machine();
    let interrupt = signal(SignalKind::interrupt()).map_err(|error| format!("no signals can be heard: {error}"))?;
    let mut bench = Bench { settings, interrupt, is_interrupted: false, open: Vec::new() };
    let floor = bench.open_all().await?;
    let lanes = lanes::lanes(settings);
    let mut tracks: Vec<Track> = lanes.iter().map(|_| Track::default()).collect();
    let (mut had_turns, mut cut_short) = (false, None);
    'rounds: for _ in 0..settings.rounds {
        for (lane, track) in lanes.iter().zip(&mut tracks) {
            if bench.is_interrupted {
                break 'rounds;
            }
            let seen = match bench.turn(lane).await {
                Ok(seen) => seen,
                Err(why) if had_turns => {
                    cut_short = Some(why);
                    break 'rounds;
                }
                Err(why) => return Err(why),
            };
            had_turns = true;
            track.totals.add(&seen);
            let mut figures = figures::figures(&seen);
            bench.add_sessions(lane, &seen, &mut figures);
            track.rounds.push(figures);
        }
    }
    drop(floor);
    let lanes: Vec<LaneOutcome> = lanes.into_iter().zip(tracks).map(|(lane, track)| outcome(lane, track)).collect();
    Ok(Outcome {
        scenario: settings.scenario.name(),
        what: what(settings),
        machine,
        unit: lanes::unit(settings.scenario),
        is_trustworthy: lanes.iter().all(|lane| lane.doubts.is_empty()),
        lanes,
        sync_ms: settings.sync_dir.as_deref().map(sync_ms).transpose()?,
        cut_short: cut_short.or_else(|| bench.is_interrupted.then(|| "interrupted".to_owned())),
        is_json: settings.is_json,
    })
}

impl Bench<'_> {
    /// Starts the workers of every deployment, and the floor with its own, and has all devices log in.
    async fn open_all(&mut self) -> Result<Option<FloorProcess>, String> {
        let settings = self.settings;
        let run =
            settings.run.clone().unwrap_or_else(|| format!("bench-{:x}-{:x}", std::process::id(), now_ns() >> 20));
        for deployment in &settings.deployments {
            self.open_one(deployment, &run, false).await?;
        }
        if !settings.has_floor {
            return Ok(None);
        }
        let first = settings.deployments.first().and_then(|deployment| deployment.pids.first());
        let cores = match (&settings.floor_cores[..], first) {
            ([], Some((_, pid))) => processes::cores(Some(*pid)),
            ([], None) => {
                return Err(
                    "--floor: it runs on the cores of the relay; name its process with --pid, or --floor-cores".into(),
                );
            }
            (given, _) => given.to_vec(),
        };
        let job = FloorJob { encoding: settings.encoding, order_bytes: settings.order_bytes, cores };
        let floor = FloorProcess::start(&job).await?;
        let pids = floor.pid().map(|pid| ("floor".to_owned(), pid)).into_iter().collect();
        let targets = vec![floor.target.clone()];
        let deployment = Deployment { name: "floor", targets, pids, metrics: Vec::new() };
        self.open_one(&deployment, &run, true).await?;
        Ok(Some(floor))
    }

    async fn open_one(&mut self, deployment: &Deployment, run: &str, is_floor: bool) -> Result<(), String> {
        let memory_before = processes::memory(&deployment.pids);
        let jobs = lanes::jobs(self.settings, run, &deployment.targets, is_floor)?;
        let (mut crew, begun) = (Crew::start(&jobs).await?, Instant::now());
        let (sessions, workers) = (self.settings.sessions, crew.len());
        let command = |worker| match self.settings.scenario {
            Scenario::Idle => Command::Hold { sessions: lanes::share(sessions, worker, workers).0 },
            _ => Command::Open,
        };
        crew.tell(command).await?;
        tokio::select! {
            opened = crew.opened() => opened?,
            _ = self.interrupt.recv() => return Err("interrupted before anything was measured".into()),
        };
        let (pids, metrics) = (deployment.pids.clone(), deployment.metrics.clone());
        self.open.push(Open { crew, pids, metrics, memory_before, connect: begun.elapsed() });
        tokio::time::sleep(SETTLE).await;
        Ok(())
    }

    async fn turn(&mut self, lane: &Lane) -> Result<Seen, String> {
        let missing = || format!("{} was not opened", lane.name);
        let open = self.open.get_mut(lane.deployment).ok_or_else(missing)?;
        let workers = open.crew.len();
        if lane.has_idle {
            let sessions = self.settings.sessions;
            open.crew.tell(|worker| Command::Hold { sessions: lanes::share(sessions, worker, workers).0 }).await?;
            open.crew.opened().await?;
        }
        let hearers = lanes::hearers(self.settings);
        let proven_before = match (&open.metrics[..], hearers) {
            ([], _) | (_, 1..) => None,
            (metrics, 0) => Some(relay_metrics::delivered(metrics).await?),
        };
        let starts_ns = now_ns() + ns(LEAD);
        let counts_from_ns = starts_ns + ns(self.settings.warm_up);
        let ends_ns = counts_from_ns + ns(self.settings.counts);
        let turn = |worker| {
            let pace = match hearers {
                0 => lanes::pace_share(lane.pace, worker, workers, starts_ns),
                _ => lanes::pace_of_one(lane.pace, worker, starts_ns),
            };
            Turn { starts_ns, counts_from_ns, ends_ns, pace }
        };
        open.crew.begin(turn).await?;
        let (pids, metrics) = (open.pids.clone(), open.metrics.clone());
        self.sleep_until(counts_from_ns).await;
        let before = Sample::take(&pids)?;
        self.sleep_until(ends_ns).await;
        // A process that ended meanwhile took its counts with it.
        let after = Sample::take(&pids).unwrap_or_else(|_| before.clone());
        let memory = processes::memory(&pids);
        let reports = self.reports(lane).await?;
        let rate = match lane.pace {
            Pace::Every { ns, .. } if self.settings.deployments.get(lane.deployment).is_some() => Some(1e9 / ns as f64),
            _ => None,
        };
        let unit = lanes::unit(self.settings.scenario);
        let arrived = reports.iter().map(|report| report.arrived).sum::<u64>() as f64;
        let proven = match proven_before {
            Some(before) => Some(relay_metrics::settled(&metrics, before, arrived).await? - before),
            None => None,
        };
        Ok(Seen { reports, before, after, memory, unit, hearers, rate, proven })
    }

    /// What the workers of a lane tell of the turn that is over, once nothing is under way any more.
    async fn reports(&mut self, lane: &Lane) -> Result<Vec<Report>, String> {
        let open = self.open.get_mut(lane.deployment).ok_or("nothing is open")?;
        if self.is_interrupted {
            open.crew.tell(|_| Command::Stop).await?;
        }
        let reports = tokio::select! {
            reports = open.crew.turned() => reports?,
            // It was asked for once already, or the drain takes too long for whoever asks.
            _ = self.interrupt.recv() => return Err("interrupted before the last messages had come".into()),
        };
        if lane.has_idle {
            open.crew.tell(|_| Command::Release).await?;
            open.crew.opened().await?;
            tokio::time::sleep(SETTLE).await;
        }
        Ok(reports)
    }

    /// Until this moment, or until Ctrl-C.
    async fn sleep_until(&mut self, at_ns: u64) {
        if self.is_interrupted {
            return;
        }
        tokio::select! {
            () = tokio::time::sleep(Duration::from_nanos(at_ns.saturating_sub(now_ns()))) => {}
            _ = self.interrupt.recv() => self.is_interrupted = true,
        }
    }

    /// What idle sessions cost, where that is what is measured.
    fn add_sessions(&self, lane: &Lane, seen: &Seen, figures: &mut Figures) {
        let Some(open) = self.open.get(lane.deployment) else { return };
        figures.insert("connect_s".to_owned(), open.connect.as_secs_f64());
        if self.settings.scenario != Scenario::Idle {
            return;
        }
        for (process, bytes) in &seen.memory {
            let before = open.memory_before.get(process).copied().unwrap_or_default();
            let kib = bytes.saturating_sub(before) as f64 / 1024.0 / self.settings.sessions as f64;
            figures.insert(format!("session_kib.{process}"), kib);
        }
    }
}

fn outcome(lane: Lane, track: Track) -> LaneOutcome {
    let figures = figures::medians(&track.rounds);
    LaneOutcome {
        name: lane.name,
        doubts: figures::doubts(&figures),
        figures,
        totals: track.totals,
        rounds: track.rounds,
    }
}

/// What is done, in a line.
fn what(settings: &Settings) -> String {
    let Settings { shops, devices, in_flight, rate, order_bytes, sessions, rounds, .. } = settings;
    let encoding = match settings.encoding {
        Encoding::Json => "JSON",
        Encoding::MsgPack => "MessagePack",
    };
    let orders = format!("{order_bytes}-byte orders in {encoding}");
    let load = match settings.scenario {
        Scenario::Saturate => format!("{shops} shops of {devices} devices, {in_flight} publishes in flight, {orders}"),
        Scenario::Rate | Scenario::OneMain => {
            format!("{shops} shops of {devices} devices, {rate} publishes a second, {orders}")
        }
        Scenario::Broadcast => format!("one shop of {sessions} devices, {rate} signals a second, {orders}"),
        Scenario::Idle => format!("{sessions} sessions that do nothing, in {encoding}"),
        Scenario::Logins => format!("new devices, {in_flight} logins in flight, at most {sessions} sessions held"),
        Scenario::Mixed => format!(
            "{shops} shops of {devices} devices, {in_flight} publishes in flight, beside {sessions} idle sessions and alone, {orders}"
        ),
        Scenario::Embedded => format!("{shops} shops, {in_flight} publishes in flight and 1, to nobody, {orders}"),
    };
    let seconds = settings.counts.as_secs_f64();
    format!("{load}; {rounds} rounds of {seconds} s")
}

/// The median cost of a small write and its sync in this directory, in milliseconds.
fn sync_ms(directory: &Path) -> Result<f64, String> {
    let failed = |error: std::io::Error| format!("--sync-dir {}: {error}", directory.display());
    let mut file = tempfile::tempfile_in(directory).map_err(failed)?;
    let mut took = Vec::with_capacity(SYNCS);
    for _ in 0..SYNCS {
        let begun = Instant::now();
        file.write_all(&[0x5a; SYNC_BYTES]).and_then(|()| file.sync_data()).map_err(failed)?;
        took.push(begun.elapsed().as_secs_f64() * 1000.0);
    }
    figures::median(took.into_iter()).ok_or_else(|| failed(std::io::ErrorKind::Other.into()))
}
