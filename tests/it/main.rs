//! The tests of the whole: one binary, against a real Redis and real nodes.

mod command_line;
mod delivery;
mod faults;
mod harness;
mod model;
mod protocol_errors;
mod redis_server;
mod scripts;
mod store;
