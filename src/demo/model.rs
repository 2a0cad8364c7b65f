//! What became of every message: the demo's book-keeping.
//!
//! Owns the messages on the screen, the counts, and the judgement whether one was missed. Pure: told
//! of everything by [`Report`]s with the time in them, and never does anything. Messages of guests are
//! shown, but only those of the demo's own handhelds are counted, because nobody here knows what else
//! a guest did. Called by the parent; drawn by `view`.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use crate::demo::news::{Item, News};
use crate::demo::report::{Absence, Content, HANDHELDS, MAINS, Report, TILLS, Who};
use crate::demo::summary::Summary;
use crate::ids::MessageId;

/// Finished messages that are kept to be looked at.
const ROWS_KEPT: usize = 64;
/// Deliveries that the percentiles are of: the newest ones.
const LATENCIES_KEPT: usize = 10_000;

/// A message, as far as it has come.
#[derive(Debug)]
pub struct Row {
    pub at: Instant,
    pub content: Content,
    /// Of one of the demo's handhelds: it counts.
    pub is_ours: bool,
    /// By place in [`MAINS`].
    pub got: [Option<Got>; MAINS.len()],
    /// Who dealt with it.
    pub dealt_by: Option<String>,
    sent_at: Option<Instant>,
}

/// That a main has a message.
#[derive(Debug, Clone, Copy)]
pub struct Got {
    /// From sending to having; unknown where only one of the two is known yet.
    pub after: Option<Duration>,
    /// It was connected when the message was sent.
    pub is_live: bool,
    since: Instant,
    at: Instant,
}

/// A main, as the demo sees it.
#[derive(Debug, Default)]
pub struct Main {
    pub is_online: bool,
    pub off_since: Option<Instant>,
    /// Messages of ours that it has.
    pub delivered: u64,
    /// Messages that were waiting for it when it came back, and that it has not got yet.
    pub owed: BTreeSet<MessageId>,
    /// Under its name is somebody else now.
    pub is_replaced: bool,
    back: Option<(Instant, usize)>,
    newest: MessageId,
}

/// Everything that is known.
#[derive(Debug)]
pub struct Model {
    pub began: Instant,
    pub rows: BTreeMap<MessageId, Row>,
    pub mains: [Main; MAINS.len()],
    pub handhelds_online: [bool; HANDHELDS.len()],
    resting: [bool; HANDHELDS.len()],
    latencies: VecDeque<Duration>,
    counts: Summary,
    forgotten_through: MessageId,
}

impl Model {
    pub fn new(began: Instant) -> Model {
        Model {
            began,
            rows: BTreeMap::new(),
            mains: Default::default(),
            handhelds_online: Default::default(),
            resting: Default::default(),
            latencies: VecDeque::new(),
            counts: Summary::default(),
            forgotten_through: MessageId::ZERO,
        }
    }

    /// Whether every main is logged in.
    pub fn is_open(&self) -> bool {
        self.mains.iter().all(|main| main.is_online)
    }

    /// Whether nothing is under way: the handhelds rest, every main has everything, and what tills can
    /// deal with is dealt with.
    pub fn is_settled(&self) -> bool {
        let is_manned = self.mains.iter().take(TILLS).any(|till| !till.is_replaced);
        let is_done = |row: &Row| self.is_everywhere(row) && (row.dealt_by.is_some() || !is_manned);
        self.resting.iter().all(|resting| *resting) && self.rows.values().filter(|row| row.is_ours).all(is_done)
    }

    /// The figures so far. At the end what a main has not got is missed; before, only what it was passed over with.
    pub fn summary(&self, now: Instant, is_end: bool) -> Summary {
        let mut latencies: Vec<Duration> = self.latencies.iter().copied().collect();
        latencies.sort_unstable();
        let percentile = |percent: usize| {
            let index = (latencies.len() * percent).div_ceil(100).saturating_sub(1);
            latencies.get(index).copied()
        };
        Summary {
            ran: now.saturating_duration_since(self.began),
            delivered: MAINS.iter().copied().zip(self.mains.iter().map(|main| main.delivered)).collect(),
            missed: self.missed(is_end),
            latency_p50: percentile(50),
            latency_p99: percentile(99),
            ..self.counts.clone()
        }
    }

