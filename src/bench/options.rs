//! What the command line of `shoprelay bench` may say, and what it means.
//!
//! Owns the table of options, their defaults and the check of each value. Never connects anywhere. Read by
//! `main`, which makes flags of the table, and by [`super`].

use std::net::{SocketAddr, ToSocketAddrs as _};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use super::plan::{Encoding, Target};
use super::relay_metrics::Page;
use super::wire::ORDER_BYTES_MIN;

/// One option of the command line.
pub struct Opt {
    pub name: &'static str,
    pub help: &'static str,
    pub kind: OptKind,
}

/// How often an option is given, and with what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OptKind {
    /// Once, with a value; this is the default, as the help shows it.
    Value(&'static str),
    /// As often as one likes, with a value each.
    Many,
    /// Without a value.
    Switch,
}

const fn value(name: &'static str, default: &'static str, help: &'static str) -> Opt {
    Opt { name, help, kind: OptKind::Value(default) }
}

/// Every option.
pub const OPTIONS: [Opt; 25] = [
    Opt {
        name: "url",
        kind: OptKind::Many,
        help: "where the relay listens, ws://host:port or wss://host:port; repeated for several nodes, which devices share [default: ws://127.0.0.1:8080]",
    },
    Opt { name: "pid", kind: OptKind::Many, help: "a process to measure, as name=pid; repeated" },
    Opt {
        name: "metrics-url",
        kind: OptKind::Many,
        help: "a node's metrics, http://host:port/metrics, to compare its own count of proven receipts; repeated for every node",
    },
    Opt {
        name: "versus-url",
        kind: OptKind::Many,
        help: "a second deployment, which takes turns with the first; repeated",
    },
    Opt { name: "versus-pid", kind: OptKind::Many, help: "a process of the second deployment, as name=pid; repeated" },
    Opt {
        name: "floor",
        kind: OptKind::Switch,
        help: "take turns with a bare loop that only writes, on the cores of the first --pid",
    },
    Opt { name: "floor-cores", kind: OptKind::Many, help: "the cores of the bare loop, such as 0; repeated" },
    value("shops", "1000", "shops"),
    value("devices", "4", "devices of a shop that a message is for"),
    value("in-flight", "", "publishes, or logins, under way [default: 128; embedded: 256]"),
    value("rate", "", "publishes a second [default: 10000; broadcast: 1]"),
    value("size", "320", "bytes of an order, as JSON"),
    value("sessions", "15000", "idle sessions, devices of a broadcast, or most sessions that logins hold"),
    value("seconds", "5", "how long a turn counts"),
    value("warm-up", "1", "seconds of each turn before it counts"),
    value("rounds", "3", "turns of each; the figures are medians over them"),
    value("encoding", "json", "json or msgpack"),
    value("processes", "", "processes that play devices [default: as few as have the sockets]"),
    value("ack-delay", "0s", "how long a device waits before it acknowledges all it has, such as 20ms"),
    value("patience", "10s", "how long an answer or a message may take until it is given up"),
    Opt {
        name: "jwt-secret-file",
        kind: OptKind::Many,
        help: "the relay's secret, or kid=file, to sign the devices' tokens with",
    },
    value("tls-ca", "", "the authorities that vouch for the certificates of wss:// URLs [default: the system's]"),
    value("sync-dir", "", "a directory on the store's disk, to measure what a sync costs there (embedded)"),
    value("run", "", "what the names of the shops begin with [default: bench- and a random number]"),
    Opt { name: "json", kind: OptKind::Switch, help: "print JSON instead of a table" },
];

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scenario {
    Saturate,
    Rate,
    OneMain,
    Broadcast,
    Idle,
    Logins,
    Mixed,
    Embedded,
}

/// Every scenario, with its name and what it measures.
pub const SCENARIOS: [(Scenario, &str, &str); 8] = [
    (Scenario::Saturate, "saturate", "deliveries a second with so many publishes in flight"),
    (Scenario::Rate, "rate", "latency and CPU a delivery at so many publishes a second"),
    (Scenario::OneMain, "one-main", "the same with one device a shop"),
    (Scenario::Broadcast, "broadcast", "one signal to many devices of one shop, from the first to the last"),
    (Scenario::Idle, "idle", "memory and CPU of sessions that do nothing"),
    (Scenario::Logins, "logins", "new devices a second"),
    (Scenario::Mixed, "mixed", "saturation beside idle sessions, and without them"),
    (Scenario::Embedded, "embedded", "durable publishes a second, many in flight and one alone"),
];

impl Scenario {
    /// As the command line has it.
    pub fn name(self) -> &'static str {
        SCENARIOS.iter().find(|(scenario, ..)| *scenario == self).map_or("", |(_, name, _)| name)
    }
}

/// A deployment to be measured.
#[derive(Debug, Clone)]
pub struct Deployment {
    pub name: &'static str,
    pub targets: Vec<Target>,
    /// Its processes, by name; several may share one.
    pub pids: Vec<(String, u32)>,
    /// Where its nodes tell their metrics.
    pub metrics: Vec<Page>,
}

