//! What can be asked of the relay, whoever asks: devices by their ops, back ends over HTTP.
//!
//! Owns what an op does to the store and how its outcome is told, so that both doors do the same, and
//! what all connections of a node share. Knows no frame and no request: the session has decided that
//! a device may ask, the API that a key may. Called by `socket` and `http`.

mod deal;
mod devices;
mod doors;
mod failures;
mod list;
mod login;
mod presence;
mod publish;

use std::sync::Arc;

use tokio::sync::Semaphore;

pub use deal::Dealer;
pub use devices::DeviceCall;
pub use doors::{Doors, Place};
pub use list::{Listing, Viewer};
pub use login::{LoggedIn, Visitor};
pub use presence::{ConnectionsPlace, OnlineAt, OnlineFilter};
pub use publish::Accepted;

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

/// Sessions and lists that read a page of a log at the same time; each page holds up to a megabyte.
pub const PAGES_MAX: usize = 256;

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
    /// Groups a device may be in.
    pub device_groups_max: usize,
    /// One permit for each page that is being read.
    pub pages: Semaphore,
}
