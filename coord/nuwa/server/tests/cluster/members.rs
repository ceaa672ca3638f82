//! Members come and go.

use nuwa_api::client::Freshness;
use nuwa_server::{Config, NuwaServer};

use crate::fixture::{Cluster, soon, until};

#[tokio::test]
async fn members_are_added_and_removed_while_it_works() {
    let mut cluster = Cluster::start(1).await;
    let session = cluster.session().await;
    session.put("/a", "1", soon()).await.unwrap();
    let client = cluster.client();
    for id in [2, 3] {
        cluster.start_newcomer(id).await;
        let added = client.add_member(&cluster.address(id).to_string(), soon()).await.unwrap();
        assert_eq!((added.id, added.already), (id, false));
    }
    assert!(client.add_member(&cluster.address(3).to_string(), soon()).await.unwrap().already);
    // The first one leads, and is removed: the others go on.
    client.remove_member(1, soon()).await.unwrap();
    cluster.crash(1).await;
    let session = cluster.client_at(2).open_session(crate::fixture::LONG, "", soon()).await.unwrap();
    session.put("/b", "2", soon()).await.unwrap();
    let read = cluster.client_at(3).get("/a", Freshness::Linearizable, soon()).await.unwrap().unwrap();
    assert_eq!(read.value.as_ref(), b"1");
    cluster.shutdown().await;
}

#[tokio::test]
async fn what_would_do_harm_is_refused() {
    let mut cluster = Cluster::start(3).await;
    cluster.session().await;
    let client = cluster.client();
    let told = async |id: u64| client.remove_member(id, soon()).await.unwrap_err().to_string();
    assert!(told(9).await.contains("there is no member 9: there are 1, 2, 3"));
    let unheard = client.add_member("unix:///nowhere.sock", soon()).await.unwrap_err().to_string();
    assert!(unheard.contains("start it there with --join first"), "{unheard}");
    let wrong = client.add_member("nowhere", soon()).await.unwrap_err().to_string();
    assert!(wrong.contains("is no address of a member"), "{wrong}");
    let leader = cluster.leader().await;
    let dead = if leader == 1 { 2 } else { 1 };
    cluster.crash(dead).await;
    let alive = 6 - leader - dead;
    until("the dead one is not counted on", async || {
        told(alive).await.contains("is no majority: bring one back or add one first")
    })
    .await;
    cluster.shutdown().await;
}

#[tokio::test]
async fn a_member_that_lost_its_disk_comes_back() {
    let mut cluster = Cluster::start(3).await;
    let session = cluster.session().await;
    session.put("/a", "1", soon()).await.unwrap();
    cluster.crash(1).await;
    std::fs::remove_dir_all(cluster.data_dir(1)).unwrap();
    cluster.start_one(1).await;
    let client = cluster.client_at(1);
    until("it has caught up", async || client.get("/a", Freshness::Stale, soon()).await.unwrap().is_some())
        .await;
    cluster.shutdown().await;
}

#[tokio::test]
async fn a_start_that_cannot_be_says_why() {
    let cluster = Cluster::start(1).await;
    let error = NuwaServer::start(Config { id: 7, ..cluster.config(1) }).await.unwrap_err();
    assert!(error.to_string().contains("member 7 is not in the cluster's list"), "{error}");
    cluster.shutdown().await;
}
