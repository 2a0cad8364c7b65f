//! Every metric of the relay, each as one function that says what it means.
//!
//! Owns the names, units and labels. A label takes its values from an enum; no shop, device,
//! connection or message is ever one. Called by everyone; calls nothing but the `metrics` macros.

mod labels;

use std::sync::LazyLock;
use std::time::Duration;

use metrics::{
    Counter, Gauge, Histogram, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

use crate::message::Role;
use crate::protocol::{CloseCode, ErrorCode};

pub use labels::{FrameFault, LoginResult, Refusal, Source, StoreOp, TlsFile, TlsResult};

/// Upper bounds of the buckets of every duration, in seconds.
const SECONDS: [f64; 16] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0, 600.0];

/// Every counter without labels, so that each is there from the start, as 0.
struct Plain {
    delivered: Counter,
    replayed: Counter,
    expired: Counter,
    signals: Counter,
    signals_dropped: Counter,
    events: Counter,
    events_dropped: Counter,
    feed_gaps: Counter,
    feed_deaf: Counter,
    replicas_short: Counter,
    log_rewinds: Counter,
    catchup_pages: Counter,
    catchup_shared: Counter,
    reads_paused: Counter,
    records_unreadable: Counter,
    goaways: Counter,
    presence_repairs: Counter,
    rooms: Gauge,
    connections: Gauge,
    logins_waiting: Gauge,
    logins_at_once: Gauge,
    memory: Gauge,
    memory_limit: Gauge,
    outstanding: Gauge,
    sessions_main: Gauge,
    sessions_sub: Gauge,
    ready: Gauge,
    store_up: Gauge,
    draining: Gauge,
    delivery: Histogram,
    push: Histogram,
}

static PLAIN: LazyLock<Plain> = LazyLock::new(|| Plain {
    delivered: counter!("shoprelay_messages_delivered_total"),
    replayed: counter!("shoprelay_messages_replayed_total"),
    expired: counter!("shoprelay_messages_expired_total"),
    signals: counter!("shoprelay_signals_total"),
    signals_dropped: counter!("shoprelay_signals_dropped_total"),
    events: counter!("shoprelay_events_total"),
    events_dropped: counter!("shoprelay_events_dropped_total"),
    feed_gaps: counter!("shoprelay_feed_gaps_total"),
    feed_deaf: counter!("shoprelay_feed_deaf_total"),
    replicas_short: counter!("shoprelay_replicas_short_total"),
    log_rewinds: counter!("shoprelay_log_rewinds_total"),
    catchup_pages: counter!("shoprelay_catchup_pages_total"),
    catchup_shared: counter!("shoprelay_catchup_shared_total"),
    reads_paused: counter!("shoprelay_reads_paused_total"),
    records_unreadable: counter!("shoprelay_records_unreadable_total"),
    goaways: counter!("shoprelay_goaways_total"),
    presence_repairs: counter!("shoprelay_presence_repairs_total"),
    rooms: gauge!("shoprelay_rooms"),
    connections: gauge!("shoprelay_connections"),
    logins_waiting: gauge!("shoprelay_logins_waiting"),
    logins_at_once: gauge!("shoprelay_logins_at_once"),
    memory: gauge!("shoprelay_memory_bytes"),
    memory_limit: gauge!("shoprelay_memory_limit_bytes"),
    outstanding: gauge!("shoprelay_outstanding_messages"),
    sessions_main: gauge!("shoprelay_sessions", "role" => "main"),
    sessions_sub: gauge!("shoprelay_sessions", "role" => "sub"),
    ready: gauge!("shoprelay_ready"),
    store_up: gauge!("shoprelay_store_up"),
    draining: gauge!("shoprelay_draining"),
    delivery: histogram!("shoprelay_delivery_seconds"),
    push: histogram!("shoprelay_push_seconds"),
});

/// The metrics of this process, ready to be scraped.
#[derive(Clone)]
pub struct Scrape(PrometheusHandle);

impl Scrape {
    /// The Prometheus text.
    pub fn render(&self) -> String {
        self.0.render()
    }

