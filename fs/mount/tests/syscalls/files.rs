//! open, read, write, fsync, truncate, fallocate, lseek, mmap, direct IO.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};

use nix::fcntl::{FallocateFlags, fallocate};
use nix::unistd::{Whence, lseek};

use crate::TestMount;

#[test]
fn what_is_written_is_read() {
    for mount in [TestMount::new(), TestMount::eager()] {
        let path = mount.path("file");
        // Three requests of the largest size and some.
        let data: Vec<u8> = (0..3_500_000u32).map(|n| (n % 251) as u8).collect();
        fs::write(&path, &data).unwrap();
        assert_eq!(fs::read(&path).unwrap(), data);
        // A buffer that begins within a page makes its first request a little shorter than 1 MiB.
        let writes = mount.fs.seen().iter().filter(|seen| seen.starts_with("write ")).count();
        assert_eq!(writes, 4, "requests are as large as they may be: {:?}", mount.fs.seen());
        let mut file = File::open(&path).unwrap();
        file.seek(SeekFrom::Start(3_499_990)).unwrap();
        let mut tail = Vec::new();
        file.read_to_end(&mut tail).unwrap();
        assert_eq!(tail, &data[3_499_990..]);
    }
}

#[test]
fn appends_land_at_the_end() {
    let mount = TestMount::new();
    let path = mount.path("log");
    for line in ["one\n", "two\n"] {
        OpenOptions::new().append(true).create(true).open(&path).unwrap().write_all(line.as_bytes()).unwrap();
    }
    assert_eq!(fs::read_to_string(path).unwrap(), "one\ntwo\n");
}

#[test]
fn fsync_and_fdatasync_arrive() {
    let mount = TestMount::new();
    let file = File::create(mount.path("f")).unwrap();
    file.sync_all().unwrap();
    file.sync_data().unwrap();
    File::open(mount.root()).unwrap().sync_all().unwrap();
    assert!(mount.saw("fsync data_only=false") && mount.saw("fsync data_only=true") && mount.saw("fsyncdir"));
}

#[test]
fn closing_flushes_and_releases() {
    let mount = TestMount::new();
    drop(File::create(mount.path("f")).unwrap());
    assert!(mount.saw("flush"));
    crate::eventually("release", || mount.saw("release"));
}

#[test]
fn truncates_on_open_and_by_name() {
    let mount = TestMount::new();
    let path = mount.path("f");
    fs::write(&path, "0123456789").unwrap();
    OpenOptions::new().write(true).open(&path).unwrap().set_len(4).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "0123");
    OpenOptions::new().write(true).open(&path).unwrap().set_len(6).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"0123\0\0");
    drop(OpenOptions::new().write(true).truncate(true).open(&path).unwrap());
    assert_eq!(fs::metadata(&path).unwrap().len(), 0);
    assert!(mount.saw("open trunc=true"), "truncated by the open itself");
}

#[test]
fn exclusive_create_happens_once() {
    let mount = TestMount::new();
    let create = || OpenOptions::new().write(true).create_new(true).open(mount.path("f"));
    create().unwrap();
    assert_eq!(create().unwrap_err().raw_os_error(), Some(libc::EEXIST));
    assert!(mount.saw("create f 644 excl=true"), "{:?}", mount.fs.seen());
}

#[test]
fn direct_io_goes_around_the_cache() {
    let mount = TestMount::new();
    let path = mount.path("f");
    let open = || {
        OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .custom_flags(libc::O_DIRECT)
            .open(&path)
            .unwrap()
    };
    let file = open();
    let block = [7u8; 4096];
    file.write_all_at(&block, 8192).unwrap();
    let reads = || mount.fs.seen().iter().filter(|seen| *seen == "read").count();
    let mut back = [0u8; 4096];
    for _ in 0..3 {
        file.read_exact_at(&mut back, 8192).unwrap();
    }
    assert_eq!(back, block);
    assert_eq!(reads(), 3, "each read is a request");
}

#[test]
fn maps_files_also_those_open_around_the_cache() {
    for flags in [0, libc::O_DIRECT] {
        let mount = TestMount::new();
        let path = mount.path("f");
        fs::write(&path, vec![b'a'; 8192]).unwrap();
        let file = OpenOptions::new().read(true).write(true).custom_flags(flags).open(&path).unwrap();
        let len = std::num::NonZeroUsize::new(8192).unwrap();
        let (prot, shared) = (
            nix::sys::mman::ProtFlags::PROT_READ | nix::sys::mman::ProtFlags::PROT_WRITE,
            nix::sys::mman::MapFlags::MAP_SHARED,
        );
        // SAFETY: a fresh mapping at an address of the kernel's choice, of a file nobody shortens; it is unmapped
        // below and its slice not used after.
        unsafe {
            let map = nix::sys::mman::mmap(None, len, prot, shared, &file, 0).unwrap();
            let bytes = std::slice::from_raw_parts_mut(map.as_ptr().cast::<u8>(), len.get());
            assert_eq!(bytes[8191], b'a');
            bytes[5000] = b'b';
            nix::sys::mman::msync(map, len.get(), nix::sys::mman::MsFlags::MS_SYNC).unwrap();
            nix::sys::mman::munmap(map, len.get()).unwrap();
        }
        drop(file);
        let data = fs::read(&path).unwrap();
        assert_eq!((data[4999], data[5000], data[5001]), (b'a', b'b', b'a'), "flags {flags:o}");
    }
}

#[test]
fn allocates_punches_and_finds_holes() {
    let mount = TestMount::new();
    let path = mount.path("f");
    fs::write(&path, vec![b'x'; 10_000]).unwrap();
    let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
    fallocate(&file, FallocateFlags::empty(), 0, 20_000).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 20_000);
    let punch = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    fallocate(&file, punch, 0, 4096).unwrap();
    let mut start = [1u8; 4097];
    file.read_exact_at(&mut start, 0).unwrap();
    assert_eq!((start[0], start[4095], start[4096]), (0, 0, b'x'));
    assert_eq!(lseek(&file, 100, Whence::SeekData).unwrap(), 100);
    assert_eq!(lseek(&file, 100, Whence::SeekHole).unwrap(), 20_000);
    assert_eq!(lseek(&file, 30_000, Whence::SeekData).unwrap_err(), nix::errno::Errno::ENXIO);
}

#[test]
fn copying_and_ioctl_fall_back_to_the_kernel() {
    let mount = TestMount::new();
    let (from, to) = (mount.path("from"), mount.path("to"));
    fs::write(&from, vec![b'z'; 100_000]).unwrap();
    // copy_file_range where it works, which the kernel then does by reading and writing.
    assert_eq!(fs::copy(&from, &to).unwrap(), 100_000);
    assert_eq!(fs::read(&to).unwrap(), vec![b'z'; 100_000]);
    let file = File::open(&to).unwrap();
    let mut out = 0i32;
    // SAFETY: FIGETBSZ-like query with a pointer to an int that lives through the call; the number is one that no file
    // system knows.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), 0x8004_7fff, &raw mut out) };
    assert_eq!((result, std::io::Error::last_os_error().raw_os_error()), (-1, Some(libc::ENOTTY)));
}
