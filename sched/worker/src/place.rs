//! Directories of an attempt: where it works, and where what it makes is put.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// The working directory of all attempts of a worker, one after another. Each finds it empty.
#[derive(Debug)]
pub struct WorkingDirectory {
    path: PathBuf,
    /// Of the directory when it was last empty. Most attempts put nothing there, and this shows it by one stat.
    changed: SystemTime,
}

impl WorkingDirectory {
    /// # Errors
    /// It cannot be made, or emptied.
    pub fn make(path: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(&path)?;
        let changed = empty(&path)?;
        Ok(Self { path, changed })
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Removes what an attempt left there.
    ///
    /// # Errors
    /// It cannot be emptied, or is not there any more.
    pub fn clean(&mut self) -> io::Result<()> {
        if fs::metadata(&self.path)?.modified()? != self.changed {
            self.changed = empty(&self.path)?;
        }
        Ok(())
    }
}

/// Empties a directory. When it was changed last.
fn empty(path: &Path) -> io::Result<SystemTime> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())?;
        } else {
            fs::remove_file(entry.path())?;
        }
    }
    fs::metadata(path)?.modified()
}

/// Makes the directory for what an attempt makes, empty.
///
/// # Errors
/// It cannot be made.
pub fn make_outputs(path: &Path) -> io::Result<()> {
    match fs::create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => fs::create_dir_all(path),
        // Of the same attempt, begun by a worker that died.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            fs::remove_dir_all(path)?;
            fs::create_dir(path)
        }
        made => made,
    }
}

/// Names in a directory.
///
/// # Errors
/// It cannot be read.
pub fn count_names(path: &Path) -> io::Result<u32> {
    let mut count = 0u32;
    for entry in fs::read_dir(path)? {
        entry?;
        count = count.saturating_add(1);
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_attempt_leaves_the_next_does_not_find() {
        let dir = tempfile::tempdir().unwrap();
        let mut place = WorkingDirectory::make(dir.path().join("work")).unwrap();
        fs::write(place.path().join("file"), "x").unwrap();
        fs::create_dir_all(place.path().join("a/b")).unwrap();
        place.clean().unwrap();
        assert_eq!(count_names(place.path()).unwrap(), 0);
    }

    #[test]
    fn outputs_of_a_dead_worker_are_not_taken_for_ours() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out/.tmp-map.0.0");
        make_outputs(&path).unwrap();
        fs::write(path.join("half"), "x").unwrap();
        make_outputs(&path).unwrap();
        assert_eq!(count_names(&path).unwrap(), 0);
    }
}
