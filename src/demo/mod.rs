//! `shoprelay demo`: a relay and a shop on one terminal, to watch every message arrive.
//!
//! Owns the course of the demo: a real [`Node`] on a store that is gone afterwards, six simulated
//! devices that connect to its listener like any others, the cutting of a till's plug now and then, and
//! the end. Counts nothing itself (`model`), and is no part of a relay in service: nothing but `main`
//! uses it.

mod devices;
mod menu;
mod model;
mod news;
mod plan;
mod report;
mod shop;
mod summary;
mod view;

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::client::{Dial, DialError};
use crate::config::{Config, ConfigError, Layers};
use crate::node::{Node, StartError};
use model::Model;
use plan::{Plan, Step};
use shop::Shop;
pub use summary::Summary;
use view::{Banner, View};

/// Where devices and metrics are by default; another port where this one is taken.
const LISTEN_PORT: u16 = 8080;
const METRICS_PORT: u16 = 9090;
/// Attempts to begin, where the ports that were free are taken a moment later.
const STARTS_MAX: usize = 5;
/// How often the screen is drawn and the plan looked at.
const TICK: Duration = Duration::from_millis(100);
/// How long a message of the demo is kept: a guest may come back that late.
const KEPT: Duration = Duration::from_secs(3600);

/// What the command line says.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// When to end; None for when asked.
    pub lasts: Option<Duration>,
    /// Where devices connect; None for a well-known port or, where it is taken, a free one.
    pub listen: Option<String>,
}

/// Why the demo cannot be shown.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    #[error("no directory for the demo's messages can be made: {0}; TMPDIR says where it is tried")]
    Directory(#[source] io::Error),
    #[error(transparent)]
    Setting(#[from] ConfigError),
    #[error(transparent)]
    Start(#[from] StartError),
    #[error("the demo needs somewhere to listen; give --listen host:port")]
    Nowhere,
    #[error("the demo's own devices could not log in within {0:?}")]
    Closed(Duration),
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error("standard output cannot be written: {0}")]
    Output(#[from] io::Error),
}

/// Shows the demo until it is over; the summary has been printed then.
///
/// # Errors
/// It could not begin, or not be shown to its end. What it had in the file system is gone in either case.
pub async fn run(options: Options) -> Result<Summary, DemoError> {
    let directory = TempDir::with_prefix("shoprelay-demo-").map_err(DemoError::Directory)?;
    let mut ends = Ends::listen()?;
    let node = start(&options, &directory).await?;
    let shown = show(&node, &options, &mut ends).await;
    node.stop(std::future::ready(())).await;
    let summary = shown?;
    view::print(&summary.to_string())?;
    Ok(summary)
}

async fn start(options: &Options, directory: &TempDir) -> Result<Node, DemoError> {
    for _ in 1..STARTS_MAX {
        match Node::start(config(options, directory)?).await {
            // A port that was free a moment ago was taken by another demo, unless it was asked for.
            Err(StartError::Listen { setting, .. }) if setting != "--listen" || options.listen.is_none() => {}
            started => return Ok(started?),
        }
    }
    Ok(Node::start(config(options, directory)?).await?)
}

fn config(options: &Options, directory: &TempDir) -> Result<Config, DemoError> {
    let listen = options.listen.clone().unwrap_or_else(|| free(LISTEN_PORT).to_string());
    let flags = [
        ("store", format!("embedded:{}", directory.path().display())),
        ("listen", listen),
        ("api_listen", "none".into()),
        ("metrics_listen", free(METRICS_PORT).to_string()),
        // Nothing of worth is in the demo's shop, and another address than this machine's own is only
        // listened on when it was asked for.
        ("insecure", "true".into()),
        ("drain_window", "2s".into()),
    ];
    let problem = match Layers::read(flags, []).check() {
        Ok(config) => {
            return Ok(Config { retention: crate::config::Retention { messages: KEPT, ..config.retention }, ..config });
        }
        Err(problems) => problems.into_iter().next(),
    };
    Err(problem.map_or(DemoError::Nowhere, DemoError::Setting))
}

/// This port of this machine, or any where it is taken.
fn free(port: u16) -> SocketAddr {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let is_free = TcpListener::bind(address).is_ok();
    if is_free { address } else { SocketAddr::from((Ipv4Addr::LOCALHOST, 0)) }
}

/// Tells this run's keys from those of others.
fn run_number() -> u64 {
    crate::ids::unix_ms() ^ (u64::from(std::process::id()) << 44)
}

async fn show(node: &Node, options: &Options, ends: &mut Ends) -> Result<Summary, DemoError> {
    let addresses = node.addresses();
    let listen = addresses.listen.ok_or(DemoError::Nowhere)?;
    let banner = Banner::new(reachable(listen), addresses.metrics_listen);
    let (mut shop, mut reports) = Shop::open(&Dial::parse(&banner.url, None)?, run_number());
    let mut view = View::open(banner)?;
    let began = Instant::now();
    let mut model = Model::new(began);
    let mut plan = Plan::new(began, options.lasts);
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let shown = loop {
        let went = tokio::select! {
            Some(report) = reports.recv() => view.tell(model.hear(report)).map(|()| false),
            _ = ticks.tick() => view.draw(&model, Instant::now()),
            () = ends.asked() => {
                plan.end();
                Ok(false)
            }
        };
        match went {
            Err(error) => break Err(DemoError::Output(error)),
            Ok(true) => plan.end(),
            Ok(false) => {}
        }
        match plan.step(&model, Instant::now()) {
            Some(Step::Over) => break Ok(()),
            Some(Step::Hopeless(waited)) => break Err(DemoError::Closed(waited)),
            Some(Step::Shop(order)) => shop.follow(order),
            None => {}
        }
    };
    shop.close(&mut reports, |report| drop(model.hear(report))).await;
    drop(view);
    shown.map(|()| model.summary(Instant::now(), true))
}

/// Where this machine reaches its own listener.
fn reachable(listen: SocketAddr) -> SocketAddr {
    match listen {
        SocketAddr::V4(address) if address.ip().is_unspecified() => {
            SocketAddr::from((Ipv4Addr::LOCALHOST, address.port()))
        }
        SocketAddr::V6(address) if address.ip().is_unspecified() => {
            SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, address.port()))
        }
        other => other,
    }
}

/// The signals that end the demo in good order, so that nothing is left behind.
struct Ends {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Ends {
    fn listen() -> io::Result<Ends> {
        Ok(Ends {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn asked(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }
}
