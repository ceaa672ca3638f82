//! What a master is told at its start.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use kuafu::Address;
use master_core::health::Limits;
use master_core::slow;
use zhongkui_access::Access;

/// Settings of one master. [`Config::new`] gives the defaults.
#[derive(Clone, Debug)]
pub struct Config {
    /// This master's number: its place, counted from 1, in the cluster's list.
    pub id: u64,
    /// Where it listens. The port may be 0 in tests; then `members` must be given by [`Config::members`] after binding.
    pub listen: Address,
    /// All masters the cluster begins with, by number. Only read at the very first start.
    pub members: BTreeMap<u64, Address>,
    /// It is none of `members`: without data it waits until it is added to a cluster that is at work.
    pub join: bool,
    /// Listen where the cluster's members know this master, if it is one already, and not at `listen`.
    pub listen_as_known: bool,
    /// Everything it keeps lives under here.
    pub data_dir: PathBuf,
    /// Administration by gRPC, if wanted.
    pub grpc: Option<SocketAddr>,
    /// Prometheus metrics, if wanted.
    pub metrics: Option<SocketAddr>,
    /// Copies of each chunk. Default 3, from 1 to 7. Fixed when the cluster begins.
    pub replicas: u32,
    /// Copies a write must reach while members are missing. Default 2, at most `replicas`.
    pub min_replicas: u32,
    /// Groups each disk belongs to: a lost disk is rebuilt by about as many others at once. Default 64.
    pub groups_per_disk: u32,
    /// A session that is silent for this is over. Default 30 s, minimum 2 s.
    pub session_lease: Duration,
    /// A chunkserver is heard this often. Default 500 ms.
    pub chunkserver_heartbeat: Duration,
    /// A chunkserver may serve this long after it was heard. Default 3 s, at least three heartbeats.
    pub chunkserver_lease: Duration,
    /// A member that was away for this long is replaced on another disk. Default 10 min, minimum 1 s.
    pub replace_after: Duration,
    /// What one chunkserver may send to fill others, in bytes a second. Default 200 MiB, minimum 1 MiB.
    pub resync_bytes_per_s: u64,
    /// Every block is read and verified once in this time. Default 14 days, minimum 1 s.
    pub scrub_period: Duration,
    /// When a disk is slow, and how many may be out of use for it. See [`slow::Rules`] for defaults, [`ConfigError`] for minima.
    pub slow: slow::Rules,
    /// A disk on which more blocks were found damaged within a day is emptied. Default 100.
    pub errors_max: u64,
    /// Groups are made when no chunkserver joined for this long, so that they spread over all that are just
    /// starting. Default 300 ms, 0 in an embedded platform.
    pub group_settle: Duration,
    /// The same while there are fewer racks than replicas: a rack may be late, and groups made without it keep two
    /// replicas in one place. Default 3 s.
    pub group_settle_narrow: Duration,
    /// Deleted data is kept this long, for readers and writers that have not heard of the deletion. Default 2 s: what
    /// clients believe of attributes is at most 1 s old.
    pub deletion_delay: Duration,
    /// Memory for the state's block cache. Default 256 MiB.
    pub cache_bytes: usize,
    /// A snapshot is made after this many entries of the log. Default 50,000, minimum 100.
    pub snapshot_after_entries: u64,
    /// Entries kept behind a snapshot, for masters that were away. Default 20,000.
    pub keep_entries: u64,
    /// Size of a file of the log. Default 32 MiB, from 16 MiB to 1 GiB.
    pub segment_bytes: u64,
    /// Who this master is, and whom it trusts. Default: whoever else is in this process.
    pub access: Access,
}

/// A setting that cannot be.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error(
        "master {id} is not in the cluster's list of masters, which has {known}: correct --id or the list, or give --join if it \
         is to be added to a cluster that is at work"
    )]
    NotAMember { id: u64, known: String },
    #[error("--replicas is {0}, it must be from 1 to 7")]
    Replicas(u32),
    #[error("--min-replicas is {min}, it must be from 1 to --replicas, which is {replicas}")]
    MinReplicas { min: u32, replicas: u32 },
    #[error("the setting {name} is {value:?}, the least allowed is {minimum:?}")]
    TooShort { name: &'static str, value: Duration, minimum: Duration },
    #[error("{0} bytes a second for resync are too few: at least 1 MiB")]
    Resync(u64),
    #[error("the setting {name} is {value}, it must be from {min} to {max}")]
    OutOfRange { name: &'static str, value: u64, min: u64, max: u64 },
    #[error("a disk that is {0} times as slow as others is as good as they are: at least 2")]
    SlowRatio(u32),
    #[error(
        "slow_percent_max is {0}, of all capacity at most 50 percent may be out of use because it is slow"
    )]
    SlowPercent(u32),
}

/// Below this a disk would not be filled within a year.
const RESYNC_MIN_BYTES_PER_S: u64 = 1 << 20;

