//! Shop events from the store into the rooms: gaps, audits, rewinds, deafness.
//!
//! Owns the one rule "not at `prev`, so read the log" for rooms, and which shops are subscribed.
//! Never touches a socket. Run by `node`; `socket` opens rooms here.

mod presence;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};
use tokio::task::{JoinSet, unconstrained};
use tracing::{debug, info, warn};

use crate::hub::{Applied, HeadCheck, Hub, Push, Room, RoomGuard, SignalPush, Subscription};
use crate::ids::{MessageId, NodeId, ShopId};
use crate::message::Entry;
use crate::metrics;
use crate::planted::{self, Fault};
use crate::store::{FeedEvent, GapCause, PageLimit, Store, StoreError, Stored};

/// How long a room without sessions stays subscribed, for a device that comes right back.
const LINGER: Duration = Duration::from_secs(30);
/// Steps in which one audit of all rooms is spread out.
const AUDIT_STEPS: u32 = 20;
/// Audits of which one compares connections with the registered ones too.
const PRESENCE_EVERY: u32 = 4;
/// Rooms whose heads are asked for at once.
const HEADS_MAX: usize = 256;
/// Rooms that read their logs at the same time.
const JOBS_MAX: usize = 32;
/// Wait after a reading that failed.
const RETRY_WAIT: Duration = Duration::from_millis(200);
/// How much of a log is read at once.
const PAGE: PageLimit = PageLimit { entries: 256, bytes: 1 << 20 };

/// See the module.
pub struct Feed {
    hub: Arc<Hub>,
    store: Arc<dyn Store>,
    node: NodeId,
    audit: Duration,
    jobs: Mutex<VecDeque<Job>>,
    wake: Notify,
    checks_heads: AtomicBool,
    checks_presence: AtomicBool,
    audits: AtomicBool,
    audits_begun: AtomicU32,
    /// Rooms whose turn in this audit is still to come.
    unaudited: Mutex<Vec<Arc<Room>>>,
}

/// What a room needs of the store. A room catches up or rewinds in one job at a time.
enum Job {
    CatchUp(Arc<Room>),
    Rewind(Arc<Room>),
    Check(Arc<Room>),
    /// The same after a while.
    CheckLater(Vec<Arc<Room>>),
    /// Events may have been lost: every room is compared with its log.
    CheckHeads,
    /// And every connection with the registered one.
    CheckPresence,
    /// Rooms that nobody uses are closed, and some of the others audited.
    Audit,
}

impl Feed {
    /// A feed into these rooms; each is compared with its log once within `audit`.
    pub fn new(hub: Arc<Hub>, store: Arc<dyn Store>, node: NodeId, audit: Duration) -> Feed {
        Feed {
            hub,
            store,
            node,
            audit,
            jobs: Mutex::default(),
            wake: Notify::new(),
            checks_heads: AtomicBool::new(false),
            checks_presence: AtomicBool::new(false),
            audits: AtomicBool::new(false),
            audits_begun: AtomicU32::new(0),
            unaudited: Mutex::default(),
        }
    }

    /// Opens the shop's room and has its events come in; they do when this returns.
    ///
    /// # Errors
    /// The store cannot be reached.
    pub async fn open(&self, shop: &ShopId) -> Result<RoomGuard, StoreError> {
        let room = self.hub.enter(shop);
        self.listen_to(&room).await?;
        Ok(room)
    }

    /// Has the room's events come in; they do when this returns.
    ///
    /// # Errors
    /// The store cannot be reached.
    pub async fn listen_to(&self, room: &RoomGuard) -> Result<(), StoreError> {
        let mut subscription = room.subscription.lock().await;
        if *subscription != Subscription::Held {
            *subscription = Subscription::Unsure;
            if !planted::strikes(Fault::ForgetSubscribe) {
                self.store.subscribe(room.shop()).await?;
            }
            *subscription = Subscription::Held;
        }
        Ok(())
    }

    /// Has the log read for a room that is behind it; see [`Applied::Gap`].
    pub fn catch_up(&self, room: Arc<Room>) {
        self.enqueue(Job::CatchUp(room));
    }

    /// A session found its log shorter than its room thinks: it may have been rewound.
    pub fn suspect(&self, room: Arc<Room>) {
        self.enqueue(Job::Check(room));
    }

    fn enqueue(&self, job: Job) {
        self.jobs.lock().push_back(job);
        self.wake.notify_one();
    }

    /// Takes events until the store ends them: all that there are whenever it runs. With no more of them in a turn
    /// than tokio allows a task, what is stored would be heard of later and later where a thousand connections
    /// publish in that turn.
    pub async fn listen(&self, mut events: mpsc::Receiver<FeedEvent>) {
        let listening = async {
            while let Some(event) = events.recv().await {
                self.on_event(event);
            }
        };
        unconstrained(listening).await;
    }

