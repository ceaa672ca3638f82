//! The Pangu chunkserver: disks, replication, heartbeats, in one process (or as a library within another one).
//!
//! Read in this order: [`config`] and [`error`] (what it takes to start), [`app`] (start and stop), then what happens
//! to a request: `service` (translate and call), `group` (one replica of the core, and who waits for it), `replicate`
//! (does what the core asks: disk and other members), `peers` (connections). Beside requests: `disks` (the engines),
//! `heartbeat` (the master), `lease` (may reads be answered), `fill` and `throttle` (members that come back), `surplus` (what is left behind), `scrub`, `lost` and `repair` (damage), `room` (disks whose file system is full), `commits` (news of commits), `metrics`.
//!
//! Everything runs on the runtime it was started in, which should be a current-thread one: a hand-over between threads
//! costs more than the work (design.md 2).

mod advertise;
pub mod app;
mod buffers;
mod commits;
pub mod config;
mod disks;
pub mod error;
mod errors;
mod fill;
mod followed;
mod group;
mod heartbeat;
mod lease;
mod load;
mod lost;
mod masters;
mod metrics;
mod node;
mod pace;
mod peers;
mod repair;
mod replicate;
mod room;
mod scrub;
mod service;
mod space;
mod surplus;
mod throttle;
mod tokens;
pub mod verify;

pub use app::{ChunkServer, Handle};
pub use config::{Config, ConfigError, Location};
pub use error::StartError;
