//! Where log lines go and how they look.

use std::path::{Path, PathBuf};
use std::sync::Mutex;

use tracing_subscriber::EnvFilter;

/// How a log line is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    #[default]
    Text,
    Json,
}

/// The flags of every program that logs.
#[derive(Clone, Debug, clap::Args)]
pub struct LogFlags {
    /// Which log lines: a level (error, warn, info, debug, trace) or a list like `info,kuafu=debug`. openraft calls
    /// every attempt to reach a member that is away an error and every lost vote a warning (the raft kit says such
    /// things once), and fuser warns of every unmount by somebody else and calls it an error that an interrupted caller is gone: not
    /// shown unless asked for
    #[arg(
        long,
        value_name = "FILTER",
        env = "FEITIAN_LOG",
        default_value = "info,openraft=error,openraft::replication=off,openraft::core::raft_core=off,fuser=error,fuser::reply=off"
    )]
    pub log: String,
    /// How log lines look
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub log_format: LogFormat,
    /// Append log lines to this file instead of writing them to standard error
    #[arg(long, value_name = "FILE")]
    pub log_file: Option<PathBuf>,
}

/// Why logging cannot start.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("--log {filter:?} is no filter: {reason}; try `info` or `info,kuafu=debug`")]
    Filter { filter: String, reason: String },
    #[error("open the log file {}", path.display())]
    File {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
}

impl LogFlags {
    /// Sets the process's logging up. Only the first call in a process has an effect.
    ///
    /// # Errors
    /// See [`LogError`].
    pub fn start(&self) -> Result<(), LogError> {
        let filter = EnvFilter::builder()
            .parse(&self.log)
            .map_err(|error| LogError::Filter { filter: self.log.clone(), reason: error.to_string() })?;
        match &self.log_file {
            Some(path) => start(self.log_format, filter, Mutex::new(open(path)?), false),
            None => {
                let colour = std::io::IsTerminal::is_terminal(&std::io::stderr());
                start(self.log_format, filter, std::io::stderr, colour);
            }
        }
        Ok(())
    }
}

fn open(path: &Path) -> Result<std::fs::File, LogError> {
    std::fs::OpenOptions::new()
        .append(true)
        .create(true)
        .open(path)
        .map_err(|source| LogError::File { path: path.to_path_buf(), source })
}

fn start<W>(format: LogFormat, filter: EnvFilter, writer: W, colour: bool)
where
    W: for<'a> tracing_subscriber::fmt::MakeWriter<'a> + Send + Sync + 'static,
{
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer).with_ansi(colour);
    // A second set-up (several servers in one process) is no error: the first one stands.
    let _already_set = match format {
        LogFormat::Text => lines.try_init(),
        LogFormat::Json => lines.json().try_init(),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(log: &str, file: Option<&str>) -> LogFlags {
        LogFlags { log: log.to_owned(), log_format: LogFormat::Text, log_file: file.map(PathBuf::from) }
    }

    #[test]
    fn says_what_is_wrong_with_a_filter_and_a_file() {
        let error = flags("kuafu=loud", None).start().unwrap_err().to_string();
        assert!(error.contains("kuafu=loud") && error.contains("try `info`"), "{error}");
        let error = flags("info", Some("/nonexistent/x.log")).start().unwrap_err().to_string();
        assert!(error.contains("/nonexistent/x.log"), "{error}");
    }
}
