//! Changes and reads.

use nuwa_api::client::Freshness;
use nuwa_api::ops::{delete, get, make_directory, put, version_is};
use nuwa_api::proto::{self, Put};

use crate::fixture::{Cluster, refused, soon};

#[tokio::test]
async fn what_is_put_is_read_everywhere_and_after_a_restart() {
    let mut cluster = Cluster::start(3).await;
    let session = cluster.session().await;
    let entry = session.put("/a", "one", soon()).await.unwrap();
    assert_eq!((entry.version, entry.created), (1, entry.modified));
    let again = session.put("/a", "two", soon()).await.unwrap();
    assert_eq!((again.version, again.modified), (2, entry.modified + 1));
    let client = session.client();
    for freshness in [Freshness::Linearizable, Freshness::Stale] {
        let read = client.get("/a", freshness, soon()).await.unwrap().unwrap();
        assert_eq!((read.value.as_ref(), read.version), (b"two".as_ref(), 2), "{freshness:?}");
    }
    assert_eq!(client.get("/b", Freshness::Linearizable, soon()).await.unwrap(), None);
    for id in 1..=3 {
        cluster.crash(id).await;
    }
    for id in 1..=3 {
        cluster.start_one(id).await;
    }
    let read = cluster.client().get("/a", Freshness::Linearizable, soon()).await.unwrap().unwrap();
    assert_eq!(read.value.as_ref(), b"two");
    cluster.shutdown().await;
}

#[tokio::test]
async fn a_transaction_is_done_whole_or_not_at_all() {
    let cluster = Cluster::start(1).await;
    let session = cluster.session().await;
    session.change_one(make_directory("/d/"), soon()).await.unwrap();
    let swap = async |version| {
        let then = vec![put("/d/a", "new").into(), get("/d/a").into()];
        session.txn(vec![version_is("/d/a", version)], then, vec![get("/d/a").into()], soon()).await.unwrap()
    };
    assert!(swap(0).await.succeeded);
    let lost = swap(0).await;
    assert!(!lost.succeeded);
    assert_eq!(lost.results[0].entry.as_ref().unwrap().version, 1);
    assert!(swap(1).await.succeeded);
    let half =
        session.txn(vec![], vec![put("/d/b", "").into(), delete("/none").into()], vec![], soon()).await;
    assert_eq!(refused(half), "/none does not exist");
    assert_eq!(cluster.client().get("/d/b", Freshness::Linearizable, soon()).await.unwrap(), None);
    cluster.shutdown().await;
}

#[tokio::test]
async fn a_directory_is_listed_page_by_page() {
    let cluster = Cluster::start(1).await;
    let session = cluster.session().await;
    for n in 0..10 {
        let put = Put { with_parents: true, ..put(format!("/d/f{n}"), vec![b'x'; 300 << 10]) };
        session.change_one(put, soon()).await.unwrap();
    }
    session.change_one(make_directory("/d/sub/"), soon()).await.unwrap();
    let client = cluster.client();
    for with_values in [false, true] {
        for entries_max in [0, 3] {
            let (mut names, mut after, mut pages) = (Vec::new(), String::new(), 0);
            loop {
                let list = proto::List { path: "/d/".to_owned(), after, entries_max, with_values };
                let listed = client.list(list, Freshness::Linearizable, soon()).await.unwrap();
                names.extend(listed.entries.iter().map(|entry| entry.path.clone()));
                assert!(listed.entries.iter().all(|entry| {
                    entry.value.len() == if with_values && !entry.path.ends_with('/') { 300 << 10 } else { 0 }
                }));
                pages += 1;
                if !listed.more {
                    break;
                }
                after = names.last().unwrap().strip_prefix("/d/").unwrap().to_owned();
            }
            let expected: Vec<_> =
                (0..10).map(|n| format!("/d/f{n}")).chain(["/d/sub/".to_owned()]).collect();
            assert_eq!(names, expected);
            assert_eq!(pages > 1, with_values || entries_max > 0, "{pages} pages");
        }
    }
    let list = |path: &str| proto::List { path: path.to_owned(), ..proto::List::default() };
    assert!(client.list(list("/d/sub/"), Freshness::Linearizable, soon()).await.unwrap().entries.is_empty());
    let none = client.list(list("/none/"), Freshness::Linearizable, soon()).await;
    assert_eq!(refused(none), "/none/ does not exist");
    let file = client.list(list("/d"), Freshness::Linearizable, soon()).await;
    assert!(refused(file).contains("a directory, which ends in /, is wanted"));
    cluster.shutdown().await;
}

#[tokio::test]
async fn a_stale_read_sees_what_its_client_has_seen() {
    let cluster = Cluster::start(3).await;
    let session = cluster.session().await;
    for n in 0..200_u32 {
        session.put("/n", n.to_string(), soon()).await.unwrap();
        let read = session.client().get("/n", Freshness::Stale, soon()).await.unwrap().unwrap();
        assert_eq!(read.value.as_ref(), n.to_string().as_bytes());
    }
    cluster.shutdown().await;
}
