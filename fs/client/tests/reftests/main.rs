//! The file system against a simple model of one, over a cluster in memory that misbehaves: random operations, with
//! contents and attributes compared after each ([`harness`]), and plain tests of single promises ([`plain`]).

// Clippy knows functions that are tests, not those they call.
#![allow(clippy::unwrap_used)]

mod cluster;
mod generators;
mod harness;
mod plain;
mod reference;
