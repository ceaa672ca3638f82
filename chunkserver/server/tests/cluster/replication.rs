//! Three chunkservers: data goes in, members go away and come back, and all of them show the same.

use std::time::{Duration, Instant};

use crate::support::{CHUNK, Cluster, EPOCH, eventually, key, pattern};
use chunkserver_api::ChunkError;
use coord_types::{Epoch, GroupId};
use futures::StreamExt as _;

#[tokio::test]
async fn what_is_written_can_be_read_from_every_member() {
    let cluster = Cluster::start().await;
    for group in 1..=6 {
        let key = key(group, group);
        let mut model = vec![0; CHUNK as usize];
        for (fill, (offset, len)) in
            [(0, CHUNK as usize), (4096, 8192), (10, 5), (5000, 9000), (CHUNK as usize - 7, 7)]
                .into_iter()
                .enumerate()
        {
            let data = pattern(fill as u64, len);
            cluster.write(key, offset as u32, &data).await;
            model[offset..offset + data.len()].copy_from_slice(&data);
        }
        assert!(cluster.same_everywhere(key).await == model);
        let before = cluster.punch(key, 100_000..300_000).await;
        assert!(before.allocated_delta_bytes < 0, "a punch frees whole blocks: {before:?}");
        model[100_000..300_000].fill(0);
        assert!(cluster.same_everywhere(key).await == model);
    }
}

#[tokio::test]
async fn absent_chunks_and_parts_are_holes() {
    let cluster = Cluster::start().await;
    let read = cluster.try_read(cluster.primary(GroupId(1)), key(1, 9), 0..4096).await.expect("a hole");
    assert!(read.hole && read.data.is_empty());
    let first = cluster.write(key(1, 9), 65536, &pattern(1, 4096)).await;
    assert_eq!(first.allocated_delta_bytes, 4096);
    let map = chunkserver_api::Map { key: key(1, 9), epoch: EPOCH };
    let options = kuafu::CallOptions::within(Duration::from_secs(5));
    let ranges = cluster.client(cluster.primary(GroupId(1))).map(&map, &options).await.expect("a map");
    assert_eq!(ranges, [(65536, 4096)]);
}

#[tokio::test]
async fn groups_are_writable_at_once_after_registration() {
    let start = Instant::now();
    let cluster = Cluster::start_inactive().await;
    let opened = start.elapsed();
    for group in 1..=6 {
        eventually("the table has the group", || async { cluster.master.has_groups().then_some(()) }).await;
        cluster.write(key(group, 0), 0, b"first").await;
    }
    let active = start.elapsed().checked_sub(opened).expect("time goes on");
    assert!(active < Duration::from_secs(2), "the first writes took {active:?}");
}

/// Writes go on while `disturb` runs; all are answered in the end, and all members are equal.
async fn under_load(mut cluster: Cluster, groups: [u32; 2], mut disturb: impl AsyncFnMut(&mut Cluster)) {
    let written = std::cell::Cell::new(0u64);
    let stop = std::cell::Cell::new(false);
    let slots: Vec<(u32, u32)> = groups.into_iter().flat_map(|group| [(group, 0), (group, 1)]).collect();
    // The disturber needs the cluster for itself; the writers get what they need beforehand.
    let (writers, tasks): (Vec<_>, Vec<_>) =
        slots.iter().map(|(group, index)| (cluster.writer(key(*group, *index)), key(*group, *index))).unzip();
    let load = futures::future::join_all(writers.iter().map(|writer| async {
        let mut last = 0;
        let mut seq = 0;
        while !stop.get() {
            seq += 1;
            writer.write(seq).await;
            last = seq;
            written.set(written.get() + 1);
        }
        last
    }));
    let disturbing = async {
        disturb(&mut cluster).await;
        let reached = written.get() + 20;
        eventually("writes go on after the disturbance", || async {
            (written.get() >= reached).then_some(())
        })
        .await;
        stop.set(true);
    };
    let (lasts, ()) = futures::future::join(load, disturbing).await;
    for (key, last) in tasks.into_iter().zip(lasts) {
        let bytes = cluster.same_everywhere(key).await;
        assert!(
            bytes[..crate::support::WRITER_BYTES] == pattern(last, crate::support::WRITER_BYTES),
            "the last write to {key:?} is there"
        );
    }
}