    fn on_event(&self, event: FeedEvent) {
        match event {
            FeedEvent::Entry { .. } if planted::strikes(Fault::LosePush) => {}
            FeedEvent::Entry { shop, prev, stored, publisher } => {
                if let Some(room) = self.hub.find(&shop) {
                    if matches!(stored.entry, Entry::Message(_)) {
                        self.count_publish(&room, publisher.as_ref());
                    }
                    self.on_entry(room, prev, stored);
                }
            }
            FeedEvent::Signal { shop, signal, publisher } => {
                if let Some(room) = self.hub.find(&shop) {
                    self.count_publish(&room, publisher.as_ref());
                    room.on_signal(signal);
                }
            }
            FeedEvent::Receipt { shop, receipt } => {
                if let Some(room) = self.hub.find(&shop) {
                    room.on_receipt(&receipt.sender, receipt.message, &receipt.device, receipt.at_ms);
                }
            }
            FeedEvent::Replaced { shop, device, conn } => {
                if let Some(room) = self.hub.find(&shop) {
                    debug!(%shop, %device, %conn, "replaced by a newer login");
                    room.replaced(&conn);
                }
            }
            FeedEvent::Evicted { shop, conn, last } => {
                if let Some(room) = self.hub.find(&shop) {
                    room.evicted(&conn, last);
                }
            }
            FeedEvent::Barred { shop, device, conn, last } => {
                if let Some(room) = self.hub.find(&shop) {
                    room.barred(&device, conn.as_ref(), last);
                }
            }
            FeedEvent::Broadcast(broadcast) => {
                let push = Arc::new(SignalPush::new(broadcast.signal));
                for room in self.hub.rooms() {
                    room.on_broadcast(&push, &broadcast.except);
                }
            }
            FeedEvent::LegacyText(text) => self.hub.on_legacy_text(&text.conns, &text.text),
            FeedEvent::Gap(cause) => {
                if cause == GapCause::Deaf {
                    warn!("the subscription had gone deaf; it was made anew and every room is checked");
                } else {
                    info!(?cause, "events may have been lost; every room is checked");
                }
                self.check_all();
            }
        }
    }

    /// Compares every room with the store, because something may have been missed.
    pub fn check_all(&self) {
        self.enqueue_once(&self.checks_heads, Job::CheckHeads);
        self.enqueue_once(&self.checks_presence, Job::CheckPresence);
    }

    /// Enqueues a job, unless it waits already.
    fn enqueue_once(&self, waits: &AtomicBool, job: Job) {
        if !waits.swap(true, Ordering::Relaxed) {
            self.enqueue(job);
        }
    }

    /// What other nodes publish counts towards the shop's limit too.
    fn count_publish(&self, room: &Room, publisher: Option<&NodeId>) {
        if publisher.is_some_and(|publisher| *publisher != self.node) {
            room.publish_elsewhere(Instant::now());
        }
    }

    fn on_entry(&self, room: Arc<Room>, prev: MessageId, stored: Stored) {
        let push = Arc::new(Push::new(stored.id, stored.entry, None, false));
        match room.on_entry(prev, &push) {
            Applied::Taken | Applied::Old | Applied::Noted => {}
            Applied::Gap if planted::strikes(Fault::DropRead) => {}
            Applied::Gap => {
                metrics::feed_gap();
                debug!(shop = %room.shop(), %prev, id = %push.id, "the feed skipped something");
                self.enqueue(Job::CatchUp(room));
            }
            Applied::Rewound => self.enqueue(Job::Rewind(room)),
        }
    }

