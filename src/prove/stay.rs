//! A device on its connection: hears, acknowledges, sends, deals, and follows its habit.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::client::{Heard, LinkError, Refusal};
use crate::ids::MessageId;
use crate::message::Role;
use crate::prove::connection::{Connection, Taken};
use crate::prove::device::{Device, End, SILENCE_MAX};
use crate::prove::payload::{Mark, Payload};
use crate::prove::plan::{GROUP, Habit, Proof};
use crate::prove::shop::{Order, Phase};

/// How often the relay is asked for a sign of life.
const PING_EVERY: Duration = Duration::from_secs(3);
/// How long a holder holds on once its window is full, so that more comes than there is room for.
const FULL_FOR: Duration = Duration::from_millis(400);
/// The longest that a holder holds on.
const HOLD_MAX: Duration = Duration::from_secs(8);
/// The longest that a sleeper does not read.
const SLEEP_MAX: Duration = Duration::from_secs(5);
/// Entries that a crasher has not acknowledged when it crashes.
const CRASH_WITH: usize = 2;
/// Messages that may wait to be sent.
const WAITING_MAX: usize = 64;
/// Wait after a refusal that does not say how long.
const RETRY_WAIT: Duration = Duration::from_millis(500);
/// Messages of a page of the relay's list.
const LIST_LIMIT: u64 = 200;

/// What belongs to one connection.
struct Stay {
    connection: Connection,
    turn_at: Option<Instant>,
    ping_at: Instant,
    /// Until when a holder holds on, and whether its window is full.
    hold_until: Option<(Instant, bool)>,
}

impl Device {
    /// Stays until the connection ends, or the device leaves it.
    pub(super) async fn stay(&mut self, connection: Connection) -> End {
        let now = Instant::now();
        let turn_at = self.next_turn();
        let mut stay = Stay { connection, turn_at, ping_at: now + PING_EVERY, hold_until: None };
        match self.live(&mut stay).await {
            Err(End::Over) => {
                stay.connection.log_out(&self.seat).await;
                End::Over
            }
            Err(End::Leaving(wait)) => {
                self.leave_behind(stay.connection);
                End::Leaving(wait)
            }
            Err(End::Away(lasts)) if self.dice.one_in(2) && self.seat.manner.habit == Habit::Away => {
                stay.connection.log_out(&self.seat).await;
                End::Away(lasts)
            }
            Err(end) => end,
            Ok(never) => match never {},
        }
    }

    async fn live(&mut self, stay: &mut Stay) -> Result<std::convert::Infallible, End> {
        let mut phase = self.seat.phase.clone();
        if !self.is_prepared {
            stay.connection.link.send(&json!({"op": "join", "group": GROUP, "ref": "join"})).await?;
        } else {
            self.seat.shop.journal.lock().ready(self.seat.device);
        }
        loop {
            self.send(stay).await?;
            let wake = self.wake(stay);
            tokio::select! {
                heard = stay.connection.link.next() => self.on(heard?, stay).await?,
                order = self.orders.recv(), if self.sender.waiting() < WAITING_MAX => match order {
                    Some(Order::Send(draft)) => self.sender.add(draft, Instant::now()),
                    Some(Order::List) => {
                        let after = self.seat.shop.journal.lock().list_after();
                        self.list(after, stay).await?;
                    }
                    None => return Err(End::Over),
                },
                () = tokio::time::sleep_until(wake.into()) => self.on_time(stay).await?,
                changed = phase.changed() => {
                    let now = *phase.borrow_and_update();
                    if changed.is_err() || now == Phase::Over {
                        return Err(End::Over);
                    }
                    if now == Phase::Settling {
                        stay.hold_until = None;
                        stay.connection.ack_all(&self.seat).await?;
                    }
                }
            }
        }
    }

    fn wake(&self, stay: &Stay) -> Instant {
        let hold = stay.hold_until.map(|(until, _)| until);
        let turn = stay.turn_at.filter(|_| self.seat.phase() == Phase::Traffic);
        let other = [hold, turn, self.sender.wake(), self.dealer.wake()].into_iter().flatten().min();
        other.map_or(stay.ping_at, |other| other.min(stay.ping_at))
    }

