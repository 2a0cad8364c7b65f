//! Whose connection a `conn` is: a hash for each node, beside the presence that its shops hold; and which
//! of its connections are legacy ones: a set.
//!
//! Owns these two, which go with their node. The hash lies in another slot than a shop and so cannot change
//! with its presence: it is a hint where to look, and only the presence says that the connection is there.
//! Where it cannot be written, a connection cannot be found by its name, and nothing else is lost. Called
//! by [`super::engine`].

use std::time::Duration;

use crate::ids::{ConnId, DeviceId, NodeId, ShopId};
use crate::store::redis::fleet::Ask;
use crate::store::redis::reply;
use crate::store::redis::{RedisStore, hashes};
use crate::store::{Online, StoreError};

/// How long what is noted of a node's connections is kept after its last beat.
const KEPT: Duration = Duration::from_secs(3600);

impl RedisStore {
    /// Notes whose connection it is.
    pub(super) async fn note_conn(&self, shop: &ShopId, device: &DeviceId, conn: &ConnId) {
        let Some(node) = conn.node() else { return };
        let whose = hashes::whose_text(shop, device);
        noted(self.scripts.note_conn(self.keys.conns(&node), conn, Some(whose), KEPT).await);
    }

    /// Takes back [`RedisStore::note_conn`].
    pub(super) async fn drop_conn(&self, conn: &ConnId) {
        let Some(node) = conn.node() else { return };
        noted(self.scripts.note_conn(self.keys.conns(&node), conn, None, KEPT).await);
    }

    /// The node lives: what is noted of its connections is kept.
    pub(super) async fn keep_conns(&self, node: &NodeId) {
        let keys = [self.keys.conns(node), self.keys.legacy_conns(node)];
        noted(self.ask_all("conns", keys.into_iter().map(keep).collect()).await);
    }

    /// The node is gone, and its connections with it.
    pub(super) async fn drop_conns(&self, node: &NodeId) {
        let keys = [self.keys.conns(node), self.keys.legacy_conns(node)];
        noted(self.ask_all("conns", keys.into_iter().map(|key| Ask::of("UNLINK", key)).collect()).await);
    }

    pub(super) async fn note_legacy_conn(&self, conn: &ConnId, is_there: bool) -> Result<(), StoreError> {
        let Some(node) = conn.node() else { return Ok(()) };
        let key = self.keys.legacy_conns(&node);
        let asks = if is_there {
            vec![Ask::new("SADD", key.as_str(), [conn.as_str()]), keep(key)]
        } else {
            vec![Ask::new("SREM", key, [conn.as_str()])]
        };
        self.ask_all("conns", asks).await.map(drop)
    }

    pub(super) async fn all_legacy_conns(&self) -> Result<Vec<ConnId>, StoreError> {
        let mut nodes = self.ask(Ask::of("HKEYS", self.keys.nodes())).await?;
        let mut conns = Vec::new();
        while !nodes.is_empty() {
            let node = nodes.value()?;
            let Some(node) = reply::text(&node).and_then(|node| node.parse().ok()) else { continue };
            let of_node = self.members(self.keys.legacy_conns(&node)).await?;
            conns.extend(of_node.iter().filter_map(|conn| conn.parse::<ConnId>().ok()));
        }
        Ok(conns)
    }

    /// The presence that this connection is.
    pub(super) async fn find_conn(&self, conn: &ConnId) -> Result<Option<(ShopId, Online)>, StoreError> {
        let Some(node) = conn.node() else { return Ok(None) };
        let mut noted = self.ask(Ask::new("HGET", self.keys.conns(&node), [conn.as_str()])).await?;
        let noted: Option<String> = noted.parsed_or_nil()?;
        let Some((shop, device)) = noted.as_deref().and_then(hashes::whose) else { return Ok(None) };
        let key = self.keys.shop(&shop).online();
        let presence: Option<String> = self.ask(Ask::new("HGET", key, [device.as_str()])).await?.parsed_or_nil()?;
        let online = presence.as_deref().and_then(|presence| hashes::online(device, presence));
        Ok(online.filter(|online| online.conn == *conn).map(|online| (shop, online)))
    }
}

fn keep(key: String) -> Ask {
    Ask::new("EXPIRE", key, [KEPT.as_secs() as i64])
}

/// Where Redis is away the call beside it fails too, and tells; where it is full, publishes tell.
fn noted<T>(outcome: Result<T, StoreError>) {
    if let Err(error) = outcome {
        tracing::debug!(%error, "it is not noted whose connection it is");
    }
}
