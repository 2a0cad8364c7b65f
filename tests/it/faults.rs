//! What must not be lost when something breaks: Redis, the way to it, a node.

mod cluster;
mod embedded;
mod nodes;
mod operators;
mod pushes;
mod redis;
mod sentinels;