    /// Sends what is to be sent now.
    async fn send(&mut self, stay: &mut Stay) -> Result<(), End> {
        let now = Instant::now();
        let seat = self.seat.clone();
        while let Some(sending) = self.sender.next(now, |draft| seat.shop.journal.lock().publish(draft.due, now)) {
            stay.connection.link.send(&seat.notify(&sending.draft, sending.number)).await?;
            if let Some(number) = sending.number {
                let facts = || json!({"message": number, "key": seat.key(number), "conn": stay.connection.number});
                seat.tell("sent", facts).await;
            }
        }
        while let Some((message, from)) = self.dealer.next(now) {
            stay.connection.link.send(&seat.deal(message, from)).await?;
        }
        Ok(())
    }

    async fn list(&mut self, after: MessageId, stay: &mut Stay) -> Result<(), End> {
        let op = json!({"op": "list", "after": after, "limit": LIST_LIMIT, "ref": "list"});
        Ok(stay.connection.link.send(&op).await?)
    }

    async fn on(&mut self, heard: Heard, stay: &mut Stay) -> Result<(), End> {
        match stay.connection.take(&self.seat, heard).await? {
            Taken::Nothing => {}
            Taken::Entry(id, payload) => {
                if let Some(payload) = payload {
                    self.reach_for(id, &payload);
                }
                self.acknowledge(stay).await?;
            }
            Taken::Other(heard) => self.on_answer(heard, stay).await?,
        }
        Ok(())
    }

    /// A main deals with what is to be dealt with, whether another one was first or not.
    fn reach_for(&mut self, id: MessageId, payload: &Payload) {
        let is_main = self.seat.shop.crew.role(self.seat.device) == Role::Main;
        if payload.deal && is_main && self.dealer.add(id, payload.from, Instant::now()) {
            self.seat.shop.journal.lock().dealing += 1;
        }
    }

    /// Something came that wants an acknowledgement.
    async fn acknowledge(&mut self, stay: &mut Stay) -> Result<(), End> {
        if self.seat.manner.proof == Proof::Pong {
            return Ok(());
        }
        let is_traffic = self.seat.phase() == Phase::Traffic;
        match self.seat.manner.habit {
            Habit::Holder if is_traffic => {
                let now = Instant::now();
                let is_full = stay.connection.unproven() >= stay.connection.window;
                let was_full = stay.hold_until.is_some_and(|(_, was_full)| was_full);
                if is_full && !was_full {
                    stay.hold_until = Some((now + FULL_FOR, true));
                }
                stay.hold_until.get_or_insert((now + self.seat.period.min(HOLD_MAX), false));
            }
            Habit::Crasher if is_traffic => {
                if let Some(id) = stay.connection.newest_but(CRASH_WITH) {
                    stay.connection.ack(&self.seat, id).await?;
                }
            }
            _ => stay.connection.ack_all(&self.seat).await?,
        }
        Ok(())
    }

    async fn on_answer(&mut self, heard: Heard, stay: &mut Stay) -> Result<(), End> {
        match heard {
            Heard::Accepted { reference, id: Some(id) } => {
                let number = reference.as_deref().and_then(numbered);
                if let Some(sending) = number.and_then(|number| self.sender.accepted(number, id))
                    && let Some(number) = sending.number
                {
                    self.seat.shop.journal.lock().accepted(number, id, sending.floor, Instant::now());
                    self.seat.tell("accepted", || json!({"message": number, "id": id})).await;
                }
            }
            Heard::Dealt { id, .. } => {
                if let Some(from) = self.dealt(id) {
                    self.seat.shop.journal.lock().deal(id, self.seat.mark(from));
                }
            }
            Heard::Messages { items, next, .. } => {
                self.seat.shop.journal.lock().listed(&items);
                match next {
                    Some(after) => self.list(after, stay).await?,
                    None => self.seat.shop.journal.lock().list_ended(),
                }
            }
            Heard::Ok { reference } if reference.as_deref() == Some("join") => {
                self.is_prepared = true;
                self.seat.shop.journal.lock().ready(self.seat.device);
            }
            Heard::Error(refusal) => self.on_refused(refusal, stay).await?,
            Heard::Goaway { reconnect_in_ms } => {
                let wait = Duration::from_millis(reconnect_in_ms);
                return Err(End::Leaving(wait));
            }
            _ => {}
        }
        Ok(())
    }

