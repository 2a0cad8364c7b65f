//! One binary for all integration tests, so that they are linked once.

mod redis_server;
mod scripts;
mod store;