    /// Folds recorded durations into their buckets; call it every few seconds, or they pile up.
    pub fn upkeep(&self) {
        self.0.run_upkeep();
    }
}

/// Installs the recorder, once a process; later calls give the same one.
///
/// # Errors
/// Where the process has another recorder already.
pub fn install() -> Result<Scrape, BuildError> {
    static INSTALLED: parking_lot::Mutex<Option<Scrape>> = parking_lot::Mutex::new(None);
    let mut installed = INSTALLED.lock();
    if let Some(scrape) = installed.as_ref() {
        return Ok(scrape.clone());
    }
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &SECONDS)?
        .install_recorder()?;
    describe();
    LazyLock::force(&PLAIN);
    gauge!("shoprelay_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    let scrape = Scrape(handle);
    *installed = Some(scrape.clone());
    Ok(scrape)
}

fn describe() {
    describe_gauge!("shoprelay_sessions", "Logged-in connections of this node");
    describe_gauge!("shoprelay_connections", "Connections of devices to this node, logged in or not");
    describe_gauge!("shoprelay_logins_waiting", "Logins that wait for their turn");
    describe_gauge!("shoprelay_logins_at_once", "Logins that may ask the store at once, by how fast it answers");
    describe_gauge!("shoprelay_memory_bytes", "Memory of this node, as its limit counts it");
    describe_gauge!("shoprelay_memory_limit_bytes", "What it may be, 0 where there is no limit");
    describe_gauge!("shoprelay_rooms", "Shops this node listens to");
    describe_gauge!(
        "shoprelay_outstanding_messages",
        "Messages sent on this node's connections and not yet acknowledged"
    );
    describe_gauge!("shoprelay_ready", "1 while a device that logs in here is served");
    describe_gauge!("shoprelay_store_up", "1 while the store answers");
    describe_gauge!("shoprelay_draining", "1 while the node sends its devices elsewhere, to stop");
    describe_gauge!("shoprelay_build_info", "1, with the version as a label");
    describe_counter!("shoprelay_messages_published_total", "Messages stored");
    describe_counter!("shoprelay_messages_delivered_total", "Messages proven received, each once a device");
    describe_counter!("shoprelay_messages_replayed_total", "Messages sent from the log instead of the feed");
    describe_counter!(
        "shoprelay_messages_expired_total",
        "Messages that a device did not get in time, each once a device"
    );
    describe_counter!("shoprelay_publish_refused_total", "Messages and signals refused");
    describe_counter!("shoprelay_signals_total", "Signals taken");
    describe_counter!("shoprelay_signals_dropped_total", "Signals that a slow device did not get");
    describe_counter!("shoprelay_events_total", "Events added to the stream for back-end workers");
    describe_counter!("shoprelay_events_dropped_total", "Events that could not be added to the stream");
    describe_counter!("shoprelay_feed_gaps_total", "Times a room found that the feed had skipped something");
    describe_counter!("shoprelay_feed_deaf_total", "Times the feed was up and nothing arrived");
    describe_counter!("shoprelay_replicas_short_total", "Batches of writes that too few replicas had in time");
    describe_counter!("shoprelay_log_rewinds_total", "Times a shop's log was found behind what had been read of it");
    describe_counter!("shoprelay_catchup_pages_total", "Pages of the log read to catch up");
    describe_counter!("shoprelay_catchup_shared_total", "Pages that a session took from another session's reading");
    describe_counter!("shoprelay_reads_paused_total", "Times a connection sent more bytes than it may and had to wait");
    describe_counter!("shoprelay_connections_refused_total", "Connections of devices that were not let in");
    describe_counter!("shoprelay_records_unreadable_total", "Stored records or events that this version cannot read");
    describe_counter!("shoprelay_goaways_total", "Sessions told to log in on another node, because this one stops");
    describe_counter!(
        "shoprelay_presence_repairs_total",
        "Presences that the store had lost, or kept of connections gone"
    );
    describe_counter!("shoprelay_logins_total", "Logins");
    describe_counter!("shoprelay_tls_handshakes_total", "TLS handshakes");
    describe_counter!("shoprelay_tls_reloads_total", "Times the files of TLS were read anew");
    describe_gauge!(
        "shoprelay_tls_expiry_timestamp_seconds",
        "When the first certificate or list in a file of TLS expires, in seconds since 1970"
    );
    describe_counter!("shoprelay_closes_total", "Connections closed by the relay");
    describe_counter!("shoprelay_frames_rejected_total", "Frames refused");
    describe_histogram!("shoprelay_delivery_seconds", "From storing a message to the proof that its device has it");
    describe_histogram!("shoprelay_push_seconds", "From storing a message to writing it to a device");
    describe_counter!("shoprelay_api_requests_total", "Requests of back ends");
    describe_histogram!("shoprelay_api_request_seconds", "From the head of a back end's request to its answer");
    describe_histogram!("shoprelay_store_seconds", "Duration of the store's calls");
}

