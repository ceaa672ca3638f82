//! Whole chunkservers, three of them, with real disks and connections, against a master that only hands out a table.

mod fences;
mod heartbeat;
mod process;
mod repair;
mod replication;
mod support;
