//! What the processes of a benchmark tell each other: a job, commands, and reports; one JSON object a line.
//!
//! Owns the words between the parent ([`super::crew`]) and its workers ([`mod@super::worker`]). Never does
//! what they say.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::protocol;

/// One address of a deployment.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Target {
    pub address: SocketAddr,
    /// As the URL names it, with the port.
    pub host: String,
    pub path: String,
    /// The name that its certificate is to be for, where it is reached by TLS.
    pub tls_name: Option<String>,
}

/// How frames are encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Encoding {
    Json,
    MsgPack,
}

impl From<Encoding> for protocol::Encoding {
    fn from(encoding: Encoding) -> protocol::Encoding {
        match encoding {
            Encoding::Json => protocol::Encoding::Json,
            Encoding::MsgPack => protocol::Encoding::MsgPack,
        }
    }
}

/// What is published, and to whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Load {
    /// A handheld's orders, stored, to the mains of its shop, which acknowledge them.
    Orders,
    /// A till's signals to the handhelds of its shop.
    Signals,
    /// A handheld's orders, stored, to nobody who is there.
    Unheard,
}

/// A worker's part of a benchmark.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Job {
    /// Devices take turns at these.
    pub targets: Vec<Target>,
    /// Whether the other end is [`mod@super::floor`], which speaks no protocol at all.
    pub is_floor: bool,
    pub encoding: Encoding,
    pub load: Load,
    /// Which worker this is, from 0; its connections come from loopback addresses of its own.
    pub worker: usize,
    /// What the names of all shops begin with.
    pub run: String,
    /// The number of its first shop, and how many shops it has.
    pub first_shop: usize,
    pub shops: usize,
    /// Devices of each shop that messages are for.
    pub receivers: usize,
    /// The number of the first of them, where several workers share one shop.
    pub first_receiver: usize,
    pub has_publishers: bool,
    /// Bytes of an order, as JSON.
    pub order_bytes: usize,
    /// How long a device waits before it acknowledges all that it has.
    pub ack_delay_ns: u64,
    /// How long an answer or a message may take until it is given up.
    pub patience_ns: u64,
    /// The authorities that vouch for certificates; the system's for None.
    pub tls_ca: Option<PathBuf>,
    /// The secrets that tokens are signed with; without any, logins have none.
    pub secrets: Vec<(Option<String>, PathBuf)>,
}

/// What a worker is told.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub enum Command {
    /// Have every device of the job log in.
    Open,
    /// Have so many further devices log in, which then do nothing.
    Hold { sessions: usize },
    /// Close what [`Command::Hold`] opened.
    Release,
    /// Publish, or log in, for a while.
    Turn(Turn),
    /// End the turn now.
    Stop,
}

/// A stretch of load. All moments are those of [`super::clock`].
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Turn {
    pub starts_ns: u64,
    /// From here to the end counts; before, the deployment warms up.
    pub counts_from_ns: u64,
    pub ends_ns: u64,
    pub pace: Pace,
}

/// What sets the pace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Pace {
    /// A closed loop: so many publishes under way; the next begins when one has arrived everywhere.
    InFlight(usize),
    /// An open loop: a publish is due every so many nanoseconds, whether or not the last has arrived.
    Every { ns: u64, first_ns: u64 },
    /// New devices: so many logins under way, so many sessions held at most.
    Logins { in_flight: usize, held: usize },
    /// Nothing is published.
    Silence,
}

/// What a worker says.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Word {
    /// Everything that was asked for is logged in.
    Opened {
        sockets: usize,
    },
    Turned(Box<Report>),
    /// The worker cannot go on, and why.
    Failed {
        why: String,
    },
}

/// What a worker saw in a turn.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// While it counted: messages that were new to a device, and logins.
    pub deliveries: u64,
    pub logins: u64,
    /// While it counted: publishes that were answered.
    pub accepted: u64,
    /// How long it counted.
    pub counted_ns: u64,
    /// Of the whole turn.
    pub published: u64,
    /// Of the whole turn: messages and signals that were new to a device.
    pub arrived: u64,
    /// Publishes that were refused, by code.
    pub refused: BTreeMap<String, u64>,
    /// Publishes that got no answer in time.
    pub unanswered: u64,
    /// Connections that the other end closed, by what it said.
    pub closed: BTreeMap<String, u64>,
    /// Since the worker began: messages that were accepted and that a device has not got.
    pub lost: u64,
    /// Since the worker began: messages that a device got a second time.
    pub repeated: u64,
    /// From due to received, or a login's connect to its welcome: buckets of nanoseconds with their counts.
    pub latency: Vec<(u64, u64)>,
    /// From due to the relay's answer.
    pub answered: Vec<(u64, u64)>,
    /// From due to sent: how late this worker itself was.
    pub late: Vec<(u64, u64)>,
    pub broadcasts: Vec<Broadcast>,
    /// CPU time that the worker used while it counted.
    pub cpu_ns: u64,
    /// Time in which it could have run and had no core, while it counted.
    pub waited_ns: u64,
    /// Sockets at the end.
    pub sockets: usize,
}

/// One signal to many devices, as one worker saw it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Broadcast {
    pub seq: u32,
    pub due_ns: u64,
    pub first_ns: u64,
    pub last_ns: u64,
    pub received: u64,
}
