//! What must not be lost when something breaks: Redis, the way to it, a node.

mod clock;
mod cluster;
mod drain;
mod embedded;
mod load;
mod nodes;
mod operators;
mod presence;
mod pushes;
mod redis;
mod sentinels;
