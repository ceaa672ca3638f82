//! A member without data must not vote in a cluster that exists: it may have lost what it once promised.
//!
//! A member whose disk was wiped comes back empty under its old id. It had answered for entries and votes which it now
//! knows nothing of; if it voted, it could help to elect a leader that lacks a committed entry. Nobody can tell it from a
//! member that is new. So a member that starts without data *joins*: until it has once held everything its leader said
//! was committed,
//! - it does not stand for election;
//! - it votes only for a candidate whose log is nothing but the entry that forms the cluster (index 0).
//!
//! The mark is a file, so that a restart in the middle of catching up changes nothing. Forming a cluster removes it.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::log::LogError;
use crate::log::files::{create_durably, sync_dir};

/// Whether this member joins.
#[derive(Debug)]
pub(crate) struct Joining {
    path: PathBuf,
    joining: AtomicBool,
}

impl Joining {
    /// `fresh`: the log has neither vote nor entry.
    pub(crate) fn open(dir: &Path, fresh: bool) -> Result<Self, LogError> {
        let path = dir.join("joining");
        if fresh && !path.exists() {
            create_durably(&path, b"this member has not caught up with its cluster yet\n")?;
        }
        let joining = AtomicBool::new(path.exists());
        Ok(Self { path, joining })
    }

    pub(crate) fn is_on(&self) -> bool {
        self.joining.load(Ordering::SeqCst)
    }

    /// This member holds what it has to, or forms a cluster. Gives whether it joined until now.
    pub(crate) fn end(&self) -> Result<bool, LogError> {
        if !self.is_on() {
            return Ok(false);
        }
        std::fs::remove_file(&self.path).map_err(|source| LogError::io("delete", &self.path, source))?;
        sync_dir(self.path.parent().unwrap_or_else(|| Path::new(".")))?;
        Ok(self.joining.swap(false, Ordering::SeqCst))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_lasts_over_restarts_until_it_ends() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Joining::open(dir.path(), true).unwrap().is_on());
        let again = Joining::open(dir.path(), false).unwrap();
        assert!(again.is_on() && again.end().unwrap() && !again.end().unwrap());
        assert!(!Joining::open(dir.path(), false).unwrap().is_on());
    }
}
