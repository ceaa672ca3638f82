//! Fuxi's job file: TOML to a checked [`JobSpec`]. What it may say is in `sched/docs/job.md`.
//!
//! Reading order: [`spec`] (what a job is), [`parse`] and [`parse_bytes`], `read` (the file's tables, one a file), `fields` (taking keys out of a table, so that what
//! is left over is unknown), [`errors`] (all that is wrong, each at its place), [`amount`] (sizes and times), `check` (what no single key shows),
//! [`schema`](fn@schema) (the same for editors), [`name`] (what a dropped file is called as a job).

pub mod amount;
pub mod errors;
pub mod name;
pub mod spec;

mod check;
mod fields;
mod read;
mod schema;
#[cfg(test)]
mod tests;

pub use amount::parse_amount;
pub use errors::{JobError, JobErrors};
pub use name::{JobName, NameError, QueueName};
pub use read::{parse, parse_bytes};
pub use schema::schema;
pub use spec::{JobSpec, Key, MapKind, Records, ReduceKind, SampleKind, Split, TaskKind, TaskSpec};

/// Largest job file: it is read whole, and a hundred times what people write.
pub const FILE_MAX_BYTES: usize = 1 << 20;
/// Tasks of a job, those that a MapReduce becomes included.
pub const TASKS_MAX: usize = 1_000;
/// Instances of a task.
pub const INSTANCES_MAX: u32 = 1_000_000;
