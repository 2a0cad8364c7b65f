//! A process that plays devices, as many as it may open sockets.
//!
//! Owns the connections of its share of the devices and the one loop that serves them: what is due is
//! published, what arrives is counted and acknowledged. Told what to do by the parent, a JSON object a line
//! on standard input, and answers the same way. One thread and no runtime: it has to cost much less than the
//! relay that it measures. Never prints anything else. Started by [`super::crew`].

mod device;
mod incoming;
mod opening;
mod shop;
mod turn;

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Write as _};

use crate::bench::clock::{self, now_ns};
use crate::bench::link::Tls;
use crate::bench::plan::{Command, Job, Load, Pace, Word};
use crate::bench::poll::{Poll, Ready};
use crate::bench::sockets_allowed;
use crate::bench::wire::{Mark, Template};
use crate::protocol;
use device::{Conn, Stage, Who};
use shop::Shop;
use turn::Running;

/// How often the worker looks for what is overdue.
const TICK_NS: u64 = 100_000_000;
/// Bytes read at once.
const READ_BYTES: usize = 256 * 1024;
/// The token of standard input.
const INPUT: usize = usize::MAX - 1;

/// Why a worker cannot go on, for the one who runs it to read.
type Failure = String;

/// Plays devices until standard input ends.
pub fn run() {
    let done = Worker::start().and_then(|worker| match worker {
        Some(worker) => worker.serve(),
        None => Ok(()),
    });
    if let Err(why) = done {
        // Without a parent there is nobody to tell.
        let _ = say(&Word::Failed { why });
    }
}

struct Worker {
    job: Job,
    encoding: protocol::Encoding,
    poll: Poll,
    conns: Vec<Option<Conn>>,
    free: Vec<usize>,
    /// Connections ever begun.
    begun: usize,
    shops: Vec<Shop>,
    publishers: Vec<Option<usize>>,
    next_shop: usize,
    notify: Template,
    /// What TLS needs, where a target speaks it.
    tls: Option<Tls>,
    to_open: VecDeque<Who>,
    opening: usize,
    /// When a connection began or was there last, while any is on its way.
    opened_ns: u64,
    /// Whether the parent waits to hear that everything is open.
    is_asked: bool,
    running: Option<Running>,
    closed: BTreeMap<String, u64>,
    repeated: u64,
    /// Connections that did nothing but be there, oldest first.
    held: VecDeque<usize>,
    new_devices: usize,
    /// Connections whose acknowledgement is due at this moment.
    acks: VecDeque<(u64, usize)>,
    input: Vec<u8>,
    /// For what is read, and for what is written.
    buffer: Vec<u8>,
    scratch: Vec<u8>,
}

impl Worker {
    /// Reads the job; None where there is none.
    fn start() -> Result<Option<Worker>, Failure> {
        let mut input = Vec::new();
        let job = loop {
            if let Some(line) = take_line(&mut input) {
                break serde_json::from_slice::<Job>(&line).map_err(|error| format!("the job is none: {error}"))?;
            }
            if !read_input(&mut input)? {
                return Ok(None);
            }
        };
        sockets_allowed();
        let encoding = protocol::Encoding::from(job.encoding);
        let (to, durable) = match job.load {
            Load::Orders | Load::Signals => (None, None),
            Load::Unheard => (Some("subs"), Some(true)),
        };
        let notify = Template::notify(encoding, job.order_bytes, to, durable).ok_or("no order can be made")?;
        let poll = Poll::new().map_err(|error| format!("nothing can be waited for: {error}"))?;
        poll.add(io::stdin(), INPUT, false).map_err(|error| format!("standard input is no pipe: {error}"))?;
        let speaks_tls = job.targets.iter().any(|target| target.tls_name.is_some());
        let tls = speaks_tls.then(|| Tls::new(job.tls_ca.as_deref())).transpose()?;
        let shop = || Shop::new(job.receivers, !job.is_floor);
        Ok(Some(Worker {
            encoding,
            poll,
            conns: Vec::new(),
            free: Vec::new(),
            begun: 0,
            shops: (0..job.shops).map(|_| shop()).collect(),
            publishers: vec![None; job.shops],
            next_shop: 0,
            notify,
            tls,
            to_open: VecDeque::new(),
            opening: 0,
            opened_ns: 0,
            is_asked: false,
            running: None,
            closed: BTreeMap::new(),
            repeated: 0,
            held: VecDeque::new(),
            new_devices: 0,
            acks: VecDeque::new(),
            input,
            buffer: vec![0; READ_BYTES],
            scratch: Vec::new(),
            job,
        }))
    }

