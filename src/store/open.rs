//! Which engine an address names.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::mpsc;

use crate::ids::NodeId;
use crate::store::{FeedEvent, Store, StoreSettings, embedded, redis};

/// Why an engine cannot start.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(transparent)]
    Redis(#[from] redis::StartError),
    #[error(transparent)]
    Embedded(#[from] embedded::StartError),
    #[error("a certificate authority was given for an address that is not rediss://")]
    CaWithoutTls,
}

/// Starts the engine that an address names, as the given node; the receiver is its feed, which has to
/// be read.
///
/// # Errors
/// [`OpenError`]
pub async fn open(
    url: &str,
    ca: Option<&Path>,
    node: NodeId,
    settings: StoreSettings,
) -> Result<(Arc<dyn Store>, mpsc::Receiver<FeedEvent>), OpenError> {
    if let Some(dir) = url.strip_prefix("embedded:") {
        if ca.is_some() {
            return Err(OpenError::CaWithoutTls);
        }
        let (store, feed) = embedded::EmbeddedStore::start(PathBuf::from(dir), node, settings).await?;
        return Ok((Arc::new(store), feed));
    }
    let (store, feed) = redis::RedisStore::start(url, ca, node, settings).await?;
    Ok((Arc::new(store), feed))
}