/// A message was stored.
pub fn published(source: Source) {
    static DEVICE: LazyLock<Counter> =
        LazyLock::new(|| counter!("shoprelay_messages_published_total", "source" => "device"));
    static API: LazyLock<Counter> = LazyLock::new(|| counter!("shoprelay_messages_published_total", "source" => "api"));
    match source {
        Source::Device => DEVICE.increment(1),
        Source::Api => API.increment(1),
    }
}

/// A device proved that it has a message, `age` after it was stored; each once a device.
pub fn delivered(age: Duration) {
    PLAIN.delivered.increment(1);
    PLAIN.delivery.record(age);
}

/// A message was written to a device, `age` after it was stored.
pub fn pushed(age: Duration) {
    PLAIN.push.record(age);
}

/// A message was sent from the log instead of the feed.
pub fn replayed() {
    PLAIN.replayed.increment(1);
}

/// Messages came too late for a device, each once a device.
pub fn expired(count: u64) {
    PLAIN.expired.increment(count);
}

/// A message or a signal was refused.
pub fn publish_refused(code: ErrorCode) {
    counter!("shoprelay_publish_refused_total", "code" => code.as_str()).increment(1);
}

/// A signal was taken.
pub fn signalled() {
    PLAIN.signals.increment(1);
}

/// A signal was not sent to a device that reads too slowly.
pub fn signal_dropped() {
    PLAIN.signals_dropped.increment(1);
}

/// Events were added to the stream for back-end workers.
pub fn events_added(count: u64) {
    PLAIN.events.increment(count);
}

/// Events could not be added to the stream.
pub fn events_dropped(count: u64) {
    PLAIN.events_dropped.increment(count);
}

/// A room found that the feed had skipped something, or may have.
pub fn feed_gap() {
    PLAIN.feed_gaps.increment(1);
}

/// The feed was up and nothing arrived.
pub fn feed_deaf() {
    PLAIN.feed_deaf.increment(1);
}

/// A shop's log was found behind what had been read of it.
pub fn log_rewound() {
    PLAIN.log_rewinds.increment(1);
}

/// A page of a log was read to catch up.
pub fn catchup_page() {
    PLAIN.catchup_pages.increment(1);
}

/// A session took a page of a log that another session had read.
pub fn catchup_shared() {
    PLAIN.catchup_shared.increment(1);
}

/// A connection sent more bytes than it may, and nothing is taken from it for a while.
pub fn reads_paused() {
    PLAIN.reads_paused.increment(1);
}

/// A stored record, or an event of the feed, could not be read.
pub fn record_unreadable() {
    PLAIN.records_unreadable.increment(1);
}

/// A session began.
pub fn session_began(role: Role) {
    sessions(role).increment(1.0);
}

/// A session ended.
pub fn session_ended(role: Role) {
    sessions(role).decrement(1.0);
}

fn sessions(role: Role) -> &'static Gauge {
    match role {
        Role::Main => &PLAIN.sessions_main,
        Role::Sub => &PLAIN.sessions_sub,
    }
}

/// A device's connection was accepted and is to be served.
pub fn connection_opened() {
    PLAIN.connections.increment(1.0);
}

