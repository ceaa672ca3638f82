//! The tree out of one cluster, and into another.

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use kuafu::{CallOptions, Client, Code};
use nuwa_api::client::Freshness;
use nuwa_api::ops::{delete, make_directory, put};
use nuwa_api::proto::{
    self, Entry, EventKind, ExportRequest, NuwaAdminClient, Put, RefusalCode, SetQuota, SnapshotRecord,
    command,
};
use nuwa_api::snapshot::{self, Contents, Reader, RestoreError, Restored};
use nuwa_api::{LockRequest, NuwaClient, Place, Watched};

use crate::fixture::{Cluster, PATIENCE, refused, soon};

async fn saved(client: &NuwaClient) -> (Vec<u8>, Contents) {
    let (file, contents) = snapshot::save(client, "test", Vec::new(), PATIENCE, |_| {}).await.unwrap();
    assert_eq!(snapshot::verify(&file[..]).unwrap(), contents);
    (file, contents)
}

fn records(file: &[u8]) -> Vec<SnapshotRecord> {
    let mut reader = Reader::new(file).unwrap();
    let mut records = Vec::new();
    while let Some(block) = reader.next_block().unwrap() {
        records.extend(block);
    }
    records
}

async fn restored(client: &NuwaClient, file: &[u8]) -> Result<Restored, RestoreError> {
    snapshot::restore(client, Reader::new(file).unwrap(), 0, PATIENCE, |_| {}).await
}

async fn code<T: std::fmt::Debug>(
    result: impl Future<Output = Result<T, nuwa_api::ClientError>>,
) -> Option<RefusalCode> {
    result.await.unwrap_err().refusal()
}

/// What events up to a revision lead to, but for what sessions own.
async fn tree_at(client: &NuwaClient, revision: u64) -> BTreeMap<String, Entry> {
    let mut watcher = client.watch("/", Place::after(0));
    let mut tree = BTreeMap::new();
    loop {
        let Watched::Event(event) = watcher.next().await.unwrap() else { panic!("all of it is kept") };
        if event.revision > revision {
            break;
        }
        let kind = event.kind();
        let entry = event.entry.unwrap();
        match kind {
            EventKind::Put if entry.owner == 0 => drop(tree.insert(entry.path.clone(), entry)),
            EventKind::Put | EventKind::Deleted => drop(tree.remove(&entry.path)),
            _ => {}
        }
    }
    tree
}

/// One revision, whatever is changed meanwhile: what a reader of the events saw then, and half of no transaction.
#[tokio::test]
async fn a_snapshot_is_one_revision_while_others_write() {
    let cluster = Cluster::start(3).await;
    let done = AtomicBool::new(false);
    let writers: Vec<_> = (0..4)
        .map(async |n| {
            let session = cluster.session().await;
            let parents = |path: String| Put { with_parents: true, ..put(path, "") };
            session.change_one(parents(format!("/w{n}/deep/x")), soon()).await.unwrap();
            session.change_one(Put { owned: true, ..put(format!("/w{n}/mine"), "") }, soon()).await.unwrap();
            let mut round = 0_u32;
            while !done.load(Ordering::SeqCst) {
                let value = format!("{round}");
                let pair = ["a", "b"].map(|name| put(format!("/w{n}/{name}"), value.clone()).into());
                session.txn(vec![], pair.to_vec(), vec![], soon()).await.unwrap();
                if round % 3 == 2 {
                    session.change_one(delete(format!("/w{n}/{}", round - 2)), soon()).await.unwrap();
                }
                session.put(&format!("/w{n}/{round}"), vec![b'v'; 5000], soon()).await.unwrap();
                round += 1;
            }
            session.end(soon()).await.unwrap();
        })
        .collect();
    let reader = async {
        let client = cluster.client();
        let mut taken = Vec::new();
        for _ in 0..5 {
            let (file, contents) = saved(&client).await;
            taken.push((contents.header.revision, records(&file)));
        }
        // The last one is followed by something.
        let last = taken.last().unwrap().0;
        crate::fixture::until("another change", async || {
            let summary = proto::read_request::What::Summary(proto::GetSummary {});
            client.read(summary, Freshness::Linearizable, soon()).await.unwrap().0 > last
        })
        .await;
        done.store(true, Ordering::SeqCst);
        taken
    };
    let (taken, _) = tokio::join!(reader, futures::future::join_all(writers));
    assert!(taken.windows(2).all(|two| two[0].0 < two[1].0), "each is of later");
    let client = cluster.client();
    for (revision, records) in taken {
        let seen = tree_at(&client, revision).await;
        let found: BTreeMap<String, Entry> = records
            .into_iter()
            .filter(|record| record.path != "/")
            .map(|record| {
                let SnapshotRecord { path, value, version, created, modified, modified_unix_nanos, .. } =
                    record;
                let entry = Entry { path, value, version, created, modified, owner: 0, modified_unix_nanos };
                (entry.path.clone(), entry)
            })
            .collect();
        assert!(found == seen, "at {revision}: {:?} and {:?}", found.keys(), seen.keys());
        assert!((0..4).all(|n| {
            let of = |name: &str| found.get(&format!("/w{n}/{name}")).map(|entry| entry.value.clone());
            of("a") == of("b")
        }));
    }
    cluster.shutdown().await;
}

