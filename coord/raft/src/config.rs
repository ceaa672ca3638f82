//! Settings of one member.

use std::path::PathBuf;
use std::time::Duration;

use coord_kv_rocks::{LogUse, RocksOptions};
use kuafu::ClientConfig;

/// Settings of one member. [`RaftConfig::new`] gives the defaults.
#[derive(Clone, Debug)]
pub struct RaftConfig {
    /// This member's number, unique in its cluster and never given to another.
    pub node_id: u64,
    /// Where the other members reach this one: `tcp://host:port` or `unix:///path`.
    pub address: String,
    /// Everything this member keeps lives under here.
    pub data_dir: PathBuf,
    /// The leader is heard at least this often (with the granularity of the timer, one and a half of it). An append
    /// RPC times out after it, so it must be well above a slow synced write. Default 250 ms, minimum 20 ms.
    pub heartbeat: Duration,
    /// The shortest time without a leader after which a member stands for election. Default 600 ms.
    pub election_timeout_min: Duration,
    /// The longest such time. At least 4 heartbeats. Default 1200 ms; half of it is the leader's lease.
    pub election_timeout_max: Duration,
    /// Proposals waiting for their entry; one more is answered BUSY. Default 16384.
    pub proposals_max: usize,
    /// Commands of one entry together, before another entry is begun. Default 1 MiB.
    pub entry_bytes_max: usize,
    /// The largest single command. Default 4 MiB; must leave room in a segment.
    pub command_bytes_max: usize,
    /// Size of a log segment file. Default 32 MiB, minimum 64 KiB.
    pub segment_bytes: u64,
    /// Segments written in advance or kept for reuse. Default 2.
    pub spare_segments: usize,
    /// Memory for the newest entries, which replication and apply read. Default 32 MiB.
    pub tail_bytes: usize,
    /// A snapshot is made after this many entries. Default 50,000.
    pub snapshot_after_entries: u64,
    /// Entries kept behind a snapshot for followers that lag. Default 20,000.
    pub keep_entries: u64,
    /// The applied state is written out at least this often while it changes, which bounds what a restart applies
    /// again. Default 10 s.
    pub flush_interval: Duration,
    /// Memory and files of the state's store.
    pub store: RocksOptions,
    /// How the other members are called. Default: without credentials.
    pub transport: ClientConfig,
}

impl RaftConfig {
    #[must_use]
    pub fn new(node_id: u64, address: impl Into<String>, data_dir: impl Into<PathBuf>) -> Self {
        Self {
            node_id,
            address: address.into(),
            data_dir: data_dir.into(),
            heartbeat: Duration::from_millis(250),
            election_timeout_min: Duration::from_millis(600),
            election_timeout_max: Duration::from_millis(1200),
            proposals_max: 16_384,
            entry_bytes_max: 1 << 20,
            command_bytes_max: 4 << 20,
            segment_bytes: 32 << 20,
            spare_segments: 2,
            tail_bytes: 32 << 20,
            snapshot_after_entries: 50_000,
            keep_entries: 20_000,
            flush_interval: Duration::from_secs(10),
            store: RocksOptions { log: LogUse::Elsewhere, ..RocksOptions::default() },
            transport: ClientConfig::default(),
        }
    }

    /// # Errors
    /// [`ConfigError`] naming the setting, its value and its bound.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let at_least = |setting, value: u64, minimum: u64| {
            if value < minimum { Err(ConfigError::TooSmall { setting, value, minimum }) } else { Ok(()) }
        };
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        at_least("node_id", self.node_id, 1)?;
        at_least("heartbeat (ms)", millis(self.heartbeat), 20)?;
        at_least("election_timeout_max (ms)", millis(self.election_timeout_max), 4 * millis(self.heartbeat))?;
        at_least(
            "election_timeout_max (ms)",
            millis(self.election_timeout_max),
            millis(self.election_timeout_min) + 1,
        )?;
        at_least("segment_bytes", self.segment_bytes, 64 << 10)?;
        at_least("proposals_max", self.proposals_max as u64, 1)?;
        at_least("entry_bytes_max", self.entry_bytes_max as u64, 1)?;
        let largest_entry = (self.entry_bytes_max + self.command_bytes_max) as u64;
        at_least(
            "segment_bytes (against entry_bytes_max + command_bytes_max)",
            self.segment_bytes / 2,
            largest_entry,
        )
    }

    /// How long a member that heard the leader refuses to vote for another.
    pub(crate) fn lease(&self) -> Duration {
        self.election_timeout_max / 2
    }
}

/// A setting out of its bounds.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("{setting} is {value}, the least allowed is {minimum}")]
    TooSmall { setting: &'static str, value: u64, minimum: u64 },
}
