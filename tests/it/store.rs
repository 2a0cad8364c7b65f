//! The contract of [`Store`]: a suite over the trait that every engine has to pass, and what only
//! one of them can be put through.

mod agreement;
mod file;
mod log;
mod membership;
mod nodes;
mod operators;
mod registry;
mod suite;
mod two_nodes;
mod weather;
