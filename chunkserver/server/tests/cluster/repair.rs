//! Damage is found, by whoever reads first, and repaired from another member.

use std::time::Duration;

use chunkserver_api::ChunkError;
use coord_types::{ChunkKey, GroupId};

use crate::process::metric;
use crate::support::{Cluster, damage, eventually, key, pattern};

async fn wait_repaired(cluster: &Cluster, at: usize, blocks: u64) {
    eventually("the blocks are repaired", || async {
        let repaired = metric(cluster, at, "pangu_chunkserver_repaired_blocks_total").await;
        (repaired >= blocks).then_some(())
    })
    .await;
}

async fn assert_clean(cluster: &mut Cluster, at: usize) {
    cluster.stop(at).await;
    let report = chunkserver_server::verify::verify(&cluster.disk(at)).await.expect("a disk");
    assert!(report.is_clean(), "{report}");
}

/// Whether the server is asked as primary of group 1 or not, its disk must end up whole.
async fn a_read_finds_it(of_primary: bool) {
    let mut cluster = Cluster::start().await;
    let data = pattern(7, 40_960);
    cluster.write(key(1, 0), 0, &data).await;
    let victim = (cluster.primary(GroupId(1)) + usize::from(!of_primary)) % 3;
    assert_eq!(damage(&cluster.disk(victim), &data[8192..12_288]), 1);
    assert_eq!(damage(&cluster.disk(victim), &data[16_384..20_480]), 1);
    let answer = cluster.try_read(victim, key(1, 0), 0..40_960).await;
    assert!(matches!(answer, Err(ChunkError::Damaged { .. })), "{answer:?}");
    let read = eventually("the member is whole again", || async {
        cluster.try_read(victim, key(1, 0), 0..40_960).await.ok()
    })
    .await;
    assert!(read.data[..] == data[..] && read.verify().is_none());
    wait_repaired(&cluster, victim, 2).await;
    assert_eq!(metric(&cluster, victim, "pangu_chunkserver_repaired_blocks_total").await, 2);
    eventually("the master is told", || async {
        let told = |at| cluster.master.last_heartbeat(cluster.disk_id(at)).map(|last| last.disks[0].errors);
        let others = (0..3).filter(|at| *at != victim).all(|at| told(at) == Some(0));
        (told(victim) == Some(2) && others).then_some(())
    })
    .await;
    assert_clean(&mut cluster, victim).await;
}

#[tokio::test]
async fn a_primary_is_repaired_when_a_read_finds_damage() {
    a_read_finds_it(true).await;
}

#[tokio::test]
async fn a_secondary_is_repaired_when_a_read_finds_damage() {
    a_read_finds_it(false).await;
}

#[tokio::test]
async fn the_scrub_finds_what_nobody_reads() {
    let mut cluster = Cluster::start().await;
    let keys: Vec<ChunkKey> = (0..12).map(|at| key(at % 6 + 1, at)).collect();
    for (fill, key) in keys.iter().enumerate() {
        cluster.write(*key, 0, &pattern(fill as u64 + 100, 8192)).await;
    }
    cluster.master.set_scrub_period(Duration::from_secs(1));
    for at in 0..3 {
        cluster.stop(at).await;
        // Each chunk is damaged on one disk, at its first block or its second.
        for fill in (at..keys.len()).step_by(3) {
            let from = fill % 2 * 4096;
            let data = pattern(fill as u64 + 100, 8192);
            assert_eq!(damage(&cluster.disk(at), &data[from..from + 4096]), 1);
        }
        cluster.start_server(at);
    }
    for at in 0..3 {
        wait_repaired(&cluster, at, 4).await;
        eventually("a pass ended", || async {
            (metric(&cluster, at, "pangu_chunkserver_scrubs_total").await >= 2).then_some(())
        })
        .await;
        assert_eq!(metric(&cluster, at, "pangu_chunkserver_disk_damaged_chunks").await, 0);
    }
    for (fill, key) in keys.iter().enumerate() {
        assert!(cluster.same_everywhere(*key).await[..8192] == pattern(fill as u64 + 100, 8192));
    }
    for at in 0..3 {
        assert_clean(&mut cluster, at).await;
    }
}

#[tokio::test]
async fn a_segment_that_was_cut_off_is_repaired() {
    let mut cluster = Cluster::start().await;
    let data = pattern(9, 100_000);
    for index in 0..4 {
        cluster.write(key(2, index), 0, &data).await;
    }
    let segment = cluster.disk(0).join("seg-00000000");
    let file = std::fs::OpenOptions::new().write(true).open(&segment).expect("a segment");
    file.set_len(65_536).expect("cut");
    for index in 0..4 {
        let read = eventually("the member is whole again", || async {
            cluster.try_read(0, key(2, index), 0..100_000).await.ok()
        })
        .await;
        assert!(read.data[..100_000] == data[..]);
    }
    for index in 0..4 {
        assert!(cluster.same_everywhere(key(2, index)).await[..100_000] == data[..]);
    }
    cluster.stop(0).await;
}

#[tokio::test]
async fn what_no_member_has_stays_damaged_and_counts_as_that() {
    let cluster = Cluster::start().await;
    let data = pattern(11, 8192);
    cluster.write(key(1, 0), 0, &data).await;
    for at in 0..3 {
        assert_eq!(damage(&cluster.disk(at), &data[..4096]), 1);
    }
    for at in 0..3 {
        let answer = cluster.try_read(at, key(1, 0), 0..8192).await;
        assert!(matches!(answer, Err(ChunkError::Damaged { .. })), "{answer:?}");
        eventually("the repair looked for a copy", || async {
            (metric(&cluster, at, "pangu_chunkserver_damaged_blocks_total").await > 0).then_some(())
        })
        .await;
        let again = cluster.try_read(at, key(1, 0), 0..4096).await;
        assert!(matches!(again, Err(ChunkError::Damaged { .. })), "{again:?}");
    }
    for at in 0..3 {
        assert_eq!(metric(&cluster, at, "pangu_chunkserver_repaired_blocks_total").await, 0);
        assert_eq!(metric(&cluster, at, "pangu_chunkserver_disk_damaged_chunks").await, 1);
        assert!(cluster.try_read(at, key(1, 0), 4096..8192).await.is_ok(), "the rest is whole");
    }
}

/// Nobody reads it again: what could not be repaired is tried again by itself.
#[tokio::test]
async fn what_could_not_be_repaired_is_once_the_others_are_back() {
    let mut cluster = Cluster::start().await;
    let data = pattern(13, 8192);
    cluster.write(key(1, 0), 0, &data).await;
    let victim = cluster.primary(GroupId(1));
    let others = [(victim + 1) % 3, (victim + 2) % 3];
    cluster.stop(others[0]).await;
    cluster.stop(others[1]).await;
    assert_eq!(damage(&cluster.disk(victim), &data[..4096]), 1);
    let answer = cluster.try_read(victim, key(1, 0), 0..8192).await;
    assert!(matches!(answer, Err(ChunkError::Damaged { .. })), "{answer:?}");
    let damaged =
        async |cluster: &Cluster| metric(cluster, victim, "pangu_chunkserver_disk_damaged_chunks").await;
    eventually("the damage is known", || async { (damaged(&cluster).await == 1).then_some(()) }).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(damaged(&cluster).await, 1, "no member has it");
    cluster.start_server(others[0]);
    cluster.start_server(others[1]);
    eventually("it is repaired", || async { (damaged(&cluster).await == 0).then_some(()) }).await;
    assert_eq!(metric(&cluster, victim, "pangu_chunkserver_repaired_blocks_total").await, 1);
}
