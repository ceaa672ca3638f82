//! The state machine over a store in memory; its invariants are checked after every command.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod entries;
mod history;
mod limits;
mod locks;
mod quotas;
mod random;
mod restore;
mod sequence;
mod sessions;
mod world;
