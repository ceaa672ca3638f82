//! What a local file system does, on a mount of three masters and three chunkservers: names, attributes, data, holes,
//! open files without a name, links, extended attributes, and two mounts that see each other.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, symlink};
use std::path::Path;
use std::time::{Duration, SystemTime};

use deploy_e2e::{Content, first_difference, shell};
use deploy_local_cluster::{Cluster, Deadline, wait_until};

/// A piece of the contract and its name.
type Step = (&'static str, fn(&Path));

fn same(path: &Path, wanted: &[u8]) {
    let got = fs::read(path).unwrap();
    assert_eq!(first_difference(&got, wanted), None, "{}", path.display());
}

#[test]
fn a_mount_is_a_file_system() {
    let mut cluster = Cluster::start(3, 3).unwrap();
    let root = cluster.mount().unwrap();
    let steps: &[Step] = &[
        ("names", names),
        ("content of many sizes", sizes),
        ("overwrite in the middle and append", overwrite),
        ("truncate and extend shows zeros", truncate),
        ("holes", holes),
        ("open without a name", unlinked),
        ("modes, owners, times", attributes),
        ("links", links),
        ("extended attributes", xattrs),
        ("rename", rename),
        ("direct and synchronous writes", direct),
        ("memory maps", memory_map),
        ("space", space),
    ];
    for (name, step) in steps {
        let folder = root.join(name.replace(' ', "_"));
        fs::create_dir(&folder).unwrap();
        println!("{name}");
        step(&folder);
        fs::remove_dir_all(&folder).unwrap();
    }
    assert_eq!(fs::read_dir(&root).unwrap().count(), 0);
    cluster.finish().unwrap();
}

fn names(folder: &Path) {
    let long = "n".repeat(255);
    for name in ["a", "with blank", "ünïcödé", "-dash", ".dot", &long] {
        fs::write(folder.join(name), name).unwrap();
        same(&folder.join(name), name.as_bytes());
    }
    assert_eq!(fs::read_dir(folder).unwrap().count(), 6);
    let too_long = fs::write(folder.join("n".repeat(256)), "").unwrap_err();
    assert_eq!(too_long.raw_os_error(), Some(libc::ENAMETOOLONG));
    assert_eq!(fs::create_dir(folder.join("a")).unwrap_err().raw_os_error(), Some(libc::EEXIST));
    assert_eq!(fs::remove_dir(folder).unwrap_err().raw_os_error(), Some(libc::ENOTEMPTY));
    assert_eq!(fs::read(folder.join("absent")).unwrap_err().raw_os_error(), Some(libc::ENOENT));
    assert_eq!(fs::read(folder.join("a/b")).unwrap_err().raw_os_error(), Some(libc::ENOTDIR));
}

fn sizes(folder: &Path) {
    let mib = 1 << 20;
    for length in
        [0, 1, 4095, 4096, 4097, mib - 1, mib, mib + 1, 8 * mib - 1, 8 * mib, 8 * mib + 1, 20 * mib + 777]
    {
        let path = folder.join(length.to_string());
        let bytes = Content::new(length as u64).bytes(length);
        fs::write(&path, &bytes).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().len(), length as u64);
        same(&path, &bytes);
    }
    // Again, from the servers: nothing may live in the kernel's cache only.
    drop_caches();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let length: usize = path.file_name().unwrap().to_str().unwrap().parse().unwrap();
        same(&path, &Content::new(length as u64).bytes(length));
    }
}

/// Only root may; for others the reads come from the cache and prove less.
fn drop_caches() {
    drop(fs::write("/proc/sys/vm/drop_caches", "3"));
}

fn overwrite(folder: &Path) {
    let path = folder.join("f");
    let mut model = Content::new(1).bytes(3_000_000);
    fs::write(&path, &model).unwrap();
    let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
    for (number, at) in [0_usize, 1, 4095, 4096, 70_000, 1_048_570, 2_999_990].into_iter().enumerate() {
        let piece = Content::new(100 + number as u64).bytes(5_000);
        file.write_all_at(&piece, at as u64).unwrap();
        model.resize(model.len().max(at + piece.len()), 0);
        model[at..at + piece.len()].copy_from_slice(&piece);
        let mut seen = vec![0; piece.len()];
        file.read_exact_at(&mut seen, at as u64).unwrap();
        assert_eq!(first_difference(&seen, &piece), None, "read what was just written at {at}");
    }
    file.sync_all().unwrap();
    let mut log = OpenOptions::new().append(true).open(&path).unwrap();
    log.write_all(b"the end").unwrap();
    model.extend_from_slice(b"the end");
    drop((file, log));
    drop_caches();
    same(&path, &model);
}

