//! What can be asked of the relay, whoever asks: devices by their ops, back ends over HTTP.
//!
//! Owns what an op does to the store and how its outcome is told, so that both doors do the same, and
//! what all connections of a node share, and who gets in. Knows no frame and no request: the session has decided that
//! a device may ask, the API that a key may. Called by `socket` and `http`.

mod connections;
mod deal;
mod devices;
mod doors;
mod drain;
mod failures;
mod intake;
mod legacy;
mod list;
mod login;
mod memory;
mod pages;
mod presence;
mod publish;

use std::sync::Arc;

pub use connections::{Connections, Known};
pub use deal::Dealer;
pub use devices::DeviceCall;
pub use doors::Doors;
pub use drain::{Drain, Plan, Stage};
pub use intake::{Bounds, Intake, LoginLimits, Place, Seat, Turned};
pub use list::{Listing, Viewer};
pub use login::{LoggedIn, Visitor};
pub use memory::Memory;
pub use pages::{LogStretch, Pages};
pub use presence::{ConnectionsPlace, OnlineAt, OnlineFilter};
pub use publish::{Accepted, publish};

use crate::auth::Gate;
use crate::events::Events;
use crate::feed::Feed;
use crate::hub::Hub;
use crate::ids::NodeId;
use crate::nodes::Nodes;
use crate::proofs::Proofs;
use crate::retention::Retention;
use crate::session::SessionSettings;
use crate::store::Store;

/// What every connection of a node shares.
pub struct Relay {
    pub node: NodeId,
    pub session: Arc<SessionSettings>,
    pub hub: Arc<Hub>,
    pub store: Arc<dyn Store>,
    pub feed: Arc<Feed>,
    pub proofs: Arc<Proofs>,
    pub nodes: Arc<Nodes>,
    pub retention: Arc<Retention>,
    pub events: Arc<Events>,
    pub gate: Arc<Gate>,
    pub doors: Doors,
    pub connections: Connections,
    pub drain: Drain,
    pub intake: Arc<Intake>,
    /// Bytes that are taken from a connection a second.
    pub session_bytes_per_s: u32,
    /// Whether the old server's clients are served too.
    pub is_legacy: bool,
    /// Groups a device may be in.
    pub device_groups_max: usize,
    pub pages: Pages,
    pub memory: Memory,
}