    fn missed(&self, is_end: bool) -> usize {
        let missed_by = |index: usize, main: &Main| {
            let is_missed = |(id, row): &(&MessageId, &Row)| {
                row.is_ours && matches!(row.got.get(index), Some(None)) && (is_end || **id < main.newest)
            };
            if main.is_replaced { 0 } else { self.rows.iter().filter(is_missed).count() }
        };
        self.mains.iter().enumerate().map(|(index, main)| missed_by(index, main)).sum()
    }

    /// Takes note of a report; says what of it is news.
    pub fn hear(&mut self, report: Report) -> Vec<Item> {
        let mut news = Vec::new();
        match report {
            Report::Online { who, at } => self.on_online(who, at, &mut news),
            Report::Offline { who, at, why } => self.on_offline(who, at, why, &mut news),
            Report::Replaced { who, at } => {
                match who {
                    Who::Main(index) => {
                        if let Some(main) = self.mains.get_mut(index) {
                            (main.is_online, main.is_replaced) = (false, true);
                        }
                    }
                    Who::Handheld(index) => self.set_resting(index),
                }
                news.push(self.item(at, News::Replaced { who: who.name() }));
            }
            Report::Stored { id, content, sent_at, at } => self.on_stored(id, content, sent_at, at, &mut news),
            Report::Delivered { id, main, content, since, at } => {
                let got = Got { after: None, is_live: false, since, at };
                self.on_delivered(id, main, content, got, &mut news);
            }
            Report::Again => self.counts.again += 1,
            Report::Twice { main, id, at } => {
                self.counts.twice += 1;
                news.push(self.item(at, News::Twice { id, main: Who::Main(main).name() }));
            }
            Report::Receipt => self.counts.receipts += 1,
            Report::Dealt { id, by, status, at } => self.on_dealt(id, by, status, at, &mut news),
            Report::Conflict { id, main, by, at } => {
                self.counts.conflicts += 1;
                news.push(self.item(at, News::Conflict { id, main: Who::Main(main).name(), by }));
            }
            Report::Refused { who, code, message, at } => {
                self.counts.refused += 1;
                news.push(self.item(at, News::Refused { who: who.name(), code, message }));
            }
            Report::Resting { handheld } => self.set_resting(handheld),
            Report::Unanswered => self.counts.unanswered += 1,
        }
        self.forget();
        news
    }

    fn on_online(&mut self, who: Who, at: Instant, news: &mut Vec<Item>) {
        let index = match who {
            Who::Main(index) => index,
            Who::Handheld(index) => {
                if let Some(is_online) = self.handhelds_online.get_mut(index) {
                    *is_online = true;
                }
                news.push(self.item(at, News::Joined { who: who.name() }));
                return;
            }
        };
        let waiting = |row: &Row| row.is_ours && matches!(row.got.get(index), Some(None));
        let owed: BTreeSet<MessageId> = self.rows.iter().filter(|(_, row)| waiting(row)).map(|(id, _)| *id).collect();
        let Some(main) = self.mains.get_mut(index) else { return };
        main.is_online = true;
        let waiting = owed.len();
        main.owed = owed;
        let told = match main.off_since.take() {
            None => News::Joined { who: who.name() },
            Some(off_since) => {
                main.back = (waiting > 0).then_some((at, waiting));
                News::Back { main: who.name(), after: at.saturating_duration_since(off_since), waiting }
            }
        };
        news.push(self.item(at, told));
    }

    fn on_offline(&mut self, who: Who, at: Instant, why: Absence, news: &mut Vec<Item>) {
        match who {
            Who::Main(index) => {
                let Some(main) = self.mains.get_mut(index) else { return };
                main.is_online = false;
                main.back = None;
                main.off_since.get_or_insert(at);
            }
            Who::Handheld(index) => {
                if let Some(is_online) = self.handhelds_online.get_mut(index) {
                    *is_online = false;
                }
            }
        }
        self.counts.cut_offs += u64::from(why == Absence::CutOff);
        let told = match why {
            Absence::CutOff => News::CutOff { main: who.name() },
            Absence::Lost(why) => News::Lost { who: who.name(), why },
        };
        news.push(self.item(at, told));
    }

    /// What mains had before this was known is told only now: stored comes first.
    fn on_stored(&mut self, id: MessageId, content: Content, sent_at: Instant, at: Instant, news: &mut Vec<Item>) {
        let told = News::Stored { id, content: content.clone() };
        let Some(row) = self.row(id, content, at) else { return };
        row.sent_at = Some(sent_at);
        news.push(self.item(at, told));
        for (index, main) in MAINS.into_iter().enumerate() {
            if let Some(after) = self.measure(id, index) {
                news.push(self.item(at, News::Delivered { id, main, after: Some(after) }));
            }
        }
    }

