//! Snapshots on disk: a checkpoint of the state's store in a directory of its own, with a manifest.
//!
//! ```text
//! snapshots/<id>/          a snapshot: the store's files and manifest.json
//! snapshots/tmp-<id>/      one that is being made; nothing in it counts, a restart deletes it
//! snapshots/incoming-<id>/ one that is being received; the same
//! ```
//! A snapshot appears by rename after everything in it was synced. The newest counts; others go when nobody streams
//! them any more.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use coord_kv_rocks::create_dir_durably;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::types::SnapshotMeta;

const MANIFEST: &str = "manifest.json";
const VERSION: u32 = 1;

/// Why a snapshot could not be made, read or installed.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    #[error("{operation} {}", path.display())]
    Io {
        operation: &'static str,
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("the snapshot's store at {}", path.display())]
    Open {
        path: PathBuf,
        #[source]
        source: coord_kv_rocks::OpenError,
    },
    #[error("the snapshot's store")]
    Kv(#[from] coord_kv::KvError),
    #[error("wait for the log")]
    Log(#[from] crate::log::LogError),
    #[error("the snapshot at {} is not what it says: {reason}", path.display())]
    Invalid { path: PathBuf, reason: &'static str },
}

impl SnapshotError {
    pub(crate) fn io(operation: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { operation, path, source }
    }
}

/// What openraft passes around. `None`: an empty one, about to be received.
#[derive(Clone, Debug, Default)]
pub(crate) struct SnapshotHandle(pub(crate) Option<Arc<SnapshotDir>>);

/// A snapshot's directory. Deleted with its last handle once a newer snapshot took its place.
#[derive(Debug)]
pub(crate) struct SnapshotDir {
    pub(crate) path: PathBuf,
    pub(crate) manifest: Manifest,
    obsolete: AtomicBool,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Manifest {
    version: u32,
    pub(crate) meta: SnapshotMeta,
    pub(crate) files: Vec<FileEntry>,
}

/// One file of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FileEntry {
    pub(crate) name: String,
    pub(crate) len: u64,
}

impl Drop for SnapshotDir {
    fn drop(&mut self) {
        if self.obsolete.load(Ordering::SeqCst)
            && let Err(error) = std::fs::remove_dir_all(&self.path)
        {
            tracing::warn!(%error, path = %self.path.display(), "an old snapshot stays");
        }
    }
}

/// The snapshots of one member.
#[derive(Debug)]
pub(crate) struct SnapshotStore {
    dir: PathBuf,
    current: Mutex<Option<Arc<SnapshotDir>>>,
    /// Makes the names of directories in progress distinct.
    made: AtomicU64,
}

impl SnapshotStore {
    /// Finds the newest snapshot and deletes what a crash left.
    pub(crate) fn open(dir: &Path) -> Result<Self, SnapshotError> {
        create_dir_durably(dir).map_err(SnapshotError::io("create", dir))?;
        let mut found = Vec::new();
        for entry in std::fs::read_dir(dir).map_err(SnapshotError::io("list", dir))? {
            let path = entry.map_err(SnapshotError::io("list", dir))?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if name.starts_with("tmp-") || name.starts_with("incoming-") {
                std::fs::remove_dir_all(&path).map_err(SnapshotError::io("delete", &path))?;
                continue;
            }
            // A snapshot has its manifest before it has its name: one without was being deleted when its time came.
            if !path.join(MANIFEST).exists() {
                std::fs::remove_dir_all(&path).map_err(SnapshotError::io("delete", &path))?;
                continue;
            }
            let manifest = read_manifest(&path)?;
            found.push(SnapshotDir { path, manifest, obsolete: AtomicBool::new(false) });
        }
        found.sort_by_key(|snapshot| snapshot.manifest.meta.last_log_id);
        let current = found.pop().map(Arc::new);
        for old in found {
            old.obsolete.store(true, Ordering::SeqCst);
        }
        Ok(Self { dir: dir.to_path_buf(), current: Mutex::new(current), made: AtomicU64::new(0) })
    }

    pub(crate) fn current(&self) -> Option<Arc<SnapshotDir>> {
        self.current.lock().clone()
    }

    /// A name for a directory that is being filled, and does not exist yet.
    pub(crate) fn temporary(&self, kind: &str) -> Result<PathBuf, SnapshotError> {
        let number = self.made.fetch_add(1, Ordering::SeqCst);
        let path = self.dir.join(format!("{kind}-{number}"));
        match std::fs::remove_dir_all(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(SnapshotError::io("delete", &path)(error))
            }
            _ => Ok(path),
        }
    }

    /// Makes the filled directory the current snapshot. Order: the files, the manifest and the directory are
    /// synced, then the rename shows the snapshot whole; a crash before leaves a temporary directory.
    pub(crate) fn publish(
        &self,
        temporary: &Path,
        meta: SnapshotMeta,
    ) -> Result<Arc<SnapshotDir>, SnapshotError> {
        let files = list_files(temporary)?;
        for file in &files {
            sync(&temporary.join(&file.name))?;
        }
        let manifest = Manifest { version: VERSION, meta, files };
        write_manifest(temporary, &manifest)?;
        sync(temporary)?;
        let path = self.dir.join(&manifest.meta.snapshot_id);
        if path.exists() {
            std::fs::remove_dir_all(&path).map_err(SnapshotError::io("delete", &path))?;
        }
        std::fs::rename(temporary, &path).map_err(SnapshotError::io("rename", temporary))?;
        sync(&self.dir)?;
        let snapshot = Arc::new(SnapshotDir { path, manifest, obsolete: AtomicBool::new(false) });
        let old = self.current.lock().replace(Arc::clone(&snapshot));
        if let Some(old) = old
            && old.path != snapshot.path
        {
            old.obsolete.store(true, Ordering::SeqCst);
        }
        Ok(snapshot)
    }
}

/// The files of a store in `dir` that belong to a copy of it.
fn list_files(dir: &Path) -> Result<Vec<FileEntry>, SnapshotError> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(SnapshotError::io("list", dir))? {
        let entry = entry.map_err(SnapshotError::io("list", dir))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let len = entry.metadata().map_err(SnapshotError::io("look at", &entry.path()))?.len();
        if name != MANIFEST && name != "LOCK" && !name.starts_with("LOG") {
            files.push(FileEntry { name, len });
        }
    }
    files.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(files)
}