/// Into a cluster of another size, which goes on from there.
#[tokio::test]
async fn a_cluster_of_another_size_goes_on_where_the_snapshot_was_made() {
    let cluster = Cluster::start(3).await;
    let session = cluster.session().await;
    for n in 0..2500 {
        // A few thousand records in more blocks than one, some of them large.
        let value = if n % 500 == 0 { vec![b'v'; 900 << 10] } else { n.to_string().into_bytes() };
        let put = Put { with_parents: true, ..put(format!("/d{}/{n}", n % 7), value) };
        session.change_one(put, soon()).await.unwrap();
    }
    let next = || Put { sequential: true, ..put("/d1/seq-", "") };
    session.change_one(next(), soon()).await.unwrap();
    let quota = command::What::SetQuota(SetQuota { path: "/d1/".to_owned(), entries_max: 400, bytes_max: 0 });
    session.change(quota, soon()).await.unwrap();
    let lock = LockRequest { path: "/d2/lock".to_owned(), with_file: true, ..LockRequest::default() };
    let old_fence = session.lock(&lock, soon()).await.unwrap().fence;
    session.change_one(Put { owned: true, ..put("/mine", "") }, soon()).await.unwrap();
    let (file, contents) = saved(session.client()).await;
    assert!(contents.header.revision > old_fence);
    assert_eq!((contents.directories, contents.files, contents.quotas), (7, 2502, 1));

    let mut new = Cluster::start(1).await;
    let client = new.client();
    // Whoever watches the new cluster is told that it is to read anew.
    let mut watcher = client.watch("/", Place::NOW);
    watcher.begin().await.unwrap();
    let done = restored(&client, &file).await.unwrap();
    assert_eq!(done.contents, contents);
    assert_eq!(done.revision, contents.header.revision + 1_000_000_000);
    assert_eq!(watcher.next().await.unwrap(), Watched::HistoryLost { first: done.revision + 1 });
    let again = saved(&client).await;
    assert_eq!(records(&again.0), records(&file));
    assert_eq!(again.1.header.revision, done.revision);

    // Also after its restart: revisions, fences, sessions and counters go on from above.
    new.crash(1).await;
    new.start_one(1).await;
    let session = new.session().await;
    assert!(session.id() > 1_000_000_000);
    assert!(session.lock(&lock, soon()).await.unwrap().fence > old_fence + 1_000_000_000);
    let made = session.change_one(next(), soon()).await.unwrap().entry.unwrap();
    assert_eq!(made.path, "/d1/seq-0000000001");
    let many = async || {
        for n in 0..100 {
            session.put(&format!("/d1/more{n}"), "", soon()).await?;
        }
        Ok(())
    };
    assert!(refused(many().await).contains("the quota of /d1/ is 400 entries"));
    assert_eq!(session.client().get("/mine", Freshness::Linearizable, soon()).await.unwrap(), None);
    watcher.go_on(Place::after(done.revision));
    let Watched::Event(first) = watcher.next().await.unwrap() else { panic!("nothing is lost") };
    assert_eq!(first.revision, done.revision + 1);
    cluster.shutdown().await;
    new.shutdown().await;
}

