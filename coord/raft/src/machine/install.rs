//! A snapshot becomes the state.
//!
//! ```text
//! state/current     the name of the directory that counts: "db-<n>"
//! state/db-<n>/     a store
//! ```
//!
//! | step | a crash after it leaves |
//! | --- | --- |
//! | 1 copy the snapshot's store to `db-<n+1>`, synced | the old state counts; the copy is deleted at the next start |
//! | 2 open the copy and check that its applied log id is the snapshot's | the same |
//! | 3 publish the snapshot in this member's own directory | the same; the snapshot is newer than the state, which openraft allows |
//! | 4 replace `current` (write-new, fsync, rename, fsync) | the new state counts. The log still ends before it: openraft purges up to the applied log id at the next start |
//! | 5 the process uses the new store, the old one is deleted | the old directory is deleted at the next start |

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use coord_kv_rocks::RocksKv;

use crate::error::OpenError;
use crate::log::files::create_durably;
use crate::machine::{Machine, read_applied};
use crate::snapshot::{SnapshotError, SnapshotHandle, copy_store, sync};
use crate::types::{LogId, SnapshotMeta};

/// The directories a store may be in.
#[derive(Debug)]
pub(crate) struct StateDirs {
    dir: PathBuf,
    number: AtomicU64,
}

impl StateDirs {
    pub(crate) fn open(dir: PathBuf) -> Result<Self, OpenError> {
        let io = |operation, path: &Path| {
            let path = path.to_path_buf();
            move |source| OpenError::Io { operation, path, source }
        };
        std::fs::create_dir_all(&dir).map_err(io("create", &dir))?;
        let current = dir.join("current");
        let number = match std::fs::read_to_string(&current) {
            Ok(text) => {
                let number = text.trim().strip_prefix("db-").and_then(|number| number.parse().ok());
                let reason = "it names no directory of a store".to_owned();
                number.ok_or(OpenError::Corrupt { path: current, reason })?
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => 1,
            Err(error) => return Err(io("read", &current)(error)),
        };
        let dirs = Self { dir, number: AtomicU64::new(number) };
        dirs.delete_others().map_err(io("clean up", &dirs.dir))?;
        Ok(dirs)
    }

    /// The store in the current directory exists: from now on it counts.
    pub(crate) fn opened(&self) -> Result<(), OpenError> {
        if !self.dir.join("current").exists() {
            self.choose(self.number.load(Ordering::SeqCst))?;
        }
        Ok(())
    }

    pub(crate) fn current(&self) -> PathBuf {
        self.path(self.number.load(Ordering::SeqCst))
    }

    fn path(&self, number: u64) -> PathBuf {
        self.dir.join(format!("db-{number}"))
    }

    fn choose(&self, number: u64) -> Result<(), crate::log::LogError> {
        create_durably(&self.dir.join("current"), format!("db-{number}\n").as_bytes())?;
        self.number.store(number, Ordering::SeqCst);
        Ok(())
    }

    fn delete_others(&self) -> std::io::Result<()> {
        let current = self.current();
        for entry in std::fs::read_dir(&self.dir)? {
            let path = entry?.path();
            let is_store = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("db-"));
            if is_store && path != current {
                std::fs::remove_dir_all(&path)?;
            }
        }
        Ok(())
    }
}

/// Steps between which a test stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Copied,
    Checked,
    Published,
    Chosen,
}

/// Installs a snapshot; gives the applied log id. `after` is called after each step: tests stop there.
pub(crate) fn install<S: crate::StateMachine>(
    machine: &Machine<S>,
    meta: &SnapshotMeta,
    snapshot: &SnapshotHandle,
    after: &mut dyn FnMut(Step) -> Result<(), SnapshotError>,
) -> Result<Option<LogId>, SnapshotError> {
    let dirs = &machine.state.dirs;
    let empty = || SnapshotError::Invalid { path: dirs.dir.clone(), reason: "nothing was received" };
    let from = snapshot.0.as_ref().ok_or_else(empty)?;
    let number = dirs.number.load(Ordering::SeqCst) + 1;
    let target = dirs.path(number);
    if target.exists() {
        std::fs::remove_dir_all(&target).map_err(SnapshotError::io("delete", &target))?;
    }

    copy_store(from, &target)?;
    sync(&dirs.dir)?;
    after(Step::Copied)?;

    let store = RocksKv::open(&target, &machine.state.specs, &machine.state.options)
        .map_err(|source| SnapshotError::Open { path: target.clone(), source })?;
    let (applied, membership) = read_applied(&store, machine.state.kit)?;
    if applied != meta.last_log_id {
        return Err(SnapshotError::Invalid {
            path: from.path.clone(),
            reason: "its state is of another log id",
        });
    }
    after(Step::Checked)?;

    let own = machine.snapshots.temporary("tmp")?;
    copy_store(from, &own)?;
    machine.snapshots.publish(&own, meta.clone())?;
    after(Step::Published)?;

    dirs.choose(number)?;
    after(Step::Chosen)?;

    machine.log.set_base_membership(membership.log_id().map(|id| id.index), membership.membership().clone());
    if let Some(old) = machine.state.replace(store) {
        delete_when_unused(old);
    }
    Ok(applied)
}

/// Readers may be in the middle of a call on the old store.
fn delete_when_unused(old: Arc<RocksKv>) {
    let path = old.path().to_path_buf();
    // A call holds the store for microseconds; whoever is last closes it. Its files may go before: they are open.
    drop(old);
    if let Err(error) = std::fs::remove_dir_all(&path) {
        tracing::warn!(%error, path = %path.display(), "the state before the snapshot stays until the next start");
    }
}
