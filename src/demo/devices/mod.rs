//! The simulated devices: each behaves as the protocol asks of a real one.
//!
//! Owns their coming back: a connection that is lost is made anew after a wait that grows with each
//! attempt. Whatever a device sees it tells by a [`Report`]; what it is to do it learns by a [`Wish`].
//! Nothing here knows of the relay's insides: the way in is its listener. Started by the parent.

mod handheld;
mod main_device;

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};

use crate::client::{Dial, Dice, Encoding, Link, LinkError, REPLACED};
use crate::demo::report::{Absence, Report, Who};
pub use handheld::Handheld;
pub use main_device::MainDevice;

/// The shop that all of them belong to.
pub const SHOP: &str = "demo";
/// The wait before the first new attempt, and the longest one.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// What a device is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    Work,
    /// Its plug is pulled, without a word to the relay.
    Away,
    /// Connected, but nothing new; what is under way is brought to its end.
    Rest,
    Stop,
}

/// What each device has.
pub struct Seat {
    pub who: Who,
    pub dial: Dial,
    pub reports: mpsc::Sender<Report>,
    pub wishes: watch::Receiver<Wish>,
    pub dice: Dice,
}

/// How a connection came to its end.
enum End {
    Stopped,
    CutOff,
    Lost(LinkError),
    /// The node is leaving and said when to come again.
    Leaving(Duration),
}

impl Seat {
    /// Tells the model; its inbox is bounded, so that a slow screen slows the devices.
    async fn tell(&self, report: Report) {
        // Nobody is there to hear it only after the end.
        let _ = self.reports.send(report).await;
    }

    fn login(&self) -> Value {
        let role = match self.who {
            Who::Main(_) => "main",
            Who::Handheld(_) => "sub",
        };
        json!({"op": "login", "shop": SHOP, "device": self.who.name(), "role": role})
    }

    /// A connection, tried for again and again; nothing where the device is to stop.
    async fn connect(&mut self) -> Option<Link> {
        let mut backoff = BACKOFF.0;
        loop {
            let wish = *self.wishes.borrow_and_update();
            match wish {
                Wish::Stop => return None,
                Wish::Away => {
                    self.wishes.changed().await.ok()?;
                    continue;
                }
                Wish::Work | Wish::Rest => {}
            }
            let login = self.login();
            let opened = tokio::select! {
                opened = Link::open(&self.dial, Encoding::Json, &login) => opened,
                _ = self.wishes.changed() => continue,
            };
            match opened {
                Ok((link, _)) => {
                    self.tell(Report::Online { who: self.who, at: Instant::now() }).await;
                    return Some(link);
                }
                Err(error) => {
                    self.tell(self.offline(Absence::Lost(error.to_string()))).await;
                    self.pause(backoff).await;
                    backoff = (backoff * 2).min(BACKOFF.1);
                }
            }
        }
    }

    /// Waits for about that long, lest all come at once; a new wish ends it.
    async fn pause(&mut self, wait: Duration) {
        let wait = self.dice.between(wait / 2, wait);
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            _ = self.wishes.changed() => {}
        }
    }

    /// Tells of a connection's end; whether the device is to come back.
    async fn after(&mut self, end: End) -> bool {
        match end {
            End::Stopped => false,
            End::Lost(LinkError::Closed { code: REPLACED, .. }) => {
                self.tell(Report::Replaced { who: self.who, at: Instant::now() }).await;
                false
            }
            End::CutOff => {
                self.tell(self.offline(Absence::CutOff)).await;
                true
            }
            End::Lost(error) => {
                self.tell(self.offline(Absence::Lost(error.to_string()))).await;
                self.pause(BACKOFF.0).await;
                true
            }
            End::Leaving(wait) => {
                self.tell(self.offline(Absence::Lost("its node is leaving".into()))).await;
                self.pause(wait).await;
                true
            }
        }
    }

    fn offline(&self, why: Absence) -> Report {
        Report::Offline { who: self.who, at: Instant::now(), why }
    }
}

/// Follows a wish that came while a connection is there; gives the connection back where it stays.
async fn obey(wish: Wish, link: Link) -> Result<Link, End> {
    match wish {
        Wish::Work | Wish::Rest => Ok(link),
        Wish::Away => {
            drop(link);
            Err(End::CutOff)
        }
        Wish::Stop => {
            link.log_out().await;
            Err(End::Stopped)
        }
    }
}
