//! A dropped file that is no job goes to `failed/`, with a file beside it that says why.

use std::fs;
use std::path::Path;

use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};

use super::{At as _, Dropped, JobName, Spool, SpoolError};

impl Spool {
    /// Moves a dropped file to `failed/`. What is wrong is written first: there is never a file without its reason, and a
    /// crash in between leaves the file in `new/`, to be refused again.
    ///
    /// # Errors
    /// See [`SpoolError`].
    pub(crate) fn reject(&self, dropped: &Dropped, why: &str) -> Result<(), SpoolError> {
        let failed = self.part(&dropped.queue, "failed");
        let from = self.part(&dropped.queue, "new").join(&dropped.name);
        // A file that was refused before under this name stays: this one gets the name it would have had as a job.
        let mut name = dropped.name.clone();
        if taken(&failed, &name) {
            name = JobName::of(&dropped.name, dropped.inode).to_string();
        }
        let explained = failed.join(format!("{name}.error"));
        fs::write(&explained, why).at("write", &explained)?;
        match renameat2(AT_FDCWD, &from, AT_FDCWD, &failed.join(&name), RenameFlags::RENAME_NOREPLACE) {
            Ok(()) => Ok(()),
            Err(errno) => {
                let error = Err(std::io::Error::from(errno)).at("refuse", &from);
                if matches!(&error, Err(error) if error.is_gone()) {
                    let _gone = fs::remove_file(&explained);
                }
                error
            }
        }
    }
}

fn taken(dir: &Path, name: &str) -> bool {
    fs::symlink_metadata(dir.join(name)).is_ok()
}
