//! What must hold of any bytes at all that come from outside: from a device, a back end, an operator's
//! file or the store.
//!
//! Owns the list of these properties, [`ALL`], and the bytes to start from. It is used twice: a bounded run
//! over mutated seeds is a test of the library, and each property is a target of `fuzz/`, which runs for
//! as long as somebody lets it. Not in the product: it is built for those two only. Where a property needs
//! what a module keeps to itself, its function lies beside it, in a module of the same name.
//!
//! A function takes the bytes and panics where the property does not hold. It never does I/O and never
//! waits, so what takes long is a bug too, and it allocates no more than [`Property::bytes_per_byte`] says.

mod seeds;
#[cfg(test)]
mod tests;
mod wire;

use crate::auth;
use crate::config;
use crate::http;
use crate::socket;
use crate::store;

/// A property of some kind of bytes.
pub struct Property {
    /// Also the name of the fuzz target.
    pub name: &'static str,
    /// Panics where it does not hold.
    pub holds: fn(&[u8]),
    /// What mutation starts from.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// How many bytes may be allocated in all for each byte of the input, beside [`BYTES_IN_ANY_CASE`].
    pub bytes_per_byte: u64,
}

/// How many bytes may be allocated in all for the shortest input. A MessagePack list says how long it is
/// before it comes, and serde sets aside up to a mebibyte on its word; what is read has a few such lists.
pub const BYTES_IN_ANY_CASE: u64 = 8 << 20;

/// Every property.
pub const ALL: &[Property] = &[
    property("native_json", wire::native_json, seeds::native_json),
    property("native_msgpack", wire::native_msgpack, seeds::native_msgpack),
    property("legacy_frame", wire::legacy_frame, seeds::legacy_frame),
    property("api_body", wire::api_body, seeds::api_body),
    property("attrs", wire::attrs, seeds::attrs),
    property("http_target", http::properties::target, seeds::http_target),
    property("websocket", socket::properties::stream, seeds::websocket),
    property("token", auth::properties::token, seeds::token),
    property("claims", auth::properties::claims, seeds::claims),
    property("api_keys", auth::properties::api_keys, seeds::api_keys),
    property("settings", config::properties::settings, seeds::settings),
    property("record", wire::record, seeds::record),
    property("redis_event", store::redis::properties::event, seeds::redis_event),
    property("redis_field", store::redis::properties::field, seeds::redis_field),
    property("embedded_row", store::embedded::properties::row, seeds::embedded_row),
    property("embedded_journal", store::embedded::properties::journal, seeds::embedded_journal),
];

const fn property(name: &'static str, holds: fn(&[u8]), seeds: fn() -> Vec<Vec<u8>>) -> Property {
    Property { name, holds, seeds, bytes_per_byte: 512 }
}

/// Checks the property of this name, for the fuzz targets.
///
/// # Panics
/// Where it does not hold, and where there is none of this name.
pub fn check(name: &str, bytes: &[u8]) {
    let property = ALL.iter().find(|property| property.name == name);
    #[expect(clippy::expect_used, reason = "a target without its property is a mistake of ours")]
    let property = property.expect("a property of this name");
    (property.holds)(bytes);
}