/// The options, checked.
#[derive(Debug, Clone)]
pub struct Settings {
    pub scenario: Scenario,
    pub deployments: Vec<Deployment>,
    pub has_floor: bool,
    pub floor_cores: Vec<usize>,
    pub shops: usize,
    pub devices: usize,
    pub in_flight: usize,
    pub rate: u64,
    pub order_bytes: usize,
    pub sessions: usize,
    pub counts: Duration,
    pub warm_up: Duration,
    pub rounds: usize,
    pub encoding: Encoding,
    pub processes: Option<usize>,
    pub ack_delay: Duration,
    pub patience: Duration,
    pub tls_ca: Option<PathBuf>,
    pub secrets: Vec<(Option<String>, PathBuf)>,
    pub sync_dir: Option<PathBuf>,
    pub run: Option<String>,
    pub is_json: bool,
}

/// The values that the command line gives, by option.
pub struct Given<F>(pub F);

impl<F: Fn(&str) -> Vec<String>> Given<F> {
    fn many(&self, name: &str) -> Vec<String> {
        (self.0)(name)
    }

    fn one(&self, name: &str) -> Option<String> {
        (self.0)(name).pop().filter(|value| !value.is_empty())
    }

    /// The value, or this default, which lies within the bounds.
    fn number<T: FromStr + PartialOrd + ToString>(
        &self,
        name: &str,
        default: &str,
        bounds: (T, T),
    ) -> Result<T, String> {
        let text = self.one(name).unwrap_or_else(|| default.to_owned());
        let number = text.parse().ok().filter(|number| *number >= bounds.0 && *number <= bounds.1);
        number.ok_or_else(|| {
            format!("--{name} {text:?}: give a number from {} to {}", bounds.0.to_string(), bounds.1.to_string())
        })
    }

    fn duration(&self, name: &str, default: &str) -> Result<Duration, String> {
        let text = self.one(name).unwrap_or_else(|| default.to_owned());
        humantime::parse_duration(&text).map_err(|_| format!("--{name} {text:?}: give a time such as 20ms or 10s"))
    }

    fn is_set(&self, name: &str) -> bool {
        !(self.0)(name).is_empty()
    }
}

impl Settings {
    /// Checks everything that was given.
    ///
    /// # Errors
    /// What is wrong with the first that cannot be taken, and what can.
    pub fn of<F: Fn(&str) -> Vec<String>>(scenario: &str, given: &Given<F>) -> Result<Settings, String> {
        let known = SCENARIOS.iter().find(|(_, name, _)| *name == scenario);
        let Some((scenario, ..)) = known.copied() else {
            let names: Vec<&str> = SCENARIOS.iter().map(|(_, name, _)| *name).collect();
            return Err(format!("there is no scenario {scenario:?}; give one of {}", names.join(", ")));
        };
        let (in_flight, rate) = match scenario {
            Scenario::Embedded => ("256", "10000"),
            Scenario::Broadcast => ("128", "1"),
            _ => ("128", "10000"),
        };
        let encoding = match given.one("encoding").as_deref() {
            None | Some("json") => Encoding::Json,
            Some("msgpack") => Encoding::MsgPack,
            Some(other) => return Err(format!("--encoding {other:?}: give json or msgpack")),
        };
        let cores = given.many("floor-cores").into_iter().map(|core| {
            core.parse::<usize>()
                .ok()
                .filter(|core| *core < 1024)
                .ok_or(format!("--floor-cores {core:?}: give a number"))
        });
        let processes = given.one("processes").map(|_| given.number("processes", "", (1, 200)));
        let devices = given.number("devices", "4", (1, 10_000))?;
        let settings = Settings {
            scenario,
            deployments: deployments(given)?,
            has_floor: given.is_set("floor"),
            floor_cores: cores.collect::<Result<_, _>>()?,
            shops: given.number("shops", "1000", (1, 1_000_000))?,
            devices: if scenario == Scenario::OneMain { 1 } else { devices },
            in_flight: given.number("in-flight", in_flight, (1, 1_000_000))?,
            rate: given.number("rate", rate, (1, 10_000_000))?,
            order_bytes: given.number("size", "320", (ORDER_BYTES_MIN, ORDER_BYTES_MAX))?,
            sessions: given.number("sessions", "15000", (1, 4_000_000))?,
            counts: Duration::from_secs_f64(given.number("seconds", "5", (0.1, 86_400.0))?),
            warm_up: Duration::from_secs_f64(given.number("warm-up", "1", (0.0, 3600.0))?),
            rounds: given.number("rounds", "3", (1, 10_000))?,
            encoding,
            processes: processes.transpose()?,
            ack_delay: given.duration("ack-delay", "0s")?,
            patience: given.duration("patience", "10s")?,
            tls_ca: given.one("tls-ca").map(PathBuf::from),
            secrets: given.many("jwt-secret-file").iter().map(|text| secret(text)).collect(),
            sync_dir: given.one("sync-dir").map(PathBuf::from),
            run: given.one("run"),
            is_json: given.is_set("json"),
        };
        settings.check()
    }