fn truncate(folder: &Path) {
    let path = folder.join("f");
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).unwrap();
    let bytes = Content::new(2).bytes(9_000_000);
    file.write_all_at(&bytes, 0).unwrap();
    for cut in [8_500_000_usize, 5000, 4096, 1] {
        file.set_len(cut as u64).unwrap();
        file.set_len(9_000_000).unwrap();
        let mut model = bytes[..cut].to_vec();
        model.resize(9_000_000, 0);
        same(&path, &model);
        drop_caches();
        same(&path, &model);
    }
    drop(OpenOptions::new().write(true).truncate(true).open(&path).unwrap());
    assert_eq!(fs::metadata(&path).unwrap().len(), 0);
    file.set_len(100).unwrap();
    same(&path, &[0; 100]);
}

fn holes(folder: &Path) {
    let path = folder.join("f");
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).unwrap();
    file.write_all_at(b"far", 100 << 20).unwrap();
    file.sync_all().unwrap();
    let mut seen = [1; 4096];
    file.read_exact_at(&mut seen, 50 << 20).unwrap();
    assert_eq!(seen, [0; 4096]);
    let meta = fs::metadata(&path).unwrap();
    assert_eq!(meta.len(), (100 << 20) + 3);
    assert!(meta.blocks() * 512 < 10 << 20, "a hole takes no space: {} bytes", meta.blocks() * 512);
}

fn unlinked(folder: &Path) {
    let path = folder.join("f");
    let mut file = OpenOptions::new().read(true).write(true).create_new(true).open(&path).unwrap();
    file.write_all(b"before ").unwrap();
    fs::remove_file(&path).unwrap();
    assert!(!path.exists());
    file.write_all(b"after").unwrap();
    file.sync_all().unwrap();
    file.seek(SeekFrom::Start(0)).unwrap();
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    assert_eq!(text, "before after");
    assert_eq!(file.metadata().unwrap().nlink(), 0);
}

fn attributes(folder: &Path) {
    let path = folder.join("f");
    fs::write(&path, "x").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o640);
    let when = SystemTime::UNIX_EPOCH + Duration::new(1_000_000_000, 123_456_789);
    let file = File::options().write(true).open(&path).unwrap();
    file.set_times(fs::FileTimes::new().set_accessed(when).set_modified(when)).unwrap();
    drop(file);
    assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), when);
    drop_caches();
    assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), when, "after the caches are gone");
    let before = fs::metadata(&path).unwrap().ctime_nsec();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    assert_ne!(fs::metadata(&path).unwrap().ctime_nsec(), before, "a change moves ctime");
    if nix::unistd::geteuid().is_root() {
        std::os::unix::fs::chown(&path, Some(12), Some(34)).unwrap();
        let meta = fs::metadata(&path).unwrap();
        assert_eq!((meta.uid(), meta.gid()), (12, 34));
    }
}

fn links(folder: &Path) {
    let (a, b, s) = (folder.join("a"), folder.join("b"), folder.join("s"));
    fs::write(&a, "one").unwrap();
    fs::hard_link(&a, &b).unwrap();
    assert_eq!(fs::metadata(&a).unwrap().nlink(), 2);
    assert_eq!(fs::metadata(&a).unwrap().ino(), fs::metadata(&b).unwrap().ino());
    OpenOptions::new().append(true).open(&b).unwrap().write_all(b" two").unwrap();
    same(&a, b"one two");
    fs::remove_file(&a).unwrap();
    same(&b, b"one two");
    assert_eq!(fs::metadata(&b).unwrap().nlink(), 1);
    symlink("b", &s).unwrap();
    assert_eq!(fs::read_link(&s).unwrap(), Path::new("b"));
    same(&s, b"one two");
    assert_eq!(fs::symlink_metadata(&s).unwrap().len(), 1);
}

fn xattrs(folder: &Path) {
    let path = folder.join("f");
    fs::write(&path, "").unwrap();
    let (file, name) = (c_string(path.to_str().unwrap()), c_string("user.colour"));
    let set = |value: &[u8], flags| {
        // SAFETY: both strings end in a zero and live over the call; the value is as long as said.
        unsafe { libc::setxattr(file.as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), flags) }
    };
    let get = || {
        let mut buffer = [0_u8; 100];
        // SAFETY: as above; the buffer is as long as said.
        let n =
            unsafe { libc::getxattr(file.as_ptr(), name.as_ptr(), buffer.as_mut_ptr().cast(), buffer.len()) };
        usize::try_from(n).ok().map(|n| buffer[..n].to_vec())
    };
    assert_eq!(get(), None);
    assert_eq!(set(b"green", libc::XATTR_REPLACE), -1, "nothing to replace");
    assert_eq!(set(b"green", libc::XATTR_CREATE), 0);
    assert_eq!(get().as_deref(), Some(&b"green"[..]));
    assert_eq!(set(b"blue", libc::XATTR_CREATE), -1, "it is there");
    assert_eq!(set(b"", 0), 0);
    assert_eq!(get().as_deref(), Some(&b""[..]), "an empty value is a value");
    // SAFETY: as above.
    assert_eq!(unsafe { libc::removexattr(file.as_ptr(), name.as_ptr()) }, 0);
    assert_eq!(get(), None);
}

fn c_string(text: &str) -> CString {
    CString::new(text).unwrap()
}

