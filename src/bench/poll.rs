//! What a process of the benchmark waits for: many sockets, a moment, and its standard input.
//!
//! Owns the epoll instance and its timer, which is exact to the microsecond where `epoll_wait` itself counts
//! milliseconds. Never reads or writes a socket. Used by [`mod@super::worker`] and [`mod@super::floor`].

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};
use rustix::time::{timerfd_create, timerfd_settime};

/// Events that are taken at once.
const EVENTS_MAX: usize = 512;
/// The token of the timer, which callers do not use.
const TIMER: u64 = u64::MAX;

/// What has become possible.
#[derive(Debug, Clone, Copy)]
pub struct Ready {
    pub token: usize,
    pub can_write: bool,
    pub can_read: bool,
}

/// An epoll instance with a timer.
pub struct Poll {
    epoll: OwnedFd,
    timer: OwnedFd,
    timer_at_ns: u64,
    events: Vec<Event>,
}

impl Poll {
    /// # Errors
    /// Where the process has no file descriptors left.
    pub fn new() -> io::Result<Poll> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        epoll::add(&epoll, &timer, EventData::new_u64(TIMER), EventFlags::IN)?;
        Ok(Poll { epoll, timer, timer_at_ns: 0, events: Vec::with_capacity(EVENTS_MAX) })
    }

    /// Waits for it to be readable from now on, and writable too where `write` says so.
    ///
    /// # Errors
    /// Where it cannot be polled, such as a file.
    pub fn add(&self, source: impl AsFd, token: usize, write: bool) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, source, EventData::new_u64(token as u64), interest(write))?)
    }

    /// Begins or ceases to wait for it to be writable.
    ///
    /// # Errors
    /// Where it was not added.
    pub fn set_write(&self, source: impl AsFd, token: usize, write: bool) -> io::Result<()> {
        Ok(epoll::modify(&self.epoll, source, EventData::new_u64(token as u64), interest(write))?)
    }

    /// Waits until something is ready or this moment has come. What is ready is appended to `ready`.
    ///
    /// # Errors
    /// Those of the system calls, but for an interruption.
    pub fn wait(&mut self, until_ns: u64, ready: &mut Vec<Ready>) -> io::Result<()> {
        if until_ns != self.timer_at_ns {
            let spec = Itimerspec {
                it_interval: Timespec { tv_sec: 0, tv_nsec: 0 },
                it_value: Timespec {
                    tv_sec: (until_ns / 1_000_000_000) as i64,
                    // All zeros would disarm it.
                    tv_nsec: (until_ns % 1_000_000_000).max(1) as i64,
                },
            };
            timerfd_settime(&self.timer, TimerfdTimerFlags::ABSTIME, &spec)?;
            self.timer_at_ns = until_ns;
        }
        self.events.clear();
        match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut self.events), None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        for event in &self.events {
            let (token, flags) = (event.data.u64(), event.flags);
            if token == TIMER {
                // It is level-triggered: whoever waits for the same moment again is not to be woken again.
                self.timer_at_ns = 0;
                continue;
            }
            let is_broken = flags.intersects(EventFlags::ERR | EventFlags::HUP);
            ready.push(Ready {
                token: token as usize,
                can_write: is_broken || flags.contains(EventFlags::OUT),
                can_read: is_broken || flags.intersects(EventFlags::IN | EventFlags::RDHUP),
            });
        }
        Ok(())
    }
}

fn interest(write: bool) -> EventFlags {
    if write { EventFlags::IN | EventFlags::OUT } else { EventFlags::IN }
}
