//! Who a connection is, and how it becomes a session: the request for a WebSocket and the login.
//!
//! Owns the names of the benchmark's shops and devices, and their tokens. Never sends anything. Called by
//! [`super`].

use serde::Serialize;

use crate::auth::{self, NewToken};
use crate::bench::floor::{HELLO_BYTES, Hello};
use crate::bench::link::Link;
use crate::bench::plan::{Job, Load, Target};
use crate::bench::wire::{self, Template};
use crate::config::KeyFile;
use crate::ids::unix_ms;
use crate::message::Role;
use crate::protocol;

/// Devices of a shop in which nothing is published.
const QUIET_DEVICES: usize = 4;
/// How long a token is good: longer than any benchmark.
const TOKEN_TTL_S: u64 = 7 * 86_400;

/// What a connection is for. Shops and receivers count from 0 within the worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    Receiver {
        shop: usize,
        receiver: usize,
    },
    Publisher {
        shop: usize,
    },
    /// It is there, and nothing happens.
    Idle(usize),
    /// It logs in for the first time.
    New(usize),
}

/// How far a connection has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    Connecting,
    Upgrading,
    LoggingIn,
    Ready,
}

/// A connection of a device.
pub struct Conn {
    pub link: Link,
    pub who: Who,
    /// Which of the job's targets it is at.
    pub target: usize,
    pub stage: Stage,
    /// The beginning of a frame whose end has not come.
    pub rest: Vec<u8>,
    /// Whether the poll waits for it to be writable.
    pub waits_to_write: bool,
    pub began_ns: u64,
    /// The newest id that it has not acknowledged; empty where there is none.
    pub newest: Vec<u8>,
}

#[derive(Serialize)]
struct LoginOp<'a> {
    op: &'static str,
    shop: &'a str,
    device: &'a str,
    role: Role,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<String>,
}

/// The request that makes a WebSocket of a connection.
pub fn upgrade_request(job: &Job, target: &Target) -> String {
    let subprotocol = protocol::Encoding::from(job.encoding).subprotocol();
    format!(
        "GET {} HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: c2hvcHJlbGF5IGJlbmNoLg==\r\nSec-WebSocket-Protocol: {subprotocol}\r\n\r\n",
        target.path, target.host
    )
}

/// What [`mod@crate::bench::floor`] is told instead of both.
pub fn floor_hello(job: &Job, who: Who, notify: &Template) -> [u8; HELLO_BYTES] {
    let (Who::Receiver { shop, .. } | Who::Publisher { shop } | Who::Idle(shop) | Who::New(shop)) = who;
    let frame = matches!(who, Who::Publisher { .. }).then(|| (notify.len() as u32, notify.digits_at() as u32));
    Hello { shop: (job.first_shop + shop) as u32, frame }.to_bytes()
}

/// The frame that logs a device in.
///
/// # Errors
/// Where no token can be made for it.
pub fn login_frame(job: &Job, who: Who) -> Result<Vec<u8>, String> {
    let encoding = protocol::Encoding::from(job.encoding);
    let (shop, device, role) = identity(job, who);
    let token = token(job, &shop, &device, role)?;
    let op = LoginOp { op: "login", shop: &shop, device: &device, role, token };
    let payload = protocol::encode(encoding, &op).map_err(|error| error.to_string())?;
    Ok(wire::masked(wire::data_opcode(encoding), &payload))
}

/// Shop, device and role.
pub fn identity(job: &Job, who: Who) -> (String, String, Role) {
    let (run, worker) = (&job.run, job.worker);
    let (hears, speaks) = match job.load {
        Load::Orders | Load::Unheard => (Role::Main, Role::Sub),
        Load::Signals => (Role::Sub, Role::Main),
    };
    match who {
        Who::Receiver { shop, receiver } => {
            (format!("{run}-{}", job.first_shop + shop), format!("till-{}", job.first_receiver + receiver), hears)
        }
        Who::Publisher { shop } => (format!("{run}-{}", job.first_shop + shop), "hand".to_owned(), speaks),
        Who::Idle(n) => (format!("{run}-idle-{worker}-{}", n / QUIET_DEVICES), format!("till-{n}"), Role::Main),
        Who::New(n) => (format!("{run}-new-{worker}-{}", n / QUIET_DEVICES), format!("till-{n}"), Role::Main),
    }
}

fn token(job: &Job, shop: &str, device: &str, role: Role) -> Result<Option<String>, String> {
    if job.secrets.is_empty() {
        return Ok(None);
    }
    let secrets: Vec<KeyFile> =
        job.secrets.iter().map(|(kid, path)| KeyFile { kid: kid.clone(), path: path.clone() }).collect();
    let token = NewToken {
        shop: shop.parse().map_err(|cause| format!("the shop's name {shop} {cause}"))?,
        device: device.parse().map_err(|cause| format!("the device's name {device} {cause}"))?,
        role,
        expires_at_s: unix_ms() / 1000 + TOKEN_TTL_S,
        groups: None,
        user: None,
        ops: None,
    };
    auth::issue(&secrets, None, &token).map(Some).map_err(|error| error.to_string())
}
