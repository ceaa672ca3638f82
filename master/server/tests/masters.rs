//! Three masters: the namespace through the client, over deaths of the leader and of all.

#![allow(clippy::unwrap_used, reason = "helpers of tests panic like tests")]

mod fixture;

use std::time::Duration;

use coord_types::InodeId;
use fixture::{Cluster, PATIENCE, create, name, soon, unlink, until};
use master_api::model::{Mutation, ReadDir, Rename, RenameFlags};
use master_api::{Errno, MasterClient};

const ROOT: InodeId = InodeId::ROOT;

#[tokio::test]
async fn names_through_the_client() {
    let cluster = Cluster::start(3).await;
    cluster.register_three().await;
    let client = cluster.client();
    let made = client.mutate_by(create(ROOT, "a"), Some(soon())).await.unwrap();
    let attr = made.attr.unwrap();
    assert!(made.made && attr.uid == 1 && attr.gid == 2);
    let (found, parent) = client.lookup(ROOT, name("a")).await.unwrap();
    assert_eq!((found, parent), (attr.clone(), made.parent));
    let again = client.mutate_by(create(ROOT, "a"), Some(soon())).await.unwrap_err();
    assert_eq!(again.errno(), Errno::EEXIST);
    let rename = Mutation::Rename(Rename {
        parent: ROOT,
        name: name("a"),
        new_parent: ROOT,
        new_name: name("b"),
        flags: RenameFlags::NoReplace,
        hold: None,
    });
    client.mutate_by(rename, Some(soon())).await.unwrap();
    assert_eq!(client.lookup(ROOT, name("a")).await.unwrap_err().errno(), Errno::ENOENT);
    let page = ReadDir { ino: ROOT, after_cookie: 0, limit: 10, with_attributes: true };
    let page = client.read_dir(page).await.unwrap();
    assert!(page.end);
    assert_eq!(page.entries.iter().map(|entry| entry.ino).collect::<Vec<_>>(), [attr.ino]);
    // A second client sees what the first was told.
    let other = cluster.client();
    assert_eq!(other.lookup(ROOT, name("b")).await.unwrap().0.ino, attr.ino);
    assert_ne!(client.session(), None);
    assert_eq!(client.cluster_id(), {
        other.ready().await.unwrap();
        other.cluster_id()
    });
    client.close(soon()).await;
    cluster.shutdown().await;
}

/// A master whose machine stopped, or lost its network: it takes connections, and answers nothing.
#[tokio::test]
async fn a_master_that_never_answers_is_left_for_the_one_that_leads() {
    let cluster = Cluster::start(3).await;
    cluster.register_three().await;
    let silent = cluster.data_dir(0).with_extension("silent");
    let listener = tokio::net::UnixListener::bind(&silent).unwrap();
    let accepting = tokio::spawn(async move {
        let mut taken = Vec::new();
        loop {
            taken.push(listener.accept().await.unwrap());
        }
    });
    let mut config = cluster.client_config();
    config.masters.listed.insert(0, format!("unix://{}", silent.display()).parse().unwrap());
    config.attempt_timeout = 10 * PATIENCE;
    let client = MasterClient::new(config).unwrap();
    client.mutate_by(create(ROOT, "a"), Some(soon())).await.unwrap();
    client.close(soon()).await;
    assert!(!accepting.is_finished());
    accepting.abort();
    cluster.shutdown().await;
}

/// Creates are exclusive: one that was applied, lost its answer and was applied again would say EEXIST.
#[tokio::test]
async fn a_leader_dies_and_every_create_happens_once() {
    const WORKERS: u32 = 8;
    let mut cluster = Cluster::start(3).await;
    cluster.register_three().await;
    let client = cluster.client();
    client.mutate_by(create(ROOT, "first"), Some(soon())).await.unwrap();
    let stop = tokio_util::sync::CancellationToken::new();
    let workers: Vec<_> = (0..WORKERS)
        .map(|worker| {
            let (client, stop) = (client.clone(), stop.clone());
            tokio::spawn(async move {
                let mut made = 0;
                while !stop.is_cancelled() {
                    let name = format!("{worker}-{made}");
                    client.mutate_by(create(ROOT, &name), Some(soon())).await.unwrap();
                    made += 1;
                }
                made
            })
        })
        .collect();
    for _ in 0..2 {
        let leader = cluster.leader().await;
        let before = client.lookup(ROOT, name("first")).await.unwrap().1.unwrap().size_bytes;
        cluster.crash(leader).await;
        until("creates under another leader", async || {
            client.lookup(ROOT, name("first")).await.unwrap().1.unwrap().size_bytes > before + 20
        })
        .await;
        assert_ne!(cluster.leader().await, leader);
        cluster.start_one(leader).await;
    }
    stop.cancel();
    let mut made = 1;
    for worker in workers {
        made += worker.await.unwrap();
    }
    let root = client.get_attr(ROOT).await.unwrap();
    assert_eq!(root.size_bytes, made);
    cluster.shutdown().await;
}

