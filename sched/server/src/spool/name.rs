//! Names of queues and jobs: the job file's crate has them, so that who drops a file can say what job it becomes.

pub use sched_spec::{JobName, NameError, QueueName};
