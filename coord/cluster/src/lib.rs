//! `cluster.toml`: the description of a cluster that every process and client reads.
//!
//! Found by the flag, `$FEITIAN_CLUSTER`, `~/.config/feitian/cluster.toml`, `/etc/feitian/cluster.toml`, in that order. Commands for
//! people look further (`known`): at this user's embedded platform, and at what is mounted.
//!
//! ```toml
//! name = "dev"
//! tls = true               # may be left out: false
//! masters = ["tcp://127.0.0.1:7101", "tcp://127.0.0.1:7102", "tcp://127.0.0.1:7103"]
//! nuwa = ["tcp://127.0.0.1:7201", "tcp://127.0.0.1:7202", "tcp://127.0.0.1:7203"]
//!
//! [survival]               # may be left out, and so may each line
//! heartbeat_ms = 500
//! lease_ms = 3000
//! replace_after_s = 600
//! resync_mib_per_s = 100
//! scrub_period_s = 1209600
//! slow_ms = 50
//! slow_ratio = 5
//! slow_after_s = 10
//! slow_return_s = 60
//! slow_servers_max = 1
//! slow_percent_max = 34
//! errors_max = 100
//!
//! [raft]                   # the same
//! snapshot_after_entries = 50000
//! keep_entries = 20000
//! segment_mib = 32
//! ```
//!
//! With `tls`, whatever goes over TCP is encrypted; it must be the same in the descriptions of all machines (`coord/kuafu/docs/tls.md`).
//!
//! The ids of masters, and of Nuwa's members, are their places in the list, counted from 1. One of the two lists may be left out: without `nuwa` nobody
//! registers, without `masters` clients and chunkservers look them up in Nuwa. What is in `survival` is explained in
//! `master/docs/groups.md`, what is in `raft` in `master/docs/log.md`; the masters read both, chunkservers are told by them.

mod known;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use kuafu::Address;
use serde::Deserialize;
use toml::Spanned;

pub use known::default_data_dir;

/// A cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterConfig {
    pub name: String,
    /// Connections over TCP are TLS.
    pub tls: bool,
    /// Pangu's masters, all different. Those that are registered in Nuwa are found without.
    pub masters: Vec<Address>,
    /// Nuwa's members, all different. At least one of the two lists has something in it.
    pub nuwa: Vec<Address>,
    pub survival: Survival,
    pub raft: RaftSettings,
}

/// How failures are met. Absent: the default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Survival {
    /// Between two heartbeats of a chunkserver, in milliseconds. Default 500, minimum 50.
    pub heartbeat_ms: Option<u32>,
    /// How long a chunkserver that is not heard may serve, in milliseconds. Default 3000, at least three heartbeats.
    pub lease_ms: Option<u32>,
    /// A member that was away for so many seconds is replaced on another disk. Default 600, minimum 1.
    pub replace_after_s: Option<u32>,
    /// What one chunkserver may send to fill others, in MiB a second. Default 200, minimum 1.
    pub resync_mib_per_s: Option<u32>,
    /// Every block is read and verified once in so many seconds. Default 1209600, which is 14 days; minimum 1.
    pub scrub_period_s: Option<u32>,
    /// A durable write that takes less than so many milliseconds is not slow. Default 50, minimum 1.
    pub slow_ms: Option<u32>,
    /// Nor is one that takes less than so many times what it takes the other disks. Default 5, minimum 2.
    pub slow_ratio: Option<u32>,
    /// A disk that was slow for so many seconds is taken out of use. Default 10, minimum 1.
    pub slow_after_s: Option<u32>,
    /// One that was fast for so many seconds is used again. Default 60, minimum 1.
    pub slow_return_s: Option<u32>,
    /// Servers of which disks may be out of use for slowness at one time. Default 1; 0: none is ever taken out.
    pub slow_servers_max: Option<u32>,
    /// Percent of all capacity that may be out of use for slowness at one time. Default 34, maximum 50.
    pub slow_percent_max: Option<u32>,
    /// A disk on which more blocks than this were found damaged within a day is emptied, if there is a place for what it has. Default 100.
    pub errors_max: Option<u32>,
}

/// How much of their log the masters keep. Absent: the default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RaftSettings {
    /// A snapshot is made after so many entries. Default 50000, minimum 100.
    pub snapshot_after_entries: Option<u64>,
    /// Entries kept behind a snapshot, for masters that were away. Default 20000.
    pub keep_entries: Option<u64>,
    /// Size of a file of the log, in MiB. Default 32, from 16 to 1024.
    pub segment_mib: Option<u32>,
}

