//! A disk whose metadata is damaged says nothing certain of its data. It is *condemned*, and at the next start all it has is
//! *set aside*, so that a new disk can be laid out in its place and be filled by the other members. What was set aside is
//! deleted when somebody says that all of it is elsewhere.
//!
//! ```text
//! DIR/condemned            why; written before anything is moved
//! DIR/set-aside/           everything else of DIR, moved file by file
//! DIR/set-aside/condemned  moved last: the moving is done
//! ```
//!
//! After a crash at any step the next start goes on: as long as `DIR/condemned` is there the moving is not done, and what was
//! moved is not moved again. All calls block.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use crate::error::OpenError;
use crate::io::files;

pub(crate) const SET_ASIDE: &str = "set-aside";
const CONDEMNED: &str = "condemned";
/// Bytes of a reason that are kept.
const REASON_MAX: u64 = 4096;

/// Notes that the metadata of the disk in `dir` is damaged. Durable on return; the disk may be in use.
///
/// # Errors
/// If the note cannot be written.
pub fn condemn(dir: &Path, reason: &str) -> Result<(), OpenError> {
    files::write_whole(dir, CONDEMNED, |file| file.write_all(reason.as_bytes()))
        .map_err(|source| OpenError::Io { operation: "write", path: dir.join(CONDEMNED), source })
}

/// Why the disk in `dir` was condemned, if it was and is not set aside yet.
///
/// # Errors
/// If it cannot be known.
pub fn condemned(dir: &Path) -> Result<Option<String>, OpenError> {
    let path = dir.join(CONDEMNED);
    let text = std::fs::File::open(&path).and_then(|file| {
        let mut bytes = Vec::new();
        io::Read::read_to_end(&mut io::Read::take(file, REASON_MAX), &mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    });
    match text {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(OpenError::Io { operation: "read", path, source }),
    }
}

/// Whether `dir` has segments but no superblock: it was a disk, and is none now.
///
/// # Errors
/// If it cannot be listed.
pub fn has_lost_superblock(dir: &Path) -> Result<bool, OpenError> {
    let failed = |source| OpenError::Io { operation: "list", path: dir.to_owned(), source };
    let mut found = false;
    for entry in std::fs::read_dir(dir).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        if name == files::SUPERBLOCK {
            return Ok(false);
        }
        found |= name.to_string_lossy().starts_with("seg-");
    }
    Ok(found)
}

/// Moves all that a condemned disk has out of the way, so that `dir` can be formatted. Gives where it is.
///
/// # Errors
/// [`OpenError::SetAside`] if something was set aside before and is still there; if the disk is in use.
pub fn set_aside(dir: &Path) -> Result<PathBuf, OpenError> {
    let _lock = files::lock(dir)?;
    let aside = dir.join(SET_ASIDE);
    if aside.join(CONDEMNED).exists() {
        return Err(OpenError::SetAside { path: dir.to_owned() });
    }
    let failed = |operation, path: &Path| {
        let path = path.to_owned();
        move |source| OpenError::Io { operation, path, source }
    };
    match std::fs::create_dir(&aside) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(failed("create", &aside)(error));
        }
        _ => {}
    }
    for entry in std::fs::read_dir(dir).map_err(failed("list", dir))? {
        let name = entry.map_err(failed("list", dir))?.file_name();
        if [SET_ASIDE, CONDEMNED, files::LOCK, "lost+found"].iter().any(|stays| name == *stays) {
            continue;
        }
        let from = dir.join(&name);
        std::fs::rename(&from, aside.join(&name)).map_err(failed("move", &from))?;
    }
    files::sync_dir(&aside).map_err(failed("sync", &aside))?;
    let note = dir.join(CONDEMNED);
    std::fs::rename(&note, aside.join(CONDEMNED)).map_err(failed("move", &note))?;
    files::sync_dir(&aside).and_then(|()| files::sync_dir(dir)).map_err(failed("sync", dir))?;
    Ok(aside)
}

/// Where something of `dir` is set aside, if it is.
#[must_use]
pub fn what_is_aside(dir: &Path) -> Option<PathBuf> {
    Some(dir.join(SET_ASIDE)).filter(|aside| aside.exists())
}

/// Deletes what was set aside.
///
/// # Errors
/// If it cannot be deleted.
pub fn delete_aside(dir: &Path) -> Result<(), OpenError> {
    let aside = dir.join(SET_ASIDE);
    std::fs::remove_dir_all(&aside).map_err(|source| OpenError::Io {
        operation: "delete",
        path: aside,
        source,
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn disk(dir: &Path) {
        fs::create_dir(dir.join("meta")).unwrap();
        for file in ["superblock", "journal", "seg-00000000", "meta/CURRENT"] {
            fs::write(dir.join(file), file).unwrap();
        }
    }

    #[test]
    fn everything_is_moved_whatever_step_a_crash_stops_it_at() {
        let files = ["superblock", "journal", "seg-00000000", "meta"];
        for moved in 0..=files.len() {
            let dir = tempfile::tempdir().unwrap();
            disk(dir.path());
            assert_eq!(condemned(dir.path()).unwrap(), None);
            condemn(dir.path(), "two crcs differ").unwrap();
            if moved > 0 {
                fs::create_dir(dir.path().join(SET_ASIDE)).unwrap();
            }
            for file in &files[..moved] {
                fs::rename(dir.path().join(file), dir.path().join(SET_ASIDE).join(file)).unwrap();
            }
            assert_eq!(condemned(dir.path()).unwrap().as_deref(), Some("two crcs differ"));
            let aside = set_aside(dir.path()).unwrap();
            assert_eq!(condemned(dir.path()).unwrap(), None);
            assert_eq!(what_is_aside(dir.path()), Some(aside.clone()));
            assert_eq!(fs::read(aside.join("meta/CURRENT")).unwrap(), b"meta/CURRENT");
            assert_eq!(fs::read(aside.join("seg-00000000")).unwrap(), b"seg-00000000");
            let mut left: Vec<_> =
                fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            left.sort();
            assert_eq!(left, ["lock", "set-aside"], "{moved} were moved before");
        }
    }

    #[test]
    fn what_is_aside_is_not_replaced_by_something_newer() {
        let dir = tempfile::tempdir().unwrap();
        disk(dir.path());
        condemn(dir.path(), "first").unwrap();
        set_aside(dir.path()).unwrap();
        fs::write(dir.path().join("superblock"), "new").unwrap();
        condemn(dir.path(), "second").unwrap();
        assert!(matches!(set_aside(dir.path()), Err(OpenError::SetAside { .. })));
        assert_eq!(fs::read(dir.path().join("superblock")).unwrap(), b"new");
        delete_aside(dir.path()).unwrap();
        assert_eq!(what_is_aside(dir.path()), None);
        set_aside(dir.path()).unwrap();
    }

    #[test]
    fn a_disk_without_its_superblock_is_told_from_an_empty_directory() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!has_lost_superblock(dir.path()).unwrap());
        disk(dir.path());
        assert!(!has_lost_superblock(dir.path()).unwrap());
        fs::remove_file(dir.path().join("superblock")).unwrap();
        assert!(has_lost_superblock(dir.path()).unwrap());
    }
}
