//! A node: builds every part in order, and stops them in order.
//!
//! The only module that sees all of them. Decides nothing that happens in between.

mod stop;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tracing::{info, warn};

use crate::auth::{Gate, GateError};
use crate::config::Config;
use crate::events::Events;
use crate::feed::Feed;
use crate::http::api::{Api, Cors};
use crate::http::{self, Door, Probes, TlsDoor};
use crate::hub::Hub;
use crate::ids::NodeId;
use crate::message::Role;
use crate::metrics::{self, Scrape};
use crate::nodes::{GONE_AFTER, Nodes};
use crate::proofs::Proofs;
use crate::relay::{Bounds, Connections, Doors, Drain, Intake, LoginLimits, Memory, Pages, Relay};
use crate::retention::Retention;
use crate::session::SessionSettings;
use crate::store::{self, NodeReport, Store, StoreSettings};

/// Time between a node's heartbeats, which is also the deadline of one.
const BEAT: Duration = Duration::from_secs(1);
/// Time between the folding of recorded durations.
const UPKEEP: Duration = Duration::from_secs(5);

/// Why a node cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Gate(#[from] GateError),
    #[error("{setting} {address} cannot be listened on: {cause}; stop what listens there, or choose another address")]
    Listen { setting: &'static str, address: SocketAddr, cause: std::io::Error },
    #[error("the store {url} cannot be used: {cause}")]
    Store { url: String, cause: store::OpenError },
    #[error("the store {url} stopped answering during the start: {cause}")]
    Silent { url: String, cause: store::StoreError },
    #[error("the API's routes cannot be told apart: {0}")]
    Routes(#[from] matchit::InsertError),
    #[error("the metrics cannot be set up: {0}")]
    Metrics(#[from] metrics_exporter_prometheus::BuildError),
}

/// A running node.
pub struct Node {
    id: NodeId,
    relay: Arc<Relay>,
    probes: Arc<Probes>,
    addresses: Addresses,
    stop: watch::Sender<bool>,
    /// Connections of devices and back ends, until the last has ended.
    doors: JoinHandle<()>,
    drain_window: Duration,
    /// The parts that run until the node is gone.
    keepers: JoinSet<()>,
}

/// Where a node listens; None where the setting says so.
#[derive(Debug, Clone, Copy)]
pub struct Addresses {
    pub listen: Option<SocketAddr>,
    pub tls_listen: Option<SocketAddr>,
    pub api_listen: Option<SocketAddr>,
    pub metrics_listen: Option<SocketAddr>,
}

struct Listeners {
    devices: Option<TcpListener>,
    tls_devices: Option<TcpListener>,
    api: Option<TcpListener>,
    metrics: Option<TcpListener>,
}

impl Listeners {
    fn open(config: &Config) -> Result<Listeners, StartError> {
        let open = |setting, address: Option<SocketAddr>| {
            let listener = address
                .map(|address| http::listen(address).map_err(|cause| StartError::Listen { setting, address, cause }));
            listener.transpose()
        };
        Ok(Listeners {
            devices: open("--listen", config.listen)?,
            tls_devices: open("--tls-listen", config.tls.as_ref().map(|tls| tls.listen))?,
            api: open("--api-listen", config.api_listen)?,
            metrics: open("--metrics-listen", config.metrics_listen)?,
        })
    }

    fn addresses(&self) -> Addresses {
        let address =
            |listener: &Option<TcpListener>| listener.as_ref().and_then(|listener| listener.local_addr().ok());
        Addresses {
            listen: address(&self.devices),
            tls_listen: address(&self.tls_devices),
            api_listen: address(&self.api),
            metrics_listen: address(&self.metrics),
        }
    }
}

impl Node {
    /// Starts a node: the keys are read and the listeners taken first, so that bad keys and a second start
    /// fail at once, the store next, and devices are let in last.
    ///
    /// # Errors
    /// [`StartError`] says what to do.
    pub async fn start(config: Config) -> Result<Node, StartError> {
        let scrape = metrics::install()?;
        let gate = Arc::new(Gate::open(&config)?);
        let listeners = Listeners::open(&config)?;
        let addresses = listeners.addresses();
        let id = NodeId::fresh();
        let url = config.store.redacted();
        let settings = StoreSettings {
            log_entries_max: config.limits.log_entries,
            key_retention: config.retention.keys,
            message_retention: config.retention.messages,
            deadline: config.timeouts.store,
            prefix: config.store_prefix.clone(),
            device_groups_max: config.limits.device_groups,
            attrs_bytes_max: config.limits.frame_bytes,
            events_max: config.limits.events,
            wait_replicas: config.store_wait_replicas,
        };
        let opened = store::open(config.store.secret(), config.store_ca.as_deref(), id.clone(), settings).await;
        let (store, events) = opened.map_err(|cause| StartError::Store { url: url.clone(), cause })?;
        let first = store.beat(&id, &NodeReport::default()).await.map_err(|cause| StartError::Silent { url, cause })?;
        metrics::store_up(true);
        let relay = assemble(&config, &id, &store, gate);
        relay.nodes.on_beats(first, Instant::now());
        let probes = Arc::new(Probes {
            scrape: scrape.clone(),
            store: store.clone(),
            intake: relay.intake.clone(),
            is_store_up: AtomicBool::new(true),
            is_stopping: AtomicBool::new(false),
        });
        let mut keepers = JoinSet::new();
        let (feed, retention) = (relay.feed.clone(), relay.retention.clone());
        keepers.spawn(async move { feed.listen(events).await });
        keepers.spawn(relay.feed.clone().keep());
        keepers.spawn(relay.proofs.clone().run());
        keepers.spawn(async move { retention.run().await });
        keepers.spawn(relay.gate.clone().watch());
        keepers.spawn(beat(id.clone(), relay.clone(), probes.clone()));
        keepers.spawn({
            let events = relay.events.clone();
            async move { events.run().await }
        });
        keepers.spawn(upkeep(scrape));
        keepers.spawn({
            let relay = relay.clone();
            async move { relay.watch_memory().await }
        });
        let browsers = Cors::new(config.cors_origins.clone());
        let (connections_max, head_timeout) = (config.limits.api_connections, config.timeouts.api_header);
        let api = Arc::new(Api::new(relay.clone(), browsers, connections_max, head_timeout)?);
        let tls = relay.gate.tls.clone().map(|tls| {
            let door = TlsDoor::new(tls, config.limits.tls_handshakes, config.timeouts.login);
            Arc::new(door)
        });
        let door = Door::new(&config);
        let doors = Doorways { listeners, relay: &relay, probes: &probes, api, door, tls };
        let (stop, doors) = accept(doors, &mut keepers);
        let drain_window = config.drain_window;
        Ok(Node { id, relay, probes, addresses, stop, doors, drain_window, keepers })
    }

    /// The node's id.
    pub fn id(&self) -> &NodeId {
        &self.id
    }

    /// Where it listens; the port is the one that was given where 0 was asked for.
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// Reads the files with keys and certificates anew; what came of it is logged.
    pub async fn reload(&self) {
        if let Err(error) = self.relay.gate.reload().await {
            warn!(%error, "the files with keys could not be read anew");
        }
    }

    /// Waits until a part of the node has ended, which none does by itself: then the process had better
    /// end too and be started anew. Cancel-safe.
    pub async fn failed(&mut self) {
        while self.keepers.join_next().await.is_none() {
            std::future::pending::<()>().await;
        }
    }
}

/// Puts together what connections share.
fn assemble(config: &Config, id: &NodeId, store: &Arc<dyn Store>, gate: Arc<Gate>) -> Arc<Relay> {
    let hub = Arc::new(Hub::new(config.limits.shop_publishes_per_s));
    let nodes = Arc::new(Nodes::new(Instant::now()));
    let (kept, log_entries) = (&config.retention, config.limits.log_entries);
    Arc::new(Relay {
        node: id.clone(),
        session: Arc::new(SessionSettings {
            frame_bytes: config.limits.frame_bytes,
            window: config.limits.window,
            ops_per_s: config.limits.session_ops_per_s,
            heartbeat: config.heartbeat,
            login_timeout: config.timeouts.login,
            ack_timeout: config.timeouts.ack,
        }),
        hub: hub.clone(),
        store: store.clone(),
        feed: Arc::new(Feed::new(hub, store.clone(), id.clone(), config.audit)),
        proofs: Arc::new(Proofs::new(store.clone())),
        retention: Arc::new(Retention::new(store.clone(), nodes.clone(), id.clone(), kept, log_entries)),
        nodes,
        events: Arc::new(Events::new(store.clone(), config.events)),
        gate,
        doors: Doors::default(),
        connections: Connections::default(),
        drain: Drain::new(),
        intake: Intake::new(bounds(config)),
        session_bytes_per_s: config.limits.session_bytes_per_s,
        is_legacy: config.legacy,
        device_groups_max: config.limits.device_groups,
        pages: Pages::default(),
        memory: Memory::new(config.limits.memory),
    })
}

/// How many may come in.
fn bounds(config: &Config) -> Bounds {
    let limits = &config.limits;
    Bounds {
        connections: limits.connections,
        address_connections: limits.address_connections,
        shop_connections: limits.shop_connections,
        handshakes_per_s: limits.handshakes_per_s,
        handshake_queue: limits.handshake_queue,
        logins: LoginLimits {
            per_s: limits.logins_per_s,
            queue: limits.login_queue,
            at_once: limits.logins_at_once,
            delay: limits.login_delay,
            wait: config.timeouts.login,
        },
    }
}

/// What a node listens with, and for whom.
struct Doorways<'a> {
    listeners: Listeners,
    relay: &'a Arc<Relay>,
    probes: &'a Arc<Probes>,
    api: Arc<Api>,
    door: Arc<Door>,
    tls: Option<Arc<TlsDoor>>,
}

/// Opens the doors; those of devices and back ends can be shut before the rest.
fn accept(doorways: Doorways<'_>, keepers: &mut JoinSet<()>) -> (watch::Sender<bool>, JoinHandle<()>) {
    let Doorways { listeners, relay, probes, api, door, tls } = doorways;
    let (stop, stopping) = watch::channel(false);
    if let Some(listener) = listeners.metrics {
        let probes = probes.clone();
        keepers.spawn(http::accept(listener, None, move |stream, _| http::serve_probe(probes.clone(), stream)));
    }
    let relay = relay.clone();
    let doors = tokio::spawn(async move {
        let devices = async {
            if let Some(listener) = listeners.devices {
                let serve = |stream, from| http::serve_device(relay.clone(), door.clone(), stream, from);
                http::accept(listener, Some(stopping.clone()), serve).await;
            }
        };
        let tls_devices = async {
            if let Some((listener, tls)) = listeners.tls_devices.zip(tls) {
                let serve =
                    |stream, from| http::serve_tls_device(relay.clone(), door.clone(), tls.clone(), stream, from);
                http::accept(listener, Some(stopping.clone()), serve).await;
            }
        };
        let back_ends = async {
            if let Some(listener) = listeners.api {
                let serve = |stream, _| api.clone().serve(stream, stopping.clone());
                http::accept(listener, Some(stopping.clone()), serve).await;
            }
        };
        tokio::join!(devices, tls_devices, back_ends);
    });
    (stop, doors)
}

/// Tells the other nodes that this one lives, and learns of them.
async fn beat(id: NodeId, relay: Arc<Relay>, probes: Arc<Probes>) {
    let mut ticks = tokio::time::interval(BEAT);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut beaten = Instant::now();
    loop {
        ticks.tick().await;
        let report = report(&relay);
        let heard = tokio::time::timeout(BEAT, relay.store.beat(&id, &report)).await;
        let is_up = match heard {
            Ok(Ok(beats)) => {
                let now = Instant::now();
                relay.nodes.on_beats(beats, now);
                if now.saturating_duration_since(beaten) > GONE_AFTER {
                    // Others may have taken this node for dead and its devices for gone.
                    relay.feed.check_all();
                }
                beaten = now;
                true
            }
            Ok(Err(_)) | Err(_) => false,
        };
        let was_up = probes.is_store_up.swap(is_up, Ordering::Relaxed);
        metrics::store_up(is_up);
        match (was_up, is_up) {
            (true, false) => {
                warn!("the store does not answer; messages are refused and devices stay connected until it is back")
            }
            (false, true) => info!("the store answers again"),
            _ => {}
        }
    }
}

fn report(relay: &Relay) -> NodeReport {
    NodeReport {
        connections: relay.intake.connections() as u64,
        mains: relay.doors.sessions(Role::Main) as u64,
        subs: relay.doors.sessions(Role::Sub) as u64,
        rooms: relay.hub.len() as u64,
        version: env!("CARGO_PKG_VERSION").into(),
    }
}

async fn upkeep(scrape: Scrape) {
    let mut ticks = tokio::time::interval(UPKEEP);
    loop {
        ticks.tick().await;
        scrape.upkeep();
    }
}
