//! What a master says when it cannot start.

#![allow(clippy::unwrap_used, reason = "helpers of tests panic like tests")]

mod fixture;

use std::error::Error as _;

use fixture::Cluster;
use kuafu::BindError;
use master_server::{MasterServer, StartError};

#[tokio::test]
async fn an_address_in_use() {
    let cluster = Cluster::start(1).await;
    let mut second = cluster.config(1);
    second.data_dir = cluster.data_dir(9);
    let error = MasterServer::start(second).await.unwrap_err();
    assert!(matches!(error, StartError::Bind(BindError::InUse { .. })), "{error:?}");
    assert!(error.to_string().contains("1.sock is in use"), "{error}");
    cluster.shutdown().await;
}

#[tokio::test]
async fn a_data_directory_that_is_none() {
    let cluster = Cluster::start(1).await;
    let mut config = cluster.config(1);
    config.data_dir = cluster.data_dir(9);
    std::fs::write(&config.data_dir, b"a file").unwrap();
    let error = MasterServer::start(config).await.unwrap_err();
    assert!(error.to_string().contains("data-9"), "{error}");
    assert!(error.source().is_some());
    cluster.shutdown().await;
}

#[tokio::test]
async fn the_data_of_another_master() {
    let mut cluster = Cluster::start(3).await;
    cluster.leader().await;
    let two = cluster.running.remove(&2).unwrap();
    two.shutdown().await;
    let mut config = cluster.config(2);
    cluster.running.remove(&3).unwrap().shutdown().await;
    config.data_dir = cluster.data_dir(3);
    let error = MasterServer::start(config).await.unwrap_err();
    let mut chain = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        chain = format!("{chain}: {error}");
        cause = error.source();
    }
    assert!(chain.contains("belongs to member 3"), "{chain}");
    cluster.shutdown().await;
}