    fn check(self) -> Result<Settings, String> {
        let floor_is_for =
            [Scenario::Saturate, Scenario::Rate, Scenario::OneMain, Scenario::Broadcast, Scenario::Mixed];
        if self.has_floor && !floor_is_for.contains(&self.scenario) {
            return Err(format!("--floor: {} has none, since it delivers nothing", self.scenario.name()));
        }
        if self.ack_delay >= Duration::from_secs(30) {
            return Err("--ack-delay: a relay closes devices that take 30s; give less".into());
        }
        if self.sync_dir.is_some() && self.scenario != Scenario::Embedded {
            return Err("--sync-dir: only embedded looks at a disk".into());
        }
        if let Some(run) = &self.run
            && (run.len() > 40 || run.contains(|c: char| !c.is_ascii_alphanumeric() && c != '-' && c != '_'))
        {
            return Err(format!("--run {run:?}: give at most 40 of A-Z, a-z, 0-9, - and _"));
        }
        Ok(self)
    }
}

/// Bytes of the largest order: with its envelope it has to fit into a frame.
const ORDER_BYTES_MAX: usize = 60_000;

fn deployments<F: Fn(&str) -> Vec<String>>(given: &Given<F>) -> Result<Vec<Deployment>, String> {
    let mut urls = given.many("url");
    if urls.is_empty() {
        urls.push("ws://127.0.0.1:8080".to_owned());
    }
    let pids = |name: &str| given.many(name).iter().map(|text| pid(name, text)).collect::<Result<Vec<_>, _>>();
    let targets = |name: &str, urls: &[String]| urls.iter().map(|url| target(name, url)).collect::<Result<Vec<_>, _>>();
    let metrics = given.many("metrics-url").iter().map(|url| page(url)).collect::<Result<_, _>>()?;
    let mut deployments =
        vec![Deployment { name: "relay", targets: targets("url", &urls)?, pids: pids("pid")?, metrics }];
    let versus = given.many("versus-url");
    let versus_pids = pids("versus-pid")?;
    if !versus.is_empty() {
        let targets = targets("versus-url", &versus)?;
        deployments.push(Deployment { name: "versus", targets, pids: versus_pids, metrics: Vec::new() });
    } else if !versus_pids.is_empty() {
        return Err("--versus-pid: name the deployment too, with --versus-url".into());
    }
    Ok(deployments)
}

fn target(option: &str, url: &str) -> Result<Target, String> {
    let wrong = |why: &str| format!("--{option} {url:?}: {why}");
    let (scheme, rest) = url.split_once("://").ok_or_else(|| wrong("give ws://host:port or wss://host:port"))?;
    let port = match scheme {
        "ws" => 80,
        "wss" => 443,
        _ => return Err(wrong("give ws://host:port or wss://host:port")),
    };
    let (host, path) = rest.split_once('/').map_or((rest, "/ws".to_owned()), |(host, path)| (host, format!("/{path}")));
    let path = if path == "/" { "/ws".to_owned() } else { path };
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name).trim_matches(['[', ']']);
    Ok(Target {
        address: address(host, port).map_err(|why| wrong(&why))?,
        host: host.to_owned(),
        path,
        tls_name: (scheme == "wss").then(|| name.to_owned()),
    })
}

fn page(url: &str) -> Result<Page, String> {
    let wrong = |why: &str| format!("--metrics-url {url:?}: {why}");
    let rest = url.strip_prefix("http://").ok_or_else(|| wrong("give http://host:port/metrics"))?;
    let (host, path) = rest.split_once('/').unwrap_or((rest, "metrics"));
    Ok(Page { address: address(host, 80).map_err(|why| wrong(&why))?, path: format!("/{path}") })
}

/// The address of a host, IPv4 where it has both kinds; with this port where none is named.
fn address(host: &str, port: u16) -> Result<SocketAddr, String> {
    let has_port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    let with_port = if has_port { host.to_owned() } else { format!("{host}:{port}") };
    let addresses = with_port.to_socket_addrs().map_err(|error| format!("the host is not known: {error}"))?;
    let addresses: Vec<SocketAddr> = addresses.collect();
    let address = addresses.iter().find(|address| address.is_ipv4()).or(addresses.first());
    address.copied().ok_or_else(|| "the host has no address".to_owned())
}

fn pid(option: &str, text: &str) -> Result<(String, u32), String> {
    let parts = text.split_once('=').filter(|(name, _)| !name.is_empty());
    let parsed = parts.and_then(|(name, pid)| Some((name.to_owned(), pid.parse::<u32>().ok()?)));
    let (name, pid) = parsed.ok_or_else(|| format!("--{option} {text:?}: give name=pid, such as relay=4711"))?;
    if !PathBuf::from(format!("/proc/{pid}/stat")).exists() {
        return Err(format!("--{option} {text:?}: there is no process {pid} here"));
    }
    Ok((name, pid))
}

fn secret(text: &str) -> (Option<String>, PathBuf) {
    match text.split_once('=') {
        Some((kid, path)) => (Some(kid.to_owned()), path.into()),
        None => (None, text.into()),
    }
}
