//! What must hold of the parameters of any request of the old kind; see [`crate::properties`].

use super::{Params, STEM, written};
use crate::ids::{Name, ShopId};
use crate::protocol::legacy;

/// See [`crate::http::properties`]; the body is whatever the bytes are.
pub fn target(path: &str, query: &str, body: &[u8]) {
    let mut parts = path.strip_prefix(STEM).unwrap_or(path).split('/').skip(1);
    let mut params = Params::default();
    if params.add_pairs(&mut parts).is_err() {
        return;
    }
    params.add_form(query.as_bytes());
    params.add_bytes(body);
    // A pair has a separator at least, and what is no UTF-8 becomes U+FFFD, which has three bytes.
    let bytes = params.0.iter().map(|(name, value)| name.len() + value.as_str().map_or(0, str::len)).sum::<usize>();
    assert!(bytes <= 3 * (path.len() + query.len() + body.len()) + 2, "{bytes}");
    drop((params.parsed::<ShopId>("shop_id"), params.parsed::<u64>("id"), params.parsed::<Name>("status")));
    if let Ok(object) = written(&params.0) {
        drop(legacy::notify(object.get().as_bytes()));
    }
}