#[tokio::test]
async fn a_tree_that_is_not_empty_is_not_restored_to() {
    let cluster = Cluster::start(1).await;
    let session = cluster.session().await;
    session.put("/a", "here", soon()).await.unwrap();
    let (file, _) = saved(session.client()).await;
    match restored(session.client(), &file).await {
        Err(RestoreError::NotBegun(error)) => {
            assert_eq!(error.refusal(), Some(RefusalCode::NotEmpty));
            assert!(error.to_string().contains("/ is not empty"));
        }
        other => panic!("{other:?}"),
    }
    session.put("/b", "goes on", soon()).await.unwrap();
    session.change_one(delete("/a"), soon()).await.unwrap();
    session.change_one(delete("/b"), soon()).await.unwrap();
    let before = session.change_one(make_directory("/d/"), soon()).await.unwrap().entry.unwrap().modified;
    session.change_one(delete("/d/"), soon()).await.unwrap();
    let done = restored(session.client(), &file).await.unwrap();
    assert!(done.revision > before + 1_000_000_000, "the tree's own revisions are not given out again, too");
    assert_eq!(session.put("/a", "again", soon()).await.unwrap().version, 2, "sessions stay open");
    cluster.shutdown().await;
}

/// Stops the restore at a block until it is told to go on.
struct Gate {
    blocks: u64,
    reached: Option<tokio::sync::oneshot::Sender<()>>,
    go_on: std::sync::mpsc::Receiver<()>,
}

impl Gate {
    fn pass(&mut self) {
        if self.blocks == 0
            && let Some(reached) = self.reached.take()
        {
            reached.send(()).unwrap();
            self.go_on.recv().unwrap();
        }
        self.blocks = self.blocks.saturating_sub(1);
    }
}

/// The restore goes on at the next leader; the tree shows nothing of itself until it is whole.
#[tokio::test]
async fn a_leader_that_dies_in_the_middle_of_a_restore_changes_nothing() {
    let old = Cluster::start(1).await;
    let session = old.session().await;
    session.change_one(make_directory("/d/"), soon()).await.unwrap();
    for n in 0..10 {
        session.put(&format!("/d/{n}"), vec![n; 400 << 10], soon()).await.unwrap();
    }
    let (file, _) = saved(session.client()).await;
    old.shutdown().await;

    let mut cluster = Cluster::start(3).await;
    let client = cluster.client();
    let (reached, is_reached) = tokio::sync::oneshot::channel();
    let (go_on, may_go_on) = std::sync::mpsc::sync_channel(1);
    let mut gate = Gate { blocks: 2, reached: Some(reached), go_on: may_go_on };
    let (runtime, restorer, bytes) = (tokio::runtime::Handle::current(), client.clone(), file.clone());
    let restoring = tokio::task::spawn_blocking(move || {
        let reader = Reader::new(&bytes[..]).unwrap();
        runtime.block_on(snapshot::restore(&restorer, reader, 5, PATIENCE, |_| gate.pass()))
    });
    is_reached.await.unwrap();
    let restoring_code = Some(RefusalCode::Restoring);
    assert_eq!(code(client.get("/d/0", Freshness::Linearizable, soon())).await, restoring_code);
    assert_eq!(code(client.export(Instant::now() + PATIENCE)).await, restoring_code);
    assert_eq!(code(client.open_session(Duration::from_secs(10), "", soon())).await, restoring_code);
    let leader = cluster.leader().await;
    // It dies with a block under way, or just before.
    go_on.send(()).unwrap();
    cluster.crash(leader).await;
    let done = restoring.await.unwrap().unwrap();
    assert_eq!(done.revision, done.contents.header.revision + 5);
    cluster.start_one(leader).await;
    cluster.whole().await;
    let (again, _) = saved(&cluster.client_at(leader)).await;
    assert_eq!(records(&again), records(&file), "each block was restored once");
    cluster.shutdown().await;
}

