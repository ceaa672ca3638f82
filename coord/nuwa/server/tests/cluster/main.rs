//! Members in one process over Unix sockets, and clients.

#![allow(clippy::unwrap_used, reason = "helpers of tests panic like tests")]

mod fixture;
mod grpc;
mod locks;
mod members;
mod sessions;
mod tree;
mod watches;