impl Config {
    #[must_use]
    pub fn new(id: u64, members: BTreeMap<u64, Address>, data_dir: PathBuf) -> Self {
        let listen = members.get(&id).cloned().unwrap_or_else(|| Address::Tcp("127.0.0.1:7101".to_owned()));
        Self {
            id,
            listen,
            members,
            join: false,
            listen_as_known: false,
            data_dir,
            grpc: None,
            metrics: None,
            replicas: 3,
            min_replicas: 2,
            groups_per_disk: 64,
            session_lease: Duration::from_secs(30),
            chunkserver_heartbeat: Duration::from_millis(500),
            chunkserver_lease: Duration::from_secs(3),
            replace_after: Duration::from_secs(600),
            resync_bytes_per_s: 100 << 20,
            scrub_period: Duration::from_hours(14 * 24),
            slow: slow::Rules::DEFAULT,
            errors_max: master_core::failing::ERRORS_MAX,
            group_settle: Duration::from_millis(300),
            group_settle_narrow: Duration::from_secs(3),
            deletion_delay: Duration::from_secs(2),
            cache_bytes: 256 << 20,
            snapshot_after_entries: 50_000,
            keep_entries: 20_000,
            segment_bytes: 32 << 20,
            access: Access::process(),
        }
    }

    /// # Errors
    /// See [`ConfigError`].
    pub fn validate(&self) -> Result<(), ConfigError> {
        // Who has data knows from it who the members are.
        let has_data = self.data_dir.join("log").is_dir();
        if self.id == 0 || !(self.join || has_data || self.members.contains_key(&self.id)) {
            let known = self.members.keys().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            return Err(ConfigError::NotAMember { id: self.id, known });
        }
        if !(1..=7).contains(&self.replicas) {
            return Err(ConfigError::Replicas(self.replicas));
        }
        if !(1..=self.replicas).contains(&self.min_replicas) {
            return Err(ConfigError::MinReplicas { min: self.min_replicas, replicas: self.replicas });
        }
        let at_least = |name, value: Duration, minimum: Duration| {
            if value < minimum { Err(ConfigError::TooShort { name, value, minimum }) } else { Ok(()) }
        };
        at_least("session_lease", self.session_lease, Duration::from_secs(2))?;
        at_least("chunkserver_heartbeat", self.chunkserver_heartbeat, Duration::from_millis(50))?;
        at_least("chunkserver_lease", self.chunkserver_lease, 3 * self.chunkserver_heartbeat)?;
        at_least("replace_after", self.replace_after, Duration::from_secs(1))?;
        at_least("scrub_period", self.scrub_period, Duration::from_secs(1))?;
        at_least("slow_ms", self.slow.floor, Duration::from_millis(1))?;
        at_least("slow_after_s", self.slow.after, Duration::from_secs(1))?;
        at_least("slow_return_s", self.slow.return_after, Duration::from_secs(1))?;
        if self.slow.ratio < 2 {
            return Err(ConfigError::SlowRatio(self.slow.ratio));
        }
        if self.slow.percent_max > 50 {
            return Err(ConfigError::SlowPercent(self.slow.percent_max));
        }
        if self.resync_bytes_per_s < RESYNC_MIN_BYTES_PER_S {
            return Err(ConfigError::Resync(self.resync_bytes_per_s));
        }
        let within = |name, value: u64, min: u64, max: u64| {
            let error = ConfigError::OutOfRange { name, value, min, max };
            if (min..=max).contains(&value) { Ok(()) } else { Err(error) }
        };
        // Each snapshot writes out the whole state: more often than every hundred entries it would do nothing else.
        within("snapshot_after_entries", self.snapshot_after_entries, 100, u64::MAX)?;
        within("segment_mib", self.segment_bytes >> 20, 16, 1024)?;
        Ok(())
    }

    /// Where the other masters and clients reach this one.
    pub(crate) fn advertised(&self) -> &Address {
        let listed = self.members.get(&self.id).filter(|_| !self.join && !self.listen_as_known);
        listed.unwrap_or(&self.listen)
    }

    pub(crate) const fn limits(&self) -> Limits {
        Limits { lease: self.chunkserver_lease, replace_after: self.replace_after, slow: self.slow }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Config {
        let members = [(1, Address::Tcp("127.0.0.1:1".to_owned()))].into();
        Config::new(1, members, PathBuf::from("/x"))
    }

    #[test]
    fn says_what_is_wrong() {
        assert!(config().validate().is_ok());
        let told = |change: fn(&mut Config)| {
            let mut config = config();
            change(&mut config);
            config.validate().unwrap_err().to_string()
        };
        assert!(told(|c| c.id = 4).contains("master 4 is not in the cluster's list"));
        assert!(told(|c| c.replicas = 0).contains("from 1 to 7"));
        assert!(told(|c| c.min_replicas = 4).contains("--min-replicas is 4"));
        assert!(told(|c| c.chunkserver_lease = Duration::from_millis(600)).contains("chunkserver_lease"));
        assert!(told(|c| c.session_lease = Duration::from_secs(1)).contains("session_lease"));
        assert!(told(|c| c.chunkserver_heartbeat = Duration::from_millis(49)).contains("heartbeat"));
        assert!(told(|c| c.replace_after = Duration::ZERO).contains("replace_after"));
        assert!(told(|c| c.scrub_period = Duration::ZERO).contains("scrub_period"));
        assert!(
            told(|c| c.snapshot_after_entries = 9)
                .contains("snapshot_after_entries is 9, it must be from 100")
        );
        assert!(told(|c| c.segment_bytes = 8 << 20).contains("segment_mib is 8"));
        assert!(told(|c| c.slow.after = Duration::ZERO).contains("slow_after_s"));
        assert!(told(|c| c.slow.ratio = 1).contains("at least 2"));
        assert!(told(|c| c.slow.percent_max = 51).contains("at most 50"));
        assert!(told(|c| c.resync_bytes_per_s = 1).contains("at least 1 MiB"));
    }
}
