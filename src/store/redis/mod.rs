//! The redis engine.