/// Puts a copy of a snapshot's store into the new directory `to`: table files, which never change, as hard links
/// where the file system can, the others as copies. All of it is synced.
pub(crate) fn copy_store(from: &SnapshotDir, to: &Path) -> Result<(), SnapshotError> {
    std::fs::create_dir_all(to).map_err(SnapshotError::io("create", to))?;
    for file in &from.manifest.files {
        let (source, target) = (from.path.join(&file.name), to.join(&file.name));
        let linked = file.name.ends_with(".sst") && std::fs::hard_link(&source, &target).is_ok();
        if !linked {
            std::fs::copy(&source, &target).map_err(SnapshotError::io("copy", &source))?;
            sync(&target)?;
        }
    }
    sync(to)
}

/// Syncs a file, or the names in a directory.
pub(crate) fn sync(path: &Path) -> Result<(), SnapshotError> {
    File::open(path).and_then(|file| file.sync_all()).map_err(SnapshotError::io("sync", path))
}

fn write_manifest(dir: &Path, manifest: &Manifest) -> Result<(), SnapshotError> {
    let json = serde_json::to_vec_pretty(manifest).expect("a manifest has string keys and no failing parts");
    let crc = crc32c::crc32c(&json);
    let mut bytes = format!("{crc:08x}\n").into_bytes();
    bytes.extend_from_slice(&json);
    let path = dir.join(MANIFEST);
    std::fs::write(&path, bytes).map_err(SnapshotError::io("write", &path))?;
    sync(&path)
}

fn read_manifest(dir: &Path) -> Result<Manifest, SnapshotError> {
    let path = dir.join(MANIFEST);
    let bytes = std::fs::read(&path).map_err(SnapshotError::io("read", &path))?;
    let invalid = |reason| SnapshotError::Invalid { path: path.clone(), reason };
    let (crc, json) = bytes.split_at_checked(9).ok_or_else(|| invalid("too short"))?;
    let crc = std::str::from_utf8(&crc[..8]).ok().and_then(|crc| u32::from_str_radix(crc, 16).ok());
    if crc != Some(crc32c::crc32c(json)) {
        return Err(invalid("the checksum of the manifest does not match"));
    }
    let manifest: Manifest =
        serde_json::from_slice(json).map_err(|_| invalid("the manifest does not parse"))?;
    if manifest.version != VERSION {
        return Err(invalid("an unknown version"));
    }
    Ok(manifest)
}

