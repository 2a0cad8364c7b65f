//! How a session's entries reach it: from its room by the outbox while it keeps up, and page by page
//! from the log while it does not.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tracing::debug;

use crate::hub::{Parcel, Push, Rewound};
use crate::ids::MessageId;
use crate::message::Entry;
use crate::metrics;
use crate::planted::{self, Fault};
use crate::protocol::{self, Close, CloseCode, Encoding, ServerOp};
use crate::relay::LogStretch;
use crate::session::Offer;
use crate::socket::connection::{Begun, Connection};
use crate::socket::writer;
use crate::store::StoreError;

/// Wait after a page that could not be read.
const PAGE_RETRY: Duration = Duration::from_millis(200);
/// Fewest and most entries of one page of a session's log.
const PAGE_ENTRIES: (usize, usize) = (16, 128);
/// Entries that may wait while the session reads its way up to them.
const HELD_MAX: usize = 256;

/// A page of the log, with the numbers of what a legacy session is to be sent of it.
pub(super) struct LogPage {
    page: Arc<LogStretch>,
    numbers: HashMap<MessageId, u64>,
}

/// Where a session's entries come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// The log, page by page; `until` is where the outbox begins, once it is attached.
    Log { until: Option<MessageId> },
    /// The room, by the outbox.
    Room,
}

impl Connection {
    /// The session has logged in and found the log's head there.
    pub(super) fn begin_entries(&mut self, head: MessageId) {
        let Some(room) = &self.room else { return };
        let is_level = self.session.position() >= head;
        self.source = Source::Log { until: is_level.then(|| room.attach(&self.outbox)) };
    }

    /// Takes from the room again, where the session has come up to its outbox.
    pub(super) fn go_live(&mut self) {
        let Source::Log { until: Some(until) } = self.source else { return };
        if self.session.position() < until {
            return;
        }
        self.source = Source::Room;
        for push in std::mem::take(&mut self.held) {
            if self.source == Source::Room {
                self.offer(&push);
            }
        }
    }

    /// Has the next page read, where the session is behind and there is room in its window.
    pub(super) fn read_if_behind(&mut self) {
        let is_behind = self.room.is_some() && self.source != Source::Room;
        let has_room = self.session.room() > 0 && self.outgoing.blocked_since().is_none();
        if is_behind && has_room && self.reading.is_none() && self.close.is_none() {
            self.read_on(Duration::ZERO);
        }
    }

    /// Deals with what the room put into the outbox.
    pub(super) fn empty_outbox(&mut self) {
        // A client that takes nothing is given nothing: its outbox fills, and it falls behind.
        let taken =
            if self.outgoing.blocked_since().is_some() { self.outbox.take_orders() } else { self.outbox.take() };
        for parcel in taken.parcels {
            match parcel {
                Parcel::Entry(push) if self.source == Source::Room => self.offer(&push),
                Parcel::Entry(push) if self.source != (Source::Log { until: None }) => self.held.push_back(push),
                // The session reads the log, where this is too.
                Parcel::Entry(_) => {}
                Parcel::Signal(push) if self.session.is_legacy() => {
                    let shop = self.session.identity().map(|identity| &identity.shop);
                    let payload = shop.and_then(|shop| protocol::legacy::signal(shop, &push.signal));
                    self.outgoing.extend(payload.map(|payload| writer::data_frame(Encoding::Json, payload)));
                }
                Parcel::Text(text) => {
                    self.outgoing.push(writer::data_frame(Encoding::Json, text.as_bytes().to_vec()));
                }
                // The old clients know no word for it.
                Parcel::Receipt { .. } if self.session.is_legacy() => {}
                Parcel::Signal(push) => {
                    let encoding = self.session.encoding();
                    self.outgoing.extend(push.frame(encoding, |payload| writer::data_frame(encoding, payload)));
                }
                Parcel::Receipt { message, device, at_ms } => {
                    let op = ServerOp::Receipt { message, device: &device, at: at_ms };
                    let payload = protocol::encode(self.session.encoding(), &op);
                    self.outgoing.extend(payload.map(|payload| writer::data_frame(self.session.encoding(), payload)));
                }
            }
        }
        if let Some(at) = taken.fell_behind_at {
            if self.source == Source::Room {
                self.session.on_passed(at);
            }
            self.fall_behind();
        } else if self.held.len() > HELD_MAX {
            self.fall_behind();
        }
        if let Some(rewound) = taken.rewound {
            let Rewound { cursor, membership, head } = *rewound;
            self.fall_behind();
            self.reading = None;
            if !self.session.on_rewound(cursor, membership, head) {
                self.close = Some(self.restart());
            }
        }
        if let Some(close) = taken.close {
            self.close.get_or_insert(close);
        }
    }