    /// It is known who dealt with the message: its sender, where that was awaited.
    fn dealt(&mut self, message: MessageId) -> Option<u8> {
        let from = self.dealer.done(message)?;
        self.seat.shop.journal.lock().dealing -= 1;
        Some(from)
    }

    async fn on_refused(&mut self, refusal: Refusal, stay: &mut Stay) -> Result<(), End> {
        let reference = refusal.reference.as_deref().unwrap_or_default();
        let deal: Option<MessageId> = reference.parse().ok();
        if refusal.code != "conflict" {
            *self.seat.shop.journal.lock().tally_mut().refusals.entry(refusal.code.clone()).or_default() += 1;
        }
        let until = Instant::now() + refusal.retry_after_ms.map_or(RETRY_WAIT, Duration::from_millis);
        let is_final = refusal.retry_after_ms.is_none();
        match (numbered(reference), deal) {
            (Some(number), _) if is_final => self.refused_for_good(number),
            (Some(number), _) => self.sender.postponed(number, until),
            (None, Some(message)) if is_final => self.not_dealt(message, &refusal),
            (None, Some(message)) => self.dealer.postponed(message, until),
            (None, None) if reference == "join" => {
                let why = format!("join: {}: {}", refusal.code, refusal.message);
                self.seat.shop.trouble(why, is_final);
                tokio::time::sleep_until(until.into()).await;
                stay.connection.link.send(&json!({"op": "join", "group": GROUP, "ref": "join"})).await?;
            }
            // A list is ordered again, a signal is not worth it.
            _ => {}
        }
        Ok(())
    }

    fn refused_for_good(&mut self, number: u64) {
        if self.sender.refused(number).is_some() {
            self.seat.shop.journal.lock().refused(number, Instant::now());
        }
    }

    /// Another one was first, which the refusal names; or there is nothing to deal with.
    fn not_dealt(&mut self, message: MessageId, refusal: &Refusal) {
        self.dealt(message);
        let mark = refusal.status.as_deref().and_then(Mark::read);
        if let Some(mark) = mark.filter(|mark| mark.run == self.seat.shop.run) {
            self.seat.shop.journal.lock().deal(message, mark);
        }
    }

    async fn on_time(&mut self, stay: &mut Stay) -> Result<(), End> {
        let now = Instant::now();
        if self.sender.is_late(now) || stay.connection.heard_at.elapsed() > SILENCE_MAX {
            return Err(End::Lost(LinkError::Slow));
        }
        if now >= stay.ping_at {
            stay.ping_at = now + PING_EVERY;
            stay.connection.link.send(&json!({"op": "ping"})).await?;
        }
        if stay.hold_until.is_some_and(|(until, _)| now >= until) {
            stay.hold_until = None;
            stay.connection.ack_all(&self.seat).await?;
        }
        if stay.turn_at.is_some_and(|at| now >= at) && self.seat.phase() == Phase::Traffic {
            stay.turn_at = self.next_turn();
            self.follow_habit(stay).await?;
        }
        Ok(())
    }

    async fn follow_habit(&mut self, stay: &mut Stay) -> Result<(), End> {
        let period = self.seat.period;
        match self.seat.manner.habit {
            Habit::Steady | Habit::Holder => {}
            Habit::Away => return Err(End::Away(period)),
            Habit::Crasher => return Err(End::Away(period / 4)),
            Habit::Sleeper => {
                tokio::time::sleep(self.dice.between(period / 4, period / 2).min(SLEEP_MAX)).await;
                // It is not the relay that was silent.
                stay.connection.heard_at = Instant::now();
            }
            Habit::Jumper => {
                // Where it cannot be had, the old one is still there.
                if let Ok(newer) = self.connect().await {
                    self.sender.connection_lost();
                    self.dealer.connection_lost(Instant::now());
                    self.leave_behind(std::mem::replace(&mut stay.connection, newer));
                }
            }
        }
        Ok(())
    }
}

/// The number of the message that an answer is about.
fn numbered(reference: &str) -> Option<u64> {
    reference.strip_prefix('n')?.parse().ok()
}
