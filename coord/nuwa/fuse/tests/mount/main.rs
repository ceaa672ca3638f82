//! Real mounts of a cluster of one member, used as programs use them.

#![allow(clippy::unwrap_used, reason = "helpers of tests panic like tests")]

mod errors;
mod events;
mod fixture;
mod holders;
mod keys;
mod program;
mod puts;
mod sessions;
mod shell;