#[tokio::test]
async fn a_secondary_dies_and_returns_under_load() {
    let cluster = Cluster::start().await;
    let secondary =
        (0..3).find(|at| *at != cluster.primary(GroupId(1)) && *at != cluster.primary(GroupId(2)));
    let secondary = secondary.expect("three servers");
    under_load(cluster, [1, 2], async |cluster| {
        for _ in 0..3 {
            cluster.kill(secondary);
            // Somebody must notice that it is gone before it is back.
            let probe = cluster.write_of(key(1, 5), 0, b"probe");
            let primary = cluster.primary(GroupId(1));
            let options = kuafu::CallOptions::within(Duration::from_millis(300));
            let answer =
                cluster.client(primary).write(&probe, bytes::Bytes::from_static(b"probe"), &options).await;
            assert!(answer.is_err(), "a write without a member was acknowledged");
            cluster.start_server(secondary);
            let back = Instant::now();
            cluster.write(key(1, 5), 0, b"after").await;
            let took = back.elapsed();
            assert!(took < Duration::from_secs(2), "writes went on {took:?} after the member was back");
        }
    })
    .await;
}

#[tokio::test]
async fn a_primary_dies_and_returns_under_load() {
    let cluster = Cluster::start().await;
    let primary = cluster.primary(GroupId(1));
    under_load(cluster, [1, 2], async |cluster| {
        for round in 0..3 {
            cluster.kill(primary);
            cluster.start_server(primary);
            cluster.write(key(1, 5), 0, &pattern(round, 100)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn everything_dies_and_what_was_acknowledged_is_there() {
    let mut cluster = Cluster::start().await;
    let keys: Vec<_> = (0..12).map(|at| key(at % 6 + 1, at)).collect();
    for (at, key) in keys.iter().enumerate() {
        cluster.write(*key, 4096 * at as u32, &pattern(at as u64, 10_000)).await;
    }
    for at in 0..3 {
        cluster.kill(at);
    }
    for at in 0..3 {
        cluster.start_server(at);
    }
    for (at, key) in keys.iter().enumerate() {
        let bytes = cluster.same_everywhere(*key).await;
        assert!(bytes[4096 * at..4096 * at + 10_000] == pattern(at as u64, 10_000), "{key:?}");
    }
}

#[tokio::test]
async fn members_serve_reads_while_another_is_away() {
    let mut cluster = Cluster::start().await;
    cluster.write(key(1, 0), 0, &pattern(1, 8192)).await;
    let primary = cluster.primary(GroupId(1));
    cluster.kill((primary + 1) % 3);
    // A write that cannot complete puts the group back to preparing; reads of other chunks go on.
    let stuck = cluster.write_of(key(1, 1), 0, b"stuck");
    let options = kuafu::CallOptions::within(Duration::from_millis(500));
    let answer = cluster.client(primary).write(&stuck, bytes::Bytes::from_static(b"stuck"), &options).await;
    assert!(matches!(answer, Err(ChunkError::Deadline | ChunkError::Unavailable { .. })), "{answer:?}");
    for at in [primary, (primary + 2) % 3] {
        let read = cluster.try_read(at, key(1, 0), 0..8192).await.expect("a member that is there is read");
        assert!(read.data[..] == pattern(1, 8192)[..]);
    }
    cluster.start_server((primary + 1) % 3);
    cluster.send(&stuck, b"stuck").await;
    assert_eq!(&cluster.same_everywhere(key(1, 1)).await[..5], b"stuck");
}

#[tokio::test]
async fn a_retry_is_recognised_also_after_a_restart() {
    let mut cluster = Cluster::start().await;
    let first = cluster.write_of(key(1, 0), 0, b"first");
    let version = cluster.send(&first, b"first").await.version;
    let second = cluster.write(key(1, 0), 0, b"other").await.version;
    assert!(second > version);
    let again = cluster.send(&first, b"first").await;
    assert_eq!((again.version, again.allocated_delta_bytes), (second, 0));
    let primary = cluster.primary(GroupId(1));
    cluster.kill(primary);
    cluster.start_server(primary);
    assert_eq!(cluster.send(&first, b"first").await.version, second);
    assert_eq!(&cluster.same_everywhere(key(1, 0)).await[..5], b"other");
}

#[tokio::test]
async fn the_same_stamp_at_the_same_time_is_one_write() {
    let cluster = Cluster::start().await;
    let write = cluster.write_of(key(2, 0), 0, b"once");
    let answers = futures::future::join_all((0..8).map(|_| cluster.send(&write, b"once"))).await;
    assert!(answers.iter().all(|answer| answer.version == answers[0].version), "{answers:?}");
}

#[tokio::test]
async fn many_writes_to_one_chunk_are_in_flight_and_all_are_there() {
    let cluster = Cluster::start().await;
    let key = key(3, 0);
    let blocks: Vec<_> = (0..128u32).map(|at| (at * 4096, pattern(u64::from(at) + 5, 4096))).collect();
    futures::stream::iter(&blocks)
        .for_each_concurrent(16, |(offset, data)| async {
            cluster.write(key, *offset, data).await;
        })
        .await;
    let bytes = cluster.same_everywhere(key).await;
    for (offset, data) in blocks {
        assert!(bytes[offset as usize..offset as usize + 4096] == data[..], "the block at {offset}");
    }
}

#[tokio::test]
async fn the_wrong_epoch_and_the_wrong_member_are_refused() {
    let cluster = Cluster::start().await;
    let mut write = cluster.write_of(key(1, 0), 0, b"x");
    write.epoch = Epoch(9);
    let answer = cluster.try_write(&write, b"x").await;
    assert!(matches!(answer, Err(ChunkError::Stale { epoch: Epoch(1) })), "{answer:?}");
    write.epoch = EPOCH;
    let other = (cluster.primary(GroupId(1)) + 1) % 3;
    let options = kuafu::CallOptions::within(Duration::from_secs(5));
    let answer = cluster.client(other).write(&write, bytes::Bytes::from_static(b"x"), &options).await;
    assert!(matches!(answer, Err(ChunkError::NotPrimary)), "{answer:?}");
    let mut damaged = write.clone();
    damaged.block_crcs[0] ^= 1;
    let answer = cluster.try_write(&damaged, b"x").await;
    assert!(matches!(answer, Err(ChunkError::Damaged { .. })), "{answer:?}");
    // The group goes on as if nothing had happened, and the stamp was not used up.
    cluster.send(&write, b"x").await;
    assert_eq!(cluster.same_everywhere(key(1, 0)).await[0], b'x');
}

#[tokio::test]
async fn a_damaged_block_is_read_from_another_member() {
    let mut cluster = Cluster::start().await;
    let data = pattern(42, 8192);
    cluster.write(key(1, 0), 0, &data).await;
    let victim = (cluster.primary(GroupId(1)) + 1) % 3;
    cluster.stop(victim).await;
    let flipped = crate::support::damage(&cluster.disk(victim), &data[4096..]);
    assert_eq!(flipped, 1, "the block is on the disk once");
    cluster.start_server(victim);
    cluster.wait_active(0..3).await;
    let answer = cluster.try_read(victim, key(1, 0), 4096..8192).await;
    assert!(
        matches!(&answer, Err(error @ ChunkError::Damaged { .. }) if error.try_other_member()),
        "{answer:?}"
    );
    let whole = cluster.try_read(victim, key(1, 0), 0..4096).await.expect("the other block is whole");
    assert!(whole.data[..] == data[..4096]);
    let read = cluster.try_read((victim + 1) % 3, key(1, 0), 0..8192).await.expect("another member");
    assert!(read.data[..] == data[..]);
}

#[tokio::test]
async fn chunkservers_go_on_without_a_master() {
    let mut cluster = Cluster::start().await;
    cluster.master.stop().await;
    for group in 1..=6 {
        cluster.write(key(group, 0), 0, &pattern(u64::from(group), 5000)).await;
        assert!(cluster.same_everywhere(key(group, 0)).await[..5000] == pattern(u64::from(group), 5000));
    }
}
