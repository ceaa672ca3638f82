//! What a job is, once its file has been checked.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A job: tasks, and what is between them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobSpec {
    pub name: String,
    pub description: String,
    /// 0 to 1000; higher goes first.
    pub priority: i32,
    /// In the order of the file; a task may only wait for tasks that are there, and for none that waits for it.
    pub tasks: Vec<TaskSpec>,
}

impl JobSpec {
    #[must_use]
    pub fn priority(&self) -> i32 {
        self.priority
    }
}

/// A task: one command, many instances.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskSpec {
    pub name: String,
    pub kind: TaskKind,
    /// `None`: as many as its inputs are split into.
    pub instances: Option<u32>,
    /// Globs, relative to the mount.
    pub inputs: Vec<String>,
    pub split: Split,
    /// Paths relative to `out/` that instances make; `{instance}` is the instance's number.
    pub outputs: Vec<String>,
    /// Of one instance, by name: cpu in 1/1000 cores, memory and disk in MiB.
    pub resources: BTreeMap<String, u64>,
    /// How often an instance may be tried.
    pub attempts: u32,
    /// Instances that may fail for good.
    pub failures_allowed: u32,
    pub timeout_ms: Option<u64>,
    pub env: BTreeMap<String, String>,
    /// Tasks that must be done before.
    pub after: Vec<String>,
    /// Whether a slow instance may be run twice.
    pub backup: bool,
    pub parallel_max: Option<u32>,
}

/// What an instance does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TaskKind {
    /// Runs a program: its path or name, and its arguments.
    Command(Vec<String>),
    Sample(SampleKind),
    Map(MapKind),
    Reduce(ReduceKind),
}

/// Reads its piece of the inputs and finds where to cut their keys into ranges of like size.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SampleKind {
    pub records: Records,
    pub key: Key,
    pub partitions: u32,
}

/// Reads its piece of the inputs through the mapper, and sorts what that says into partitions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MapKind {
    /// Reads records on stdin, writes records to stdout; `None`: records pass as they are.
    pub mapper: Option<Vec<String>>,
    /// Shrinks what one instance has for a partition, as the reducer would.
    pub combiner: Option<Vec<String>>,
    pub records: Records,
    pub key: Key,
    pub partitions: u32,
    /// The task whose boundaries cut the keys; `None`: keys are spread by their hash.
    pub ranges_of: Option<String>,
}

/// Merges one partition of all instances of a map, in the order of keys, through the reducer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReduceKind {
    /// Reads sorted records on stdin, writes to stdout; `None`: sorted records as they are.
    pub reducer: Option<Vec<String>>,
    /// The map.
    pub of: String,
    pub records: Records,
    pub key: Key,
    /// Directory under `out/` with a file `part-NNNNN` for each partition.
    pub output: String,
}

/// What a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Records {
    /// A line, its end included.
    Lines,
    /// So many bytes.
    Fixed(u32),
}

/// By what records are sorted and brought together; always compared byte by byte.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Key {
    /// All of a record, but for a line's end.
    Record,
    /// A field, counted from 1.
    Field { number: u32, separator: char },
    /// Bytes from here to there, the last one not included.
    Bytes { from: u32, to: u32 },
}

/// How inputs become instances.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// One instance a file.
    File,
    /// Pieces of so many bytes, cut where records end.
    Bytes(u64),
}