    /// Reads logs for the rooms that need it, audits their positions and closes rooms that nobody
    /// uses, until it is dropped.
    pub async fn keep(self: Arc<Self>) {
        let mut running = JoinSet::new();
        let mut audit = tokio::time::interval(self.audit / AUDIT_STEPS);
        audit.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            while running.len() < JOBS_MAX {
                let Some(job) = self.jobs.lock().pop_front() else { break };
                let feed = self.clone();
                running.spawn(async move { feed.work(job).await });
            }
            tokio::select! {
                () = self.wake.notified() => {}
                Some(_) = running.join_next() => {}
                _ = audit.tick() => self.enqueue_once(&self.audits, Job::Audit),
            }
        }
    }

    async fn work(&self, job: Job) {
        let outcome = match &job {
            Job::CatchUp(room) => self.read_log(room).await,
            Job::Rewind(room) => self.rewind(room).await,
            Job::Check(room) => self.check_heads(std::slice::from_ref(room)).await,
            Job::CheckLater(rooms) => {
                tokio::time::sleep(RETRY_WAIT).await;
                self.check_heads(rooms).await
            }
            Job::CheckHeads => self.check_all_heads().await,
            Job::CheckPresence => self.check_all_presence().await,
            Job::Audit => {
                self.audits.store(false, Ordering::Relaxed);
                self.close_idle_rooms().await;
                self.audit_step().await;
                Ok(())
            }
        };
        if let Err(error) = outcome {
            debug!(%error, "a room waits for the store");
            tokio::time::sleep(RETRY_WAIT).await;
            match job {
                Job::CheckHeads => self.enqueue_once(&self.checks_heads, job),
                Job::CheckPresence => self.enqueue_once(&self.checks_presence, job),
                job => self.enqueue(job),
            }
        }
    }

    async fn read_log(&self, room: &Arc<Room>) -> Result<(), StoreError> {
        loop {
            let Some(reading) = room.begin_reading() else { return Ok(()) };
            // A log that was rewound may have grown past the room's position since; what it holds below that
            // would be skipped.
            if reading.from != MessageId::ZERO && self.store.has_lost(room.shop(), reading.from).await? {
                return self.rewind(room).await;
            }
            let mut through = reading.from;
            loop {
                metrics::catchup_page();
                let page = self.store.read(room.shop(), through, PAGE).await?;
                for stored in page.entries {
                    let status = stored.dealt.map(|dealt| dealt.status);
                    room.on_replay(&Arc::new(Push::new(stored.id, stored.entry, status, true)), &reading);
                }
                through = page.last;
                if page.is_end {
                    break;
                }
            }
            if !room.caught_up(through, &reading) {
                return Ok(());
            }
        }
    }

    /// The log's tail is gone: sessions go back to the cursors that the store still has.
    async fn rewind(&self, room: &Arc<Room>) -> Result<(), StoreError> {
        let head = self.store.head(room.shop()).await?;
        let devices = self.store.devices(room.shop()).await?;
        let devices: HashMap<_, _> = devices.into_iter().map(|known| (known.device.clone(), known)).collect();
        let known = |device: &_| devices.get(device).map(|known| (known.cursor, known.membership.clone()));
        metrics::log_rewound();
        warn!(shop = %room.shop(), position = ?room.position(), %head, "the log was rewound; its lost tail is lost, the rest is sent again from the stored cursors");
        room.rewind(head, known);
        Ok(())
    }

    async fn check_all_heads(&self) -> Result<(), StoreError> {
        // What is lost from here on asks for another check.
        self.checks_heads.store(false, Ordering::Relaxed);
        for rooms in self.hub.rooms().chunks(HEADS_MAX) {
            self.check_heads(rooms).await?;
        }
        Ok(())
    }

    async fn check_all_presence(&self) -> Result<(), StoreError> {
        self.checks_presence.store(false, Ordering::Relaxed);
        for room in self.hub.rooms() {
            self.check_presence(&room).await?;
        }
        Ok(())
    }

    async fn check_heads(&self, rooms: &[Arc<Room>]) -> Result<(), StoreError> {
        // The positions are taken first: a head asked for later can only be older after a rewind.
        let standing: Vec<(&Arc<Room>, MessageId)> =
            rooms.iter().filter_map(|room| Some((room, room.position()?))).collect();
        let shops: Vec<ShopId> = standing.iter().map(|(room, _)| room.shop().clone()).collect();
        let heads = self.store.heads(&shops).await?;
        let mut unanswered = Vec::new();
        for ((room, position), head) in standing.into_iter().zip(heads) {
            let Some(head) = head else {
                unanswered.push(room.clone());
                continue;
            };
            match room.check_head(position, head) {
                HeadCheck::Fine => {}
                HeadCheck::Behind => {
                    metrics::feed_gap();
                    self.enqueue(Job::CatchUp(room.clone()));
                }
                HeadCheck::Rewound => self.enqueue(Job::Rewind(room.clone())),
            }
        }
        if !unanswered.is_empty() {
            // Their part of the store is away; the others' rooms do not wait for it.
            self.enqueue(Job::CheckLater(unanswered));
        }
        Ok(())
    }

    async fn audit_step(&self) {
        let rooms = {
            let mut unaudited = self.unaudited.lock();
            if unaudited.is_empty() {
                *unaudited = self.hub.rooms();
                self.audits_begun.fetch_add(1, Ordering::Relaxed);
            }
            let count = (self.hub.len() / AUDIT_STEPS as usize + 1).min(unaudited.len());
            let keep = unaudited.len() - count;
            unaudited.split_off(keep)
        };
        for rooms in rooms.chunks(HEADS_MAX) {
            if let Err(error) = self.audit_rooms(rooms).await {
                debug!(%error, "the audit waits for the store");
                self.unaudited.lock().extend(rooms.iter().cloned());
            }
        }
    }

    async fn audit_rooms(&self, rooms: &[Arc<Room>]) -> Result<(), StoreError> {
        self.check_heads(rooms).await?;
        // A takeover that the feed lost shows nowhere but in the registry, and asking is dearer.
        if self.audits_begun.load(Ordering::Relaxed).is_multiple_of(PRESENCE_EVERY) {
            for room in rooms {
                self.check_presence(room).await?;
            }
        }
        Ok(())
    }

    async fn close_idle_rooms(&self) {
        for room in self.hub.idle(Instant::now(), LINGER) {
            // Whoever holds it is logging in, so the room is not idle after all.
            let Ok(mut subscription) = room.subscription.try_lock() else { continue };
            if !room.is_unused() {
                continue;
            }
            if *subscription != Subscription::None {
                // A login that comes meanwhile subscribes again, and after this.
                *subscription = Subscription::Unsure;
                room.unsubscribed();
                if let Err(error) = self.store.unsubscribe(room.shop()).await {
                    debug!(shop = %room.shop(), %error, "a room stays until the store answers");
                    return;
                }
                *subscription = Subscription::None;
            }
            self.hub.remove(&room, Instant::now());
        }
    }
}