/// What is wrong with a description.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("read the cluster description {path}")]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("no cluster description found: give --cluster FILE, or write one of {paths}")]
    None { paths: String },
    #[error("{path}:{line}: {reason}\n  {line} | {text}")]
    Line { path: PathBuf, line: usize, text: String, reason: String },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    name: Spanned<String>,
    #[serde(default)]
    tls: bool,
    masters: Option<Spanned<Vec<Spanned<String>>>>,
    nuwa: Option<Spanned<Vec<Spanned<String>>>>,
    #[serde(default)]
    survival: Survival,
    #[serde(default)]
    raft: RaftSettings,
}

/// Names the description for processes that are not told by a flag.
pub const ENVIRONMENT: &str = "FEITIAN_CLUSTER";

impl ClusterConfig {
    /// The description to use; `None` if there is none anywhere.
    ///
    /// # Errors
    /// A description that was named but cannot be read, or one that is wrong.
    pub fn find(flag: Option<&Path>) -> Result<Option<(PathBuf, Self)>, ConfigError> {
        let named = flag
            .map(Path::to_path_buf)
            .or_else(|| std::env::var_os(ENVIRONMENT).filter(|value| !value.is_empty()).map(PathBuf::from));
        if let Some(path) = named {
            return Self::load(&path).map(|config| Some((path, config)));
        }
        Self::first_of(Self::default_paths())
    }

