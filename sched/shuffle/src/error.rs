//! What can go wrong, each with its step and its subject, so that a job master knows what to run again.

use std::io;
use std::path::{Path, PathBuf};

use crate::output::InstanceId;

/// The result of every function of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// What was being done to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Opening it for reading.
    Open,
    /// Reading it.
    Read,
    /// Creating it under a name that must be free.
    Create,
    /// Writing it.
    Write,
    /// Making it durable.
    Sync,
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Open => "open",
            Self::Read => "read",
            Self::Create => "create",
            Self::Write => "write",
            Self::Sync => "sync",
        })
    }
}

/// Why the output of a map instance cannot be used. Each one means: run that instance again.
#[derive(Debug, thiserror::Error)]
pub enum MapFault {
    /// There is no such file.
    #[error("it is missing")]
    Missing,
    /// It ends before its index says so.
    #[error("it is cut short")]
    Truncated,
    /// It has no magic number where one belongs.
    #[error("it is not a map output (bad magic number)")]
    NotAMapOutput,
    /// It was written by another version of this program.
    #[error("its format version {0} is not known here")]
    Version(u32),
    /// The index fails its checksum or contradicts itself.
    #[error("its index is damaged")]
    IndexDamaged,
    /// A segment fails its checksum, or does not hold the records that the index says.
    #[error("the data at {offset} (+{len} bytes) is damaged")]
    DataDamaged {
        /// Where the segment begins in the file, in bytes.
        offset: u64,
        /// How long it is, in bytes.
        len: u64,
    },
    /// It has other partitions than the job.
    #[error("it has {found} partitions and partition {wanted} was asked for")]
    NoSuchPartition {
        /// How many it has.
        found: u32,
        /// Which one was asked for.
        wanted: u32,
    },
    /// Reading it failed.
    #[error("it cannot be read")]
    Unreadable(#[source] io::Error),
}

/// Any failure of an instance.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A system call on a file failed.
    #[error("cannot {step} {path}")]
    File {
        /// What was being done.
        step: Step,
        /// To which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// No room is left, or a quota is used up.
    #[error("no space left for {path}: free some or raise the quota, then run it again")]
    DiskFull {
        /// The file that was being written.
        path: PathBuf,
    },
    /// An output was to be created where something is already.
    #[error("{path} exists already: outputs are never overwritten, give another name or remove it")]
    OutputExists {
        /// The name that is taken.
        path: PathBuf,
    },
    /// An input has become shorter since it was split.
    #[error("{path} ends before byte {end_exclusive} of its split: it was cut since the job began")]
    InputShort {
        /// The input.
        path: PathBuf,
        /// The end of the split.
        end_exclusive: u64,
    },
    /// Data of records of a fixed length end within a record.
    #[error("{what} ends within a record: its {len} bytes are no multiple of {record_len}")]
    PartialRecord {
        /// A path or a program.
        what: String,
        /// How long the data are, in bytes (of a stream: what is left over).
        len: u64,
        /// How long a record is, in bytes.
        record_len: u32,
    },
    /// One record does not fit in memory.
    #[error(
        "a record is longer than the memory limit of {limit_bytes} bytes: raise the limit or check the record format"
    )]
    RecordTooLong {
        /// The limit, in bytes.
        limit_bytes: u64,
    },
    /// Settings that cannot work.
    #[error("bad settings: {0}")]
    Settings(&'static str),
    /// The file of boundaries cannot be used.
    #[error("{path} is no undamaged file of partition boundaries: sample again")]
    Boundaries {
        /// The file.
        path: PathBuf,
    },
    /// The output of one map instance cannot be used: run exactly that one again.
    #[error("the output {path} of map instance {instance} cannot be used: {fault}")]
    MapOutput {
        /// Which instance.
        instance: InstanceId,
        /// Its output.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        fault: MapFault,
    },
    /// A temporary file of a merge is not as it was written.
    #[error("the temporary file {path} is damaged: run the instance again")]
    Scratch {
        /// The file.
        path: PathBuf,
    },
    /// There is no such executable.
    #[error("no such program: {program}")]
    NoSuchProgram {
        /// As it was given.
        program: PathBuf,
    },
    /// The program could not be started.
    #[error("cannot start {program}")]
    Start {
        /// As it was given.
        program: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A pipe to or from a program failed.
    #[error("the pipe to {program} failed")]
    Pipe {
        /// As it was given.
        program: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The program ended with another code than 0.
    #[error("{program} ended with code {code}; its last words: {stderr_tail}")]
    Exit {
        /// As it was given.
        program: PathBuf,
        /// Its exit code.
        code: i32,
        /// The last 2 KiB of its stderr, as far as they are UTF-8.
        stderr_tail: String,
    },
    /// A signal ended the program.
    #[error("{program} was ended by signal {signal}; its last words: {stderr_tail}")]
    Signal {
        /// As it was given.
        program: PathBuf,
        /// The number of the signal.
        signal: i32,
        /// The last 2 KiB of its stderr, as far as they are UTF-8.
        stderr_tail: String,
    },
    /// A combiner wrote more than fits in memory.
    #[error(
        "{program}, a combiner, wrote more than {limit_bytes} bytes for one run: it must shrink its input"
    )]
    CombinerGrows {
        /// As it was given.
        program: PathBuf,
        /// The limit, in bytes.
        limit_bytes: u64,
    },
    /// The caller asked to stop.
    #[error("cancelled")]
    Cancelled,
}

impl Error {
    /// Wraps what a system call said of a file; a full disk has its own variant.
    pub(crate) fn file(step: Step, path: &Path, source: io::Error) -> Self {
        let path = path.to_path_buf();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull { path },
            io::ErrorKind::AlreadyExists if step == Step::Create => Self::OutputExists { path },
            _ => Self::File { step, path, source },
        }
    }

    /// Whether the same instance may succeed when it runs again with the same inputs, without a person's help.
    ///
    /// Programs that fail are retryable: they may depend on the machine. A bad map output is not: another instance
    /// must run first.
    #[must_use]
    pub fn retryable(&self) -> bool {
        match self {
            Self::File { .. }
            | Self::DiskFull { .. }
            | Self::Scratch { .. }
            | Self::Start { .. }
            | Self::Pipe { .. }
            | Self::Exit { .. }
            | Self::Signal { .. }
            | Self::Cancelled => true,
            Self::OutputExists { .. }
            | Self::InputShort { .. }
            | Self::PartialRecord { .. }
            | Self::RecordTooLong { .. }
            | Self::Settings(_)
            | Self::Boundaries { .. }
            | Self::MapOutput { .. }
            | Self::NoSuchProgram { .. }
            | Self::CombinerGrows { .. } => false,
        }
    }

    /// The map instance that has to run again before this one can succeed.
    #[must_use]
    pub fn instance_to_rerun(&self) -> Option<InstanceId> {
        match self {
            Self::MapOutput { instance, .. } => Some(*instance),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_and_a_used_up_quota_have_their_own_variant() {
        for errno in [libc::ENOSPC, libc::EDQUOT] {
            let error = Error::file(Step::Write, Path::new("x"), io::Error::from_raw_os_error(errno));
            assert!(matches!(error, Error::DiskFull { .. }), "{error}");
        }
    }
}
