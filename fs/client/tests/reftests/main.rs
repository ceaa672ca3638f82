//! The file system against a simple model of one, over a cluster in memory that misbehaves: random operations, with
//! contents and attributes compared after each ([`harness`]), and plain tests of single promises ([`plain`]).

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod chunk;
mod cluster;
mod generators;
mod harness;
mod plain;
mod reference;
