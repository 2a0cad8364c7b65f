//! `shoprelay prove`: holds a deployment to its promises while its operator breaks things.
//!
//! Owns the course of a run: devices of its own log in to shops of its own, send, receive, come and go;
//! then nothing new is sent, every device stays, and what was accepted has to arrive; then a roll is
//! called, and the relay's own list compared with what the devices say. What was promised and what came
//! is in a journal for each shop, and the verdict is made of these and nothing else. Comes in by the
//! listener, as any device: nothing here knows of the relay's insides. Called by `main`.

mod connection;
mod crew;
mod dealer;
mod device;
mod journal;
mod line;
mod linger;
mod pacer;
mod payload;
mod plan;
mod sender;
mod settings;
mod shop;
mod stay;
mod trail;
mod verdict;

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::auth::IssueError;
use crate::client::{DialError, Dice};
pub use crew::Crew;
use crew::bit;
use device::Device;
use journal::{Journal, Of};
use pacer::{Pacer, Ways};
use plan::{Habit, Manner};
pub use settings::{Settings, SettingsError};
use shop::{Phase, Seat, Shop};
use trail::Trail;
use verdict::Run;
pub use verdict::{Broken, Verdict};

/// How long the devices may take to log in for the first time.
const GATHERING_MAX: Duration = Duration::from_secs(30);
/// How often what is due is sent.
const PACE: Duration = Duration::from_millis(10);
/// How often it is looked whether everything has come.
const LOOK: Duration = Duration::from_millis(100);
/// How long a list is waited for before it is ordered anew.
const LIST_MAX: Duration = Duration::from_secs(2);
/// How often the roll is called at the end.
const ROLLS: u8 = 3;
/// Orders that wait for a device.
const ORDERS_MAX: usize = 64;
/// How long devices may take to say good-bye.
const CLOSE_MAX: Duration = Duration::from_secs(6);

