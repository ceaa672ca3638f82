//! What a member is told at its start.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use kuafu::Address;
use zhongkui_access::Access;

/// More would only make each commit slower.
const MEMBERS_MAX: usize = 7;

/// Settings of one member. [`Config::new`] gives the defaults.
#[derive(Clone, Debug)]
pub struct Config {
    /// This member's number: its place, counted from 1, in the cluster's list.
    pub id: u64,
    /// Where it listens.
    pub listen: Address,
    /// All members the cluster begins with, by number. Only read at the very first start.
    pub members: BTreeMap<u64, Address>,
    /// It is none of `members`: without data it waits until it is added to a cluster that is at work.
    pub join: bool,
    /// Listen where the cluster's members know this one, if it is one already, and not at `listen`.
    pub listen_as_known: bool,
    /// Everything it keeps lives under here.
    pub data_dir: PathBuf,
    /// The same services by gRPC, if wanted.
    pub grpc: Option<SocketAddr>,
    /// Prometheus metrics, if wanted.
    pub metrics: Option<SocketAddr>,
    /// A snapshot of the state is made after this many entries of the log. Default 50,000, minimum 100.
    pub snapshot_after_entries: u64,
    /// Entries kept behind a snapshot, for members that were away. Default 20,000.
    pub keep_entries: u64,
    /// Size of a file of the log. Default 32 MiB, from 16 MiB to 1 GiB.
    pub segment_bytes: u64,
    /// Memory for the cache of the state's store. Default 64 MiB.
    pub cache_bytes: usize,
    /// Who this member is, and whom it trusts. Default: whoever else is in this process.
    pub access: Access,
}

/// What is wrong with the settings.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("member {id} is not in the cluster's list, which has {count}: give --id its place, or --join")]
    NotListed { id: u64, count: usize },
    #[error("a member's number is at least 1")]
    NoId,
    #[error("the cluster's list has {0} members, at most {MEMBERS_MAX} are possible")]
    TooMany(usize),
    #[error("{name} is {value}, it must be from {min} to {max}")]
    OutOfRange { name: &'static str, value: u64, min: u64, max: u64 },
}

impl Config {
    /// Listens where the list says.
    #[must_use]
    pub fn new(id: u64, members: BTreeMap<u64, Address>, data_dir: PathBuf) -> Self {
        let listen = members.get(&id).cloned().unwrap_or_else(|| Address::Tcp("127.0.0.1:0".to_owned()));
        Self {
            id,
            listen,
            members,
            join: false,
            listen_as_known: false,
            data_dir,
            grpc: None,
            metrics: None,
            snapshot_after_entries: 50_000,
            keep_entries: 20_000,
            segment_bytes: 32 << 20,
            cache_bytes: 64 << 20,
            access: Access::process(),
        }
    }

    /// # Errors
    /// [`ConfigError`] naming the setting, its value and its bounds.
    pub fn validate(&self) -> Result<(), ConfigError> {
        if self.id == 0 {
            return Err(ConfigError::NoId);
        }
        if !self.join && !self.members.contains_key(&self.id) {
            return Err(ConfigError::NotListed { id: self.id, count: self.members.len() });
        }
        if self.members.len() > MEMBERS_MAX {
            return Err(ConfigError::TooMany(self.members.len()));
        }
        let within = |name, value: u64, min: u64, max: u64| {
            let error = ConfigError::OutOfRange { name, value, min, max };
            if (min..=max).contains(&value) { Ok(()) } else { Err(error) }
        };
        // Each snapshot writes out the whole state: more often than every hundred entries it would do nothing else.
        within("snapshot_after_entries", self.snapshot_after_entries, 100, u64::MAX)?;
        within("segment_mib", self.segment_bytes >> 20, 16, 1024)
    }

    /// Where the other members and clients reach this one.
    pub(crate) fn advertised(&self) -> &Address {
        let listed = self.members.get(&self.id).filter(|_| !self.join && !self.listen_as_known);
        listed.unwrap_or(&self.listen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_is_wrong() {
        let config = |id| {
            let members = (1..=3).map(|n| (n, Address::Tcp(format!("127.0.0.1:{n}")))).collect();
            Config::new(id, members, PathBuf::from("/x"))
        };
        assert!(config(3).validate().is_ok());
        assert!(Config { join: true, ..config(9) }.validate().is_ok());
        let told = |config: Config| config.validate().unwrap_err().to_string();
        assert!(told(config(4)).contains("member 4 is not in the cluster's list, which has 3"));
        assert!(told(config(0)).contains("at least 1"));
        assert!(told(Config { snapshot_after_entries: 9, ..config(1) }).contains("from 100"));
        assert!(told(Config { segment_bytes: 8 << 20, ..config(1) }).contains("segment_mib is 8"));
        let many = (1..=8).map(|n| (n, Address::Tcp(format!("127.0.0.1:{n}")))).collect();
        assert!(told(Config { members: many, ..config(1) }).contains("at most 7"));
    }
}
