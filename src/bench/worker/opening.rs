//! How the connections of a worker begin and end.

use super::device::{self, Conn, Stage, Who};
use super::{Failure, Worker, say};
use crate::bench::clock::now_ns;
use crate::bench::link::Link;
use crate::bench::plan::Word;

/// Connections that are made at once.
const OPENING_AT_ONCE: usize = 128;
/// How long to wait for any of them.
const OPENING_MAX_NS: u64 = 30_000_000_000;

impl Worker {
    /// Begins as many connections as may be under way, and says so when all are there.
    pub(super) fn open_more(&mut self) -> Result<(), Failure> {
        while self.opening < OPENING_AT_ONCE
            && let Some(who) = self.to_open.pop_front()
        {
            self.connect(who)?;
        }
        if self.is_asked && self.opening == 0 && self.to_open.is_empty() {
            self.is_asked = false;
            say(&Word::Opened { sockets: self.sockets() })?;
        }
        Ok(())
    }

    fn connect(&mut self, who: Who) -> Result<(), Failure> {
        let nth = self.begun;
        self.begun += 1;
        let target_number = nth % self.job.targets.len().max(1);
        let target = self.job.targets.get(target_number).ok_or("there is no URL")?;
        let link = Link::connect(target, self.tls.as_ref(), self.job.worker, nth).map_err(|error| {
            let advice = match error.raw_os_error().map(rustix::io::Errno::from_raw_os_error) {
                Some(rustix::io::Errno::MFILE) => "; raise `ulimit -n` or give more --processes",
                _ => "; is a relay listening there?",
            };
            format!("cannot connect to {}: {error}{advice}", target.address)
        })?;
        let conn = Conn {
            link,
            who,
            target: target_number,
            stage: Stage::Connecting,
            rest: Vec::new(),
            waits_to_write: true,
            began_ns: now_ns(),
            newest: Vec::new(),
        };
        let token = self.free.pop().unwrap_or_else(|| {
            self.conns.push(None);
            self.conns.len() - 1
        });
        self.poll.add(&conn.link, token, true).map_err(|error| format!("a socket cannot be waited for: {error}"))?;
        if let Some(place) = self.conns.get_mut(token) {
            *place = Some(conn);
        }
        self.opening += 1;
        self.opened_ns = now_ns();
        Ok(())
    }

    /// Gives up where no connection has come about for long: there would be nothing to measure.
    pub(super) fn check_opening(&self, now_ns: u64) -> Result<(), Failure> {
        if self.opening == 0 || now_ns.saturating_sub(self.opened_ns) < OPENING_MAX_NS {
            return Ok(());
        }
        let missing = self.opening + self.to_open.len();
        let there = self.sockets() - self.opening;
        Err(format!(
            "{there} connections are there, and for half a minute none of the other {missing} could log in; does the \
             relay have enough file descriptors (`ulimit -n`), and room for so many (limits.*)?"
        ))
    }

    pub(super) fn log_a_new_device_in(&mut self) -> Result<(), Failure> {
        let who = Who::New(self.new_devices);
        self.new_devices += 1;
        if let Some(running) = &mut self.running {
            running.in_flight += 1;
        }
        self.connect(who)
    }

    /// Closes the oldest of the connections that are only held, but for so many.
    pub(super) fn release(&mut self, most: usize) {
        while self.held.len() > most {
            if let Some(token) = self.held.pop_front() {
                self.drop_conn(token);
            }
        }
    }

    fn drop_conn(&mut self, token: usize) {
        if let Some(conn) = self.conns.get_mut(token).and_then(Option::take) {
            conn.link.reset();
            self.free.push(token);
        }
    }

    pub(super) fn sockets(&self) -> usize {
        self.conns.len() - self.free.len()
    }

    pub(super) fn on_connected(&mut self, token: usize, conn: &mut Conn) -> Result<(), String> {
        conn.link.connected().map_err(|error| format!("{error}; is a relay listening there?"))?;
        let first = if self.job.is_floor {
            conn.stage = Stage::Ready;
            self.on_open(token, conn);
            device::floor_hello(&self.job, conn.who, &self.notify).to_vec()
        } else {
            conn.stage = Stage::Upgrading;
            let target = self.job.targets.get(conn.target).ok_or("there is no URL")?;
            device::upgrade_request(&self.job, target).into_bytes()
        };
        conn.link.write(&first).map_err(|error| error.to_string())
    }
}
