//! shoprelay
pub mod ids;
pub mod message;
pub mod protocol;
