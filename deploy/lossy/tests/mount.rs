//! A mounted disk loses power: what programs had synced through the kernel is there, and only that is promised.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use deploy_lossy::{Loss, LossyDisk, Options, Report};

const BLOCK: usize = 4096;

struct Scene {
    disk: LossyDisk,
    // Dropped after the mount.
    _folder: tempfile::TempDir,
}

impl Scene {
    /// None where nothing can be mounted.
    fn new(options: Options) -> Option<Self> {
        if !Path::new("/dev/fuse").exists() {
            eprintln!("no /dev/fuse: not tested");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let (point, backing) = (folder.path().join("disk"), folder.path().join("backing"));
        fs::create_dir(&point).unwrap();
        fs::create_dir(&backing).unwrap();
        let disk = LossyDisk::mount(&point, &backing, options).unwrap();
        Some(Self { disk, _folder: folder })
    }

    fn at(&self, name: &str) -> PathBuf {
        self.disk.path().join(name)
    }

    fn cut(&self, loss: Loss) -> Report {
        let report = self.disk.cut(loss).unwrap();
        self.disk.power_on();
        report
    }
}

fn sync(path: &Path) {
    File::open(path).unwrap().sync_all().unwrap();
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn synced_survives_and_unsynced_goes() {
    let Some(scene) = Scene::new(Options::default()) else { return };
    let root = scene.disk.path();
    for name in ["both", "file only", "directory only"] {
        fs::write(scene.at(name), vec![7; 10_000]).unwrap();
    }
    sync(&scene.at("both"));
    sync(root);
    fs::write(scene.at("file only"), [7]).unwrap();
    fs::write(scene.at("new"), [7]).unwrap();
    sync(&scene.at("new"));
    assert_eq!(names(root), ["both", "directory only", "file only", "new"]);
    let report = scene.cut(Loss::All);
    assert_eq!(names(root), ["both", "directory only", "file only"]);
    assert_eq!(fs::read(scene.at("both")).unwrap(), vec![7; 10_000]);
    assert_eq!(fs::read(scene.at("directory only")).unwrap(), []);
    assert_eq!((report.names_lost, report.names_kept, report.blocks_kept), (1, 0, 0));
    assert_eq!(scene.cut(Loss::All), Report::default());
}

#[test]
fn files_appear_whole_only_by_the_whole_ritual() {
    let Some(scene) = Scene::new(Options::default()) else { return };
    let (new, path) = (scene.at("new"), scene.at("file"));
    let ritual = |content: &[u8], steps: usize| {
        let mut file = File::create(&new).unwrap();
        file.write_all(content).unwrap();
        if steps > 0 {
            file.sync_all().unwrap();
        }
        fs::rename(&new, &path).unwrap();
        if steps > 1 {
            sync(scene.disk.path());
        }
    };
    ritual(b"first", 2);
    ritual(b"second", 1);
    assert_eq!(fs::read(&path).unwrap(), b"second");
    scene.cut(Loss::All);
    assert_eq!(fs::read(&path).unwrap(), b"first", "the directory was not synced");
    ritual(b"third", 0);
    sync(scene.disk.path());
    scene.cut(Loss::All);
    assert_eq!(fs::read(&path).unwrap(), b"", "the file was not synced");
}

#[test]
fn what_is_synced_in_a_directory_without_a_name_is_lost_with_it() {
    let Some(scene) = Scene::new(Options::default()) else { return };
    for dir in ["a", "b"] {
        fs::create_dir(scene.at(dir)).unwrap();
        fs::write(scene.at(dir).join("file"), b"x").unwrap();
        sync(&scene.at(dir).join("file"));
        sync(&scene.at(dir));
        if dir == "a" {
            sync(scene.disk.path());
        }
    }
    scene.cut(Loss::All);
    assert_eq!(names(scene.disk.path()), ["a"]);
    assert_eq!(fs::read(scene.at("a/file")).unwrap(), b"x");
    // Links, moves and removals, undone all at once.
    fs::hard_link(scene.at("a/file"), scene.at("link")).unwrap();
    fs::rename(scene.at("a/file"), scene.at("moved")).unwrap();
    fs::remove_file(scene.at("link")).unwrap();
    fs::remove_dir_all(scene.at("a")).unwrap();
    scene.cut(Loss::All);
    assert_eq!(fs::read(scene.at("a/file")).unwrap(), b"x");
}

#[repr(align(4096))]
struct Aligned([u8; BLOCK]);

/// What the servers do: around the page cache, durable each by itself, by system call and by io_uring.
#[test]
fn a_synced_write_is_durable_and_its_neighbour_is_not() {
    let Some(scene) = Scene::new(Options::default()) else { return };
    let path = scene.at("file");
    fs::write(&path, vec![1; 8 * BLOCK]).unwrap();
    sync(&path);
    sync(scene.disk.path());
    {
        let direct =
            OpenOptions::new().read(true).write(true).custom_flags(libc::O_DIRECT).open(&path).unwrap();
        let data = Box::new(Aligned([2; BLOCK]));
        direct.write_all_at(&data.0, 0).unwrap();
        let piece = libc::iovec { iov_base: (&raw const data.0).cast_mut().cast(), iov_len: BLOCK };
        // SAFETY: the descriptor is open, the buffer lives on.
        let written =
            unsafe { libc::pwritev2(direct.as_raw_fd(), &raw const piece, 1, BLOCK as i64, libc::RWF_DSYNC) };
        assert_eq!(written, BLOCK as isize);
        let mut ring = io_uring::IoUring::new(4).unwrap();
        ring.submitter().register_files(&[direct.as_raw_fd()]).unwrap();
        // SAFETY: the buffer outlives the ring's use of it, which ends with the completions below.
        unsafe { ring.submitter().register_buffers(&[piece]).unwrap() };
        for (block, flags) in [(2, 0), (3, libc::RWF_DSYNC)] {
            let write = io_uring::opcode::WriteFixed::new(
                io_uring::types::Fixed(0),
                data.0.as_ptr(),
                BLOCK as u32,
                0,
            );
            let entry = write.offset(block * BLOCK as u64).rw_flags(flags).build();
            // SAFETY: as above.
            unsafe { ring.submission().push(&entry).unwrap() };
        }
        ring.submit_and_wait(2).unwrap();
        for done in ring.completion() {
            assert_eq!(done.result(), BLOCK as i32);
        }
        let synced = OpenOptions::new().write(true).custom_flags(libc::O_DSYNC).open(&path).unwrap();
        synced.write_all_at(&[2; 100], 5 * BLOCK as u64).unwrap();
        let mut read = Box::new(Aligned([0; BLOCK]));
        direct.read_exact_at(&mut read.0, 2 * BLOCK as u64).unwrap();
        assert_eq!(read.0, [2; BLOCK]);
    }
    scene.cut(Loss::All);
    let left = fs::read(&path).unwrap();
    let firsts: Vec<u8> = left.chunks(BLOCK).map(|block| block[0]).collect();
    assert_eq!(firsts, [1, 2, 1, 2, 1, 2, 1, 1]);
}

#[test]
fn a_seed_leaves_the_same_again_and_another_something_else() {
    let run = |seed| {
        let scene = Scene::new(Options::default())?;
        for n in 0..30 {
            fs::write(scene.at(&format!("file{n}")), vec![1; 20_000]).unwrap();
            sync(&scene.at(&format!("file{n}")));
        }
        sync(scene.disk.path());
        for n in 0..30 {
            let path = scene.at(&format!("file{n}"));
            fs::write(&path, vec![2; 30_000]).unwrap();
            fs::rename(path, scene.at(&format!("moved{n}"))).unwrap();
        }
        let report = scene.cut(Loss::Subset(seed));
        let left: Vec<_> = names(scene.disk.path())
            .into_iter()
            .map(|name| (fs::read(scene.at(&name)).unwrap(), name))
            .collect();
        assert_eq!(left.len(), 30, "a rename is not done by half");
        Some((report, left))
    };
    let Some((report, left)) = run(1) else { return };
    assert!(run(1).unwrap() == (report, left.clone()));
    let mut sum = report;
    for seed in 2..6 {
        let (more, other) = run(seed).unwrap();
        assert!(other != left);
        sum.blocks_torn += more.blocks_torn;
        sum.blocks_kept += more.blocks_kept;
        sum.blocks_lost += more.blocks_lost;
        sum.names_kept += more.names_kept;
        sum.names_lost += more.names_lost;
    }
    let each = [sum.blocks_torn, sum.blocks_kept, sum.blocks_lost, sum.names_kept, sum.names_lost];
    assert!(each.iter().all(|count| *count > 0), "{sum:?}");
}

#[test]
fn a_frozen_disk_holds_its_callers_until_the_cut() {
    let Some(scene) = Scene::new(Options::default()) else { return };
    let path = scene.at("file");
    let file = File::create(&path).unwrap();
    sync(scene.disk.path());
    scene.disk.freeze();
    let writer = std::thread::spawn(move || {
        let written = (&file).write_all(b"x").and_then(|()| file.sync_all());
        (written, file)
    });
    std::thread::sleep(Duration::from_millis(50));
    assert!(!writer.is_finished());
    scene.disk.cut(Loss::Subset(1)).unwrap();
    let (written, file) = writer.join().unwrap();
    assert_eq!(written.unwrap_err().raw_os_error(), Some(libc::EIO));
    assert!(fs::read_dir(scene.disk.path()).is_err(), "no power");
    scene.disk.power_on();
    assert_eq!(fs::read(&path).unwrap(), b"");
    assert_eq!(file.write_at(b"x", 0).unwrap_err().raw_os_error(), Some(libc::EIO), "of before the cut");
    drop(file);
    assert_eq!(fs::create_dir(&path).unwrap_err().kind(), ErrorKind::AlreadyExists);
}

#[test]
fn a_sync_counts_at_its_end() {
    let Some(scene) = Scene::new(Options { sync_delay: Duration::from_secs(1) }) else { return };
    let path = scene.at("file");
    let file = File::create(&path).unwrap();
    let began = Instant::now();
    sync(scene.disk.path());
    assert!(began.elapsed() >= Duration::from_secs(1));
    let writer = std::thread::spawn(move || (&file).write_all(b"x").and_then(|()| file.sync_all()));
    while fs::metadata(&path).unwrap().len() == 0 {
        assert!(began.elapsed() < Duration::from_secs(20));
    }
    scene.cut(Loss::All);
    assert_eq!(writer.join().unwrap().unwrap_err().raw_os_error(), Some(libc::EIO));
    assert_eq!(fs::read(&path).unwrap(), b"");
}

#[test]
fn ignored_syncs_lose_what_was_confirmed() {
    let Some(scene) = Scene::new(Options::default()) else { return };
    fs::write(scene.at("file"), b"old").unwrap();
    sync(&scene.at("file"));
    sync(scene.disk.path());
    scene.disk.ignore_syncs(true);
    fs::write(scene.at("file"), b"new").unwrap();
    sync(&scene.at("file"));
    scene.cut(Loss::All);
    assert_eq!(fs::read(scene.at("file")).unwrap(), b"old");
}
