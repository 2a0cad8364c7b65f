//! What a client's op does to the store, and what it is answered.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::{debug, warn};

use crate::hub::{Room, RoomGuard};
use crate::ids::{ConnId, OnceKey};
use crate::message::{Entry, Message, Origin, Recipient, Role, Signal};
use crate::metrics::{self, LoginResult, Source};
use crate::protocol::{Deal, Encoding, ErrorCode, Item, List, ListStatus, Login, Presence};
use crate::session::{Answer, CallOp, Failure, Identity, Welcome};
use crate::socket::Relay;
use crate::store::{
    Connect, Device, PageLimit, Publish, Published, SetStatus, Signalled, StatusSet, StoreError, Stored,
};

/// When to try again after the store could not be reached.
const UNAVAILABLE_WAIT: Duration = Duration::from_millis(500);
/// When to try again after a log was full.
const BACKLOG_WAIT: Duration = Duration::from_secs(1);
/// How much of a log is read at once for a list.
const LIST_PAGE: PageLimit = PageLimit { entries: 500, bytes: 1 << 20 };
/// Entries and pages of the log that one list looks at, at most.
const LIST_SCAN_MAX: usize = 5000;
const LIST_PAGES_MAX: usize = 10;
/// Largest page of a list, in bytes, less what stands around its items.
const LIST_BYTES_MAX: usize = (1 << 20) - 512;

/// What came of a call.
pub enum Answered {
    Plain(Answer),
    /// A login that holds, with its room.
    LoggedIn(Box<Welcome>, RoomGuard),
}

/// Who asks.
pub struct Caller {
    pub relay: Arc<Relay>,
    pub conn: ConnId,
    pub encoding: Encoding,
    /// None before the login.
    pub identity: Option<Identity>,
    pub room: Option<Arc<Room>>,
}

impl Caller {
    /// Does what the op asks for. Dropping the future may leave it done.
    pub async fn perform(self, op: CallOp) -> Answered {
        if let CallOp::Login(login) = op {
            return self.login(login).await;
        }
        let Some((identity, room)) = self.identity.as_ref().zip(self.room.as_ref()) else {
            return Answered::Plain(failed(Failure::new(ErrorCode::NotLoggedIn, "log in first")));
        };
        let answer = match op {
            CallOp::Login(_) => Err(Failure::new(ErrorCode::AlreadyLoggedIn, "this connection is logged in")),
            CallOp::Publish(message, key) => refused(self.publish(room, *message, key).await),
            CallOp::Signal(signal) => refused(self.signal(room, &signal).await),
            CallOp::Deal(deal) => self.deal(identity, deal).await,
            CallOp::List(list) => self.list(identity, list).await,
            CallOp::Online(role) => self.online(identity, role).await,
        };
        Answered::Plain(answer.unwrap_or_else(failed))
    }

    async fn login(self, login: Login) -> Answered {
        let outcome = async {
            // Subscribe before the cursor is read; the other way round, an entry that is stored
            // between the two would wait for the next audit.
            let room = self.relay.feed.open(&login.shop).await?;
            let connect = Connect {
                device: login.device.clone(),
                role: login.role,
                conn: self.conn.clone(),
                node: self.relay.node.clone(),
                meta: login.meta.clone(),
            };
            let connected = self.relay.store.connect(&login.shop, &connect).await?;
            Ok::<_, StoreError>((room, connected))
        };
        match outcome.await {
            Ok((room, connected)) => {
                metrics::login(LoginResult::Ok);
                debug!(shop = %login.shop, device = %login.device, conn = %self.conn, cursor = %connected.cursor, "logged in");
                let welcome = Welcome {
                    login,
                    groups: connected.groups,
                    user: connected.user,
                    cursor: connected.cursor,
                    head: connected.head,
                    server_time_ms: self.relay.store.now_ms(),
                };
                Answered::LoggedIn(Box::new(welcome), room)
            }
            Err(error) => {
                metrics::login(LoginResult::Unavailable);
                Answered::Plain(failed(store_failure(&error)))
            }
        }
    }

