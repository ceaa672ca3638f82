//! The file system against a simple model of one, over a cluster in memory that misbehaves: random operations, with
//! contents and attributes compared after each ([`harness`]), and plain tests of single promises ([`plain`]).

mod cluster;
mod generators;
mod harness;
mod plain;
mod reference;