    /// Offers the session an entry of its room. A legacy one takes it as a hint, and reads the log: what
    /// it is sent bears a number that has to be asked for.
    fn offer(&mut self, push: &Push) {
        if self.session.is_legacy() {
            return self.fall_behind();
        }
        let offer =
            self.session.on_entry(push.id, &push.entry, Instant::now(), self.relay.store.now_ms(), &mut self.actions);
        match offer {
            Offer::Skip | Offer::Expired => {}
            Offer::Full if planted::strikes(Fault::DropWhenFull) => {}
            Offer::Full => self.fall_behind(),
            Offer::Send => {
                let encoding = self.session.encoding();
                let frame = push.frame(encoding, |payload| writer::data_frame(encoding, payload));
                self.send_entry(push.id, &push.entry, frame, push.is_replay);
            }
        }
    }

    fn send_entry(&mut self, id: MessageId, entry: &Entry, frame: Option<Bytes>, is_replay: bool) {
        let Some(frame) = frame else {
            // It was checked before it was stored; if it can't be written all the same, the device
            // must not believe that it has everything.
            debug!(conn = %self.session.conn(), %id, "an entry cannot be encoded");
            self.close.get_or_insert(Close::new(CloseCode::Violation, "an entry cannot be encoded"));
            return;
        };
        if planted::strikes(Fault::DoublePush) {
            self.outgoing.push(frame.clone());
        }
        self.outgoing.push(frame);
        if matches!(entry, Entry::Message(_)) {
            self.stored_ms.push(id.ms);
            if is_replay {
                metrics::replayed();
            }
        }
    }

    /// From now on the session reads the log.
    fn fall_behind(&mut self) {
        self.outbox.fall_behind();
        self.held = VecDeque::new();
        self.source = Source::Log { until: None };
    }

    fn read_on(&mut self, wait: Duration) {
        let Some(room) = &self.room else { return };
        let (relay, shop, after) = (self.relay.clone(), room.shop().clone(), self.session.position());
        let (fewest, most) = PAGE_ENTRIES;
        // In few sizes, so that sessions that are behind by the same read the same pages.
        let entries = self.session.room().clamp(fewest, most).next_power_of_two();
        let legacy = self.session.identity().filter(|_| self.session.is_legacy()).cloned();
        let legacy = legacy.map(|identity| (identity, self.session.conn().clone()));
        self.reading = Some(Begun::new(async move {
            if wait > Duration::ZERO {
                tokio::time::sleep(wait).await;
            }
            let page = relay.pages.read(&*relay.store, &shop, after, entries).await?;
            let Some((identity, conn)) = legacy else { return Ok(LogPage { page, numbers: HashMap::new() }) };
            // A membership that changes within the page decides only when the session comes to it.
            let has_changes = page.pushes.iter().any(|push| matches!(push.entry, Entry::Membership(_)));
            let is_shown = |push: &&Arc<Push>| has_changes || push.entry.is_for(identity.recipient(&conn));
            let shown = page.pushes.iter().filter(|push| matches!(push.entry, Entry::Message(_)));
            let shown: Vec<MessageId> = shown.filter(is_shown).map(|push| push.id).collect();
            let numbers = relay.store.numbers(&shop, &shown).await?;
            Ok(LogPage { page, numbers: shown.into_iter().zip(numbers).collect() })
        }));
    }

    /// A page of the log was read.
    pub(super) fn on_page(&mut self, page: Result<LogPage, StoreError>) {
        let LogPage { page, numbers } = match page {
            Ok(page) => page,
            Err(error) => {
                debug!(conn = %self.session.conn(), %error, "a session waits for its log");
                return self.read_on(PAGE_RETRY);
            }
        };
        let left_out = usize::from(page.is_end && planted::strikes(Fault::SkipAtBoundary));
        for push in page.pushes.iter().take(page.pushes.len().saturating_sub(left_out)) {
            let offer = self.session.on_entry(
                push.id,
                &push.entry,
                Instant::now(),
                self.relay.store.now_ms(),
                &mut self.actions,
            );
            match offer {
                Offer::Skip | Offer::Expired => {}
                // The rest stays in the log until an ack makes room.
                Offer::Full => return,
                Offer::Send => {
                    let encoding = self.session.encoding();
                    let finish = |payload| writer::data_frame(encoding, payload);
                    let frame = match (&push.entry, numbers.get(&push.id)) {
                        (Entry::Message(message), Some(number)) => {
                            let status = push.status.as_ref().unwrap_or(&message.status);
                            Some(finish(protocol::legacy::push(*number, status, message)))
                        }
                        _ if self.session.is_legacy() => None,
                        _ => push.frame(encoding, finish),
                    };
                    self.send_entry(push.id, &push.entry, frame, push.is_replay);
                }
            }
        }
        self.session.on_passed(page.last);
        if page.is_end {
            self.at_end_of_log();
        }
    }

    fn at_end_of_log(&mut self) {
        let (Some(room), Source::Log { until }) = (&self.room, self.source) else {
            return;
        };
        match until {
            None => self.source = Source::Log { until: Some(room.attach(&self.outbox)) },
            Some(until) if self.session.position() < until => {
                // What the room has seen is not in the log: it was trimmed, or the log was rewound,
                // which the feed finds out and tells.
                self.session.on_passed(until);
                self.relay.feed.suspect(Arc::clone(room));
            }
            Some(_) => {}
        }
    }
}