    async fn publish(&self, room: &Room, message: Message, key: Option<OnceKey>) -> Result<Answer, Failure> {
        take_publish(room)?;
        let publish = Publish { message, key };
        let store = &self.relay.store;
        let mut published = store.publish(room.shop(), &publish).await.map_err(|error| store_failure(&error))?;
        if published == Published::BacklogFull {
            // One at a time: whoever waited here finds the room that the one before made.
            let _turn = room.trimming.lock().await;
            published = store.publish(room.shop(), &publish).await.map_err(|error| store_failure(&error))?;
            if published == Published::BacklogFull {
                let made_room =
                    self.relay.retention.make_room(room.shop()).await.map_err(|error| store_failure(&error))?;
                if made_room {
                    published = store.publish(room.shop(), &publish).await.map_err(|error| store_failure(&error))?;
                }
            }
        }
        match published {
            Published::Stored(id) => {
                metrics::published(Source::Device);
                Ok(Answer::Accepted { id: Some(id), is_duplicate: false })
            }
            Published::Duplicate(id) => Ok(Answer::Accepted { id: Some(id), is_duplicate: true }),
            Published::NoMainDevice => {
                Err(Failure::new(ErrorCode::NoMainDevice, "no main device has ever logged in to this shop"))
            }
            Published::NoSuchDevice => Err(no_such_device()),
            Published::BacklogFull => {
                let text = "the shop's log is full of what some device has not received yet";
                Err(Failure::new(ErrorCode::BacklogFull, text).retry_after(BACKLOG_WAIT))
            }
        }
    }

    async fn signal(&self, room: &Room, signal: &Signal) -> Result<Answer, Failure> {
        take_publish(room)?;
        match self.relay.store.signal(room.shop(), signal).await.map_err(|error| store_failure(&error))? {
            Signalled::Sent => {
                metrics::signalled();
                Ok(Answer::Accepted { id: None, is_duplicate: false })
            }
            Signalled::NoSuchDevice => Err(no_such_device()),
        }
    }

    async fn deal(&self, identity: &Identity, deal: Deal) -> Result<Answer, Failure> {
        let one = PageLimit { entries: 1, bytes: 1 };
        let store = &self.relay.store;
        let page = store.read(&identity.shop, deal.id.before(), one).await.map_err(|error| store_failure(&error))?;
        let found = page.entries.into_iter().find(|stored| stored.id == deal.id);
        let Some(Stored { entry: Entry::Message(message), .. }) = found else {
            return Err(no_such_message());
        };
        let change = SetStatus {
            message: deal.id,
            status: deal.status.clone(),
            expect: deal.expect,
            by: Origin::Device { device: identity.device.clone(), role: identity.role },
            initial: message.status,
            sender: message.content.from.device().cloned(),
        };
        match store.set_status(&identity.shop, &change).await.map_err(|error| store_failure(&error))? {
            StatusSet::Set(_) | StatusSet::Unchanged => Ok(Answer::Dealt { id: deal.id, status: deal.status }),
            StatusSet::NotFound => Err(no_such_message()),
            StatusSet::Conflict { status, by } => {
                let mut failure =
                    Failure::new(ErrorCode::Conflict, format!("the present status is {:?}", status.as_str()));
                failure.present = Some((status, by));
                Err(failure)
            }
        }
    }

    async fn online(&self, identity: &Identity, role: Option<Role>) -> Result<Answer, Failure> {
        let online = self.relay.store.online(&identity.shop).await.map_err(|error| store_failure(&error))?;
        let (now, now_ms) = (Instant::now(), self.relay.store.now_ms());
        let wanted = online.into_iter().filter(|entry| role.is_none_or(|role| entry.role == role));
        let devices = wanted.filter_map(|entry| {
            let state = self.relay.nodes.state_of(&entry, now, now_ms)?;
            Some(Presence { device: entry.device, role: entry.role, conn: entry.conn, since: entry.since_ms, state })
        });
        Ok(Answer::Presence(devices.collect()))
    }

