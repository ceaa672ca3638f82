//! Chunkservers join, groups are made, deleted data is freed on every disk.

#![allow(clippy::unwrap_used, reason = "helpers of tests panic like tests")]

mod fixture;

use std::time::Duration;

use coord_types::{DiskId, InodeId};
use fixture::{Cluster, FakeChunkserver, PATIENCE, create, disk, registration, soon, unlink, until};
use kuafu::{CallOptions, Code};
use master_api::proto;

const ROOT: InodeId = InodeId::ROOT;

#[tokio::test]
async fn groups_are_made_when_three_racks_are_there() {
    let cluster = Cluster::start(3).await;
    let client = cluster.client();
    // Made before there is anything to put data on: waits, and succeeds.
    let early = tokio::spawn({
        let client = client.clone();
        async move { client.mutate_by(create(ROOT, "early"), Some(soon())).await }
    });
    let first = cluster.register(1, "unix:///nonexistent/1").await;
    assert_eq!((first.server, first.disks.as_slice()), (1, [1].as_slice()));
    assert!(!first.cluster_id.is_empty() && first.heartbeat_ms > 0 && first.lease_ms > first.heartbeat_ms);
    cluster.register(2, "unix:///nonexistent/2").await;
    assert_eq!(client.refresh_table(0, Some(soon())).await.unwrap().groups().count(), 0);
    cluster.register(3, "unix:///nonexistent/3").await;
    let attr = early.await.unwrap().unwrap().attr.unwrap();
    assert_eq!(attr.layout.unwrap().groups().len(), 4);
    let known = client.table().version;
    let table = client.refresh_table(known, Some(soon())).await.unwrap();
    assert_eq!((table.groups().count(), table.replicas, table.min_replicas), (64, 3, 2));
    for group in table.groups() {
        assert_eq!(group.members.len(), 3);
        let racks: std::collections::BTreeSet<_> =
            group.serving().map(|disk| table.server_of(disk).unwrap().location.clone()).collect();
        assert_eq!(racks.len(), 3);
    }
    for disk in 1..=3 {
        let leads = table.groups().filter(|group| group.primary() == Some(DiskId(disk))).count();
        assert!((20..=23).contains(&leads), "disk {disk} leads {leads}");
    }
    cluster.shutdown().await;
}

#[tokio::test]
async fn heartbeats_keep_and_refuse() {
    let cluster = Cluster::start(1).await;
    let registered = cluster.register(1, "unix:///nonexistent/1").await;
    let master = cluster.chunkservers_master().await;
    let options = CallOptions::within(PATIENCE);
    let beat = |incarnation, server| proto::HeartbeatRequest {
        server,
        incarnation,
        disks: vec![disk(1, 3 << 30)],
        table_version: 0,
        news: Vec::new(),
        suspects: Vec::new(),
        leased: true,
        number: 0,
        known: None,
        loads: Vec::new(),
    };
    let reply = master.heartbeat(&beat(1, registered.server), &options).await.unwrap().message;
    assert!(!reply.register_again && reply.table_version > 0 && reply.lease_ms > 0);
    assert_eq!(
        reply.table.unwrap().version,
        reply.table_version,
        "a lease comes with the table it speaks of"
    );
    let other = master.heartbeat(&beat(2, registered.server), &options).await.unwrap().message;
    assert!(other.register_again, "another process registered under this number");
    let unknown = master.heartbeat(&beat(1, 99), &options).await.unwrap().message;
    assert!(unknown.register_again);
    // What the heartbeat said shows at once: one disk of 1 TiB, three replicas.
    let client = cluster.client();
    let stat = client.stat_fs(Some(soon())).await.unwrap();
    assert_eq!((stat.total_bytes, stat.used_bytes), ((1 << 40) / 3, 1 << 30));
    let mut stranger = registration(2, "unix:///nonexistent/2");
    stranger.cluster_id = "another".to_owned();
    let refused = master.register_server(&stranger, &options).await.unwrap_err();
    assert_eq!(refused.code, Code::InvalidArgument);
    assert!(refused.message.contains("another"), "{refused}");
    cluster.shutdown().await;
}

#[tokio::test]
async fn deleted_data_is_freed_on_every_disk() {
    let mut cluster = Cluster::start(3).await;
    let mut chunkservers = Vec::new();
    for number in 1..=3 {
        let chunkserver = FakeChunkserver::start().await;
        cluster.register(number, &chunkserver.address.to_string()).await;
        chunkservers.push(chunkserver);
    }
    chunkservers[1].told.lock().refusals = 2;
    let client = cluster.client();
    let file = client.mutate_by(create(ROOT, "f"), Some(soon())).await.unwrap().attr.unwrap();
    unlink(&client, "f", None).await.unwrap();
    let freed = async |data: u64| {
        until("every disk to be told", async || {
            chunkservers.iter().all(|chunkserver| {
                let told = chunkserver.told.lock();
                told.deletes.iter().any(|delete| delete.items.iter().any(|item| item.data == data))
            })
        })
        .await;
    };
    freed(file.data.0).await;
    for (number, chunkserver) in (1..).zip(&chunkservers) {
        let told = chunkserver.told.lock();
        let delete = told.deletes.last().unwrap();
        assert_eq!(delete.disk, number);
        let mut groups = delete.items[0].groups.clone();
        let mut layout: Vec<_> = file.layout.as_ref().unwrap().groups().iter().map(|group| group.0).collect();
        groups.sort_unstable();
        layout.sort_unstable();
        assert_eq!(groups, layout);
    }
    until("the queue to be empty", async || {
        let leader = cluster.leader().await;
        cluster.status(leader).await.is_ok_and(|status| status.deletions_pending == 0)
    })
    .await;

    // A queue that could not be worked off outlives its leader.
    for chunkserver in &chunkservers {
        chunkserver.told.lock().refusals = u32::MAX;
    }
    let file = client.mutate_by(create(ROOT, "g"), Some(soon())).await.unwrap().attr.unwrap();
    unlink(&client, "g", None).await.unwrap();
    let leader = cluster.leader().await;
    assert_eq!(cluster.status(leader).await.unwrap().deletions_pending, 1);
    cluster.crash(leader).await;
    for chunkserver in &chunkservers {
        chunkserver.told.lock().refusals = 0;
    }
    freed(file.data.0).await;
    cluster.shutdown().await;
}

#[tokio::test]
async fn two_racks_do_after_a_while() {
    let cluster = Cluster::start_with(1, |config| {
        config.replicas = 2;
        config.min_replicas = 1;
        config.group_settle_narrow = Duration::from_millis(1);
    })
    .await;
    let mut first = registration(1, "unix:///nonexistent/1");
    first.disks.push(disk(2, 0));
    let master = cluster.chunkservers_master().await;
    until("a registration", async || {
        master.register_server(&first, &CallOptions::within(PATIENCE)).await.is_ok()
    })
    .await;
    let client = cluster.client();
    until("groups of two disks of one host", async || {
        client.refresh_table(client.table().version, Some(soon())).await.unwrap().groups().count() == 64
    })
    .await;
    cluster.shutdown().await;
}
