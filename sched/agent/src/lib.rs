//! Fuxi's agent: starts, limits and keeps what the master wants on this machine, and says what became of it.
//!
//! Reading order: [`order`] (what is wanted), [`table`] (what is here and what is to be done about it: pure), [`record`] and [`store`] (the
//! same on the disk: `docs/state.md`), [`process`] (what `/proc` knows), [`cgroup`] and [`memory`] (limits), [`launch`] (starting),
//! [`sweep`] (ending all of it), [`container`] (one grant's processes), [`agent`] (the loop).
//!
//! What holds: a grant's program is started once, whatever replies are lost or repeated and whenever the agent dies; it is stopped only when
//! a master that knows all says so; and its end is told until it was acknowledged.

pub mod agent;
pub mod capacity;
pub mod cgroup;
pub mod config;
pub mod container;
pub mod keys;
pub mod launch;
pub mod memory;
pub mod order;
pub mod process;
pub mod record;
pub mod store;
pub mod sweep;
pub mod table;
mod work;

pub use agent::{Agent, AgentError, Containers};
pub use config::{Config, CpuLimit, KeyFolder};
pub use order::{Grant, Order, Program};
