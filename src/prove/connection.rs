//! One connection of a device: what comes on it, and the proof that it came.
//!
//! Owns the order of its entries and what of them is not acknowledged. What comes that is no entry goes
//! back to the caller, which is [`super::device`] or, for an older connection, [`super::linger`].

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::client::{Heard, Link, LinkError, Welcome};
use crate::ids::MessageId;
use crate::prove::journal::Received;
use crate::prove::line::{Came, Line};
use crate::prove::payload::Payload;
use crate::prove::plan::Proof;
use crate::prove::shop::Seat;

/// How long a good-bye may take.
const FAREWELL_MAX: Duration = Duration::from_secs(5);

/// See the module.
pub struct Connection {
    pub link: Link,
    /// Which of the device's connections it is, from 1 on.
    pub number: u64,
    pub window: usize,
    /// When the relay last said anything.
    pub heard_at: Instant,
    line: Line,
    unproven: VecDeque<(MessageId, Received)>,
}

/// What came.
pub enum Taken {
    /// An entry; a message of this run with what it says.
    Entry(MessageId, Option<Payload>),
    /// What is dealt with.
    Nothing,
    Other(Heard),
}

impl Connection {
    pub fn new(link: Link, welcome: &Welcome, number: u64, now: Instant) -> Connection {
        Connection {
            link,
            number,
            window: welcome.window,
            heard_at: now,
            line: Line::new(welcome.cursor.unwrap_or(MessageId::ZERO)),
            unproven: VecDeque::new(),
        }
    }

    /// How many entries are not acknowledged.
    pub fn unproven(&self) -> usize {
        self.unproven.len()
    }

    /// The newest entry but so many that is not acknowledged.
    pub fn newest_but(&self, count: usize) -> Option<MessageId> {
        self.unproven.iter().rev().nth(count).map(|(id, _)| *id)
    }

    /// Takes what came.
    ///
    /// # Errors
    /// The connection failed while a proof was sent.
    pub async fn take(&mut self, seat: &Seat, heard: Heard) -> Result<Taken, LinkError> {
        let now = Instant::now();
        self.heard_at = now;
        match heard {
            Heard::Message(pushed) => {
                let came = self.line.take(pushed.id);
                let (received, payload) = {
                    let mut journal = seat.shop.journal.lock();
                    journal.came(seat.device, pushed.id, came, now);
                    match came {
                        Came::Repeated => return Ok(Taken::Nothing),
                        _ => journal.message(seat.device, pushed.id, &pushed.data),
                    }
                };
                self.tell_received(seat, pushed.id, received).await;
                Ok(Taken::Entry(pushed.id, payload))
            }
            Heard::Status(news) => {
                let came = self.line.take(news.id);
                let received = {
                    let mut journal = seat.shop.journal.lock();
                    journal.came(seat.device, news.id, came, now);
                    match came {
                        Came::Repeated => return Ok(Taken::Nothing),
                        _ => journal.status(seat.device, news.message, &news.status, &news.by.device),
                    }
                };
                self.tell_received(seat, news.id, received).await;
                Ok(Taken::Entry(news.id, None))
            }
            Heard::Signal { data } => {
                seat.shop.journal.lock().signal(seat.device, &data);
                Ok(Taken::Nothing)
            }
            Heard::Receipt {} => {
                seat.shop.journal.lock().tally_mut().receipts += 1;
                Ok(Taken::Nothing)
            }
            Heard::Ping(id) => {
                if seat.manner.proof == Proof::Pong {
                    self.proven(seat, id).await;
                }
                self.link.flush().await?;
                Ok(Taken::Nothing)
            }
            other => Ok(Taken::Other(other)),
        }
    }

    async fn tell_received(&mut self, seat: &Seat, id: MessageId, received: Received) {
        self.unproven.push_back((id, received));
        seat.tell("received", || json!({"id": id, "conn": self.number, "what": what(received)})).await;
    }

    /// Acknowledges everything up to this entry.
    ///
    /// # Errors
    /// The connection failed.
    pub async fn ack(&mut self, seat: &Seat, id: MessageId) -> Result<(), LinkError> {
        // Noted before it is sent: of an acknowledgement that fails nobody knows whether it arrived, and
        // the relay may rely on it.
        self.proven(seat, id).await;
        self.link.send(&json!({"op": "ack", "id": id})).await
    }

    /// Says good-bye, and takes what still comes until the relay closes.
    pub async fn log_out(mut self, seat: &Seat) {
        let farewell = async {
            self.link.send(&json!({"op": "logout"})).await?;
            loop {
                let heard = self.link.next().await?;
                self.take(seat, heard).await?;
            }
        };
        // Whichever way it ends, it ends.
        let _: Result<Result<std::convert::Infallible, LinkError>, _> =
            tokio::time::timeout(FAREWELL_MAX, farewell).await;
    }

    /// Acknowledges everything, where the device does so itself.
    ///
    /// # Errors
    /// The connection failed.
    pub async fn ack_all(&mut self, seat: &Seat) -> Result<(), LinkError> {
        match self.newest_but(0).filter(|_| seat.manner.proof == Proof::Ack) {
            Some(newest) => self.ack(seat, newest).await,
            None => Ok(()),
        }
    }

    async fn proven(&mut self, seat: &Seat, id: MessageId) {
        {
            let (now, mut journal) = (Instant::now(), seat.shop.journal.lock());
            while let Some((_, received)) = self.unproven.pop_front_if(|(unproven, _)| *unproven <= id) {
                journal.proven(seat.device, received, now);
            }
        }
        seat.tell("proven", || json!({"through": id, "conn": self.number})).await;
    }
}

fn what(received: Received) -> String {
    match received {
        Received::Message(number) => format!("message {number}"),
        Received::Status(message) => format!("status of {message}"),
        Received::Other => "not this run's".into(),
    }
}
