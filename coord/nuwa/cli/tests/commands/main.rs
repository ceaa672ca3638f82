//! The program as people use it: what it says, and how it ends.

#![allow(clippy::unwrap_used, reason = "helpers of tests panic like tests")]

mod fixture;
mod hold;
mod input;
mod keys;
mod members;
mod remove;
mod snapshots;
mod tree;
