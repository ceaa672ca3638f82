//! The agent's data directory: `docs/state.md`.
//!
//! Files appear by write-new, fsync, rename, fsync of the folder: a crash leaves the old one or the new one.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use crate::order::Grant;
use crate::record::{Record, RecordError};

/// What is wrong with a data directory.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("{verb} {}", .path.display())]
    Io {
        verb: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("another agent uses {}: give this one a directory of its own, or stop that one", .0.display())]
    InUse(PathBuf),
    #[error("{}: {source}", .path.display())]
    Record {
        path: PathBuf,
        #[source]
        source: RecordError,
    },
}

fn failed(verb: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.to_path_buf();
    move |source| StoreError::Io { verb, path, source }
}

/// See the module.
#[derive(Debug)]
pub struct Store {
    root: PathBuf,
    incarnation: u64,
    /// Until the agent ends, however it does.
    _lock: File,
}

impl Store {
    /// Opens or makes the directory, and counts this start.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn open(root: &Path) -> Result<Self, StoreError> {
        fs::create_dir_all(root.join("grants")).map_err(failed("make", root))?;
        let root = root.canonicalize().map_err(failed("find", root))?;
        let path = root.join("lock");
        let lock = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
        let lock = lock.map_err(failed("open", &path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => return Err(StoreError::InUse(root)),
            Err(fs::TryLockError::Error(error)) => return Err(failed("lock", &path)(error)),
        }
        let path = root.join("incarnation");
        let last = match fs::read_to_string(&path) {
            Ok(text) => text
                .trim()
                .parse::<u64>()
                .map_err(io::Error::other)
                .map_err(failed("read the number in", &path))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => return Err(failed("read", &path)(error)),
        };
        let incarnation = last + 1;
        replace(&path, format!("{incarnation}\n").as_bytes())?;
        Ok(Self { root, incarnation, _lock: lock })
    }

    /// Counts the starts, from 1.
    #[must_use]
    pub fn incarnation(&self) -> u64 {
        self.incarnation
    }

    /// The directory's full path.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The directory of a grant.
    #[must_use]
    pub fn grant(&self, grant: Grant) -> PathBuf {
        self.root.join("grants").join(grant.to_string())
    }

    /// Writes a grant's state down, durably.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn write(&self, record: &Record) -> Result<(), StoreError> {
        let folder = self.grant(record.order.grant);
        if !folder.exists() {
            fs::create_dir_all(&folder).map_err(failed("make", &folder))?;
            sync_folder(&self.root.join("grants"))?;
        }
        replace(&folder.join("state"), &record.encode())
    }

    /// All grants. A folder without a state is one whose start had not begun, and is removed.
    ///
    /// # Errors
    /// See [`StoreError`]: one that cannot be read stops the start, since something may run that nobody would know of.
    pub fn read_all(&self) -> Result<Vec<Record>, StoreError> {
        let root = self.root.join("grants");
        let mut records = Vec::new();
        for entry in fs::read_dir(&root).map_err(failed("read", &root))? {
            let folder = entry.map_err(failed("read", &root))?.path();
            let path = folder.join("state");
            let bytes = match fs::read(&path) {
                Ok(bytes) => bytes,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    fs::remove_dir_all(&folder).map_err(failed("remove", &folder))?;
                    continue;
                }
                Err(error) => return Err(failed("read", &path)(error)),
            };
            records.push(Record::decode(&bytes).map_err(|source| StoreError::Record { path, source })?);
        }
        Ok(records)
    }

    /// Removes all of a grant.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn forget(&self, grant: Grant) -> Result<(), StoreError> {
        let folder = self.grant(grant);
        match fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", &folder)(error)),
            _ => Ok(()),
        }
    }
}

/// Puts bytes into a file, all or none.
///
/// # Errors
/// See [`StoreError`].
pub fn replace(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let new = path.with_extension("new");
    let written = File::create(&new).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    written.map_err(failed("write", &new))?;
    fs::rename(&new, path).map_err(failed("rename to", path))?;
    path.parent().map_or(Ok(()), sync_folder)
}

fn sync_folder(folder: &Path) -> Result<(), StoreError> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed("sync", folder))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_are_counted_and_two_agents_do_not_share() {
        let dir = tempfile::tempdir().unwrap();
        let first = Store::open(dir.path()).unwrap();
        assert_eq!(first.incarnation(), 1);
        assert!(matches!(Store::open(dir.path()), Err(StoreError::InUse(_))));
        drop(first);
        assert_eq!(Store::open(dir.path()).unwrap().incarnation(), 2);
    }

    #[test]
    fn a_folder_without_a_state_is_removed_and_a_bad_state_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        fs::create_dir(store.grant(Grant(1))).unwrap();
        assert_eq!(store.read_all().unwrap(), []);
        assert!(!store.grant(Grant(1)).exists());
        fs::create_dir(store.grant(Grant(2))).unwrap();
        fs::write(store.grant(Grant(2)).join("state"), "fuxi-grant 1 3 00000000\n{}").unwrap();
        assert!(matches!(store.read_all(), Err(StoreError::Record { .. })));
    }
}
