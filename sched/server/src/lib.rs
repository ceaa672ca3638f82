//! Fuxi's master: the spool, the scheduler, and who asks them.
//!
//! Reading order: `sched/docs/design.md`, [`spool`], `keeper` (spool and state in step), `state` (all it knows, and what it does about what it
//! hears), `scheduling` (the scheduler under people's names), `service` (what can be asked), `leader`, [`server`].

mod agents;
mod app;
pub mod config;
mod jobs;
mod keeper;
mod leader;
mod leading;
mod notices;
mod overview;
mod quota;
mod scheduling;
pub mod server;
mod service;
pub mod spool;
mod state;

pub use config::Config;
pub use server::{FuxiMaster, StartError};
