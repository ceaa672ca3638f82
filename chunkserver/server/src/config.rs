//! What a chunkserver is told at its start.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use kuafu::Address;
use master_api::Masters;
use zhongkui_access::Access;

/// Configuration of one chunkserver.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where it listens for clients, other chunkservers and the master. Port 0: any.
    pub listen: Address,
    /// What others are told to connect to, if not `listen`: needed when listening on 0.0.0.0 or behind a translation.
    pub advertise: Option<Address>,
    /// One directory for each disk. An empty or absent one is formatted.
    pub data: Vec<PathBuf>,
    pub location: Location,
    /// Where the masters of the cluster are found.
    pub masters: Masters,
    /// Bytes a disk that is formatted now may hold. Default: 9/10 of what is free there. Minimum 64 MiB.
    pub capacity_bytes: Option<u64>,
    /// Where to serve `ChunkAdmin` by gRPC.
    pub grpc: Option<SocketAddr>,
    /// Where to serve Prometheus text by HTTP.
    pub metrics: Option<SocketAddr>,
    /// Set the data of a disk aside whose metadata is damaged, and make the disk anew for the others to fill. Default: no; for
    /// who has no other copies an error is better.
    pub renew_damaged: bool,
    /// Memory for data between sockets and disks. Default 64 MiB, minimum 4 MiB.
    pub buffer_bytes: usize,
    /// Who this server is, and whom it trusts. Default: whoever else is in this process.
    pub access: Access,
}

impl Config {
    /// A configuration with defaults for what most do not set.
    #[must_use]
    pub fn new(listen: Address, data: Vec<PathBuf>, location: Location, masters: impl Into<Masters>) -> Self {
        Self {
            listen,
            advertise: None,
            data,
            location,
            masters: masters.into(),
            capacity_bytes: None,
            grpc: None,
            metrics: None,
            renew_damaged: false,
            buffer_bytes: 64 << 20,
            access: Access::process(),
        }
    }

    /// # Errors
    /// See [`ConfigError`].
    pub fn validate(&self) -> Result<(), ConfigError> {
        if self.data.is_empty() {
            return Err(ConfigError::NoData);
        }
        if let Some(twice) = (1..self.data.len()).find(|at| self.data[..*at].contains(&self.data[*at])) {
            return Err(ConfigError::DataTwice { path: self.data[twice].clone() });
        }
        if self.masters.is_none() {
            return Err(ConfigError::NoMasters);
        }
        if let Some(capacity_bytes) = self.capacity_bytes
            && capacity_bytes < CAPACITY_MIN_BYTES
        {
            return Err(ConfigError::Capacity { capacity_bytes });
        }
        if self.buffer_bytes < BUFFER_MIN_BYTES {
            return Err(ConfigError::Buffers { buffer_bytes: self.buffer_bytes });
        }
        Ok(())
    }
}

/// Below this the margins kept free would leave nothing to write to.
const CAPACITY_MIN_BYTES: u64 = 64 << 20;
/// Four pieces of the largest size: one write on its way in, one to each of two members, one read.
const BUFFER_MIN_BYTES: usize = 4 << 20;

/// What is wrong with a configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("no data directory: name at least one with --data DIR")]
    NoData,
    #[error("{path} is named twice: each --data must be a directory of its own")]
    DataTwice { path: PathBuf },
    #[error("no masters are known: name the cluster's description with --cluster FILE")]
    NoMasters,
    #[error("a capacity of {capacity_bytes} bytes is too small: at least 64 MiB")]
    Capacity { capacity_bytes: u64 },
    #[error("{buffer_bytes} bytes of buffers are too few: at least 4 MiB")]
    Buffers { buffer_bytes: usize },
    #[error("{text:?} is no location: write /REGION/RACK/HOST, each of them not empty")]
    Location { text: String },
    #[error("{text:?} is no size: write a number of bytes, or one with K, M, G or T (powers of 1024)")]
    Size { text: String },
}

/// Where the machine stands: `/region/rack/host`. Members of a group are kept in different racks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location(String);

impl FromStr for Location {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        let parts = text.strip_prefix('/').map(|rest| rest.split('/').collect::<Vec<_>>());
        match parts {
            Some(parts) if parts.len() == 3 && parts.iter().all(|part| !part.trim().is_empty()) => {
                Ok(Self(text.to_owned()))
            }
            Some(_) | None => Err(ConfigError::Location { text: text.to_owned() }),
        }
    }
}

impl Location {
    /// `/REGION/RACK`.
    #[must_use]
    pub fn rack(&self) -> &str {
        self.0.rsplit_once('/').map_or("", |(rack, _)| rack)
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Reads a size: `100G`, `512M`, `1048576`.
///
/// # Errors
/// [`ConfigError::Size`].
pub fn parse_size(text: &str) -> Result<u64, ConfigError> {
    let wrong = || ConfigError::Size { text: text.to_owned() };
    let trimmed = text.trim().trim_end_matches("iB").trim_end_matches('B');
    let (digits, shift) = match trimmed.chars().last().map(|unit| unit.to_ascii_uppercase()) {
        Some('K') => (&trimmed[..trimmed.len() - 1], 10),
        Some('M') => (&trimmed[..trimmed.len() - 1], 20),
        Some('G') => (&trimmed[..trimmed.len() - 1], 30),
        Some('T') => (&trimmed[..trimmed.len() - 1], 40),
        _ => (trimmed, 0),
    };
    let number: u64 = digits.trim().parse().map_err(|_| wrong())?;
    number.checked_mul(1 << shift).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!(parse_size("100G").unwrap(), 100 << 30);
        assert_eq!(parse_size("512MiB").unwrap(), 512 << 20);
        assert_eq!(parse_size("4096").unwrap(), 4096);
        assert_eq!(parse_size("1k").unwrap(), 1024);
        for bad in ["", "G", "-1G", "1.5G", "1X", "99999999999T"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn locations() {
        assert!("/region/rack/host".parse::<Location>().is_ok());
        for bad in ["", "/", "rack/host", "/a/b", "/a//c", "/a/b/c/d"] {
            assert!(bad.parse::<Location>().is_err(), "{bad}");
        }
    }

    #[test]
    fn refuses_what_cannot_work() {
        let good = Config::new(
            "unix:///tmp/x".parse().unwrap(),
            vec!["/a".into()],
            "/a/b/c".parse().unwrap(),
            vec!["unix:///tmp/m".parse().unwrap()],
        );
        assert!(good.validate().is_ok());
        let refused = |change: &dyn Fn(&mut Config)| {
            let mut config = good.clone();
            change(&mut config);
            config.validate().unwrap_err().to_string()
        };
        assert!(refused(&|c| c.data.clear()).contains("--data"));
        assert!(refused(&|c| c.data.push("/a".into())).contains("twice"));
        assert!(refused(&|c| c.masters.listed.clear()).contains("--cluster"));
        assert!(refused(&|c| c.capacity_bytes = Some(1)).contains("64 MiB"));
        assert!(refused(&|c| c.buffer_bytes = 1).contains("4 MiB"));
    }
}
