//! The remains of a mount whose process died.

use std::fs;
use std::os::fd::AsRawFd;

use fs_mount::mountpoint::{self, Ready, Standing};
use nix::mount::{MsFlags, mount};

/// What a killed `pangu-fuse` leaves: a mount whose /dev/fuse was closed.
fn leave_remains(path: &std::path::Path, subtype: &str) {
    let device =
        fs::File::options().read(true).write(true).open("/dev/fuse").expect("these tests need /dev/fuse");
    let options = format!("fd={},rootmode=40000,user_id=0,group_id=0,subtype={subtype}", device.as_raw_fd());
    mount(Some("pangu"), path, Some("fuse"), MsFlags::MS_NODEV, Some(options.as_str()))
        .expect("these tests need root");
}

#[test]
fn our_remains_are_cleared_away() {
    let dir = tempfile::tempdir().unwrap();
    leave_remains(dir.path(), "pangu");
    leave_remains(dir.path(), "pangu");
    assert_eq!(fs::metadata(dir.path()).unwrap_err().raw_os_error(), Some(libc::ENOTCONN));
    assert!(matches!(mountpoint::look(dir.path()).unwrap(), Standing::Stale(_)));
    assert_eq!(mountpoint::make_ready(dir.path()).unwrap(), Ready { cleared: 2, hides_files: false });
    assert!(fs::metadata(dir.path()).unwrap().is_dir());
}

#[test]
fn remains_of_others_are_named_and_left() {
    let dir = tempfile::tempdir().unwrap();
    leave_remains(dir.path(), "other");
    let refused = mountpoint::make_ready(dir.path()).unwrap_err().to_string();
    assert!(refused.contains("Transport endpoint is not connected"), "{refused}");
    assert!(refused.contains(&format!("`sudo umount -l {}`", dir.path().display())), "{refused}");
    mountpoint::clear(dir.path()).unwrap();
}
