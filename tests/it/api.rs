//! The HTTP API: every row of its table, and what it refuses.

mod connections;
mod messages;
