//! What must not be lost when something breaks: Redis, the way to it, a node.

mod embedded;
mod nodes;
mod pushes;
mod redis;
