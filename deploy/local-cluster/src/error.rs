//! What can go wrong while a cluster is started, hurt or taken down.

use std::error::Error as _;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::logs::Offence;

/// An error of the runner itself; the processes' own errors are in their logs, whose ends are quoted.
#[derive(thiserror::Error)]
pub enum Error {
    /// The cluster's keys cannot be made or read.
    #[error(transparent)]
    Keys(#[from] zhongkui_access::DirectoryError),
    /// A program of the platform is not where it was looked for.
    #[error(
        "there is no {program} in {folder}: build it (cargo build --release --workspace --bins) or set FEITIAN_BIN_DIR"
    )]
    NoProgram {
        /// Its name.
        program: &'static str,
        /// Where it was looked for.
        folder: PathBuf,
    },
    /// A file or directory of the cluster could not be made, read or removed.
    #[error("{action} {path}")]
    File {
        /// The verb.
        action: &'static str,
        /// The object.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A process could not be started, signalled or waited for.
    #[error("{action} {name}")]
    Process {
        /// The verb.
        action: &'static str,
        /// The process.
        name: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A process ended although nobody asked it to.
    #[error("{name} ended by itself ({status}); the end of its log:\n{tail}")]
    Ended {
        /// The process.
        name: String,
        /// Its exit status in words.
        status: String,
        /// The end of its log.
        tail: String,
    },
    /// A condition was not reached in time.
    #[error("{what} not within {within:?}{}", if .tails.is_empty() { String::new() } else { format!("; the ends of the logs:\n{}", .tails) })]
    Late {
        /// The condition.
        what: String,
        /// How long was waited.
        within: Duration,
        /// The ends of the logs that may tell why.
        tails: String,
    },
    /// No port was free.
    #[error("no free port on 127.0.0.1 between {from} and {upto}")]
    NoPort {
        /// First port tried.
        from: u16,
        /// Last port tried, inclusive.
        upto: u16,
    },
    /// The logs have warnings or errors that nobody announced.
    #[error("{} unannounced lines in the logs:\n{}", .0.len(), .0.iter().take(20).map(|o| format!("  {o}\n")).collect::<String>())]
    Logged(Vec<Offence>),
    /// There is no such member in this cluster.
    #[error("this cluster has no {0}")]
    NoMember(String),
}

/// In words, with the reasons: `unwrap` in a test prints this.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")?;
        let mut source = self.source();
        while let Some(error) = source {
            write!(f, ": {error}")?;
            source = error.source();
        }
        Ok(())
    }
}
