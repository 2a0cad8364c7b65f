//! The tests of the whole: one binary, against a real Redis and real nodes.

// A test may panic: that is how it fails.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod api;
mod api_page;
mod bench;
mod command_line;
mod delivery;
mod dependencies;
mod documents;
mod events;
mod faults;
mod gatewayworker;
mod harness;
mod layers;
mod legacy;
mod limits;
mod model;
mod protocol_errors;
mod prove;
mod redis_server;
mod redis_user;
mod scripts;
mod secrets;
mod store;
mod tenants;
mod tls;
