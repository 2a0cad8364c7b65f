//! The node's memory: how much it takes, and what is done before there is none left.
//!
//! Owns the two marks. Above the first nobody new is let in, and the node is not ready; above the second
//! connections are closed with 1013, those first for which most is held. What a connection may hold is bounded
//! anyway, so this is for a node that has more of them than its memory is for. Run by `node`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tracing::{info, warn};

use crate::config::MemoryLimit;
use crate::hub::Outbox;
use crate::metrics;
use crate::protocol::{Close, CloseCode};
use crate::relay::Relay;

/// Above this share of the limit nobody new is let in, until less than the second is taken.
const SHORT: f64 = 0.85;
const ENOUGH: f64 = 0.80;
/// Above this share connections are closed.
const OVER: f64 = 0.95;
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// What was freed is given back to the system after a while only; until then it still counts.
const SHED_EVERY: Duration = Duration::from_secs(2);
/// Share of the connections that are closed at once, at most.
const SHED_SHARE: usize = 20;
/// What a connection takes at least, with what the system holds for it.
const CONNECTION_BYTES: usize = 16 * 1024;

const GROUPS: &str = "/sys/fs/cgroup";

/// See the module.
pub struct Memory {
    limit: Option<Limit>,
}

/// How much memory there is, and where to see how much of it is taken.
struct Limit {
    bytes: u64,
    /// The control group that has the limit; None where it is this process's own.
    group: Option<PathBuf>,
}

impl Memory {
    /// Looks for the limit that the setting means.
    pub fn new(setting: MemoryLimit) -> Memory {
        let limit = match setting {
            MemoryLimit::None => None,
            MemoryLimit::Mib(mib) => Some(Limit { bytes: mib << 20, group: None }),
            MemoryLimit::Auto => group_limit(),
        };
        if let Some(Limit { bytes, group }) = &limit {
            info!(bytes, ?group, "the node's memory is limited");
        }
        Memory { limit }
    }
}

/// Closes connections that hold at least so much together, but not too many at once.
fn shed(mut connections: Vec<(u64, Arc<Outbox>)>, bytes: u64) {
    connections.sort_unstable_by_key(|(number, outbox)| std::cmp::Reverse((outbox.unwritten(), *number)));
    let most = connections.len().div_ceil(SHED_SHARE);
    let (mut freed, mut count) = (0, 0);
    for (_, outbox) in connections.iter().take(most) {
        if freed >= bytes {
            break;
        }
        outbox.close(Close::new(CloseCode::Overloaded, "the node has no memory left"));
        freed += (outbox.unwritten() + CONNECTION_BYTES) as u64;
        count += 1;
    }
    warn!(count, "the node has no memory left; connections were closed with 1013");
}

impl Relay {
    /// Looks after the memory, until it is dropped; at once where it has no limit.
    pub async fn watch_memory(&self) {
        let Some(limit) = &self.memory.limit else {
            metrics::memory(own_bytes().unwrap_or_default(), 0);
            return std::future::pending().await;
        };
        let mark = |share: f64| (limit.bytes as f64 * share) as u64;
        let mut looks = tokio::time::interval(LOOK_EVERY);
        let mut is_short = false;
        let mut shed_at: Option<tokio::time::Instant> = None;
        loop {
            let now = looks.tick().await;
            let Some(used) = limit.used() else { continue };
            metrics::memory(used, limit.bytes);
            let was_short = is_short;
            is_short = used > mark(if was_short { ENOUGH } else { SHORT });
            self.intake.set_short_of_memory(is_short);
            if is_short != was_short {
                warn!(used, limit = limit.bytes, is_short, "memory: nobody new is let in while it is short");
            }
            if used > mark(OVER) && shed_at.is_none_or(|at| now >= at + SHED_EVERY) {
                shed_at = Some(now);
                shed(self.connections.all(), used - mark(SHORT));
            }
        }
    }
}

impl Limit {
    fn used(&self) -> Option<u64> {
        match &self.group {
            // What the system would rather drop than end the node for is not counted.
            Some(group) => {
                let current = number(&group.join("memory.current"))?;
                let stat = std::fs::read_to_string(group.join("memory.stat")).ok()?;
                let cached = stat.lines().find_map(|line| line.strip_prefix("inactive_file "));
                Some(current.saturating_sub(cached.and_then(|bytes| bytes.parse().ok()).unwrap_or(0)))
            }
            None => own_bytes(),
        }
    }
}

/// The memory that this process has of the system.
fn own_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    kib.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok().map(|kib| kib << 10)
}

/// The least limit of this process's control group and those that it is in (cgroup v2).
fn group_limit() -> Option<Limit> {
    let groups = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let own = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let path = Path::new(GROUPS).join(own);
    let above = path.ancestors().take_while(|path| path.starts_with(GROUPS));
    let limits = above.filter_map(|group| {
        let bytes = number(&group.join("memory.max"))?;
        Some(Limit { bytes, group: Some(group.to_owned()) })
    });
    limits.min_by_key(|limit| limit.bytes)
}

/// The number in a file; None where it says `max`, or is not there.
fn number(path: &Path) -> Option<u64> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}
