//! Members in one process over Unix sockets, and clients.

#![allow(clippy::unwrap_used, reason = "helpers of tests panic like tests")]

mod access;
mod bad_input;
mod fixture;
mod fuzz;
mod grpc;
mod locks;
mod members;
mod naming;
mod sessions;
mod snapshots;
mod tree;
mod watches;
