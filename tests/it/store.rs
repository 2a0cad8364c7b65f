//! The contract of [`Store`]: a suite over the trait that every engine has to pass, and what only
//! an engine on a server can be put through.

mod suite;
mod weather;
