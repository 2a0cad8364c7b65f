//! What comes in on the connections of a worker, and what follows from it.

use super::device::{self, Conn, Stage, Who};
use super::{Failure, Worker};
use crate::bench::clock::now_ns;
use crate::bench::plan::{Load, Pace};
use crate::bench::wire::{self, CLOSE, PING, PONG};

/// Bytes of what the other end says that are repeated to the user.
const SAID_MAX: usize = 200;

impl Worker {
    /// Puts a connection back, or ends it where something went wrong.
    pub(super) fn settle(&mut self, token: usize, mut conn: Conn, outcome: Result<(), String>) -> Result<(), Failure> {
        if let Err(why) = outcome {
            return self.on_ended(token, conn, &why);
        }
        let blocked = conn.stage == Stage::Connecting || conn.link.is_blocked();
        if blocked != conn.waits_to_write {
            self.poll.set_write(&conn.link, token, blocked).map_err(|error| error.to_string())?;
            conn.waits_to_write = blocked;
        }
        if let Some(place) = self.conns.get_mut(token) {
            *place = Some(conn);
        }
        Ok(())
    }

    fn on_ended(&mut self, token: usize, conn: Conn, why: &str) -> Result<(), Failure> {
        let was_open = conn.stage == Stage::Ready;
        conn.link.reset();
        self.free.push(token);
        if !was_open {
            self.opening = self.opening.saturating_sub(1);
            let (shop, device, _) = device::identity(&self.job, conn.who);
            if !matches!(conn.who, Who::New(_)) {
                return Err(format!("device {device} of shop {shop} cannot log in: {why}"));
            }
        }
        *self.closed.entry(why.to_owned()).or_default() += 1;
        let over = match conn.who {
            Who::Receiver { shop, receiver } => {
                self.shops.get_mut(shop).map_or(0, |shop| shop.on_receiver_gone(receiver))
            }
            Who::Publisher { shop } => {
                if let Some(publisher) = self.publishers.get_mut(shop) {
                    *publisher = None;
                }
                0
            }
            Who::New(_) if !was_open => 1,
            Who::Idle(_) | Who::New(_) => {
                self.held.retain(|held| *held != token);
                0
            }
        };
        if let Some(running) = &mut self.running {
            running.in_flight = running.in_flight.saturating_sub(over);
        }
        Ok(())
    }

    pub(super) fn on_readable(&mut self, token: usize, conn: &mut Conn) -> Result<(), String> {
        let mut buffer = std::mem::take(&mut self.buffer);
        let mut outcome = self.read(token, conn, &mut buffer);
        // TLS may hold more than was taken, of which the socket knows nothing.
        while conn.link.is_tls() && outcome == Ok(true) {
            outcome = self.read(token, conn, &mut buffer);
        }
        self.buffer = buffer;
        outcome.map(|_| ())
    }

    /// Reads once; whether there was something.
    fn read(&mut self, token: usize, conn: &mut Conn, buffer: &mut [u8]) -> Result<bool, String> {
        let rest = std::mem::take(&mut conn.rest);
        let space = match buffer.split_at_mut_checked(rest.len()) {
            Some((begin, space)) if !space.is_empty() => {
                begin.copy_from_slice(&rest);
                space
            }
            _ => return Err("a frame is larger than a benchmark's can be".into()),
        };
        let count = match conn.link.read(space).map_err(|error| error.to_string())? {
            Some(0) => return Err("the relay ended the connection without a word".into()),
            Some(count) => count,
            None => {
                conn.rest = rest;
                return Ok(false);
            }
        };
        let had_newest = !conn.newest.is_empty();
        let mut bytes = buffer.get(..rest.len() + count).unwrap_or_default();
        if conn.stage == Stage::Upgrading {
            bytes = self.on_upgrade(conn, bytes)?;
        }
        let now = now_ns();
        while conn.stage != Stage::Upgrading
            && let Some(frame) = wire::frame(bytes)
        {
            self.on_frame(token, conn, &frame, now)?;
            bytes = bytes.get(frame.len..).unwrap_or_default();
        }
        conn.rest = bytes.to_vec();
        if conn.newest.is_empty() {
            return Ok(true);
        }
        if self.job.ack_delay_ns == 0 {
            self.write_ack(conn)?;
        } else if !had_newest {
            self.acks.push_back((now + self.job.ack_delay_ns, token));
        }
        Ok(true)
    }