fn rename(folder: &Path) {
    let (a, b) = (folder.join("a"), folder.join("b"));
    fs::write(&a, "a").unwrap();
    fs::write(&b, "b").unwrap();
    let swap = |flags| {
        let (from, to) = (c_string(a.to_str().unwrap()), c_string(b.to_str().unwrap()));
        // SAFETY: both strings end in a zero and live over the call.
        unsafe { libc::renameat2(libc::AT_FDCWD, from.as_ptr(), libc::AT_FDCWD, to.as_ptr(), flags) }
    };
    assert_eq!(swap(libc::RENAME_NOREPLACE), -1);
    assert_eq!(swap(libc::RENAME_EXCHANGE), 0);
    same(&a, b"b");
    same(&b, b"a");
    fs::rename(&a, &b).unwrap();
    same(&b, b"b");
    fs::create_dir_all(folder.join("d/e")).unwrap();
    assert!(
        fs::rename(folder.join("d"), folder.join("d/e/f")).is_err(),
        "a directory cannot move below itself"
    );
    fs::rename(&b, folder.join("d/e/b")).unwrap();
    same(&folder.join("d/e/b"), b"b");
}

fn direct(folder: &Path) {
    for (name, flags) in [("sync", libc::O_SYNC), ("dsync", libc::O_DSYNC), ("direct", libc::O_DIRECT)] {
        let path = folder.join(name);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .custom_flags(flags)
            .open(&path)
            .unwrap();
        // O_DIRECT wants an aligned buffer on local file systems; what is aligned works everywhere.
        let mut room = vec![0_u8; 3 * 4096];
        let at = room.as_ptr().align_offset(4096);
        let buffer = &mut room[at..at + 8192];
        Content::new(9).fill(0, buffer);
        file.write_all_at(buffer, 4096).unwrap();
        drop(file);
        let mut model = vec![0; 4096];
        model.extend_from_slice(&Content::new(9).bytes(8192));
        same(&path, &model);
    }
}

fn memory_map(folder: &Path) {
    // Through python, as a second program would: a shared map written, synced, and read by everyone else.
    let path = folder.join("m");
    fs::write(&path, vec![b'.'; 10_000]).unwrap();
    shell(
        folder,
        "python3 -c 'import mmap,os
f=os.open(\"m\",os.O_RDWR); m=mmap.mmap(f,10000); m[5000:5005]=b\"mmap!\"; m.flush(); m.close(); os.close(f)'",
    );
    drop_caches();
    let mut model = vec![b'.'; 10_000];
    model[5000..5005].copy_from_slice(b"mmap!");
    same(&path, &model);
}

fn space(folder: &Path) {
    let stat = nix::sys::statvfs::statvfs(folder).unwrap();
    assert!(stat.blocks() > 0 && stat.blocks_available() <= stat.blocks_free());
    assert!(stat.blocks_free() <= stat.blocks());
}

#[test]
fn two_mounts_see_each_other() {
    let mut cluster = Cluster::start(1, 3).unwrap();
    let here = cluster.mount().unwrap();
    let there = cluster.mount().unwrap();
    let bytes = Content::new(5).bytes(2_000_000);
    fs::write(here.join("f"), &bytes).unwrap();
    // Close-to-open: what was closed here is seen by whoever opens it afterwards there.
    same(&there.join("f"), &bytes);
    for round in 0_u64..5 {
        let bytes = Content::new(round).bytes(10_000);
        let (writer, reader) = if round % 2 == 0 { (&here, &there) } else { (&there, &here) };
        fs::write(writer.join("f"), &bytes).unwrap();
        same(&reader.join("f"), &bytes);
    }
    fs::rename(here.join("f"), here.join("g")).unwrap();
    // Names may be a second old.
    wait_until("the other mount sees the new name", Deadline::within(Duration::from_secs(5)), || {
        Ok(there.join("g").exists() && !there.join("f").exists())
    })
    .unwrap();

    // A mount that believes nothing is told at once.
    let asking = cluster.mount_with(&["--ttl-ms", "0"]).unwrap();
    for round in 0..20 {
        let (old, new) = (format!("n{round}"), format!("n{}", round + 1));
        fs::write(here.join(&old), b"1").unwrap();
        assert!(asking.join(&old).exists() && !asking.join(&new).exists());
        fs::rename(here.join(&old), here.join(&new)).unwrap();
        assert!(!asking.join(&old).exists() && asking.join(&new).exists());
        fs::remove_file(here.join(&new)).unwrap();
        assert!(!asking.join(&new).exists());
    }
    // Unlinked elsewhere: who has it open may go on asking what it is.
    let open = File::create(asking.join("o")).unwrap();
    assert_eq!(open.metadata().unwrap().nlink(), 1);
    fs::remove_file(here.join("o")).unwrap();
    assert_eq!(open.metadata().unwrap().nlink(), 0);
    assert_eq!(asking.join("o").metadata().unwrap_err().raw_os_error(), Some(libc::ENOENT));
    drop(open);
    cluster.finish().unwrap();
}