    fn on_delivered(&mut self, id: MessageId, index: usize, content: Content, got: Got, news: &mut Vec<Item>) {
        let at = got.at;
        let guest = (!is_ours(&content)).then(|| News::Stored { id, content: content.clone() });
        let is_new = !self.rows.contains_key(&id);
        let Some(row) = self.row(id, content, at) else { return };
        let is_ours = row.is_ours;
        match row.got.get_mut(index) {
            Some(slot @ None) => *slot = Some(got),
            _ => return,
        }
        if let Some(guest) = guest.filter(|_| is_new) {
            news.push(self.item(at, guest));
        }
        let after = self.measure(id, index);
        if after.is_some() || !is_ours {
            news.push(self.item(at, News::Delivered { id, main: Who::Main(index).name(), after }));
        }
        let Some(main) = self.mains.get_mut(index) else { return };
        main.newest = main.newest.max(id);
        main.delivered += u64::from(is_ours);
        if main.owed.remove(&id) {
            self.counts.caught_up += 1;
        }
        if main.owed.is_empty()
            && let Some((back_at, waiting)) = main.back.take()
        {
            let took = at.saturating_duration_since(back_at);
            news.push(self.item(at, News::CaughtUp { main: Who::Main(index).name(), waiting, took }));
        }
    }

    fn on_dealt(&mut self, id: MessageId, by: String, status: String, at: Instant, news: &mut Vec<Item>) {
        // Its end may be told by three devices, and one that was away tells it late.
        let Some(row) = self.rows.get_mut(&id).filter(|row| row.dealt_by.is_none()) else { return };
        row.dealt_by = Some(by.clone());
        self.counts.dealt += u64::from(row.is_ours);
        news.push(self.item(at, News::Dealt { id, by, status }));
    }

    /// The message, new where it was not heard of before; nothing where it is over and forgotten.
    fn row(&mut self, id: MessageId, content: Content, at: Instant) -> Option<&mut Row> {
        if !self.rows.contains_key(&id) {
            if id <= self.forgotten_through {
                return None;
            }
            let is_ours = is_ours(&content);
            self.counts.stored += u64::from(is_ours);
            self.counts.of_guests += u64::from(!is_ours);
            let row = Row { at, content, is_ours, got: [None; MAINS.len()], dealt_by: None, sent_at: None };
            self.rows.insert(id, row);
        }
        self.rows.get_mut(&id)
    }

    /// How long a delivery took, once both its ends are known; a late one for want of a connection is
    /// no measure of the relay.
    fn measure(&mut self, id: MessageId, index: usize) -> Option<Duration> {
        let row = self.rows.get_mut(&id)?;
        let sent_at = row.sent_at?;
        let got = row.got.get_mut(index)?.as_mut().filter(|got| got.after.is_none())?;
        let after = got.at.saturating_duration_since(sent_at);
        (got.after, got.is_live) = (Some(after), got.since <= sent_at);
        if got.is_live && row.is_ours {
            if self.latencies.len() == LATENCIES_KEPT {
                self.latencies.pop_front();
            }
            self.latencies.push_back(after);
        }
        Some(after)
    }

    /// Lets go of what is over and no longer looked at.
    fn forget(&mut self) {
        while self.rows.len() > ROWS_KEPT {
            let is_over = |row: &Row| !row.is_ours || (self.is_everywhere(row) && row.dealt_by.is_some());
            let Some(id) = self.rows.iter().find(|(_, row)| is_over(row)).map(|(id, _)| *id) else { return };
            self.rows.remove(&id);
            self.forgotten_through = self.forgotten_through.max(id);
        }
    }

    fn is_everywhere(&self, row: &Row) -> bool {
        self.mains.iter().zip(&row.got).all(|(main, got)| got.is_some() || main.is_replaced)
    }

    fn set_resting(&mut self, handheld: usize) {
        if let Some(resting) = self.resting.get_mut(handheld) {
            *resting = true;
        }
    }

    fn item(&self, at: Instant, news: News) -> Item {
        Item { at: at.saturating_duration_since(self.began), news }
    }
}

fn is_ours(content: &Content) -> bool {
    HANDHELDS.contains(&content.from.as_str())
}
