//! shoprelay
pub mod check;
pub mod config;
pub mod feed;
pub mod http;
pub mod hub;
pub mod ids;
pub mod message;
pub mod metrics;
pub mod node;
pub mod nodes;
pub mod proofs;
pub mod protocol;
pub mod rate;
pub mod retention;
pub mod session;
pub mod socket;
pub mod store;
