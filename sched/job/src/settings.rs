//! Everything about a job that could be otherwise, with the reason for each default.

/// Times are milliseconds, shares are percent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Share of a task's instances that must have finished before the slowest get backups: before, there is other work
    /// for the workers, and no sound median.
    pub backup_after_percent: u32,
    /// An instance that runs this much of the median of the finished ones gets a backup.
    pub backup_slower_percent: u64,
    /// No backup for anything younger: starting it again would hardly be faster.
    pub backup_min_ms: u64,
    /// An attempt whose progress is slower than this share of the median's gets a backup...
    pub backup_rate_percent: u64,
    /// ...as soon as this share of the task finished. Much earlier than the rule above: an attempt that says itself how slow it
    /// is need not be waited for, and it blocks a worker all the time.
    pub backup_rate_after_percent: u32,
    /// Of the instances that run, those that may have a backup at a time (at least 2).
    pub backups_max_percent: u32,
    /// Before an instance that failed once runs again; doubles with each failure.
    pub backoff_first_ms: u64,
    /// It doubles up to this.
    pub backoff_max_ms: u64,
    /// How often an instance's worker may be lost, or its input, or its machine be unfit, before the instance counts as failed: it
    /// may be what kills its machines.
    pub losses_max: u32,
    /// How often an instance's output may be lost. At most 9, for the attempts' numbers.
    pub lives_max: u32,
    /// Different instances of a task that fail on a node before the task avoids it.
    pub node_failures_task: usize,
    /// Different instances of the job that fail on a node before the job avoids it.
    pub node_failures_job: usize,
    /// How long a failure is held against a node.
    pub node_decay_ms: u64,
    /// How long an instance that failed on a node waits for another one before it takes the same.
    pub avoid_patience_ms: u64,
    /// A worker is given as many instances as it probably runs in this time: more would wait behind a slow one.
    pub batch_target_ms: u64,
    /// And never more than this.
    pub batch_max: u32,
    /// How long a worker without work is kept: the next task may be ready in a moment.
    pub idle_release_ms: u64,
    /// How long a granted worker may take to come.
    pub join_timeout_ms: u64,
    /// How long a worker may take to answer a cancellation before it is given back.
    pub cancel_wait_ms: u64,
    /// How long an ending job waits for the answers to its cancellations.
    pub close_wait_ms: u64,
    /// How long a new job master waits for workers to say what they run, before it gives out what may be running.
    pub adopt_wait_ms: u64,
    /// Workers enforce the task's timeout; this much later the job stops believing in the attempt.
    pub timeout_grace_ms: u64,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            backup_after_percent: 75,
            backup_slower_percent: 150,
            backup_min_ms: 5_000,
            backup_rate_percent: 50,
            backup_rate_after_percent: 10,
            backups_max_percent: 20,
            backoff_first_ms: 1_000,
            backoff_max_ms: 60_000,
            losses_max: 8,
            lives_max: 8,
            node_failures_task: 3,
            node_failures_job: 5,
            node_decay_ms: 600_000,
            avoid_patience_ms: 30_000,
            batch_target_ms: 500,
            batch_max: 64,
            idle_release_ms: 2_000,
            join_timeout_ms: 120_000,
            cancel_wait_ms: 30_000,
            close_wait_ms: 10_000,
            adopt_wait_ms: 15_000,
            timeout_grace_ms: 30_000,
        }
    }
}
