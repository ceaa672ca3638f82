//! A dropped file becomes a job.

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use sched_spec::JobSpec;

use super::{At as _, Dropped, JobName, Owner, QueueName, Spool, SpoolError, make_dir};

/// A job that runs, or waits to.
#[derive(Clone, Debug)]
pub struct Accepted {
    pub queue: QueueName,
    pub name: JobName,
    pub owner: Owner,
    pub spec: JobSpec,
}

/// What a dropped file says.
#[derive(Debug)]
pub(crate) enum Judged {
    Job(Box<JobSpec>, Owner),
    /// Why it is no job, for people: line and column where there are some.
    Bad(String),
}

impl Spool {
    /// Reads a dropped file, and says whether it is a job.
    ///
    /// # Errors
    /// It can not be read; see [`SpoolError::is_gone`].
    pub(crate) fn judge(&self, dropped: &Dropped) -> Result<Judged, SpoolError> {
        let path = self.part(&dropped.queue, "new").join(&dropped.name);
        if !dropped.is_file {
            return Ok(Judged::Bad(format!(
                "{}: this is no regular file; a job is dropped as a file (TOML)",
                dropped.name
            )));
        }
        let (bytes, owner) = read_spec(&path)?;
        Ok(match sched_spec::parse_bytes(&bytes) {
            Ok(spec) => Judged::Job(Box::new(spec), owner),
            Err(errors) => Judged::Bad(errors.report(&dropped.name)),
        })
    }

    /// Makes a dropped file a job. The rename is the acceptance: a crash before it leaves the file in `new/` and at most an
    /// empty directory, which the next look takes again; a crash after it leaves a job that [`running`](Self::running) finds.
    ///
    /// # Errors
    /// See [`SpoolError`]; if the file has [gone](SpoolError::is_gone), it was taken back, and the directory is removed again.
    pub(crate) fn accept(
        &self,
        dropped: &Dropped,
        spec: JobSpec,
        owner: Owner,
    ) -> Result<Accepted, SpoolError> {
        let name = JobName::of(&dropped.name, dropped.inode);
        let dir = self.job_dir(&dropped.queue, &name);
        make_dir(&dir, 0o755)?;
        // Whoever dropped it may write to ctl, read and remove everything. Before the rename: what fails after it would leave a job that
        // nobody looks for.
        std::os::unix::fs::chown(&dir, Some(owner.uid), Some(owner.gid)).at("give to its owner", &dir)?;
        let from = self.part(&dropped.queue, "new").join(&dropped.name);
        if let Err(error) = fs::rename(&from, dir.join("spec")).at("accept", &from) {
            if error.is_gone() {
                // Not if it is in use: another look may have accepted the file a moment ago.
                let _not_empty = fs::remove_dir(&dir);
            }
            return Err(error);
        }
        Ok(Accepted { queue: dropped.queue.clone(), name, owner, spec })
    }

    /// Reads a job that was accepted before.
    ///
    /// # Errors
    /// It can not be read, or somebody wrote into it meanwhile what is no job.
    pub(crate) fn reread(&self, queue: &QueueName, name: &JobName) -> Result<Accepted, SpoolError> {
        let path = self.job_dir(queue, name).join("spec");
        let (bytes, owner) = read_spec(&path)?;
        match sched_spec::parse_bytes(&bytes) {
            Ok(spec) => Ok(Accepted { queue: queue.clone(), name: name.clone(), owner, spec }),
            Err(errors) => Err(SpoolError::Spec { path, errors: errors.report("spec") }),
        }
    }
}

/// What a job file has, as far as one may be long and a byte more, and who owns it.
fn read_spec(path: &Path) -> Result<(Vec<u8>, Owner), SpoolError> {
    // Not through a symbolic link: what it points to may not be readable by whoever made it.
    let file = fs::OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)
        .at("open", path)?;
    let meta = file.metadata().at("look at", path)?;
    let owner = Owner { uid: meta.uid(), gid: meta.gid() };
    let mut bytes = Vec::new();
    file.take(sched_spec::FILE_MAX_BYTES as u64 + 1).read_to_end(&mut bytes).at("read", path)?;
    Ok((bytes, owner))
}
