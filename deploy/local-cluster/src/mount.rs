//! FUSE mounts as the kernel sees them: is it there, take it away, clear what dead processes left.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::mount::{MntFlags, umount2};

use crate::error::Error;
use crate::wait::{Deadline, wait_until};

/// Folders of clusters are named so; stale mounts below such names may be cleared.
pub(crate) const PREFIX: &str = "feitian-cluster-";

/// The FUSE mount points of this machine, from the kernel's table (which never blocks on a dead server).
fn mount_points() -> Vec<PathBuf> {
    fs::read_to_string("/proc/self/mounts").map(|table| parse(&table)).unwrap_or_default()
}

fn parse(table: &str) -> Vec<PathBuf> {
    table
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(' ');
            let (_, path, kind) = (fields.next()?, fields.next()?, fields.next()?);
            let is_fuse = kind == "fuse" || kind == "fuseblk" || kind.starts_with("fuse.");
            is_fuse.then(|| PathBuf::from(path.replace("\\040", " ")))
        })
        .collect()
}

/// Something of FUSE is mounted at `path`.
#[must_use]
pub fn is_mounted(path: &Path) -> bool {
    mount_points().iter().any(|point| point == path)
}

/// Unmounts, politely while `deadline` lasts, then by detaching; the answer says whether the polite way worked.
pub fn unmount(path: &Path, deadline: Deadline) -> Result<bool, Error> {
    let polite = wait_until("unmount", deadline, || {
        if is_mounted(path) && !try_unmount(path, MntFlags::empty()) {
            return Ok(false);
        }
        Ok(!is_mounted(path))
    });
    if polite.is_ok() {
        return Ok(true);
    }
    try_unmount(path, MntFlags::MNT_DETACH);
    wait_until(
        &format!("{} is unmounted", path.display()),
        Deadline::within(Duration::from_secs(5)),
        || Ok(!is_mounted(path)),
    )?;
    Ok(false)
}

fn try_unmount(path: &Path, flags: MntFlags) -> bool {
    if umount2(path, flags).is_ok() {
        return true;
    }
    // Not root: the setuid helper may.
    let lazy = flags.contains(MntFlags::MNT_DETACH);
    Command::new("fusermount3")
        .arg("-u")
        .args(lazy.then_some("-z"))
        .arg(path)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Detaches mounts below folders of clusters whose process is gone: a killed run must not leave the next one with
/// directories that nobody can remove.
pub fn sweep_stale() {
    for point in mount_points() {
        let owner = point.components().find_map(|part| owner(part.as_os_str().to_str()?));
        if owner.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            try_unmount(&point, MntFlags::MNT_DETACH);
        }
    }
}

/// The process that a cluster's folder belongs to: `feitian-cluster-PID-xyz`.
fn owner(folder: &str) -> Option<u32> {
    folder.strip_prefix(PREFIX)?.split('-').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_fuse_mounts_count() {
        let table = "/dev/vda / ext4 rw 0 0\npangu /tmp/a\\040b fuse.pangu rw 0 0\nx /y fusectl rw 0 0\nz /z fuse rw 0 0\n";
        assert_eq!(parse(table), [PathBuf::from("/tmp/a b"), PathBuf::from("/z")]);
    }

    #[test]
    fn folders_tell_their_owner() {
        assert_eq!(owner("feitian-cluster-123-abc"), Some(123));
        assert_eq!(owner("feitian-cluster-x"), None);
        assert_eq!(owner("tmp"), None);
    }

    #[test]
    fn a_plain_directory_is_not_mounted_and_unmounting_it_is_done_at_once() {
        let folder = tempfile::tempdir().unwrap();
        assert!(!is_mounted(folder.path()));
        assert!(unmount(folder.path(), Deadline::within(Duration::from_secs(1))).unwrap());
    }
}
