//! The spool: directories of the mount in which jobs are dropped, run and end (`sched/docs/design.md`, "The spool").
//!
//! Everything here is plain file operations under one root and blocks; who calls it has threads for that. What keeps
//! the promise that a dropped file is accepted exactly once:
//!
//! - a job's id depends on nothing but the file ([`JobName::of`]), so any master that looks makes the same one;
//! - one `rename` takes the file out of `new/` ([`accept`](Spool::accept)), and one moves the job's directory out of
//!   `run/` ([`finish`](Spool::finish)). Before it nothing has happened, after it everything has.

mod accept;
mod finish;
mod name;
mod reject;
mod texts;

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

pub use accept::Accepted;
pub(crate) use accept::Judged;
pub use finish::End;
pub use name::{JobName, NameError, QueueName};
pub use texts::{Texts, append_events};

/// The directories of a queue.
const PARTS: [&str; 5] = ["tmp", "new", "run", "done", "failed"];

/// Why something in the spool could not be done.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    #[error("{doing} {}", path.display())]
    Io {
        doing: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the job in {} does not parse any more:\n{errors}", path.display())]
    Spec { path: PathBuf, errors: String },
}

impl SpoolError {
    /// The file or directory is not there (any more): somebody else was faster, or it was removed.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

/// Adds what was done on what.
pub(crate) trait At<T> {
    fn at(self, doing: &'static str, path: &Path) -> Result<T, SpoolError>;
}

impl<T> At<T> for io::Result<T> {
    fn at(self, doing: &'static str, path: &Path) -> Result<T, SpoolError> {
        self.map_err(|source| SpoolError::Io { doing, path: path.to_owned(), source })
    }
}

/// A file in `new/` as it was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dropped {
    pub queue: QueueName,
    /// Its name there.
    pub name: String,
    pub inode: u64,
    pub len: u64,
    pub modified: SystemTime,
    pub is_file: bool,
}

/// The user a job runs as: whoever owns its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    pub uid: u32,
    pub gid: u32,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Spool {
    root: PathBuf,
}

impl Spool {
    /// The spool at `root`, which is made with the queue `default` if it is not there.
    ///
    /// # Errors
    /// It can not be made or read.
    pub fn open(root: &Path) -> Result<Self, SpoolError> {
        make_dir(root, 0o755)?;
        let spool = Self { root: root.to_owned() };
        if spool.queues()?.is_empty() {
            make_dir(&root.join("default"), 0o755)?;
        }
        for queue in spool.queues()? {
            spool.prepare(&queue)?;
        }
        Ok(spool)
    }

    /// All queues: the directories of the spool with a name that a queue may have.
    ///
    /// # Errors
    /// The spool can not be read.
    pub fn queues(&self) -> Result<Vec<QueueName>, SpoolError> {
        let mut queues: Vec<_> =
            list(&self.root)?.into_iter().filter_map(|name| name.parse::<QueueName>().ok()).collect();
        queues.retain(|queue| self.root.join(queue.as_str()).is_dir());
        queues.sort();
        Ok(queues)
    }

    /// Makes the directories of a queue that are missing. Everybody may drop a job, and take back only what is theirs.
    ///
    /// # Errors
    /// A directory can not be made.
    pub fn prepare(&self, queue: &QueueName) -> Result<(), SpoolError> {
        for part in PARTS {
            let mode = if matches!(part, "tmp" | "new") { 0o1777 } else { 0o755 };
            make_dir(&self.part(queue, part), mode)?;
        }
        Ok(())
    }

    /// What lies in `new/`. Names that begin with a dot are somebody's temporary files and are left alone.
    ///
    /// # Errors
    /// The directory can not be read.
    pub fn dropped(&self, queue: &QueueName) -> Result<Vec<Dropped>, SpoolError> {
        let dir = self.part(queue, "new");
        let mut found = Vec::new();
        for name in list(&dir)? {
            let path = dir.join(&name);
            let meta = match fs::symlink_metadata(&path) {
                Ok(meta) => meta,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error).at("look at", &path),
            };
            found.push(Dropped {
                queue: queue.clone(),
                name,
                inode: meta.ino(),
                len: meta.len(),
                modified: meta.modified().at("look at", &path)?,
                is_file: meta.is_file(),
            });
        }
        Ok(found)
    }

    /// The jobs in `run/`, those without a `spec` (an acceptance that was broken off) left out.
    ///
    /// # Errors
    /// The directory can not be read.
    pub fn running(&self, queue: &QueueName) -> Result<Vec<JobName>, SpoolError> {
        let dir = self.part(queue, "run");
        let mut jobs: Vec<_> =
            list(&dir)?.into_iter().filter_map(|name| name.parse::<JobName>().ok()).collect();
        jobs.retain(|job| dir.join(job.as_str()).join("spec").is_file());
        jobs.sort();
        Ok(jobs)
    }

    /// `run/ID` of a job.
    #[must_use]
    pub fn job_dir(&self, queue: &QueueName, job: &JobName) -> PathBuf {
        self.part(queue, "run").join(job.as_str())
    }

    /// One of a queue's directories.
    #[must_use]
    pub fn part(&self, queue: &QueueName, part: &str) -> PathBuf {
        self.root.join(queue.as_str()).join(part)
    }

    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }
}

/// The names in a directory, without those that begin with a dot and those that are no text.
fn list(dir: &Path) -> Result<Vec<String>, SpoolError> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).at("read the directory", dir)? {
        let entry = entry.at("read the directory", dir)?;
        if let Ok(name) = entry.file_name().into_string()
            && !name.starts_with('.')
        {
            names.push(name);
        }
    }
    Ok(names)
}

/// Makes a directory with just this mode, whatever the umask; one that is there stays as it is.
fn make_dir(path: &Path, mode: u32) -> Result<(), SpoolError> {
    match fs::DirBuilder::new().mode(mode).create(path) {
        Ok(()) => {
            let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
            fs::set_permissions(path, mode).at("set the mode of", path)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error).at("make the directory", path),
    }
}

#[cfg(test)]
mod tests;
