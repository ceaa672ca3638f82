//! opendir, readdir, readdirplus, and how lookups are counted.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;

use crate::{TestMount, eventually};

#[test]
fn lists_five_thousand_entries_once_each() {
    let mount = TestMount::new();
    mount.fs.fill("file-with-a-name-of-usual-length-", 5000);
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(mount.root()).unwrap() {
        let entry = entry.unwrap();
        assert!(entry.file_type().unwrap().is_file());
        assert!(names.insert(entry.file_name()), "{:?} twice", entry.file_name());
    }
    assert_eq!(names.len(), 5000);
    assert!(mount.saw("readdir plus=true"));
}

#[test]
fn attributes_come_along() {
    let mount = TestMount::new();
    mount.fs.fill("f", 300);
    // The kernel asks for attributes as long as it sees them used.
    let sizes: u64 =
        fs::read_dir(mount.root()).unwrap().map(|entry| entry.unwrap().metadata().unwrap().size()).sum();
    assert_eq!(sizes, 0);
    let lookups = mount.fs.seen().iter().filter(|seen| *seen == "lookup").count();
    assert!(lookups < 300, "{lookups} lookups for 300 entries whose attributes came with the list");
}

/// Entries that found no room in a reply were counted as looked up by the handler but never reached the kernel:
/// after the kernel forgot all it knew, nothing may be left.
#[test]
fn lookups_balance() {
    let mount = TestMount::new();
    mount.fs.fill("some-longer-name-so-that-fewer-fit-in-a-reply-", 3000);
    // The kernel goes on asking for attributes only while it sees them used.
    for entry in fs::read_dir(mount.root()).unwrap() {
        entry.unwrap().metadata().unwrap();
    }
    let listings = mount.fs.seen().iter().filter(|seen| *seen == "readdir plus=true").count();
    assert!(listings > 3, "{listings}");
    eventually("the kernel forgets", || {
        fs::write("/proc/sys/vm/drop_caches", "2").unwrap();
        mount.fs.lookups().iter().all(|(ino, count)| *ino == 1 || *count == 0)
    });
}

#[test]
fn listing_goes_on_after_a_seek() {
    let mount = TestMount::new();
    mount.fs.fill("f", 500);
    let mut dir =
        nix::dir::Dir::open(mount.root(), nix::fcntl::OFlag::O_RDONLY, nix::sys::stat::Mode::empty())
            .unwrap();
    let first: Vec<_> = dir.iter().map(|entry| entry.unwrap().file_name().to_owned()).collect();
    // A fresh iterator begins again.
    let again: Vec<_> = dir.iter().map(|entry| entry.unwrap().file_name().to_owned()).collect();
    assert_eq!(first.len(), 502, "with the dots");
    assert_eq!(first, again);
}
