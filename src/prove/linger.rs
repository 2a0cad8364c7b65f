//! An older connection of a device, beside the newer one: read until the relay closes it.
//!
//! What comes on it counts as on any other. Owns the judgement whether it is a ghost: one that the relay
//! goes on serving although it serves the newer one too.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::sync::watch;

use crate::client::Heard;
use crate::prove::connection::{Connection, Taken};
use crate::prove::device::SILENCE_MAX;
use crate::prove::shop::Seat;

/// For so long the older connection has to answer from the store, beside the newer one, to be a ghost. A
/// node that is cut off from its store, or asleep, cannot know better and is not blamed.
const GHOST_AFTER: Duration = Duration::from_secs(8);
/// How often it is asked.
const ASK_EVERY: Duration = Duration::from_millis(500);

/// Reads the connection to its end. `newest` is the number of the device's newest connection.
pub async fn linger(seat: Arc<Seat>, connection: Connection, newest: watch::Receiver<u64>) {
    seat.shop.journal.lock().lingering += 1;
    if attend(&seat, connection, &newest).await {
        seat.shop.journal.lock().ghost(seat.device);
    }
    seat.shop.journal.lock().lingering -= 1;
}

/// Whether it turned out to be a ghost.
async fn attend(seat: &Seat, mut connection: Connection, newest: &watch::Receiver<u64>) -> bool {
    let mut ticks = tokio::time::interval(ASK_EVERY);
    let mut ghostly = Ghostly::default();
    loop {
        let is_replaced = *newest.borrow() > connection.number;
        let went = tokio::select! {
            heard = connection.link.next() => match heard {
                Ok(heard) => match connection.take(seat, heard).await {
                    Ok(Taken::Other(Heard::Presence {})) if is_replaced => {
                        if ghostly.answered(Instant::now()) {
                            return true;
                        }
                        Ok(())
                    }
                    Ok(Taken::Other(Heard::Error(_))) => {
                        ghostly = Ghostly::default();
                        Ok(())
                    }
                    Ok(_) => connection.ack_all(seat).await,
                    Err(error) => Err(error),
                },
                Err(error) => Err(error),
            },
            _ = ticks.tick() => {
                if connection.heard_at.elapsed() > SILENCE_MAX {
                    return false;
                }
                connection.link.send(&json!({"op": "online", "role": "main"})).await
            }
            () = seat.is_over() => return false,
        };
        if went.is_err() {
            return false;
        }
    }
}

/// Since when it has been answering beside the newer one.
#[derive(Default)]
struct Ghostly(Option<Instant>);

impl Ghostly {
    /// It answered; whether it has for too long.
    fn answered(&mut self, now: Instant) -> bool {
        now.saturating_duration_since(*self.0.get_or_insert(now)) >= GHOST_AFTER
    }
}
