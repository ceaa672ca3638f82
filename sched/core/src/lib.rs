//! Fuxi's scheduler: who gets which resources where. Pure: events and the time go in, effects come out.
//!
//! The model is incremental: a job says once how many of a unit it wants in all, and is granted them one by one as
//! room appears; nothing is asked for twice, and a decision costs what has changed, not what there is. Three rules
//! keep that true. A request looks for a node when it comes (`place`); a node that frees room looks for a request
//! (`offer`); a quota group that frees quota looks for both (`refill`). Between events, nothing that waits could be
//! granted, so nothing has to be looked at again.
//!
//! Read in this order: [`event`] (the vocabulary), [`resources`], `queue` (the quota tree), `node`, `job`, `lists`
//! (who waits where), `scheduler` (the state), `on_node`, `on_queue`, `on_job` (what events change), `grants` (the one
//! place where sums change), `place`, `offer`, `preempt`, `reserve`, `blacklist`, `recover`, [`why`], `check`.
//!
//! Order of service: what is owed to a quota group below its minimum, then priority, then the group with the smallest
//! share, then the job that was served longest ago. A minimum goes before priority because administrators set
//! minima and users set priorities; the other way round, any user could take any group's guarantee.
//!
//! Invariants, computed by [`Scheduler::check`]:
//! - on a node, grants that are not being stopped fit in its capacity;
//! - a quota group's usage is the sum of its grants and its children's, and within its maximum unless it was above it
//!   when that was lowered or a new master heard of it;
//! - every grant that is not being stopped belongs to a job and to a node that is not lost;
//! - a unit waits for what it wants less what it holds, and is in the lists exactly where it would take room;
//! - a reservation has a waiting unit, and its room is not given away.

mod blacklist;
mod check;
pub mod config;
pub mod error;
pub mod event;
mod free_tree;
mod grants;
pub mod ids;
mod job;
mod lists;
mod node;
mod offer;
mod on_job;
mod on_node;
mod on_queue;
mod place;
mod preempt;
mod queue;
mod recover;
mod reserve;
pub mod resources;
mod scheduler;
mod victims;
mod wait;
pub mod why;
mod work;

#[cfg(test)]
mod tests;

pub use check::Broken;
pub use config::{Blacklist, Config, ConfigError, Limits, Recovery};
pub use error::EventError;
pub use event::{Effect, Event, Held, NodeReport, Outcome, Preferences, QueueSpec, Reason, Want};
pub use ids::{GrantId, JobId, MachineId, Millis, NodeId, Priority, QueueId, RackId, UnitId};
pub use resources::{Dimension, Dimensions, Resources, TooManyDimensions};
pub use scheduler::{NodeView, QueueView, Scheduler};
pub use why::{WaitsFor, Why};
