//! What a worker is told at its start.

use std::path::PathBuf;
use std::time::Duration;

use kuafu::{Address, Channel, ClientConfig};

/// Attempts that a worker holds beside the one that runs: enough that a worker of instances that take half a millisecond has something to do
/// between two requests, few enough that the last ones of a job are spread over all workers.
pub const PREFETCH: usize = 64;
/// Of what one attempt says.
pub const LOG_BYTES_MAX: u64 = 16 << 20;
/// A job that the master does not know for so long has ended: a master that begins to lead needs a moment to hear of all jobs.
pub const GIVE_UP_AFTER: Duration = Duration::from_secs(30);

/// See the module.
#[derive(Clone, Debug)]
pub struct Config {
    pub job: String,
    pub grant: u64,
    /// The machine's name.
    pub node: String,
    /// Where Pangu is mounted.
    pub mount: PathBuf,
    /// The job's directory, relative to the mount.
    pub directory: PathBuf,
    /// A local directory of the worker's own.
    pub scratch: PathBuf,
    /// Where the job's master serves, as far as is known.
    pub job_master: Option<Address>,
    /// Fuxi's master, which is asked where the job's master is. One of the two must be there.
    pub master: Option<Channel>,
    /// How to connect to the job's master.
    pub transport: ClientConfig,
    /// A file with a line `oom_kill N`: how many of this grant's processes were killed for want of memory.
    pub oom_file: Option<PathBuf>,
    /// Attempts held at once, default [`PREFETCH`].
    pub prefetch: usize,
    /// Default [`LOG_BYTES_MAX`].
    pub log_bytes_max: u64,
    /// Default [`GIVE_UP_AFTER`].
    pub give_up_after: Duration,
    /// The process has no other children than the worker's: all that are left after an attempt are killed.
    pub owns_process: bool,
}

impl Config {
    /// With the defaults, and no master known.
    #[must_use]
    pub fn new(
        job: impl Into<String>,
        grant: u64,
        mount: impl Into<PathBuf>,
        scratch: impl Into<PathBuf>,
    ) -> Self {
        Self {
            job: job.into(),
            grant,
            node: String::new(),
            mount: mount.into(),
            directory: PathBuf::new(),
            scratch: scratch.into(),
            job_master: None,
            master: None,
            transport: ClientConfig::default(),
            oom_file: None,
            prefetch: PREFETCH,
            log_bytes_max: LOG_BYTES_MAX,
            give_up_after: GIVE_UP_AFTER,
            owns_process: false,
        }
    }

    /// The job's directory in the mount.
    #[must_use]
    pub fn job_directory(&self) -> PathBuf {
        self.mount.join(&self.directory)
    }
}