/// It ended, or was refused.
pub fn connection_closed() {
    PLAIN.connections.decrement(1.0);
}

/// A device's connection was not let in.
pub fn connection_refused(why: Refusal) {
    counter!("shoprelay_connections_refused_total", "reason" => why.label()).increment(1);
}

/// A login waits for its turn; or, with false, does not any more.
pub fn login_waits(waits: bool) {
    PLAIN.logins_waiting.increment(if waits { 1.0 } else { -1.0 });
}

/// How many logins may ask the store at once.
pub fn logins_at_once(count: usize) {
    PLAIN.logins_at_once.set(count as f64);
}

/// How much memory the node takes, and may.
pub fn memory(used_bytes: u64, limit_bytes: u64) {
    PLAIN.memory.set(used_bytes as f64);
    PLAIN.memory_limit.set(limit_bytes as f64);
}

/// A room was opened.
pub fn room_opened() {
    PLAIN.rooms.increment(1.0);
}

/// A room was closed.
pub fn room_closed() {
    PLAIN.rooms.decrement(1.0);
}

/// The number of unacknowledged messages changed.
pub fn outstanding_changed(by: isize) {
    PLAIN.outstanding.increment(by as f64);
}

/// A batch of writes was refused because too few replicas had it in time.
pub fn replicas_short() {
    PLAIN.replicas_short.increment(1);
}

/// Whether a device that logs in here now is served.
pub fn ready(is_ready: bool) {
    PLAIN.ready.set(if is_ready { 1.0 } else { 0.0 });
}

/// Whether the store answers.
pub fn store_up(up: bool) {
    PLAIN.store_up.set(if up { 1.0 } else { 0.0 });
}

/// A presence that the store had lost was given back, or one of a connection that is gone was ended.
pub fn presence_repaired() {
    PLAIN.presence_repairs.increment(1);
}

/// The node began to send its devices elsewhere, to stop.
pub fn draining() {
    PLAIN.draining.set(1.0);
}

/// A session was told to log in on another node.
pub fn goaway() {
    PLAIN.goaways.increment(1);
}

/// A call of the store took this long, whatever came of it.
pub fn store_call(op: StoreOp, took: Duration) {
    histogram!("shoprelay_store_seconds", "op" => op.label()).record(took);
}

/// A request of a back end was answered; `route` is one of a fixed table.
pub fn api_request(route: &'static str, status: u16, took: Duration) {
    counter!("shoprelay_api_requests_total", "route" => route, "status" => status.to_string()).increment(1);
    histogram!("shoprelay_api_request_seconds", "route" => route).record(took);
}

/// A login ended this way.
pub fn login(result: LoginResult) {
    counter!("shoprelay_logins_total", "result" => result.label()).increment(1);
}

/// A TLS handshake ended this way. A client that leaves before it has said anything is not counted.
pub fn tls_handshake(result: TlsResult) {
    counter!("shoprelay_tls_handshakes_total", "result" => result.label()).increment(1);
}

/// The files of TLS were read anew, and taken or refused.
pub fn tls_reloaded(is_taken: bool) {
    counter!("shoprelay_tls_reloads_total", "result" => if is_taken { "ok" } else { "failed" }).increment(1);
}

/// When the first certificate or list in a file of TLS that is in force expires, in seconds since 1970.
pub fn tls_expiry(file: TlsFile, at_s: i64) {
    gauge!("shoprelay_tls_expiry_timestamp_seconds", "file" => file.label()).set(at_s as f64);
}

/// The relay closed a connection.
pub fn closed(code: CloseCode) {
    counter!("shoprelay_closes_total", "code" => code.number().to_string()).increment(1);
}

/// A frame was refused.
pub fn frame_rejected(fault: FrameFault) {
    match fault {
        FrameFault::Refused(code) => counter!("shoprelay_frames_rejected_total", "code" => code.as_str()).increment(1),
        FrameFault::Closed(code) => {
            counter!("shoprelay_frames_rejected_total", "code" => code.number().to_string()).increment(1)
        }
    }
}
