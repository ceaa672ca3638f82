//! mkdir, mknod, symlink, link, rename, unlink, rmdir, and the umask.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, symlink};
use std::path::Path;
use std::process::Command;

use nix::sys::stat::{Mode, SFlag, makedev, mknod};

use crate::TestMount;

#[test]
fn makes_and_removes_directories() {
    let mount = TestMount::new();
    fs::create_dir_all(mount.path("a/b")).unwrap();
    assert_eq!(fs::remove_dir(mount.path("a")).unwrap_err().raw_os_error(), Some(libc::ENOTEMPTY));
    fs::remove_dir(mount.path("a/b")).unwrap();
    fs::remove_dir(mount.path("a")).unwrap();
    assert!(!mount.path("a").exists());
}

/// The umask belongs to a process, so other tests must not see it change: a shell has its own.
#[test]
fn the_umask_is_taken_off() {
    let mount = TestMount::new();
    let script = "umask 027; mkdir d; touch f; mkfifo p; umask 0; mkdir open";
    assert!(Command::new("sh").args(["-c", script]).current_dir(mount.root()).status().unwrap().success());
    let mode = |name: &str| fs::metadata(mount.path(name)).unwrap().mode() & 0o7777;
    assert_eq!((mode("d"), mode("f"), mode("p"), mode("open")), (0o750, 0o640, 0o640, 0o777));
}

#[test]
fn makes_nodes_of_every_type() {
    let mount = TestMount::new();
    let mode = Mode::from_bits_truncate(0o600);
    mknod(&mount.path("fifo"), SFlag::S_IFIFO, mode, 0).unwrap();
    mknod(&mount.path("sock"), SFlag::S_IFSOCK, mode, 0).unwrap();
    mknod(&mount.path("chr"), SFlag::S_IFCHR, mode, makedev(5, 7)).unwrap();
    mknod(&mount.path("blk"), SFlag::S_IFBLK, mode, makedev(9, 300)).unwrap();
    let meta = |name: &str| fs::symlink_metadata(mount.path(name)).unwrap();
    assert!(meta("fifo").file_type().is_fifo());
    assert!(meta("sock").file_type().is_socket());
    assert!(meta("chr").file_type().is_char_device() && meta("chr").rdev() == makedev(5, 7));
    assert!(meta("blk").file_type().is_block_device() && meta("blk").rdev() == makedev(9, 300));
}

#[test]
fn links_both_kinds() {
    let mount = TestMount::new();
    fs::write(mount.path("f"), "data").unwrap();
    fs::hard_link(mount.path("f"), mount.path("g")).unwrap();
    assert_eq!(fs::metadata(mount.path("f")).unwrap().nlink(), 2);
    assert_eq!(fs::metadata(mount.path("f")).unwrap().ino(), fs::metadata(mount.path("g")).unwrap().ino());
    symlink("f", mount.path("s")).unwrap();
    assert_eq!(fs::read_link(mount.path("s")).unwrap(), Path::new("f"));
    assert_eq!(fs::read_to_string(mount.path("s")).unwrap(), "data");
    fs::remove_file(mount.path("f")).unwrap();
    assert_eq!(fs::read_to_string(mount.path("g")).unwrap(), "data");
}

fn renameat2(from: &Path, to: &Path, flags: libc::c_uint) -> Result<(), i32> {
    use std::os::unix::ffi::OsStrExt;
    let c = |path: &Path| std::ffi::CString::new(path.as_os_str().as_bytes()).unwrap();
    let (from, to) = (c(from), c(to));
    // SAFETY: both paths are zero-terminated and live through the call.
    let result =
        unsafe { libc::renameat2(libc::AT_FDCWD, from.as_ptr(), libc::AT_FDCWD, to.as_ptr(), flags) };
    if result == 0 { Ok(()) } else { Err(std::io::Error::last_os_error().raw_os_error().unwrap()) }
}

#[test]
fn renames_with_every_flag() {
    let mount = TestMount::new();
    let (a, b, c) = (mount.path("a"), mount.path("b"), mount.path("c"));
    fs::write(&a, "A").unwrap();
    fs::write(&b, "B").unwrap();
    assert_eq!(renameat2(&a, &b, libc::RENAME_NOREPLACE), Err(libc::EEXIST));
    renameat2(&a, &b, libc::RENAME_EXCHANGE).unwrap();
    assert_eq!((fs::read(&a).unwrap(), fs::read(&b).unwrap()), (b"B".to_vec(), b"A".to_vec()));
    assert_eq!(renameat2(&a, &c, libc::RENAME_EXCHANGE), Err(libc::ENOENT));
    renameat2(&a, &c, libc::RENAME_NOREPLACE).unwrap();
    fs::rename(&c, &b).unwrap();
    assert_eq!(fs::read(&b).unwrap(), b"B");
    assert!(!a.exists() && !c.exists());
    for seen in ["rename a b 2", "rename a c 1", "rename c b 0"] {
        assert!(mount.saw(seen), "{seen}");
    }
    assert_eq!(renameat2(&b, &c, libc::RENAME_WHITEOUT), Err(libc::EINVAL), "not a thing here");
}

#[test]
fn names_are_bytes_and_at_most_255_of_them() {
    use std::os::unix::ffi::OsStrExt;
    let mount = TestMount::new();
    let odd = std::ffi::OsStr::from_bytes(b"\xff\xfe odd\n");
    fs::write(mount.root().join(odd), "x").unwrap();
    assert_eq!(fs::read_dir(mount.root()).unwrap().next().unwrap().unwrap().file_name(), odd);
    fs::write(mount.path(&"n".repeat(255)), "x").unwrap();
    let error = fs::write(mount.path(&"n".repeat(256)), "x").unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ENAMETOOLONG));
}
