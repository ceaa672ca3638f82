//! The fuzz target's driver on random and on mutated snapshots, so that every run of the tests does a little of it.
//! `coord/nuwa/fuzz` does it at length.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

#[path = "common/drive.rs"]
mod drive;

use nuwa_api::proto::{SnapshotHeader, SnapshotRecord};
use nuwa_api::snapshot::Writer;
use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};

/// A snapshot as it should be, behind the driver's choice.
fn valid(random: &mut StdRng) -> Vec<u8> {
    let header = SnapshotHeader { revision: 100, next_session: random.random(), ..SnapshotHeader::default() };
    let mut writer = Writer::new(vec![random.random()], header).unwrap();
    let record = |path: String, version| SnapshotRecord {
        path,
        version,
        created: 1,
        modified: 2,
        ..SnapshotRecord::default()
    };
    writer.add(vec![record("/".to_owned(), 1)]).unwrap();
    let directories = random.random_range(0..4);
    writer.add((0..directories).map(|n| record(format!("/{n}/"), 1)).collect()).unwrap();
    for n in 0..directories {
        let files = 0..random.random_range(0..4);
        writer.add(files.map(|file| record(format!("/{n}/{file}"), random.random())).collect()).unwrap();
    }
    writer.finish().unwrap().0
}

#[test]
fn mutated_snapshots() {
    let mut random = StdRng::seed_from_u64(1);
    for _ in 0..20_000 {
        let mut file = valid(&mut random);
        for _ in 0..random.random_range(0..4) {
            let at = random.random_range(1..file.len());
            match random.random_range(0..4) {
                0 => file[at] = random.random(),
                1 => file.truncate(at.max(2)),
                2 => file.insert(at, random.random()),
                _ => {
                    file.remove(at);
                }
            }
            if file.len() < 3 {
                break;
            }
        }
        drive::drive(&file);
    }
}

#[test]
fn random_bytes() {
    let mut random = StdRng::seed_from_u64(2);
    for _ in 0..20_000 {
        let mut file = vec![0; random.random_range(0..300)];
        random.fill_bytes(&mut file);
        drive::drive(&file);
    }
}
