//! A directory of a hundred thousand files, and a file of five gigabytes with holes.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::Read as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::thread;
use std::time::Instant;

use deploy_e2e::{Content, first_difference};
use deploy_local_cluster::Cluster;

/// 100,000 with FEITIAN_FULL, else as many as fit into the time of a CI run.
fn how_many() -> usize {
    if std::env::var_os("FEITIAN_FULL").is_some() { 100_000 } else { 20_000 }
}

#[test]
fn long_a_directory_of_very_many_files() {
    let mut cluster = Cluster::start(3, 3).unwrap();
    let root = cluster.mount().unwrap();
    let folder = root.join("many");
    fs::create_dir(&folder).unwrap();
    let count = how_many();
    let started = Instant::now();
    thread::scope(|scope| {
        for worker in 0..8 {
            let folder = &folder;
            scope.spawn(move || {
                for number in (worker..count).step_by(8) {
                    File::create_new(folder.join(format!("file-{number:06}"))).unwrap();
                }
            });
        }
    });
    println!("{count} files made in {:?}", started.elapsed());
    let list = || -> HashSet<String> {
        let names =
            fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let all: Vec<String> = names.collect();
        let set: HashSet<String> = all.iter().cloned().collect();
        assert_eq!(set.len(), all.len(), "no name twice");
        set
    };
    let names = list();
    assert_eq!(names.len(), count);
    assert!((0..count).all(|number| names.contains(&format!("file-{number:06}"))));
    assert_eq!(fs::metadata(folder.join(format!("file-{:06}", count - 1))).unwrap().len(), 0);
    // Names that go while the directory is read: those that stay must all be seen, once.
    let mut reading = fs::read_dir(&folder).unwrap();
    let mut seen: Vec<String> = Vec::new();
    for number in 0..count {
        if number % 2 == 0 {
            fs::remove_file(folder.join(format!("file-{number:06}"))).unwrap();
        }
        if number % 4 == 0
            && let Some(entry) = reading.next()
        {
            seen.push(entry.unwrap().file_name().into_string().unwrap());
        }
        if number > 4_000 {
            break;
        }
    }
    seen.extend(reading.map(|entry| entry.unwrap().file_name().into_string().unwrap()));
    let set: HashSet<&String> = seen.iter().collect();
    assert_eq!(set.len(), seen.len(), "no name twice while others go");
    let missed = list().into_iter().filter(|name| !set.contains(name)).count();
    assert_eq!(missed, 0, "names that stayed and were not seen");
    fs::remove_dir_all(&folder).unwrap();
    assert!(!folder.exists());
    println!("all over in {:?}", started.elapsed());
    cluster.finish().unwrap();
}

#[test]
fn a_file_of_five_gigabytes_with_holes() {
    const GIB: u64 = 1 << 30;
    let mut cluster = Cluster::start(3, 3).unwrap();
    let root = cluster.mount().unwrap();
    let path = root.join("sparse");
    let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path).unwrap();
    file.set_len(5 * GIB).unwrap();
    // Pieces at odd places, also over the ends of chunks, far apart.
    let places: Vec<u64> =
        (0..40).map(|n| n * 131 * (1 << 20) + n * 777).chain([5 * GIB - 100_000, 4 * GIB - 50_000]).collect();
    for (number, place) in (0_u64..).zip(&places) {
        file.write_all_at(&Content::new(number).bytes(100_000), *place).unwrap();
    }
    file.sync_all().unwrap();
    drop(file);
    let meta = fs::metadata(&path).unwrap();
    assert_eq!(meta.len(), 5 * GIB);
    assert!(meta.blocks() * 512 < GIB, "the holes take no space: {} bytes", meta.blocks() * 512);
    // All of it, from the start: the pieces, and nothing but zeros between them.
    let mut order: Vec<(u64, u64)> = (0_u64..).zip(&places).map(|(number, place)| (*place, number)).collect();
    order.sort_unstable();
    let mut file = File::open(&path).unwrap();
    let mut buffer = vec![0; 4 << 20];
    let mut at = 0_u64;
    loop {
        let got = file.read(&mut buffer).unwrap();
        if got == 0 {
            break;
        }
        let end = at + got as u64;
        let mut wanted = vec![0; got];
        for (place, number) in order.iter().filter(|(place, _)| *place < end && place + 100_000 > at) {
            let from = at.max(*place);
            let upto = end.min(place + 100_000);
            let part = &mut wanted[usize::try_from(from - at).unwrap()..usize::try_from(upto - at).unwrap()];
            Content::new(*number).fill(from - place, part);
        }
        assert_eq!(first_difference(&buffer[..got], &wanted), None, "from {at} on");
        at = end;
    }
    assert_eq!(at, 5 * GIB);
    drop(file);
    fs::remove_file(&path).unwrap();
    cluster.finish().unwrap();
}
