//! What takes turns: a scenario laid out as lanes, and the jobs of the workers.
//!
//! Owns the meaning of each scenario. Never starts a process. Called by [`mod@super::run`].

use super::clock::ns;
use super::figures::Unit;
use super::options::{Deployment, Scenario, Settings};
use super::plan::{Job, Load, Pace, Target};
use super::sockets_allowed;

/// Sockets that a process needs for other things.
const SPARE_SOCKETS: usize = 64;

/// One way to load one deployment; lanes take turns.
#[derive(Debug, Clone)]
pub struct Lane {
    pub name: String,
    /// Which of the deployments, the floor being the one after the last.
    pub deployment: usize,
    pub pace: Pace,
    /// Whether idle sessions stand beside it.
    pub has_idle: bool,
}

/// What a cost of this scenario is divided by.
pub fn unit(scenario: Scenario) -> Unit {
    match scenario {
        Scenario::Saturate | Scenario::Rate | Scenario::OneMain | Scenario::Broadcast | Scenario::Mixed => {
            Unit::Delivery
        }
        Scenario::Embedded => Unit::Publish,
        Scenario::Logins => Unit::Login,
        Scenario::Idle => Unit::Second,
    }
}

/// The lanes, in the order of their turns.
pub fn lanes(settings: &Settings) -> Vec<Lane> {
    let in_flight = settings.in_flight;
    let pace = match settings.scenario {
        Scenario::Saturate | Scenario::Mixed | Scenario::Embedded => Pace::InFlight(in_flight),
        Scenario::Rate | Scenario::OneMain | Scenario::Broadcast => {
            Pace::Every { ns: 1_000_000_000 / settings.rate, first_ns: 0 }
        }
        Scenario::Logins => Pace::Logins { in_flight, held: settings.sessions },
        Scenario::Idle => Pace::Silence,
    };
    let mut lanes = Vec::new();
    for (deployment, Deployment { name, .. }) in settings.deployments.iter().enumerate() {
        let lane = |name: String, pace, has_idle| Lane { name, deployment, pace, has_idle };
        match settings.scenario {
            Scenario::Mixed => {
                lanes.push(lane(format!("{name} beside {}", settings.sessions), pace, true));
                lanes.push(lane(format!("{name} alone"), pace, false));
            }
            Scenario::Embedded => {
                lanes.push(lane(format!("{name}, {in_flight}"), pace, false));
                lanes.push(lane(format!("{name}, 1"), Pace::InFlight(1), false));
            }
            _ => lanes.push(lane((*name).to_owned(), pace, false)),
        }
    }
    if settings.has_floor {
        let deployment = settings.deployments.len();
        lanes.push(Lane { name: "floor".to_owned(), deployment, pace, has_idle: false });
    }
    lanes
}

/// Devices that each signal is for; 0 where messages are stored.
pub fn hearers(settings: &Settings) -> u64 {
    if settings.scenario == Scenario::Broadcast { settings.sessions as u64 } else { 0 }
}

/// How many processes play the devices.
///
/// # Errors
/// Where those that were asked for may not open so many sockets.
pub fn processes(settings: &Settings) -> Result<usize, String> {
    let sockets = match settings.scenario {
        Scenario::Saturate | Scenario::Rate | Scenario::OneMain => settings.shops * (settings.devices + 1),
        Scenario::Mixed => settings.shops * (settings.devices + 1) + settings.sessions,
        Scenario::Broadcast => settings.sessions + 1,
        Scenario::Idle => settings.sessions,
        Scenario::Logins => settings.sessions + settings.in_flight,
        Scenario::Embedded => settings.shops,
    };
    let allowed = sockets_allowed().saturating_sub(SPARE_SOCKETS).max(1);
    let fewest = sockets.div_ceil(allowed).max(1);
    if settings.has_floor && fewest > 1 {
        return Err(format!(
            "--floor: it is one process, which may open {allowed} sockets, and {sockets} are needed; raise `ulimit -n`"
        ));
    }
    match settings.processes {
        Some(given) if given < fewest => Err(format!(
            "--processes {given}: {sockets} sockets are needed, and a process may open {allowed}; give {fewest} or raise `ulimit -n`"
        )),
        given => Ok(given.unwrap_or(fewest)),
    }
}

/// The part of `all` that the `nth` of `parts` has, and where it begins.
pub fn share(all: usize, nth: usize, parts: usize) -> (usize, usize) {
    let parts = parts.max(1);
    let (each, more) = (all / parts, all % parts);
    (each + usize::from(nth < more), each * nth + nth.min(more))
}

/// The part of a pace that the `nth` of `parts` workers keeps, from this moment on.
pub fn pace_share(pace: Pace, nth: usize, parts: usize, starts_ns: u64) -> Pace {
    match pace {
        Pace::InFlight(all) => Pace::InFlight(share(all, nth, parts).0),
        Pace::Logins { in_flight, held } => {
            Pace::Logins { in_flight: share(in_flight, nth, parts).0, held: share(held, nth, parts).0.max(1) }
        }
        Pace::Every { ns, .. } => Pace::Every { ns: ns * parts.max(1) as u64, first_ns: starts_ns + ns * nth as u64 },
        Pace::Silence => Pace::Silence,
    }
}

/// The same where one shop has its devices in all workers and its publisher in the first.
pub fn pace_of_one(pace: Pace, nth: usize, starts_ns: u64) -> Pace {
    if nth == 0 { pace_share(pace, 0, 1, starts_ns) } else { Pace::Silence }
}

/// The jobs of one deployment's workers.
pub fn jobs(settings: &Settings, run: &str, targets: &[Target], is_floor: bool) -> Result<Vec<Job>, String> {
    let workers = processes(settings)?;
    let (load, shops, receivers) = match settings.scenario {
        Scenario::Saturate | Scenario::Rate | Scenario::OneMain | Scenario::Mixed => {
            (Load::Orders, settings.shops, settings.devices)
        }
        Scenario::Broadcast => (Load::Signals, 1, settings.sessions),
        Scenario::Embedded => (Load::Unheard, settings.shops, 0),
        Scenario::Idle | Scenario::Logins => (Load::Unheard, 0, 0),
    };
    let job = |worker| {
        let is_shared = load == Load::Signals;
        let (own_shops, first_shop) = if is_shared { (1, 0) } else { share(shops, worker, workers) };
        let (receivers, first_receiver) = if is_shared { share(receivers, worker, workers) } else { (receivers, 0) };
        Job {
            targets: targets.to_vec(),
            is_floor,
            encoding: settings.encoding,
            load,
            worker,
            run: run.to_owned(),
            first_shop,
            shops: own_shops,
            receivers,
            first_receiver,
            has_publishers: !is_shared || worker == 0,
            order_bytes: settings.order_bytes,
            ack_delay_ns: ns(settings.ack_delay),
            patience_ns: ns(settings.patience),
            tls_ca: settings.tls_ca.clone(),
            secrets: settings.secrets.clone(),
        }
    };
    Ok((0..workers).map(job).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_as_equal_as_can_be_and_leave_nothing_out() {
        assert_eq!([0, 1, 2].map(|nth| share(8, nth, 3)), [(3, 0), (3, 3), (2, 6)]);
        assert_eq!(pace_share(Pace::InFlight(5), 1, 2, 0), Pace::InFlight(2));
        let every = Pace::Every { ns: 10, first_ns: 0 };
        assert_eq!(pace_share(every, 2, 4, 100), Pace::Every { ns: 40, first_ns: 120 });
    }
}
