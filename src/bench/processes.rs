//! What processes of this machine use, as the kernel counts it.
//!
//! Owns the reading of `/proc`. Never starts or ends a process. Called by [`super`].

use std::collections::BTreeMap;

use rustix::param::clock_ticks_per_second;
use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_getaffinity};

use super::clock::now_ns;

/// What named processes have used up to a moment.
#[derive(Debug, Clone, Default)]
pub struct Sample {
    pub at_ns: u64,
    /// CPU time since they began, of all their threads, by name.
    pub cpu_ns: BTreeMap<String, u64>,
}

impl Sample {
    /// Reads the CPU time now. A process that is gone is told by its number.
    ///
    /// # Errors
    /// Which process is gone.
    pub fn take(pids: &[(String, u32)]) -> Result<Sample, String> {
        let mut sample = Sample { at_ns: now_ns(), ..Sample::default() };
        for (name, pid) in pids {
            let used = cpu_ns(*pid).ok_or_else(|| format!("process {pid} ({name}) has ended"))?;
            *sample.cpu_ns.entry(name.clone()).or_default() += used;
        }
        Ok(sample)
    }

    /// Cores' worth of time that each name used since an earlier sample.
    pub fn cores_since(&self, earlier: &Sample) -> BTreeMap<String, f64> {
        let took = self.at_ns.saturating_sub(earlier.at_ns).max(1) as f64;
        let used = |name: &String, now: u64| now.saturating_sub(earlier.cpu_ns.get(name).copied().unwrap_or(now));
        self.cpu_ns.iter().map(|(name, now)| (name.clone(), used(name, *now) as f64 / took)).collect()
    }
}

/// Memory that processes hold, in bytes by name; without those of which nothing can be read.
pub fn memory(pids: &[(String, u32)]) -> BTreeMap<String, u64> {
    let mut memory = BTreeMap::new();
    for (name, pid) in pids {
        if let Some(bytes) = resident(*pid) {
            *memory.entry(name.clone()).or_default() += bytes;
        }
    }
    memory
}

/// The cores that a process may run on; those of this one for None.
pub fn cores(pid: Option<u32>) -> Vec<usize> {
    let pid = pid.and_then(|pid| Pid::from_raw(pid as i32));
    let Ok(set) = sched_getaffinity(pid) else { return Vec::new() };
    (0..CpuSet::MAX_CPU).filter(|core| set.is_set(*core)).collect()
}

/// The machine in a line: its processor, cores, kernel and load.
pub fn machine() -> String {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let model = model.map_or("an unknown processor", |(_, model)| model.trim());
    let count = cpu.lines().filter(|line| line.starts_with("processor")).count();
    let (kernel, load) = (read("/proc/sys/kernel/osrelease"), read("/proc/loadavg"));
    let load = load.split(' ').next().unwrap_or_default();
    format!("{count} x {model}, Linux {}, load {load} before the run", kernel.trim())
}

/// User and system time of all threads, those that have ended too.
fn cpu_ns(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may hold blanks and brackets; the rest does not.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let ticks = fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?;
    Some(ticks * (1_000_000_000 / clock_ticks_per_second()))
}

/// Resident bytes, from the exact count where it may be read.
fn resident(pid: u32) -> Option<u64> {
    let find = |text: String, key: &str| -> Option<u64> {
        let line = text.lines().find_map(|line| line.strip_prefix(key).map(str::to_owned))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    };
    let exact = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok().and_then(|text| find(text, "Rss:"));
    let kib = exact.or_else(|| find(std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?, "VmRSS:"))?;
    Some(kib * 1024)
}
