//! MapReduce's data engine: splits, records, partitions, external sort, merge, and the programs between them.
//!
//! A worker calls one function per instance: [`sample::sample`] (boundaries of ranges), [`map::map`], [`reduce::reduce`],
//! [`join::join`] (Map-Reduce-Merge). Everything that goes in or comes out is an ordinary path; reads and writes are
//! blocks of 1 MiB at aligned offsets, several in flight. Formats and limits are in `sched/docs/shuffle.md`.
//!
//! Read in this order: [`record`] (what a record and its key are), [`split`] (which records an instance reads),
//! [`control`] (cancelling and progress), `pool` and `stream` (reading ahead), `writer` (writing behind),
//! [`partition`], `buffer` and `sort` (one sorted run), [`output`] (the file of a map instance), `cursor`, `merge`
//! and `passes` (many runs to one), [`program`] (children), then the four functions, and [`error`].

mod buffer;
pub mod control;
mod cursor;
pub mod error;
pub mod join;
pub mod map;
mod merge;
pub mod output;
pub mod partition;
mod passes;
mod pipe;
mod pool;
pub mod program;
pub mod record;
pub mod reduce;
pub mod sample;
mod sort;
pub mod split;
mod stream;
mod writer;

pub use control::{Control, Limits};
pub use error::{Error, MapFault, Result};
pub use join::{JoinTask, join};
pub use map::{MapSummary, MapTask, map};
pub use output::{InstanceId, MapOutput};
pub use partition::{Boundaries, PartitionId, Partitioner};
pub use program::Program;
pub use record::{Format, Key, RecordSpec};
pub use reduce::{Durability, ReduceSummary, ReduceTask, reduce};
pub use sample::{SampleTask, sample};
pub use split::{InputFile, Split, splits};