    async fn list(&self, identity: &Identity, list: List) -> Result<Answer, Failure> {
        let store = &self.relay.store;
        let devices = store.devices(&identity.shop).await.map_err(|error| store_failure(&error))?;
        let (mut after, mut scanned, mut pages, mut bytes) = (list.after, 0, 0, 0);
        // The semaphore is never closed; without a permit there are just more pages at once.
        let _permit = self.relay.pages.acquire().await.ok();
        let mut items = Vec::new();
        loop {
            let page = store.read(&identity.shop, after, LIST_PAGE).await.map_err(|error| store_failure(&error))?;
            let last = page.entries.last().map(|stored| stored.id);
            for stored in page.entries {
                let id = stored.id;
                scanned += 1;
                if let Some(item) = self.item(identity, &list.status, &devices, stored) {
                    bytes += item.encoded_len(self.encoding);
                    if bytes > LIST_BYTES_MAX && !items.is_empty() {
                        return Ok(Answer::Messages { items, next: Some(after) });
                    }
                    items.push(item);
                }
                after = id;
                if items.len() >= list.limit {
                    let is_last = page.is_end && last == Some(id);
                    return Ok(Answer::Messages { items, next: (!is_last).then_some(after) });
                }
            }
            after = page.last;
            if page.is_end {
                return Ok(Answer::Messages { items, next: None });
            }
            pages += 1;
            if scanned >= LIST_SCAN_MAX || pages >= LIST_PAGES_MAX {
                return Ok(Answer::Messages { items, next: Some(after) });
            }
        }
    }

    /// The entry as the list shows it; None where it does not.
    fn item(&self, identity: &Identity, wanted: &ListStatus, devices: &[Device], stored: Stored) -> Option<Item> {
        let Entry::Message(message) = stored.entry else {
            return None;
        };
        let me = Recipient {
            device: &identity.device,
            role: identity.role,
            groups: &identity.groups,
            user: identity.user.as_ref(),
            conn: Some(&self.conn),
        };
        let is_own = message.content.from.device() == Some(&identity.device);
        if identity.role == Role::Sub && !is_own && !message.content.is_for(me) {
            return None;
        }
        let status = stored.dealt.as_ref().map_or(&message.status, |dealt| &dealt.status);
        let is_wanted = match wanted {
            ListStatus::All => true,
            ListStatus::Open => stored.dealt.is_none(),
            ListStatus::Is(name) => name == status,
        };
        if !is_wanted {
            return None;
        }
        let delivered = devices
            .iter()
            .filter(|device| device.registered_at < stored.id && message.content.is_for(device.recipient()))
            .map(|device| {
                let has_it = device.cursor >= stored.id && !stored.unseen_by.contains(&device.device);
                (device.device.clone(), has_it)
            })
            .collect();
        Some(Item { id: stored.id, message, dealt: stored.dealt.map(|dealt| (dealt.status, dealt.by)), delivered })
    }
}

fn failed(failure: Failure) -> Answer {
    Answer::Failed(Box::new(failure))
}

/// Counts a refused message or signal.
fn refused(outcome: Result<Answer, Failure>) -> Result<Answer, Failure> {
    outcome.inspect_err(|failure| metrics::publish_refused(failure.code))
}

fn take_publish(room: &Room) -> Result<(), Failure> {
    room.take_publish(Instant::now())
        .map_err(|wait| Failure::new(ErrorCode::RateLimited, "the shop sends too much; slow down").retry_after(wait))
}

fn no_such_device() -> Failure {
    Failure::new(ErrorCode::NotFound, "none of these devices is registered in this shop")
}

fn no_such_message() -> Failure {
    Failure::new(ErrorCode::NotFound, "no message with this id is in the shop's log")
}

fn store_failure(error: &StoreError) -> Failure {
    match error {
        StoreError::Unavailable(_) => {
            let text =
                "the store cannot be reached; repeat a notify under its key, without one it may be stored already";
            Failure::new(ErrorCode::Unavailable, text).retry_after(UNAVAILABLE_WAIT)
        }
        StoreError::Full => {
            Failure::new(ErrorCode::Unavailable, "the store is full; nothing was stored").retry_after(BACKLOG_WAIT)
        }
        StoreError::Nonsense { .. } => {
            warn!(%error, "the store answered nonsense");
            Failure::new(ErrorCode::Internal, "the store gave an answer that the relay does not understand")
        }
    }
}
