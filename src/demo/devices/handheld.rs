//! A handheld: takes the guests' orders and sends them.
//!
//! Owns the one order that is under way. It is sent again, under the same key, until the relay has
//! said that it is stored: however often that takes, it is stored once.

use std::time::{Duration, Instant};

use serde_json::json;

use super::{End, Seat, Wish, obey};
use crate::client::{Heard, Link, LinkError, Refusal};
use crate::demo::menu::Order;
use crate::demo::report::{Content, Report};
use crate::ids::MessageId;

/// The time between two orders.
const PAUSE: (Duration, Duration) = (Duration::from_millis(900), Duration::from_millis(2_600));
/// How long an answer is waited for before the order is sent again.
const SEND_AGAIN: Duration = Duration::from_secs(5);
/// A time that does not come: there is nothing to wait for.
const IDLE: Duration = Duration::from_secs(3600);

/// A waiter's handheld.
pub struct Handheld {
    seat: Seat,
    index: usize,
    /// Makes the keys of this run its own.
    run: u64,
    count: u64,
    under_way: Option<UnderWay>,
    next_at: Instant,
    is_rest_told: bool,
}

struct UnderWay {
    order: Order,
    /// The idempotency key, and the `ref` too.
    key: String,
    /// When it was sent first.
    sent_at: Instant,
    send_again_at: Instant,
}

impl Handheld {
    pub fn new(index: usize, run: u64, mut seat: Seat) -> Handheld {
        let next_at = Instant::now() + seat.dice.between(Duration::ZERO, PAUSE.0);
        Handheld { seat, index, run, count: 0, under_way: None, next_at, is_rest_told: false }
    }

    /// Lives until it is told to stop.
    pub async fn run(mut self) {
        while let Some(link) = self.seat.connect().await {
            let end = self.stay(link).await;
            if !self.seat.after(end).await {
                break;
            }
        }
        if self.under_way.is_some() {
            self.seat.tell(Report::Unanswered).await;
        }
    }

    async fn stay(&mut self, mut link: Link) -> End {
        // What the last connection took with it is sent again at once.
        if let Some(under_way) = &mut self.under_way {
            under_way.send_again_at = Instant::now();
        }
        loop {
            self.tell_rest().await;
            let went = tokio::select! {
                heard = link.next() => match heard {
                    Ok(Heard::Goaway { reconnect_in_ms }) => return End::Leaving(Duration::from_millis(reconnect_in_ms)),
                    Ok(heard) => self.on(heard, &mut link).await,
                    Err(error) => return End::Lost(error),
                },
                () = tokio::time::sleep_until(self.wake().into()) => self.send(&mut link).await,
                changed = self.seat.wishes.changed() => {
                    let wish = *self.seat.wishes.borrow_and_update();
                    match obey(if changed.is_ok() { wish } else { Wish::Stop }, link).await {
                        Ok(kept) => link = kept,
                        Err(end) => return end,
                    }
                    Ok(())
                }
            };
            if let Err(error) = went {
                return End::Lost(error);
            }
        }
    }

    fn is_at_work(&self) -> bool {
        *self.seat.wishes.borrow() == Wish::Work
    }

    async fn tell_rest(&mut self) {
        if !self.is_at_work() && self.under_way.is_none() && !self.is_rest_told {
            self.is_rest_told = true;
            self.seat.tell(Report::Resting { handheld: self.index }).await;
        }
    }

    fn wake(&self) -> Instant {
        match &self.under_way {
            Some(under_way) => under_way.send_again_at,
            None if self.is_at_work() => self.next_at,
            None => Instant::now() + IDLE,
        }
    }

    /// Sends the order that is under way, or takes a new one.
    async fn send(&mut self, link: &mut Link) -> Result<(), LinkError> {
        let now = Instant::now();
        if self.under_way.is_none() {
            if !self.is_at_work() {
                return Ok(());
            }
            self.count += 1;
            let key = format!("{:x}-{}-{}", self.run, self.seat.who.name(), self.count);
            let order = Order::any(&mut self.seat.dice);
            self.under_way = Some(UnderWay { order, key, sent_at: now, send_again_at: now });
        }
        let Some(under_way) = &mut self.under_way else { return Ok(()) };
        under_way.send_again_at = now + SEND_AGAIN;
        let UnderWay { order, key, .. } = under_way;
        link.send(&json!({
            "op": "notify", "ref": key, "key": key, "receipt": true,
            "type": order.kind, "table": order.table, "data": order.text,
        }))
        .await
    }

    async fn on(&mut self, heard: Heard, link: &mut Link) -> Result<(), LinkError> {
        match heard {
            Heard::Accepted { reference, id: Some(id) } => self.on_accepted(reference.as_deref(), id).await,
            Heard::Error(refusal) => self.on_refused(refusal).await,
            Heard::Receipt {} => self.seat.tell(Report::Receipt).await,
            // What became of its orders, and what a guest sends it; a waiter only looks at it.
            Heard::Status(news) => link.send(&json!({"op": "ack", "id": news.id})).await?,
            Heard::Message(pushed) => link.send(&json!({"op": "ack", "id": pushed.id})).await?,
            _ => {}
        }
        Ok(())
    }

    async fn on_accepted(&mut self, reference: Option<&str>, id: MessageId) {
        let Some(UnderWay { order, sent_at, .. }) =
            self.under_way.take_if(|under_way| reference == Some(&under_way.key))
        else {
            return;
        };
        let at = Instant::now();
        self.next_at = at + self.seat.dice.between(PAUSE.0, PAUSE.1);
        let content = Content { from: self.seat.who.name().into(), table: order.table, text: order.text };
        self.seat.tell(Report::Stored { id, content, sent_at, at }).await;
    }

    async fn on_refused(&mut self, refusal: Refusal) {
        let at = Instant::now();
        if let Some(under_way) = &mut self.under_way
            && refusal.reference.as_ref() == Some(&under_way.key)
        {
            match refusal.retry_after_ms {
                Some(wait_ms) => under_way.send_again_at = at + Duration::from_millis(wait_ms),
                // It would be refused again: nothing was stored, and nothing is owed.
                None => {
                    self.under_way = None;
                    self.next_at = at + PAUSE.1;
                }
            }
        }
        let (code, message) = (refusal.code, refusal.message);
        self.seat.tell(Report::Refused { who: self.seat.who, code, message, at }).await;
    }
}
