//! What must hold of the target of any request; see [`crate::properties`].

use hyper::Uri;

use crate::http::{api, legacy};

/// A target is refused as a whole, or names a route and parameters that are as they were before they were
/// written into it; a key of one shop opens no path of another.
pub fn target(bytes: &[u8]) {
    let Ok(uri) = Uri::try_from(bytes) else { return };
    api::properties::target(uri.path(), uri.query().unwrap_or_default());
    legacy::properties::target(uri.path(), uri.query().unwrap_or_default(), bytes);
}