    fn serve(mut self) -> Result<(), Failure> {
        let (mut ready, mut next_tick_ns) = (Vec::new(), now_ns() + TICK_NS);
        loop {
            while let Some(line) = take_line(&mut self.input) {
                let command = serde_json::from_slice(&line).map_err(|error| format!("no command: {error}"))?;
                self.obey(command)?;
            }
            self.open_more()?;
            let now = now_ns();
            if now >= next_tick_ns {
                self.on_tick(now);
                self.check_opening(now)?;
                next_tick_ns = now + TICK_NS;
            }
            self.advance(now)?;
            let wakes_ns = self.running.as_ref().map_or(u64::MAX, |running| running.wakes_ns(now));
            let ack_ns = self.acks.front().map_or(u64::MAX, |(due_ns, _)| *due_ns);
            ready.clear();
            let until_ns = next_tick_ns.min(wakes_ns).min(ack_ns);
            self.poll.wait(until_ns, &mut ready).map_err(|error| format!("waiting failed: {error}"))?;
            for event in &ready {
                if event.token == INPUT {
                    if !read_input(&mut self.input)? {
                        return Ok(());
                    }
                } else {
                    self.on_ready(*event)?;
                }
            }
        }
    }

    fn obey(&mut self, command: Command) -> Result<(), Failure> {
        match command {
            Command::Open => {
                for shop in 0..self.job.shops {
                    let receivers = (0..self.job.receivers).map(|receiver| Who::Receiver { shop, receiver });
                    self.to_open.extend(receivers);
                    self.to_open.extend(self.job.has_publishers.then_some(Who::Publisher { shop }));
                }
                self.is_asked = true;
            }
            Command::Hold { sessions } => {
                self.to_open.extend((0..sessions).map(Who::Idle));
                self.is_asked = true;
            }
            Command::Release => {
                self.release(0);
                say(&Word::Opened { sockets: self.sockets() })?;
            }
            Command::Turn(turn) => self.running = Some(Running::new(turn)?),
            Command::Stop => {
                if let Some(running) = &mut self.running {
                    running.end(now_ns());
                }
            }
        }
        Ok(())
    }

    fn on_tick(&mut self, now_ns: u64) {
        let Some(running) = &mut self.running else { return };
        let overdue_ns = now_ns.saturating_sub(self.job.patience_ns);
        for shop in &mut self.shops {
            let (over, unanswered) = shop.give_up(overdue_ns);
            running.in_flight = running.in_flight.saturating_sub(over);
            running.report.unanswered += unanswered;
        }
    }

    /// Does what is due.
    fn advance(&mut self, now_ns: u64) -> Result<(), Failure> {
        while let Some((due_ns, token)) = self.acks.front().copied()
            && due_ns <= now_ns
        {
            self.acks.pop_front();
            self.acknowledge(token)?;
        }
        match &mut self.running {
            Some(running) => running.on_time(now_ns),
            None => return Ok(()),
        }
        while let Some(due_ns) = self.running.as_mut().and_then(|running| running.due(clock::now_ns())) {
            let logs_in = self.running.as_ref().is_some_and(|it| matches!(it.turn.pace, Pace::Logins { .. }));
            if logs_in {
                self.log_a_new_device_in()?;
            } else if !self.publish(due_ns)?
                && let Some(running) = &mut self.running
            {
                // Nobody is left who could; what was seen until now is told.
                running.end(now_ns);
            }
        }
        let (patience_ns, listens_only) = (self.job.patience_ns, !self.job.has_publishers && self.job.shops > 0);
        if self.running.as_ref().is_some_and(|running| running.is_over(now_ns, patience_ns, listens_only)) {
            self.tell_turn()?;
        }
        Ok(())
    }

