//! Whose connection a `conn` is: a hash for each node, beside the presence that its shops hold.
//!
//! Owns that hash, which lies in another slot than a shop and so cannot change with its presence: it is
//! a hint where to look, and only the presence says that the connection is there. Where it cannot be
//! written, a connection cannot be found by its name, and nothing else is lost. Called by
//! [`super::engine`].

use fred::interfaces::{HashesInterface, KeysInterface};
use fred::types::Value;

use crate::ids::{ConnId, DeviceId, NodeId, ShopId};
use crate::store::redis::reply::store_error;
use crate::store::redis::{RedisStore, hashes};
use crate::store::{Online, StoreError};

/// How long the hash of a node is kept after its last beat.
const KEPT_S: i64 = 3600;

impl RedisStore {
    /// Notes whose connection it is.
    pub(super) async fn note_conn(&self, shop: &ShopId, device: &DeviceId, conn: &ConnId) {
        let Some(node) = conn.node() else { return };
        let key = self.keys.conns(&node);
        let noting = async {
            let pipeline = self.commands()?.pipeline();
            let field = (conn.as_str(), hashes::whose_text(shop, device));
            let _queued: Value = pipeline.hset(key.as_str(), field).await.map_err(failed)?;
            // A node that logs somebody in and never beats leaves nothing behind either.
            let _queued: Value = pipeline.expire(key.as_str(), KEPT_S, None).await.map_err(failed)?;
            pipeline.all::<Value>().await.map_err(failed)
        };
        noted(noting.await);
    }

    /// Takes back [`RedisStore::note_conn`].
    pub(super) async fn drop_conn(&self, conn: &ConnId) {
        let Some(node) = conn.node() else { return };
        let dropping = async { self.commands()?.hdel(self.keys.conns(&node), conn.as_str()).await.map_err(failed) };
        noted(dropping.await);
    }

    /// The node lives: what is noted of its connections is kept.
    pub(super) async fn keep_conns(&self, node: &NodeId) {
        let keeping = async { self.commands()?.expire(self.keys.conns(node), KEPT_S, None).await.map_err(failed) };
        noted(keeping.await);
    }

    /// The node is gone, and its connections with it.
    pub(super) async fn drop_conns(&self, node: &NodeId) {
        let dropping = async { self.commands()?.unlink(self.keys.conns(node)).await.map_err(failed) };
        noted(dropping.await);
    }

    /// The presence that this connection is.
    pub(super) async fn find_conn(&self, conn: &ConnId) -> Result<Option<(ShopId, Online)>, StoreError> {
        let Some(node) = conn.node() else { return Ok(None) };
        let client = self.commands()?;
        let noted: Option<String> = client.hget(self.keys.conns(&node), conn.as_str()).await.map_err(failed)?;
        let Some((shop, device)) = noted.as_deref().and_then(hashes::whose) else { return Ok(None) };
        let key = self.keys.shop(&shop).online();
        let presence: Option<String> = client.hget(key, device.as_str()).await.map_err(failed)?;
        let online = presence.as_deref().and_then(|presence| hashes::online(device, presence));
        Ok(online.filter(|online| online.conn == *conn).map(|online| (shop, online)))
    }
}

fn failed(error: fred::error::Error) -> StoreError {
    store_error("conns", error)
}

/// Where Redis is away the call beside it fails too, and tells; where it is full, publishes tell.
fn noted(outcome: Result<Value, StoreError>) {
    if let Err(error) = outcome {
        tracing::debug!(%error, "it is not noted whose connection it is");
    }
}