#[tokio::test]
async fn all_die_and_everything_acknowledged_is_there() {
    let mut cluster = Cluster::start(3).await;
    cluster.register_three().await;
    let client = cluster.client();
    for number in 0..50 {
        client.mutate_by(create(ROOT, &format!("{number}")), Some(soon())).await.unwrap();
    }
    let cluster_id = client.cluster_id().unwrap();
    for id in 1..=3 {
        cluster.crash(id).await;
    }
    for id in 1..=3 {
        cluster.start_one(id).await;
    }
    // The same client, its session and all, goes on by itself.
    assert_eq!(client.get_attr(ROOT).await.unwrap().size_bytes, 50);
    let session = client.session();
    client.mutate_by(create(ROOT, "after"), Some(soon())).await.unwrap();
    assert_eq!(client.session(), session);
    let leader = cluster.leader().await;
    assert_eq!(cluster.status(leader).await.unwrap().cluster_id, cluster_id);
    cluster.shutdown().await;
}

#[tokio::test]
async fn a_wiped_member_does_not_make_a_second_cluster() {
    let mut cluster = Cluster::start(3).await;
    cluster.register_three().await;
    let client = cluster.client();
    client.mutate_by(create(ROOT, "kept"), Some(soon())).await.unwrap();
    let cluster_id = client.cluster_id().unwrap();
    // The one that made the cluster, and would again.
    cluster.running.remove(&1).unwrap().shutdown().await;
    std::fs::remove_dir_all(cluster.data_dir(1)).unwrap();
    cluster.start_one(1).await;
    until("the wiped member to be one of the cluster again", async || {
        cluster.status(1).await.is_ok_and(|status| status.cluster_id == cluster_id)
    })
    .await;
    assert!(client.lookup(ROOT, name("kept")).await.is_ok());
    cluster.shutdown().await;
}

#[tokio::test]
async fn the_end_of_a_session_frees_what_it_held() {
    let cluster = Cluster::start_with(1, |config| config.session_lease = Duration::from_secs(2)).await;
    cluster.register_three().await;
    let (dying, closing, watching) = (cluster.client(), cluster.client(), cluster.client());
    let mut held = Vec::new();
    for (client, text) in [(&dying, "dying"), (&closing, "closing"), (&watching, "watching")] {
        let ino = client.mutate_by(create(ROOT, text), Some(soon())).await.unwrap().attr.unwrap().ino;
        assert!(unlink(client, text, Some(ino)).await.unwrap().held);
        held.push(ino);
    }
    assert_eq!(watching.get_attr(held[0]).await.unwrap().nlink, 0);
    closing.close(soon()).await;
    assert_eq!(watching.get_attr(held[1]).await.unwrap_err().errno(), Errno::ENOENT);
    // It only stops renewing, as a process does that was killed.
    drop(dying);
    until("the lease to run out", async || watching.get_attr(held[0]).await.is_err()).await;
    // Whoever renews keeps what it holds.
    assert_eq!(watching.get_attr(held[2]).await.unwrap().nlink, 0);
    assert_eq!(cluster.status(1).await.unwrap().sessions, 1);
    cluster.shutdown().await;
}

/// Where others would look for it, it has to stay.
#[tokio::test]
async fn only_a_master_without_others_moves() {
    let cluster = Cluster::start(3).await;
    let to = "tcp://10.0.0.1:7101";
    let refused = cluster.client().move_master(to, Some(soon())).await.unwrap_err();
    assert!(refused.to_string().contains("would not find it"), "{refused}");
    cluster.shutdown().await;

    let mut alone = Cluster::start(1).await;
    let client = alone.client();
    let refused = client.move_master("nonsense", Some(soon())).await.unwrap_err();
    assert!(refused.to_string().contains("no address of a master"), "{refused}");
    client.move_master(to, Some(soon())).await.unwrap();
    // It is asked where it is, and knows where it will be, over a restart too.
    alone.crash(1).await;
    alone.start_one(1).await;
    alone.leader().await;
    assert_eq!(alone.status(1).await.unwrap().members[0].address, to);
    alone.shutdown().await;
}
