//! What must not be lost when something breaks: Redis, the way to it, a node.

mod clock;
mod drain;
mod embedded;
mod load;
mod nodes;
mod presence;
mod pushes;
mod redis;
