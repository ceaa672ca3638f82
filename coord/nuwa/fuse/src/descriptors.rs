//! Who closes a file for good: looked up in `/proc`, because the kernel tells of each `close` alike.
//!
//! A shell that redirects has two descriptors of the file for a moment, and closes one before anything is written: `echo x > f` would be
//! two puts if that were taken for the end. Nothing here asks a mount anything (it may be ours, and be waiting for us) or waits for a process
//! within execve: `stat` of a descriptor would, `fdinfo` and the names of links do not.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;

use coord_types::InodeId;

/// A process with more is not looked through: some 10 µs each.
const DESCRIPTORS_MAX: usize = 4096;
/// What the kernel adds to the name of a file that is not there any more.
const DELETED: &str = " (deleted)";

/// The process of a thread; `None` if it cannot be seen from here.
pub(crate) fn process_of(thread: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{thread}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("Tgid:"))?.trim().parse().ok()
}

/// Whether the process of `thread` has the file open; `None` if that cannot be seen from here.
pub(crate) fn has_open(thread: u32, ino: InodeId, name: &str) -> Option<bool> {
    let listed = fs::read_dir(format!("/proc/{thread}/fdinfo")).ok()?;
    for (count, entry) in listed.enumerate() {
        if count >= DESCRIPTORS_MAX {
            return None;
        }
        let entry = entry.ok()?;
        // One that was closed meanwhile.
        let Ok(info) = fs::read_to_string(entry.path()) else { continue };
        if number(&info) != Some(ino.0) {
            continue;
        }
        // Files of other file systems have numbers, too.
        let link = Path::new("/proc").join(thread.to_string()).join("fd").join(entry.file_name());
        if fs::read_link(link).is_ok_and(|target| is_named(&target, name)) {
            return Some(true);
        }
    }
    Some(false)
}

fn number(info: &str) -> Option<u64> {
    info.lines().find_map(|line| line.strip_prefix("ino:"))?.trim().parse().ok()
}

fn is_named(target: &Path, name: &str) -> bool {
    let last = target.file_name().and_then(OsStr::to_str).unwrap_or_default();
    last == name || last.strip_suffix(DELETED) == Some(name)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[test]
    fn descriptors_of_a_process_are_seen_until_they_are_closed() {
        let folder = tempfile::tempdir().unwrap();
        let file = fs::File::create(folder.path().join("a file")).unwrap();
        let ino = InodeId(file.metadata().unwrap().ino());
        let here = std::process::id();
        assert_eq!(process_of(here), Some(here));
        let thread = std::thread::spawn(|| process_of(nix::unistd::gettid().as_raw().cast_unsigned()));
        assert_eq!(thread.join().unwrap(), Some(here), "a thread is its process");
        assert_eq!(has_open(here, ino, "a file"), Some(true));
        assert_eq!(has_open(here, ino, "other"), Some(false));
        fs::remove_file(folder.path().join("a file")).unwrap();
        assert_eq!(has_open(here, ino, "a file"), Some(true), "deleted, and open still");
        drop(file);
        assert_eq!(has_open(here, ino, "a file"), Some(false));
        // The kernel itself, or somebody of another namespace.
        assert_eq!((process_of(0), has_open(0, ino, "a file")), (None, None));
    }
}
