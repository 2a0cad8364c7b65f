//! shoprelay
pub mod ids;
pub mod message;
pub mod metrics;
pub mod protocol;
pub mod store;