    /// Has the next shop publish; false where none can.
    fn publish(&mut self, due_ns: u64) -> Result<bool, Failure> {
        for _ in 0..self.shops.len() {
            let shop = self.next_shop;
            self.next_shop = (shop + 1) % self.shops.len();
            let (Some(Some(token)), Some(state)) = (self.publishers.get(shop).copied(), self.shops.get_mut(shop))
            else {
                continue;
            };
            let sent_ns = now_ns();
            let seq = state.publish(due_ns, sent_ns);
            if let Some(running) = &mut self.running {
                running.on_sent(due_ns, sent_ns);
            }
            let Some(mut conn) = self.conns.get_mut(token).and_then(Option::take) else { continue };
            let written = conn.link.write(self.notify.filled(Mark { seq, due_ns }));
            self.settle(token, conn, written.map_err(|error| error.to_string()))?;
            return Ok(true);
        }
        Ok(false)
    }

    fn tell_turn(&mut self) -> Result<(), Failure> {
        self.on_tick(u64::MAX);
        let Some(running) = self.running.take() else { return Ok(()) };
        if let Pace::Logins { .. } = running.turn.pace {
            self.release(0);
        }
        let mut report = running.into_report();
        report.lost = self.shops.iter().map(Shop::missing).sum();
        report.repeated = self.repeated;
        report.closed = std::mem::take(&mut self.closed);
        report.sockets = self.sockets();
        say(&Word::Turned(Box::new(report)))
    }

    fn on_ready(&mut self, event: Ready) -> Result<(), Failure> {
        // It may have ended earlier in this turn of the loop.
        let Some(mut conn) = self.conns.get_mut(event.token).and_then(Option::take) else { return Ok(()) };
        let mut outcome = Ok(());
        if conn.stage == Stage::Connecting {
            if !event.can_write {
                return self.settle(event.token, conn, Ok(()));
            }
            outcome = self.on_connected(event.token, &mut conn);
        } else if event.can_write {
            outcome = conn.link.flush().map_err(|error| error.to_string());
        }
        if outcome.is_ok() && event.can_read && conn.stage != Stage::Connecting {
            outcome = self.on_readable(event.token, &mut conn);
            if outcome.is_ok() && conn.link.has_unsent() {
                // What came may be what TLS waited for.
                outcome = conn.link.flush().map_err(|error| error.to_string());
            }
        }
        self.settle(event.token, conn, outcome)
    }
}

fn say(word: &Word) -> Result<(), Failure> {
    let mut line = serde_json::to_vec(word).map_err(|error| error.to_string())?;
    line.push(b'\n');
    let mut out = io::stdout().lock();
    out.write_all(&line).and_then(|()| out.flush()).map_err(|error| format!("the parent is gone: {error}"))
}

/// Whether there is more to come.
fn read_input(input: &mut Vec<u8>) -> Result<bool, Failure> {
    let mut chunk = [0; 4096];
    let count = rustix::io::read(io::stdin(), &mut chunk).map_err(|error| format!("the parent is gone: {error}"))?;
    input.extend_from_slice(chunk.get(..count).unwrap_or_default());
    Ok(count > 0)
}

fn take_line(input: &mut Vec<u8>) -> Option<Vec<u8>> {
    let end = input.iter().position(|byte| *byte == b'\n')?;
    Some(input.drain(..=end).collect())
}
