//! The one clock of a benchmark: monotonic, and the same for every process of a machine.
//!
//! Owns the reading of clocks. A moment is a number of nanoseconds, so that it can be told to another
//! process and stand in a message; [`std::time::Instant`] can do neither. Called by all of `bench`.

use std::time::Duration;

use rustix::time::{ClockId, Timespec, clock_gettime};

/// Nanoseconds since some moment in the past, the same one for all processes until the machine restarts.
pub fn now_ns() -> u64 {
    nanoseconds(clock_gettime(ClockId::Monotonic))
}

/// CPU time that this process has used so far, in nanoseconds.
pub fn own_cpu_ns() -> u64 {
    nanoseconds(clock_gettime(ClockId::ProcessCPUTime))
}

/// A duration in nanoseconds, as they are counted here.
pub fn ns(duration: Duration) -> u64 {
    duration.as_nanos() as u64
}

fn nanoseconds(time: Timespec) -> u64 {
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}
