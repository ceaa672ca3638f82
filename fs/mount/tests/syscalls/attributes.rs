//! stat, chmod, chown, utimens, xattrs, statfs.

use std::ffi::{CString, OsStr};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;
use std::time::{Duration, SystemTime};

use crate::TestMount;

#[test]
fn changes_and_shows_attributes() {
    for mount in [TestMount::new(), TestMount::eager()] {
        let path = mount.path("f");
        fs::write(&path, vec![0; 5000]).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o4751)).unwrap();
        chown(&path, Some(12), Some(34)).unwrap();
        let time = SystemTime::UNIX_EPOCH + Duration::new(1_000_000_007, 123_456_789);
        let old = SystemTime::UNIX_EPOCH - Duration::from_secs(3);
        let file = fs::File::options().write(true).open(&path).unwrap();
        file.set_times(fs::FileTimes::new().set_modified(time).set_accessed(old)).unwrap();
        let meta = fs::metadata(&path).unwrap();
        // The owner changed after the mode, so the kernel took the set-user-id bit off.
        assert_eq!(meta.mode(), libc::S_IFREG | 0o751);
        assert_eq!((meta.uid(), meta.gid(), meta.size(), meta.blocks()), (12, 34, 5000, 16));
        assert_eq!((meta.modified().unwrap(), meta.accessed().unwrap()), (time, old));
        assert_eq!(meta.blksize(), 128 << 10);
    }
}

/// The four xattr calls, which the standard library does not have.
struct Xattrs(CString);

impl Xattrs {
    fn of(path: &Path) -> Self {
        Self(CString::new(path.as_os_str().as_bytes()).unwrap())
    }

    fn result(value: isize) -> Result<usize, i32> {
        usize::try_from(value).map_err(|_| std::io::Error::last_os_error().raw_os_error().unwrap())
    }

    fn set(&self, name: &str, value: &[u8], flags: i32) -> Result<(), i32> {
        let name = CString::new(name).unwrap();
        // SAFETY: zero-terminated strings and a buffer with its length, all alive through the call.
        let done = unsafe {
            libc::setxattr(self.0.as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), flags)
        };
        Self::result(done as isize).map(drop)
    }

    fn get(&self, name: &str, room: usize) -> Result<(usize, Vec<u8>), i32> {
        let name = CString::new(name).unwrap();
        let mut value = vec![0u8; room];
        // SAFETY: as above; the kernel writes at most `room` bytes.
        let len = unsafe { libc::getxattr(self.0.as_ptr(), name.as_ptr(), value.as_mut_ptr().cast(), room) };
        Self::result(len).map(|len| (len, value))
    }

    fn list(&self, room: usize) -> Result<(usize, Vec<u8>), i32> {
        let mut list = vec![0u8; room];
        // SAFETY: as above.
        let len = unsafe { libc::listxattr(self.0.as_ptr(), list.as_mut_ptr().cast(), room) };
        Self::result(len).map(|len| (len, list))
    }

    fn remove(&self, name: &str) -> Result<(), i32> {
        let name = CString::new(name).unwrap();
        // SAFETY: as above.
        Self::result(unsafe { libc::removexattr(self.0.as_ptr(), name.as_ptr()) } as isize).map(drop)
    }
}

#[test]
fn extended_attributes() {
    let mount = TestMount::new();
    fs::write(mount.path("f"), "").unwrap();
    let file = Xattrs::of(&mount.path("f"));
    file.set("user.a", b"value", 0).unwrap();
    assert_eq!(file.set("user.a", b"x", libc::XATTR_CREATE), Err(libc::EEXIST));
    assert_eq!(file.set("user.b", b"x", libc::XATTR_REPLACE), Err(libc::ENODATA));
    assert_eq!(file.get("user.a", 0).unwrap().0, 5, "without room: how much it needs");
    assert_eq!(file.get("user.a", 3), Err(libc::ERANGE));
    assert_eq!(file.get("user.a", 5).unwrap().1, b"value");
    assert_eq!(file.get("user.none", 0), Err(libc::ENODATA));
    file.set("user.empty", b"", 0).unwrap();
    let (len, list) = file.list(100).unwrap();
    assert_eq!(&list[..len], b"user.a\0user.empty\0");
    assert_eq!(file.list(0).unwrap().0, len);
    assert_eq!(file.list(3), Err(libc::ERANGE));
    file.remove("user.a").unwrap();
    assert_eq!(file.remove("user.a"), Err(libc::ENODATA));
}

#[test]
fn statfs_counts_blocks() {
    let mount = TestMount::new();
    let stat = nix::sys::statvfs::statvfs(mount.root()).unwrap();
    assert_eq!(stat.fragment_size() * stat.blocks(), 1 << 30);
    assert_eq!(stat.fragment_size() * stat.blocks_available(), 1 << 29);
    assert_eq!((stat.files(), stat.files_free(), stat.name_max()), (1000, 900, 255));
}

#[test]
fn others_are_let_in_and_permissions_are_checked() {
    let mount = TestMount::new();
    let path = mount.path("secret");
    fs::write(&path, "x").unwrap();
    fs::set_permissions(mount.root().parent().unwrap(), fs::Permissions::from_mode(0o1777)).unwrap();
    let cat = |path: &OsStr| {
        use std::os::unix::process::CommandExt;
        std::process::Command::new("cat").arg(path).uid(65534).gid(65534).output().unwrap()
    };
    assert!(cat(path.as_os_str()).status.success());
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    let refused = cat(path.as_os_str());
    assert!(String::from_utf8_lossy(&refused.stderr).contains("Permission denied"), "{refused:?}");
}