/// Why there can be no verdict.
#[derive(Debug, thiserror::Error)]
pub enum ProveError {
    #[error(transparent)]
    Settings(#[from] SettingsError),
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error("a device's token cannot be made: {0}")]
    Token(#[from] IssueError),
    #[error("{missing} of {devices} devices could not log in; one of them: {trouble}")]
    Nobody { missing: usize, devices: usize, trouble: String },
    #[error("the journal cannot be written to {directory}: {cause}")]
    Journal { directory: String, cause: io::Error },
    #[error("it was interrupted before the first message")]
    Interrupted,
}

/// Runs until its time is over or `interrupted` returns: then no more messages are sent, what was
/// accepted is waited for, and a second time ends that too; there is a verdict all the same. Each second `show` is given a line that says how far it is.
///
/// # Errors
/// [`ProveError`], where there is nothing to judge.
pub async fn run(
    settings: &Settings,
    mut interrupted: impl AsyncFnMut(),
    mut show: impl FnMut(String),
) -> Result<Verdict, ProveError> {
    let run = crate::ids::unix_ms() ^ (u64::from(std::process::id()) << 44);
    let (trail, writing) = open_trail(settings, run).await?.unzip();
    let mut course = Course::open(settings, run, trail)?;
    tokio::select! {
        gathered = course.gather(&mut show) => gathered?,
        () = interrupted() => return Err(ProveError::Interrupted),
    }
    let began = Instant::now();
    tokio::select! {
        () = course.traffic(settings.lasts, &mut show) => {}
        () = interrupted() => {}
    }
    let lasted = began.elapsed();
    tokio::select! {
        () = course.settle(settings.settle, &mut show) => {}
        () = interrupted() => {}
    }
    let mut verdict = course.verdict(lasted);
    course.close().await;
    if let Some(writing) = writing {
        let written = writing.await.unwrap_or_else(|error| Err(io::Error::other(error)));
        if let Err(cause) = written {
            // The verdict is worth more than the file.
            verdict.examples.push(settings.journal_error(cause).to_string());
        }
    }
    Ok(verdict)
}

type Writing = tokio::task::JoinHandle<io::Result<()>>;

async fn open_trail(settings: &Settings, run: u64) -> Result<Option<(Trail, Writing)>, ProveError> {
    let Some(directory) = &settings.journal else { return Ok(None) };
    let opened = Trail::open(directory, &format!("{run:x}")).await;
    Ok(Some(opened.map_err(|cause| settings.journal_error(cause))?))
}

/// A run, from its first login to its verdict.
struct Course {
    run: u64,
    crew: Crew,
    shops: Vec<Arc<Shop>>,
    phase: watch::Sender<Phase>,
    pacer: Pacer,
    devices: JoinSet<()>,
}

impl Course {
    fn open(settings: &Settings, run: u64, trail: Option<Trail>) -> Result<Course, ProveError> {
        let (crew, dials) = (settings.crew, settings.dials()?);
        let (phase, phases) = watch::channel(Phase::Gathering);
        let mut dice = Dice::new(run);
        let mut seats: Vec<(Seat, mpsc::Receiver<shop::Order>)> = Vec::new();
        let (mut shops, mut ways) = (Vec::new(), Ways::new());
        let steady = crew.devices().filter(|device| Manner::of(crew, *device).habit == Habit::Steady);
        let steady = steady.map(bit).sum();
        for number in 0..settings.shops {
            let name = settings.shop(number);
            let journal = Mutex::new(Journal::new(Of { run, shop: number, name: name.clone(), crew, steady }));
            let shop = Shop { run, number, name, crew, journal, online: Default::default(), trouble: Mutex::default() };
            let shop = Arc::new(shop);
            let mut of_shop = Vec::new();
            for device in crew.devices() {
                let (way, orders) = mpsc::channel(ORDERS_MAX);
                of_shop.push(way);
                let manner = Manner::of(crew, device);
                let seat = Seat {
                    login: settings.login(&shop.name, &crew.name(device), crew.role(device), manner.proof)?,
                    shop: shop.clone(),
                    device,
                    manner,
                    dials: dials.clone(),
                    period: settings.period(),
                    phase: phases.clone(),
                    trail: trail.clone(),
                };
                seats.push((seat, orders));
            }
            ways.push(of_shop);
            shops.push(shop);
        }
        let mut devices = JoinSet::new();
        for (seat, orders) in seats {
            devices.spawn(Device::new(seat, orders, Dice::new(dice.below(u64::MAX))).run());
        }
        let pacer = Pacer::new(crew, ways, settings.rate, dice);
        Ok(Course { run, crew, shops, phase, pacer, devices })
    }

    fn device_count(&self) -> usize {
        self.shops.len() * usize::from(self.crew.size())
    }

