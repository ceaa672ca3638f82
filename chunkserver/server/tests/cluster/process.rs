//! Starting, stopping, looking inside: what an operator meets.

use std::io::{Read as _, Write as _};
use std::time::{Duration, Instant};

use crate::support::{Cluster, eventually, key, pattern};
use chunkserver_api::pb;
use chunkserver_server::{ChunkServer, Config, StartError};
use coord_types::GroupId;
use kuafu::{Address, CallOptions};
use zhongkui_access::Access;
use zhongkui_access::guard::grpc_request;

/// The metrics that are served there.
async fn get(address: std::net::SocketAddr) -> String {
    let asking = tokio::task::spawn_blocking(move || {
        let mut stream = std::net::TcpStream::connect(address).expect("connect");
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").expect("ask");
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("an answer");
        text
    });
    asking.await.expect("no panic")
}

/// A number from a server's metrics.
pub(crate) async fn metric(cluster: &Cluster, at: usize, name: &str) -> u64 {
    let text = get(cluster.metrics(at)).await;
    let line = text.lines().find(|line| line.starts_with(name)).expect("the metric is there");
    line.rsplit(' ').next().and_then(|value| value.parse().ok()).expect("a number")
}

fn config(cluster: &Cluster, name: &str) -> Config {
    let mut config = cluster.config(0);
    config.listen = Address::Unix(cluster.dir.path().join(format!("{name}.sock")));
    config.data = vec![cluster.dir.path().join(name)];
    config
}

#[tokio::test]
async fn says_what_is_in_the_way() {
    let cluster = Cluster::start_inactive().await;
    let refused = async |config: Config| {
        let error = ChunkServer::start(config).await.expect_err("it cannot start");
        (error.to_string(), error)
    };

    let mut locked = config(&cluster, "a");
    locked.data = vec![cluster.disk(0)];
    let (_, error) = refused(locked).await;
    assert!(
        matches!(&error, StartError::Open { source, .. } if source.to_string().contains("in use")),
        "{error:?}"
    );

    let mut taken = config(&cluster, "b");
    taken.listen = cluster.config(1).listen;
    let (text, _) = refused(taken).await;
    assert!(text.contains("is in use"), "{text}");

    let mut file = config(&cluster, "c");
    std::fs::write(cluster.dir.path().join("file"), b"").expect("a file");
    file.data = vec![cluster.dir.path().join("file/disk")];
    let (text, _) = refused(file).await;
    assert!(text.starts_with("make the data directory"), "{text}");

    let mut foreign = config(&cluster, "d");
    let dir = cluster.dir.path().join("holiday");
    std::fs::create_dir(&dir).expect("a directory");
    std::fs::write(dir.join("photo.jpg"), b"").expect("a file");
    foreign.data = vec![dir];
    let (_, error) = refused(foreign).await;
    assert!(
        matches!(&error, StartError::Format { source, .. } if source.to_string().contains("other files")),
        "{error:?}"
    );

    let mut metrics = config(&cluster, "e");
    metrics.metrics = Some(cluster.metrics(0));
    let (text, _) = refused(metrics).await;
    assert!(text.contains("in use"), "{text}");
}

#[tokio::test]
async fn a_start_that_failed_leaves_the_disk_free() {
    let cluster = Cluster::start_inactive().await;
    let mut config = config(&cluster, "later");
    let free = config.listen.clone();
    config.listen = cluster.config(1).listen;
    ChunkServer::start(config.clone()).await.expect_err("the address is taken");
    config.listen = free;
    ChunkServer::start(config).await.expect("the disk is not in use").shutdown().await;
}

#[tokio::test]
async fn stops_quickly_and_leaves_clean_disks() {
    let mut cluster = Cluster::start().await;
    for group in 1..=6 {
        cluster.write(key(group, 0), 0, &pattern(1, 50_000)).await;
    }
    for at in 0..3 {
        let start = Instant::now();
        cluster.stop(at).await;
        assert!(start.elapsed() < Duration::from_secs(1), "the stop took {:?}", start.elapsed());
        let report = chunkserver_server::verify::verify(&cluster.disk(at)).await.expect("a disk");
        assert!(report.is_clean(), "{report}");
        assert_eq!(report.chunks, 6);
    }
    let missing = chunkserver_server::verify::verify(&cluster.dir.path().join("nothing")).await;
    assert!(missing.is_err());
}

#[tokio::test]
async fn shows_its_state() {
    let cluster = Cluster::start().await;
    let at = cluster.primary(GroupId(1));
    cluster.write(key(1, 0), 0, &pattern(1, 5000)).await;

    let text = get(cluster.metrics(at)).await;
    assert!(text.contains("pangu_chunkserver_written_bytes_total 5000\n"), "{text}");
    assert!(text.contains("pangu_chunkserver_groups{state=\"active\"} 6\n"), "{text}");

    let mut admin =
        pb::grpc::chunk_admin_client::ChunkAdminClient::connect(format!("http://{}", cluster.grpc(at)))
            .await
            .expect("gRPC connects");
    let refused = admin.status(pb::StatusRequest {}).await.expect_err("nobody said who he is");
    assert!(refused.message().contains("zhongkui headers"), "{refused}");
    let path = "feitian.chunk.v1.ChunkAdmin/Status";
    let request = grpc_request(&Access::process(), path, pb::StatusRequest {});
    let status = admin.status(request).await.expect("gRPC answers").into_inner();
    assert_eq!(status.groups.len(), 6);
    assert_eq!(status.groups.iter().filter(|group| group.primary).count(), 2);
    assert!(status.groups.iter().all(|group| group.active && group.epoch == 1));
    assert_eq!(status.disks[0].chunks, 1);
    assert!(!status.disks[0].failed);
}

#[tokio::test]
async fn the_master_deletes_data() {
    let cluster = Cluster::start().await;
    cluster.write(key(1, 0), 0, &pattern(1, 5000)).await;
    cluster.write(key(1, 1), 0, &pattern(2, 5000)).await;
    cluster.write(key(2, 2), 0, &pattern(3, 5000)).await;
    for at in 0..3 {
        let disk = cluster.disk_id(at);
        let items = vec![pb::DeleteItem { data: 100, groups: vec![1] }];
        let options = CallOptions::within(Duration::from_secs(5));
        let client = pb::ReplicaClient::new(cluster.raw(at));
        client.delete(pb::DeleteRequest { disk: disk.0, items }, &options).await.expect("deleted");
        let read = cluster.try_read(at, key(1, 0), 0..4096).await.expect("a hole");
        assert!(read.hole);
        let usage = eventually("space is free", || async {
            let admin = pb::ChunkAdminClient::new(cluster.raw(at));
            let status = admin.status(pb::StatusRequest {}, &options).await.expect("a status").message;
            (status.disks[0].chunks == 1).then_some(status.disks[0].used_bytes)
        });
        assert_eq!(usage.await, 8192);
    }
    assert!(cluster.same_everywhere(key(2, 2)).await[..5000] == pattern(3, 5000));
    // Delete again: nothing to do, no error.
    let items = vec![pb::DeleteItem { data: 100, groups: vec![1, 99] }];
    let request = pb::DeleteRequest { disk: cluster.disk_id(0).0, items };
    let client = pb::ReplicaClient::new(cluster.raw(0));
    client.delete(request, &CallOptions::within(Duration::from_secs(5))).await.expect("nothing to delete");
}