impl SnapshotDir {
    /// What was received; deleted with its last handle.
    pub(crate) fn received(path: PathBuf, meta: SnapshotMeta, files: Vec<FileEntry>) -> Self {
        Self { path, manifest: Manifest { version: VERSION, meta, files }, obsolete: AtomicBool::new(true) }
    }
}

#[cfg(test)]
mod tests {
    use openraft::CommittedLeaderId;

    use super::*;

    fn meta(index: u64) -> SnapshotMeta {
        let log_id = openraft::LogId::new(CommittedLeaderId::new(1, 1), index);
        SnapshotMeta {
            last_log_id: Some(log_id),
            snapshot_id: format!("{index}-1"),
            ..SnapshotMeta::default()
        }
    }

    fn publish(store: &SnapshotStore, index: u64) -> Arc<SnapshotDir> {
        let temporary = store.temporary("tmp").unwrap();
        std::fs::create_dir(&temporary).unwrap();
        std::fs::write(temporary.join("a.sst"), index.to_string()).unwrap();
        store.publish(&temporary, meta(index)).unwrap()
    }

    fn names(dir: &Path) -> Vec<String> {
        let found = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name());
        let mut names: Vec<String> = found.map(|name| name.to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    #[test]
    fn the_newest_counts_and_others_go_with_their_last_handle() {
        let dir = tempfile::tempdir().unwrap();
        let store = SnapshotStore::open(dir.path()).unwrap();
        let old = publish(&store, 5);
        publish(&store, 7);
        assert_eq!(names(dir.path()), ["5-1", "7-1"], "somebody streams the old one");
        drop(old);
        assert_eq!(names(dir.path()), ["7-1"]);
        let again = publish(&store, 7);
        drop(again);
        assert_eq!(store.current().unwrap().manifest.meta, meta(7));
        assert_eq!(names(dir.path()), ["7-1"], "the same one anew takes nobody's place");
        drop(store);
        assert_eq!(std::fs::read(dir.path().join("7-1/a.sst")).unwrap(), b"7");
    }

    #[test]
    fn a_restart_keeps_the_newest_and_deletes_what_a_crash_left() {
        let dir = tempfile::tempdir().unwrap();
        let store = SnapshotStore::open(dir.path()).unwrap();
        let held: Vec<_> = [9, 10].map(|index| publish(&store, index)).into();
        // A crash: nothing is deleted.
        std::mem::forget((store, held));
        for left in ["tmp-0", "incoming-3"] {
            std::fs::create_dir(dir.path().join(left)).unwrap();
        }
        let store = SnapshotStore::open(dir.path()).unwrap();
        assert_eq!(store.current().unwrap().manifest.meta, meta(10));
        assert_eq!(names(dir.path()), ["10-1"]);
    }

    /// Deleting a snapshot takes several steps, in any order: a crash between two of them left one that no start got
    /// over.
    #[test]
    fn a_restart_goes_on_with_a_deletion() {
        let dir = tempfile::tempdir().unwrap();
        let store = SnapshotStore::open(dir.path()).unwrap();
        let held: Vec<_> = [8, 9, 10].map(|index| publish(&store, index)).into();
        std::mem::forget((store, held));
        std::fs::remove_file(dir.path().join("8-1").join(MANIFEST)).unwrap();
        std::fs::remove_file(dir.path().join("9-1/a.sst")).unwrap();
        let store = SnapshotStore::open(dir.path()).unwrap();
        assert_eq!(store.current().unwrap().manifest.meta, meta(10));
        assert_eq!(names(dir.path()), ["10-1"]);
    }

    #[test]
    fn a_damaged_manifest_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let path = publish(&SnapshotStore::open(dir.path()).unwrap(), 3).path.join(MANIFEST);
        let good = std::fs::read(&path).unwrap();
        for at in 0..good.len() {
            let mut bad = good.clone();
            // The checksum's letters may be large as well as small.
            bad[at] ^= 1;
            if at != 8 {
                std::fs::write(&path, bad).unwrap();
                assert!(SnapshotStore::open(dir.path()).is_err(), "byte {at}");
            }
        }
        let json = String::from_utf8(good[9..].to_vec()).unwrap();
        let json = json.replace("\"version\": 1", "\"version\": 2");
        let crc = crc32c::crc32c(json.as_bytes());
        std::fs::write(&path, format!("{crc:08x}\n{json}")).unwrap();
        let newer = SnapshotStore::open(dir.path());
        assert!(
            matches!(newer, Err(SnapshotError::Invalid { reason: "an unknown version", .. })),
            "{newer:?}"
        );
    }
}