    /// Waits until every device has been there once.
    async fn gather(&mut self, show: &mut impl FnMut(String)) -> Result<(), ProveError> {
        let began = Instant::now();
        loop {
            let unready = self.shops.iter().map(|shop| shop.journal.lock().unready() as usize);
            let missing: usize = unready.sum();
            if missing == 0 {
                show(format!("{} devices are logged in", self.device_count()));
                return Ok(());
            }
            let trouble = self.shops.iter().find_map(|shop| shop.trouble.lock().clone());
            if began.elapsed() > GATHERING_MAX || trouble.as_ref().is_some_and(|trouble| trouble.is_final) {
                let trouble = trouble.map_or_else(|| "nothing was answered".into(), |trouble| trouble.why);
                return Err(ProveError::Nobody { missing, devices: self.device_count(), trouble });
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn traffic(&mut self, lasts: Duration, show: &mut impl FnMut(String)) {
        let began = Instant::now();
        self.each(|journal| journal.measure_silence(true, began));
        self.phase.send_replace(Phase::Traffic);
        let mut ticks = tokio::time::interval(PACE);
        let (mut before, mut shown) = (began, 0);
        while began.elapsed() < lasts {
            ticks.tick().await;
            let now = Instant::now();
            for missed in self.pacer.pass(now.saturating_duration_since(before)) {
                if let Some(shop) = self.shops.get(missed) {
                    shop.journal.lock().tally_mut().unsent += 1;
                }
            }
            before = now;
            if began.elapsed().as_secs() > shown {
                shown = began.elapsed().as_secs();
                show(format!("{shown:>5} s  {}", self.progress()));
            }
        }
    }

    fn each(&self, mut tell: impl FnMut(&mut Journal)) {
        self.shops.iter().for_each(|shop| tell(&mut shop.journal.lock()));
    }

    fn progress(&self) -> String {
        let (mut accepted, mut delivered, mut lacking, mut unanswered) = (0, 0, 0, 0);
        self.each(|journal| {
            accepted += journal.tally().accepted;
            delivered += journal.tally().delivered;
            lacking += journal.lacking();
            unanswered += journal.unanswered();
        });
        let online: usize = self.shops.iter().map(|shop| shop.online.load(Ordering::Relaxed)).sum();
        format!(
            "accepted {accepted}  delivered {delivered}  on the way {lacking}  unanswered {unanswered}  online {online}/{}",
            self.device_count()
        )
    }

    /// Waits for what is still to come, and has the relay show that it knows of it; for so long at most.
    async fn settle(&mut self, at_most: Duration, show: &mut impl FnMut(String)) {
        self.phase.send_replace(Phase::Settling);
        let end = Instant::now() + at_most;
        show(format!("settling  {}", self.progress()));
        self.wait_until(end, Journal::is_settled).await;
        self.each(|journal| journal.measure_silence(false, Instant::now()));
        for roll in 0..ROLLS {
            self.pacer.call_roll(roll % self.crew.size());
            self.wait_until(end, Journal::is_settled).await;
            self.compare_lists(end).await;
        }
        show(format!("settled  {}", self.progress()));
    }

    async fn wait_until(&self, end: Instant, is_so: impl Fn(&Journal) -> bool) {
        // What was just ordered is under way before it is asked for.
        tokio::time::sleep(LOOK).await;
        while Instant::now() < end && !self.shops.iter().all(|shop| is_so(&shop.journal.lock())) {
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Has the relay list what it holds until it shows everything as delivered.
    async fn compare_lists(&self, end: Instant) {
        self.each(Journal::list_anew);
        let mut is_first = true;
        while is_first || Instant::now() < end {
            is_first = false;
            let behind = self.shops.iter().enumerate();
            let behind = behind.filter(|(_, shop)| shop.journal.lock().tally().unproven != Some(0));
            let behind: Vec<usize> = behind.map(|(place, _)| place).collect();
            if behind.is_empty() {
                return;
            }
            for shop in behind.iter().filter_map(|shop| self.shops.get(*shop)) {
                shop.journal.lock().list_begins();
            }
            self.pacer.order_lists(&behind);
            self.wait_until(Instant::now() + LIST_MAX, Journal::is_listed).await;
        }
    }

    fn verdict(&self, lasted: Duration) -> Verdict {
        let mut journals: Vec<_> = self.shops.iter().map(|shop| shop.journal.lock()).collect();
        journals.iter_mut().for_each(|journal| journal.note_lacking());
        let run = Run { name: format!("{:x}", self.run), lasted, devices: self.device_count() };
        Verdict::of(run, journals.iter().map(|journal| &**journal))
    }

    /// Ends every device.
    async fn close(mut self) {
        self.phase.send_replace(Phase::Over);
        let closing = async { while self.devices.join_next().await.is_some() {} };
        // Who cannot say good-bye in that time is cut off.
        if tokio::time::timeout(CLOSE_MAX, closing).await.is_err() {
            self.devices.shutdown().await;
        }
    }
}