    /// The first of these that is there.
    fn first_of(paths: impl IntoIterator<Item = PathBuf>) -> Result<Option<(PathBuf, Self)>, ConfigError> {
        for path in paths {
            match Self::load(&path) {
                Ok(config) => return Ok(Some((path, config))),
                Err(ConfigError::Read { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// The description to use.
    ///
    /// # Errors
    /// As [`ClusterConfig::find`]; [`ConfigError::None`] if there is none.
    pub fn require(flag: Option<&Path>) -> Result<(PathBuf, Self), ConfigError> {
        Self::find(flag)?.ok_or_else(|| {
            let paths = Self::default_paths();
            let paths: Vec<_> = paths.iter().map(|path| path.display().to_string()).collect();
            ConfigError::None { paths: paths.join(", ") }
        })
    }

    /// Where descriptions are looked for that nobody named.
    fn default_paths() -> Vec<PathBuf> {
        let home = std::env::var_os("HOME").map(|home| Path::new(&home).join(".config/feitian/cluster.toml"));
        home.into_iter().chain([PathBuf::from("/etc/feitian/cluster.toml")]).collect()
    }

    /// # Errors
    /// See [`ConfigError`].
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.to_path_buf(), source })?;
        Self::parse(path, &text)
    }

    /// `path` is for messages only.
    ///
    /// # Errors
    /// [`ConfigError::Line`], quoting the line.
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let wrong = |at: usize, reason: String| {
            let at = at.min(text.len());
            let line = text.as_bytes()[..at].iter().filter(|byte| **byte == b'\n').count();
            ConfigError::Line {
                path: path.to_path_buf(),
                line: line + 1,
                text: text.lines().nth(line).unwrap_or_default().trim_end().to_owned(),
                reason,
            }
        };
        let file: File = toml::from_str(text)
            .map_err(|error| wrong(error.span().map_or(0, |span| span.start), error.message().to_owned()))?;
        if file.name.get_ref().is_empty() {
            return Err(wrong(file.name.span().start, "the cluster's name is empty".to_owned()));
        }
        let addresses = |list: Option<Spanned<Vec<Spanned<String>>>>, what: &str| {
            let Some(list) = list else { return Ok(Vec::new()) };
            if list.get_ref().is_empty() {
                return Err(wrong(list.span().start, format!("no {what} is listed")));
            }
            let mut addresses: Vec<Address> = Vec::new();
            for text in list.get_ref() {
                let wrong = |reason| wrong(text.span().start, reason);
                let address: Address = text.get_ref().parse().map_err(|error| {
                    wrong(format!("{:?} is no address of a {what}: {error}", text.get_ref()))
                })?;
                if addresses.contains(&address) {
                    return Err(wrong(format!("the {what} {address} is listed twice")));
                }
                addresses.push(address);
            }
            Ok(addresses)
        };
        if file.masters.is_none() && file.nuwa.is_none() {
            return Err(wrong(0, "neither masters nor nuwa are listed".to_owned()));
        }
        let masters = addresses(file.masters, "master")?;
        let nuwa = addresses(file.nuwa, "Nuwa member")?;
        Ok(Self {
            name: file.name.into_inner(),
            tls: file.tls,
            masters,
            nuwa,
            survival: file.survival,
            raft: file.raft,
        })
    }
}

/// Members by id: their places in a list, counted from 1.
#[must_use]
pub fn by_id(listed: &[Address]) -> BTreeMap<u64, Address> {
    (1..).zip(listed.iter().cloned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<ClusterConfig, String> {
        ClusterConfig::parse(Path::new("c.toml"), text).map_err(|error| error.to_string())
    }

    #[test]
    fn numbers_masters_by_their_place() {
        let config = parse("name = \"x\"\nmasters = [\"unix:///a\", \"tcp://127.0.0.1:7\"]\n").unwrap();
        let members: Vec<_> =
            by_id(&config.masters).into_iter().map(|(id, address)| (id, address.to_string())).collect();
        assert_eq!(members, [(1, "unix:///a".to_owned()), (2, "tcp://127.0.0.1:7".to_owned())]);
    }

    #[test]
    fn tls_is_one_line_and_off_without() {
        let text = "name = \"x\"\nmasters = [\"tcp://a:1\"]\n";
        assert!(!parse(text).unwrap().tls);
        assert!(parse(&format!("tls = true\n{text}")).unwrap().tls);
        let error = parse(&format!("tls = \"yes\"\n{text}")).unwrap_err();
        assert!(error.starts_with("c.toml:1:") && error.contains("boolean"), "{error}");
    }

    #[test]
    fn the_log_is_tuned_line_by_line() {
        let text = "name = \"x\"\nmasters = [\"unix:///a\"]\n[raft]\nkeep_entries = 9\n";
        let raft = parse(text).unwrap().raft;
        assert_eq!(raft, RaftSettings { keep_entries: Some(9), ..RaftSettings::default() });
        let error = parse(&text.replace("keep_entries", "keep")).unwrap_err();
        assert!(error.starts_with("c.toml:4:"), "{error}");
    }

    #[test]
    fn survival_is_tuned_line_by_line() {
        let text = "name = \"x\"\nmasters = [\"unix:///a\"]\n[survival]\nlease_ms = 900\n";
        let survival = parse(text).unwrap().survival;
        assert_eq!(survival, Survival { lease_ms: Some(900), ..Survival::default() });
        let error = parse(&text.replace("lease_ms", "leese")).unwrap_err();
        assert!(error.starts_with("c.toml:4:"), "{error}");
    }

    #[test]
    fn quotes_the_line_that_is_wrong() {
        let error = parse("name = \"x\"\nmasters = [\n  \"unix:///a\",\n  \"http://b\",\n]\n").unwrap_err();
        assert!(error.starts_with("c.toml:4: \"http://b\" is no address"), "{error}");
        assert!(error.ends_with("4 |   \"http://b\","), "{error}");
        let error = parse("name = \"x\"\nmaster = [\"unix:///a\"]\n").unwrap_err();
        assert!(error.starts_with("c.toml:2:") && error.contains("unknown field"), "{error}");
        let error = parse("name = \"x\"\nmasters = []\n").unwrap_err();
        assert!(error.contains("no master is listed") && error.ends_with("2 | masters = []"), "{error}");
        let error = parse("name = \"x\"\nmasters = [\"unix:///a\", \"unix:///a\"]").unwrap_err();
        assert!(error.contains("listed twice"), "{error}");
        let error = parse("masters = [\"unix:///a\"]\nname = \"\"\n").unwrap_err();
        assert!(error.starts_with("c.toml:2: the cluster's name is empty"), "{error}");
        assert!(parse("name = oops\nmasters = []").unwrap_err().starts_with("c.toml:1:"));
        assert!(parse("").unwrap_err().contains("missing field"));
        assert!(parse("name = \"x\"").unwrap_err().contains("neither masters nor nuwa"));
        let error = parse("name = \"x\"\nnuwa = [\"b\"]").unwrap_err();
        assert!(error.starts_with("c.toml:2: \"b\" is no address of a Nuwa member"), "{error}");
    }

    #[test]
    fn a_named_file_must_exist() {
        let error = ClusterConfig::find(Some(Path::new("/nonexistent/cluster.toml"))).unwrap_err();
        assert!(error.to_string().contains("/nonexistent/cluster.toml"));
    }
}