/// A file that breaks off in the middle.
struct Broken<'a>(std::io::Take<&'a [u8]>);

impl Read for Broken<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self.0.read(buffer)? {
            0 => Err(std::io::Error::other("the disk went away")),
            len => Ok(len),
        }
    }
}

#[tokio::test]
async fn a_restore_that_broke_off_is_begun_again_or_abandoned() {
    let old = Cluster::start(1).await;
    let session = old.session().await;
    for n in 0..5 {
        session.put(&format!("/{n}"), vec![n; 600 << 10], soon()).await.unwrap();
    }
    let (file, _) = saved(session.client()).await;
    old.shutdown().await;
    let cluster = Cluster::start(1).await;
    let client = cluster.client();
    for is_abandoned in [true, false] {
        let reader = Reader::new(Broken(file.take(2 << 20))).unwrap();
        match snapshot::restore(&client, reader, 0, PATIENCE, |_| {}).await {
            Err(error @ RestoreError::BrokenOff { .. }) => {
                assert!(error.to_string().starts_with("the restore broke off behind"), "{error}");
            }
            other => panic!("{other:?}"),
        }
        let get = || client.get("/0", Freshness::Linearizable, soon());
        assert_eq!(code(get()).await, Some(RefusalCode::Restoring));
        if is_abandoned {
            snapshot::abandon(&client, PATIENCE).await.unwrap();
            assert_eq!(get().await.unwrap(), None);
        }
    }
    restored(&client, &file).await.unwrap();
    assert_eq!(records(&saved(&client).await.0), records(&file));
    cluster.shutdown().await;
}

#[tokio::test]
async fn exports_are_few_and_end() {
    let cluster = Cluster::start(1).await;
    let session = cluster.session().await;
    for n in 0..3 {
        session.put(&format!("/{n}"), vec![n; 700 << 10], soon()).await.unwrap();
    }
    let admin = NuwaAdminClient::new(Client::new(cluster.address(1), crate::fixture::transport()));
    let within = CallOptions::within(PATIENCE);
    let ask = async |export: u64, after: &str, end: bool| {
        let request = ExportRequest { export, after: after.to_owned(), end, ..ExportRequest::default() };
        admin.export(&request, &within).await.map(|reply| reply.message)
    };
    let checkpoints = || {
        let names = std::fs::read_dir(cluster.data_dir(1).join("snapshots")).unwrap();
        names.filter(|name| name.as_ref().unwrap().file_name().to_string_lossy().starts_with("tmp-")).count()
    };
    let first = ask(0, "", false).await.unwrap();
    let second = ask(0, "", false).await.unwrap();
    assert!(first.export != second.export && checkpoints() == 2);
    let busy = ask(0, "", false).await.unwrap_err();
    assert!(busy.code == Code::Busy && busy.retry_after.is_some(), "{busy}");
    let page = ask(first.export, &first.next_after, false).await.unwrap();
    assert_eq!(
        ask(first.export, &first.next_after, false).await.unwrap(),
        page,
        "as often as it is asked for"
    );
    let wrong = ask(first.export, "x", false).await.unwrap_err();
    assert!(wrong.code == Code::InvalidArgument && wrong.message.contains("a path begins with /"), "{wrong}");
    let wrong = ask(0, "/x", false).await.unwrap_err();
    assert!(wrong.message.contains("begins with its first page"), "{wrong}");
    ask(first.export, "", true).await.unwrap();
    let over = ask(first.export, &first.next_after, false).await.unwrap_err();
    assert!(over.code == Code::NotFound && over.message.contains("begin another"), "{over}");
    crate::fixture::until("its files are gone", async || checkpoints() == 1).await;
    ask(0, "", false).await.unwrap();
    // What a stop leaves behind is deleted.
    let directory = cluster.data_dir(1);
    let holding = cluster.shutdown_keeping().await;
    assert_eq!(std::fs::read_dir(directory.join("snapshots")).unwrap().count(), 0);
    drop(holding);
}
