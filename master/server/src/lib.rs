//! Pangu master: the replicated process.
//!
//! Read in this order: [`config`] (what a master is told), [`server`] (its life: start, serve, stop), `machine` (the
//! pure core as a replicated state machine), `hub` (events for who watches directories), `app` (what services and background jobs share), `service/` (what
//! clients, chunkservers and people can call, one service a file), `background/` (what the leader does by itself,
//! one job a file).

mod access;
mod app;
mod background;
pub mod config;
mod hub;
mod machine;
mod metrics;
pub mod server;
mod service;
mod soft;
mod tokens;

pub use config::{Config, ConfigError};
pub use server::{MasterServer, StartError};
