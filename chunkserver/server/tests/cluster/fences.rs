//! Fences on real disks: a raise is kept like the data it protects, and goes with it.

use chunkserver_api::{ChunkError, Write, Written};
use coord_types::{ChunkKey, DataId, Epoch, Fence, GroupId};

use crate::support::{Cluster, EPOCH, eventually, key, pattern};

const GROUP: u32 = 1;

fn under(cluster: &Cluster, key: ChunkKey, fence: u64) -> (Write, Vec<u8>) {
    let data = pattern(fence, 5000);
    let write = Write { fence: Fence(fence), ..cluster.write_of(key, 0, &data) };
    (write, data)
}

async fn write(cluster: &Cluster, key: ChunkKey, fence: u64) -> Result<Written, ChunkError> {
    write_in(EPOCH, cluster, key, fence).await
}

/// Until it is decided.
async fn write_in(epoch: Epoch, cluster: &Cluster, key: ChunkKey, fence: u64) -> Result<Written, ChunkError> {
    let (write, data) = under(cluster, key, fence);
    let write = Write { epoch, ..write };
    eventually("the write is decided", || async {
        match cluster.try_write(&write, &data).await {
            Err(error) if error.retryable() => None,
            decided => Some(decided),
        }
    })
    .await
}

fn refused_at<T: std::fmt::Debug>(result: Result<T, ChunkError>, wanted: u64) {
    match result {
        Err(ChunkError::Fenced { fence }) => assert_eq!(fence, Fence(wanted)),
        other => panic!("not refused at {wanted}: {other:?}"),
    }
}

#[tokio::test]
async fn what_is_lower_is_refused_whoever_leads_and_whatever_restarted() {
    let mut cluster = Cluster::start().await;
    let (chunk, other) = (key(GROUP, 3), ChunkKey::new(GroupId(GROUP), DataId(77), 0));
    write(&cluster, chunk, 0).await.expect("no fence yet");
    cluster.raise(chunk, Fence(7)).await.expect("raised");
    cluster.raise(chunk, Fence(7)).await.expect("the same again");
    refused_at(cluster.raise(chunk, Fence(6)).await, 7);
    refused_at(write(&cluster, chunk, 0).await, 7);
    refused_at(write(&cluster, key(GROUP, 4), 6).await, 7);
    write(&cluster, other, 0).await.expect("other data has no fence");
    write(&cluster, chunk, 7).await.expect("under the fence");
    let bytes = cluster.same_everywhere(chunk).await;
    assert!(bytes[..5000] == pattern(7, 5000));

    // All at once, so that only what is on the disks is left.
    for at in 0..3 {
        cluster.kill(at);
    }
    for at in 0..3 {
        cluster.start_server(at);
    }
    cluster.wait_active(0..3).await;
    refused_at(write(&cluster, chunk, 6).await, 7);
    cluster.raise(chunk, Fence(9)).await.expect("raised");

    // Another one leads, which took the raise as a secondary.
    let primary = cluster.primary(GroupId(GROUP));
    cluster.kill(primary);
    cluster.master.take_out(cluster.disk_id(primary), GroupId(GROUP));
    assert_ne!(cluster.primary(GroupId(GROUP)), primary);
    refused_at(write_in(Epoch(2), &cluster, chunk, 8).await, 9);
}

#[tokio::test]
async fn a_fence_is_no_chunk_and_goes_with_the_data() {
    let cluster = Cluster::start().await;
    let chunk = key(GROUP, 0);
    let count = async || {
        let admin = chunkserver_api::pb::ChunkAdminClient::new(cluster.raw(0));
        let options = kuafu::CallOptions::within(std::time::Duration::from_secs(5));
        let request = chunkserver_api::pb::StatusRequest {};
        admin.status(request, &options).await.expect("a status").message.disks[0].chunks
    };
    cluster.raise(chunk, Fence(7)).await.expect("raised");
    assert_eq!(count().await, 0);
    let empty = Write { key: chunk.fence_record(), ..under(&cluster, chunk, 7).0 };
    let at = cluster.try_write(&empty, &pattern(7, 5000)).await;
    assert!(matches!(at, Err(ChunkError::Refused { .. })), "nobody writes to it: {at:?}");

    let item = |data: u64| chunkserver_api::pb::DeleteItem { data, groups: vec![GROUP] };
    for at in 0..3 {
        let replica = chunkserver_api::pb::ReplicaClient::new(cluster.raw(at));
        let request = chunkserver_api::pb::DeleteRequest {
            disk: cluster.disk_id(at).0,
            items: vec![item(chunk.chunk.data.0)],
        };
        let options = kuafu::CallOptions::within(std::time::Duration::from_secs(5));
        replica.delete(&request, &options).await.expect("deleted");
    }
    write(&cluster, chunk, 0).await.expect("no fence any more");
}
