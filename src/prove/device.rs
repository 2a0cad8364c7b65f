//! A device of the proof: behaves as the protocol asks of a real one, and has a habit.
//!
//! Owns its connection's coming and going. Whatever it sends and is sent it writes into its shop's
//! journal; it judges nothing itself.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::client::{Dice, Link, LinkError, REPLACED};
use crate::ids::MessageId;
use crate::prove::connection::Connection;
use crate::prove::dealer::Dealer;
use crate::prove::linger::linger;
use crate::prove::plan::Habit;
use crate::prove::sender::Sender;
use crate::prove::shop::{Order, Phase, Seat};

/// A connection on which nothing is heard for so long is given up.
pub const SILENCE_MAX: Duration = Duration::from_secs(9);
/// The wait before the first new attempt, and the longest one.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// The longest wait that the relay may ask for.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// See the module.
pub struct Device {
    pub(super) seat: Arc<Seat>,
    pub(super) orders: mpsc::Receiver<Order>,
    pub(super) sender: Sender,
    pub(super) dealer: Dealer,
    pub(super) dice: Dice,
    pub(super) is_prepared: bool,
    attempts: usize,
    backoff: Duration,
    /// The number of the newest connection.
    logins: watch::Sender<u64>,
    cursor: MessageId,
    lingering: JoinSet<()>,
}

/// How a stay on a connection came to its end.
pub(super) enum End {
    Over,
    Lost(LinkError),
    /// It goes away for so long, as is its habit.
    Away(Duration),
    /// The node is leaving and said when to come again; the connection goes on meanwhile.
    Leaving(Duration),
}

impl From<LinkError> for End {
    fn from(error: LinkError) -> End {
        End::Lost(error)
    }
}

impl Device {
    pub fn new(seat: Seat, orders: mpsc::Receiver<Order>, dice: Dice) -> Device {
        let attempts = usize::from(seat.device) + usize::try_from(seat.shop.number).unwrap_or(0);
        Device {
            // A device that is in no group has nothing to prepare.
            is_prepared: !seat.is_in_group(),
            seat: Arc::new(seat),
            orders,
            sender: Sender::default(),
            dealer: Dealer::default(),
            dice,
            attempts,
            backoff: BACKOFF.0,
            logins: watch::Sender::new(0),
            cursor: MessageId::ZERO,
            lingering: JoinSet::new(),
        }
    }

    /// Lives until the run is over.
    pub async fn run(mut self) {
        while self.seat.phase() != Phase::Over {
            let wait = match self.connect().await {
                Ok(connection) => self.stay_and_leave(connection).await,
                Err(error) => {
                    let is_final = matches!(&error, LinkError::Refused(refusal) if refusal.retry_after_ms.is_none());
                    self.seat.shop.trouble(error.to_string(), is_final);
                    let wait = self.backoff;
                    self.backoff = (self.backoff * 2).min(BACKOFF.1);
                    error.retry_after().unwrap_or(wait)
                }
            };
            self.pause(wait.min(WAIT_MAX)).await;
        }
        self.lingering.shutdown().await;
    }

    /// How long to wait until the next connection.
    async fn stay_and_leave(&mut self, connection: Connection) -> Duration {
        let shop = self.seat.shop.clone();
        shop.online.fetch_add(1, Ordering::Relaxed);
        let end = self.stay(connection).await;
        shop.online.fetch_sub(1, Ordering::Relaxed);
        self.sender.connection_lost();
        self.dealer.connection_lost(Instant::now());
        match end {
            End::Over => Duration::ZERO,
            End::Away(wait) | End::Leaving(wait) => wait,
            End::Lost(error) => {
                let code = match &error {
                    LinkError::Closed { code, .. } => *code,
                    _ => 0,
                };
                *shop.journal.lock().tally_mut().closes.entry(code).or_default() += 1;
                self.seat.tell("lost", || json!({"why": error.to_string()})).await;
                shop.trouble(error.to_string(), false);
                // Somebody else plays this device, and is not to be outdone.
                let least = if code == REPLACED { BACKOFF.1 } else { BACKOFF.0 };
                error.retry_after().unwrap_or(least)
            }
        }
    }

    /// One attempt, at the next address.
    pub(super) async fn connect(&mut self) -> Result<Connection, LinkError> {
        let seat = self.seat.clone();
        let place = self.attempts % seat.dials.len().max(1);
        self.attempts += 1;
        let dial = seat.dials.get(place).ok_or(LinkError::Slow)?;
        let (link, welcome) = Link::open(dial, seat.manner.encoding, &seat.login).await?;
        self.backoff = BACKOFF.0;
        let number = *self.logins.borrow() + 1;
        self.logins.send_replace(number);
        let cursor = welcome.cursor.unwrap_or(MessageId::ZERO);
        {
            let mut journal = seat.shop.journal.lock();
            journal.tally_mut().logins += 1;
            journal.tally_mut().cursors_back += u64::from(cursor < self.cursor);
        }
        self.cursor = cursor;
        let facts = || json!({"conn": number, "relay_conn": welcome.conn, "cursor": cursor, "url": dial.to_string()});
        seat.tell("logged in", facts).await;
        Ok(Connection::new(link, &welcome, number, Instant::now()))
    }

    /// Reads an older connection to its end, beside what comes next.
    pub(super) fn leave_behind(&mut self, connection: Connection) {
        // Those that have ended are not kept.
        while self.lingering.try_join_next().is_some() {}
        self.lingering.spawn(linger(self.seat.clone(), connection, self.logins.subscribe()));
    }

    /// Waits for about that long, lest all come at once; the run's end cuts it short, and so does the
    /// end of the traffic for who is away by habit.
    async fn pause(&mut self, wait: Duration) {
        let wait = self.dice.between(wait / 2, wait);
        let mut phase = self.seat.phase.clone();
        let now = *phase.borrow();
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            _ = phase.wait_for(|phase| *phase > now) => {}
        }
    }

    /// When the habit shows next.
    pub(super) fn next_turn(&mut self) -> Option<Instant> {
        let has_turns = !matches!(self.seat.manner.habit, Habit::Steady | Habit::Holder);
        let wait = self.dice.between(self.seat.period / 2, self.seat.period * 3 / 2);
        has_turns.then(|| Instant::now() + wait)
    }
}
