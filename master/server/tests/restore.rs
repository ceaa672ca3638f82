//! Masters that hear of a state newer than theirs change nothing until there is a new cluster epoch: `master/docs/restore.md`.

#![allow(clippy::unwrap_used, reason = "helpers of tests panic like tests")]

mod fixture;

use std::time::{Duration, Instant};

use coord_types::InodeId;
use fixture::{Cluster, PATIENCE, create, soon};
use kuafu::CallOptions;
use master_api::ClientError;
use master_api::proto::{GetTableRequest, Lineage};

#[tokio::test]
async fn who_is_behind_changes_nothing_until_there_is_a_new_epoch() {
    let cluster = Cluster::start(1).await;
    cluster.register_three().await;
    let client = cluster.client();
    let make = async |name, until| client.mutate_by(create(InodeId::ROOT, name), Some(until)).await;
    make("before", soon()).await.unwrap();
    let master = cluster.chunkservers_master().await;
    let look = async |known| {
        let request = GetTableRequest { known, ..GetTableRequest::default() };
        let reply = master.get_table(&request, &CallOptions::within(PATIENCE)).await;
        reply.unwrap().message.lineage.unwrap()
    };
    let shown = look(None).await;
    assert_eq!(Some(&shown.cluster_id), client.cluster_id().as_ref());
    let ahead = Lineage { log_index: shown.log_index + 1000, ..shown.clone() };
    let elsewhere = Lineage { cluster_id: "other".to_owned(), ..ahead.clone() };
    for harmless in [elsewhere, shown.clone()] {
        look(Some(harmless)).await;
    }
    make("still", soon()).await.unwrap();

    look(Some(ahead)).await;
    let before = look(None).await.log_index;
    let refused = make("in vain", Instant::now() + Duration::from_secs(1)).await;
    assert!(
        matches!(&refused, Err(ClientError::Deadline { last }) if last.contains("new-epoch")),
        "{refused:?}"
    );
    assert_eq!(look(None).await.log_index, before, "the log grew");

    let epoch = client.new_epoch(Some(soon())).await.unwrap();
    assert!(epoch > 0 && look(None).await.epoch == epoch);
    make("after", soon()).await.unwrap();
    cluster.shutdown().await;
}
