//! Directories that a power cut does not take away.

use std::fs::File;
use std::io;
use std::path::Path;

/// Makes a directory, and those above it that are missing, with their names durable: what is synced in a directory is
/// lost with it if its own name is not. One that is there may be from a process that died before that, so its name is
/// synced too.
///
/// # Errors
/// A directory can neither be made nor found.
pub fn create_dir_durably(path: &Path) -> io::Result<()> {
    let parent = match path.parent() {
        None => return Ok(()),
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
    };
    if !parent.is_dir() {
        create_dir_durably(parent)?;
    }
    let is_new = match std::fs::create_dir(path) {
        Ok(()) => true,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => false,
        // A directory that is there above one that is not ours, or on a file system for reading only.
        Err(_) if path.is_dir() => false,
        Err(error) => return Err(error),
    };
    match File::open(parent).and_then(|parent| parent.sync_all()) {
        // Who made it for us could read its parent, and we need not be allowed to.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied && !is_new => Ok(()),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_is_missing_is_made_and_a_file_is_no_directory() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("a/b/c");
        create_dir_durably(&deep).unwrap();
        create_dir_durably(&deep).unwrap();
        assert!(deep.is_dir());
        create_dir_durably(Path::new("/")).unwrap();
        std::fs::write(deep.join("file"), b"x").unwrap();
        assert!(create_dir_durably(&deep.join("file")).is_err());
        assert!(create_dir_durably(&deep.join("file/d")).is_err());
    }
}
