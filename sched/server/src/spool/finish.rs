//! A job has ended.

use std::io;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};

use super::{At as _, JobName, QueueName, Spool, SpoolError};

/// How a job ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Done,
    Failed,
    Killed,
}

impl End {
    fn part(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed | Self::Killed => "failed",
        }
    }

    /// As `status` says it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Killed => "killed",
        }
    }
}

impl Spool {
    /// Moves a job's directory to `done/` or `failed/`; says where it is then. Done before, or removed by its owner, is as good.
    ///
    /// # Errors
    /// See [`SpoolError`].
    pub(crate) fn finish(&self, queue: &QueueName, job: &JobName, end: End) -> Result<PathBuf, SpoolError> {
        let from = self.job_dir(queue, job);
        let to = self.part(queue, end.part()).join(job.as_str());
        match move_to(&from, &to) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(to),
            Err(error) => Err(error).at("move to its end", &from),
            Ok(()) => Ok(to),
        }
    }
}

fn move_to(from: &Path, to: &Path) -> io::Result<()> {
    match renameat2(AT_FDCWD, from, AT_FDCWD, to, RenameFlags::RENAME_NOREPLACE) {
        Ok(()) => Ok(()),
        Err(Errno::EEXIST) => Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            "there is something of that name already: move it away",
        )),
        Err(errno) => Err(errno.into()),
    }
}
