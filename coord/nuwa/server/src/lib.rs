//! Nuwa: the replicated process.
//!
//! Read in this order: `coord/nuwa/docs/service.md`, [`config`] (what a member is told), [`server`] (its life: start, serve,
//! stop), `machine` (the pure core as a replicated state machine), `hub` (events, for who watches), `leases` (until when
//! sessions live), `exports` (the tree for whoever takes all of it), `app` (what services and background jobs share), `portions` (how much
//! one call reads), `access` (what a request needs), `service/` (what can be called), `background` (what the leader does by itself),
//! `revoked` (what was taken back).

mod access;
mod app;
mod background;
pub mod config;
mod exports;
mod hub;
mod leases;
mod machine;
mod metrics;
mod portions;
mod revoked;
pub mod server;
mod service;
#[cfg(test)]
mod testing;

pub use config::{Config, ConfigError};
pub use server::{NuwaServer, StartError};
