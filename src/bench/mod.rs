//! `shoprelay bench`: how fast a deployment is, measured from outside.
//!
//! Owns the course of a benchmark: devices by the ten thousand, played by processes of their own
//! ([`mod@worker`]), take turns at the deployments that the command line names and at a bare loop ([`mod@floor`])
//! that shows what the machine can do at that moment. It is a client like any other and speaks the native
//! protocol; no part of a relay in service uses it. Never looks into a relay: what it costs is what the
//! kernel says of its processes. Called by `main`.

mod clock;
mod crew;
mod figures;
mod floor;
mod lanes;
mod link;
mod options;
mod plan;
mod poll;
mod processes;
mod relay_metrics;
mod run;
mod table;
mod wire;
mod worker;

pub use floor::run as floor;
pub use options::{Given, OPTIONS, OptKind, SCENARIOS, Settings};
pub use run::run;
pub use table::Outcome;
pub use worker::run as worker;

/// The subcommands as which the program starts itself.
pub const BENCH_WORKER: &str = "bench-worker";
pub const BENCH_FLOOR: &str = "bench-floor";

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises this process's limit of open files as far as it may, and says how far that is.
fn sockets_allowed() -> usize {
    let limit = getrlimit(Resource::Nofile);
    // Where it cannot be raised it stays, and is what is said.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX) as usize
}
