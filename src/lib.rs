//! shoprelay
pub mod config;
pub mod ids;
pub mod message;
pub mod metrics;
pub mod protocol;
pub mod rate;
pub mod session;
pub mod store;