    /// What comes after the answer to the request for a WebSocket; all of it where the answer is not whole.
    fn on_upgrade<'a>(&mut self, conn: &mut Conn, bytes: &'a [u8]) -> Result<&'a [u8], String> {
        const END: &[u8] = b"\r\n\r\n";
        let Some(end) = bytes.windows(END.len()).position(|window| window == END) else { return Ok(bytes) };
        if !bytes.starts_with(b"HTTP/1.1 101") {
            let said = String::from_utf8_lossy(bytes.get(..bytes.len().min(SAID_MAX)).unwrap_or_default());
            let line = said.lines().next().unwrap_or_default();
            let body = said.split("\r\n\r\n").nth(1).unwrap_or_default().trim();
            return Err(format!("no WebSocket, but {line}: {body}"));
        }
        conn.stage = Stage::LoggingIn;
        let login = device::login_frame(&self.job, conn.who)?;
        conn.link.write(&login).map_err(|error| error.to_string())?;
        Ok(bytes.get(end + END.len()..).unwrap_or_default())
    }

    fn on_frame(&mut self, token: usize, conn: &mut Conn, frame: &wire::Frame<'_>, now: u64) -> Result<(), String> {
        match frame.opcode {
            PING => {
                self.scratch.clear();
                wire::put_masked(&mut self.scratch, PONG, frame.payload);
                conn.link.write(&self.scratch).map_err(|error| error.to_string())
            }
            PONG => Ok(()),
            CLOSE => {
                let code = frame.payload.first_chunk().map_or(1005, |code| u16::from_be_bytes(*code));
                let reason = String::from_utf8_lossy(frame.payload.get(2..).unwrap_or_default());
                Err(format!("closed with {code} {reason}"))
            }
            opcode if opcode == wire::data_opcode(self.encoding) && frame.is_final => {
                self.on_op(token, conn, frame.payload, now)
            }
            opcode => Err(format!("a frame with the opcode {opcode} that a relay does not send")),
        }
    }

    fn on_op(&mut self, token: usize, conn: &mut Conn, payload: &[u8], now: u64) -> Result<(), String> {
        let op = wire::op(self.encoding, payload).ok_or("an op that cannot be read; is it a relay?")?;
        match (op, conn.who) {
            (b"message" | b"signal", Who::Receiver { shop, receiver }) => {
                if op == b"message" && !self.job.is_floor {
                    let id = wire::id(self.encoding, op, payload).ok_or("a message without an id")?;
                    conn.newest.clear();
                    conn.newest.extend_from_slice(id);
                }
                let mark = wire::mark(payload).ok_or("a message that is none of the benchmark's")?;
                self.on_message(shop, receiver, mark, now);
            }
            (b"accepted", Who::Publisher { shop }) => {
                let seq = wire::answered(payload).ok_or("an answer without its ref")?;
                let answer = self.shops.get_mut(shop).and_then(|shop| shop.on_accepted(seq));
                if let (Some((due_ns, is_over)), Some(running)) = (answer, &mut self.running) {
                    running.on_answered(due_ns, now);
                    running.in_flight = running.in_flight.saturating_sub(usize::from(is_over));
                }
            }
            (b"welcome", _) if conn.stage == Stage::LoggingIn => {
                conn.stage = Stage::Ready;
                self.on_open(token, conn);
            }
            (b"error", _) => return self.on_error(conn, payload),
            _ => {}
        }
        Ok(())
    }

    fn on_message(&mut self, shop: usize, receiver: usize, mark: wire::Mark, now: u64) {
        let Some(shop) = self.shops.get_mut(shop) else { return };
        let arrival = shop.on_arrival(receiver, mark.seq);
        self.repeated += u64::from(!arrival.is_new);
        let Some(running) = &mut self.running else { return };
        running.in_flight = running.in_flight.saturating_sub(usize::from(arrival.is_over));
        if arrival.is_new {
            running.on_arrival(mark.due_ns, now);
            if self.job.load == Load::Signals {
                running.on_signal(mark.seq, mark.due_ns, now);
            }
        }
    }

    fn on_error(&mut self, conn: &Conn, payload: &[u8]) -> Result<(), String> {
        let said = |key| wire::field(self.encoding, payload, key).map(String::from_utf8_lossy).unwrap_or_default();
        let code = said("code").into_owned();
        if conn.stage == Stage::LoggingIn {
            let advice = match code.as_str() {
                "unauthorized" => "; name the relay's secret with --jwt-secret-file",
                _ => "",
            };
            return Err(format!("{code}: {}{advice}", said("message")));
        }
        let (Who::Publisher { shop }, Some(seq)) = (conn.who, wire::answered(payload)) else { return Ok(()) };
        let was_awaited = self.shops.get_mut(shop).is_some_and(|shop| shop.on_refused(seq));
        if let (true, Some(running)) = (was_awaited, &mut self.running) {
            running.in_flight = running.in_flight.saturating_sub(1);
            *running.report.refused.entry(code).or_default() += 1;
        }
        Ok(())
    }

    /// A device is logged in.
    pub(super) fn on_open(&mut self, token: usize, conn: &Conn) {
        self.opening = self.opening.saturating_sub(1);
        self.opened_ns = now_ns();
        match conn.who {
            Who::Receiver { .. } => {}
            Who::Publisher { shop } => {
                if let Some(publisher) = self.publishers.get_mut(shop) {
                    *publisher = Some(token);
                }
            }
            Who::Idle(_) => self.held.push_back(token),
            Who::New(_) => {
                self.held.push_back(token);
                if let Some(running) = &mut self.running {
                    running.in_flight = running.in_flight.saturating_sub(1);
                    running.on_login(conn.began_ns, now_ns());
                    if let Pace::Logins { held, .. } = running.turn.pace {
                        self.release(held.max(1));
                    }
                }
            }
        }
    }

    /// Acknowledges what a connection has.
    pub(super) fn acknowledge(&mut self, token: usize) -> Result<(), Failure> {
        let Some(mut conn) = self.conns.get_mut(token).and_then(Option::take) else { return Ok(()) };
        let written = if conn.newest.is_empty() { Ok(()) } else { self.write_ack(&mut conn) };
        self.settle(token, conn, written)
    }

    fn write_ack(&mut self, conn: &mut Conn) -> Result<(), String> {
        self.scratch.clear();
        wire::put_ack(&mut self.scratch, self.encoding, &conn.newest);
        conn.newest.clear();
        conn.link.write(&self.scratch).map_err(|error| error.to_string())
    }
}
