//! Watchers of directories at real masters: what they are told, where they go on, and when they are told that they cannot.

#![allow(clippy::unwrap_used, reason = "helpers of tests panic like tests")]

mod fixture;

use std::collections::BTreeMap;
use std::time::Duration;

use coord_types::InodeId;
use fixture::{Cluster, create, name, soon, unlink};
use master_api::model::event::WATCH_CHANGES_MAX;
use master_api::model::{DirectoryEvent, EventKind, EventPlace, Mkdir, Mutation, Position, Watch, Watched};
use master_api::{ClientError, Errno, MasterClient};

const ROOT: InodeId = InodeId::ROOT;
const WAIT: Duration = Duration::from_secs(5);

async fn mkdir(client: &MasterClient, text: &str) -> InodeId {
    let op = Mkdir { parent: ROOT, name: name(text), mode: 0o755, uid: 0, gid: 0 };
    client.mutate_by(Mutation::Mkdir(op), Some(soon())).await.unwrap().attr.unwrap().ino
}

async fn ask(client: &MasterClient, watch: &Watch) -> Watched {
    client.watch(watch, Some(soon())).await.unwrap()
}

/// Of an answer that knows the watcher: lost, the next place, the events.
type Told = (bool, EventPlace, Vec<DirectoryEvent>);

async fn told(client: &MasterClient, watch: &Watch) -> Told {
    match ask(client, watch).await {
        Watched::Told { lost, next, events, refused } if refused.is_empty() => (lost, next, events),
        other => panic!("{other:?}"),
    }
}

/// The first request of a watcher of one directory, from now on.
async fn begin(client: &MasterClient, watcher: u64, directory: InodeId) -> Watch {
    let first = Watch { watcher, sequence: 1, add: vec![directory], wait: WAIT, ..Watch::default() };
    let (lost, next, events) = told(client, &first).await;
    assert_eq!((lost, events), (false, vec![]));
    Watch { sequence: 2, acknowledged: 1, add: vec![], after: Some(next), ..first }
}

fn brief(events: &[DirectoryEvent]) -> Vec<(EventKind, String)> {
    let name = |event: &DirectoryEvent| event.name.as_ref().map_or_else(String::new, ToString::to_string);
    events.iter().map(|event| (event.kind, name(event))).collect()
}

#[tokio::test]
async fn a_watcher_is_told_and_goes_on_where_it_was() {
    let cluster = Cluster::start(1).await;
    cluster.register_three().await;
    let (client, other) = (cluster.client(), cluster.client());
    let (dir, elsewhere) = (mkdir(&client, "d").await, mkdir(&client, "e").await);
    let watch = begin(&client, 7, dir).await;
    // Somebody waits, and another client makes files.
    let waits = tokio::spawn({
        let (client, watch) = (client.clone(), Watch { wait: Duration::from_millis(800), ..watch.clone() });
        async move { told(&client, &watch).await }
    });
    other.mutate_by(create(elsewhere, "not mine"), Some(soon())).await.unwrap();
    let file = other.mutate_by(create(dir, "a"), Some(soon())).await.unwrap().attr.unwrap().ino;
    let (lost, next, events) = waits.await.unwrap();
    if !events.is_empty() {
        // Or it was over before the file was made, on a machine that is so busy.
        assert_eq!((lost, brief(&events)), (false, vec![(EventKind::Created, "a".to_owned())]));
        assert_eq!((events[0].directory, events[0].ino), (dir, file));
    }
    // The same place again says the same again, and more.
    other.mutate_by(create(dir, "b"), Some(soon())).await.unwrap();
    let again = Watch { sequence: 3, ..watch.clone() };
    let (_, end, events) = told(&client, &again).await;
    let expected = [(EventKind::Created, "a".to_owned()), (EventKind::Created, "b".to_owned())];
    assert_eq!(brief(&events), expected);
    // A place between two events.
    let between = EventPlace { position: events[0].position, ..end };
    let rest = told(&client, &Watch { sequence: 4, after: Some(between), ..watch.clone() }).await;
    assert_eq!(brief(&rest.2), expected[1..]);
    // Nothing happens: the call ends with its wait.
    let nothing = Watch { sequence: 5, after: Some(end), wait: Duration::from_millis(10), ..watch.clone() };
    assert_eq!(told(&client, &nothing).await.2, []);
    // Another directory is told of from the place on, and this one no more.
    let changed = Watch {
        sequence: 6,
        acknowledged: 5,
        add: vec![elsewhere],
        remove: vec![dir],
        after: watch.after,
        ..watch
    };
    assert_eq!(brief(&told(&client, &changed).await.2), [(EventKind::Created, "not mine".to_owned())]);
    assert!(next.position <= end.position);
    cluster.shutdown().await;
}

#[tokio::test]
async fn a_directory_that_is_none_is_refused_by_itself() {
    let cluster = Cluster::start(1).await;
    cluster.register_three().await;
    let client = cluster.client();
    let file = client.mutate_by(create(ROOT, "f"), Some(soon())).await.unwrap().attr.unwrap().ino;
    let gone = InodeId(99_999);
    let add = vec![gone, ROOT, file];
    let first = Watch { watcher: 1, sequence: 1, add, wait: WAIT, ..Watch::default() };
    let Watched::Told { next, refused, .. } = ask(&client, &first).await else { panic!("it begins") };
    assert_eq!(refused, BTreeMap::from([(gone, Errno::ENOENT), (file, Errno::ENOTDIR)]));
    unlink(&client, "f", None).await.unwrap();
    let on = Watch { sequence: 2, acknowledged: 1, after: Some(next), add: vec![], ..first.clone() };
    assert_eq!(brief(&told(&client, &on).await.2), [(EventKind::Removed, "f".to_owned())]);
    // More at one time than a call may have.
    let many = Watch { sequence: 3, add: vec![ROOT; WATCH_CHANGES_MAX + 1], ..first };
    let refused = client.watch(&many, Some(soon())).await.unwrap_err();
    assert!(
        matches!(refused, ClientError::Refused { .. }) && refused.to_string().contains("1024"),
        "{refused}"
    );
    cluster.shutdown().await;
}

#[tokio::test]
async fn who_cannot_go_on_is_told_so() {
    let mut cluster = Cluster::start(1).await;
    cluster.register_three().await;
    let client = cluster.client();
    let watch = begin(&client, 7, ROOT).await;
    let place = watch.after.unwrap();
    // A place of a log that is no more.
    let position = Position { index: place.position.index + 1000, number: 0 };
    let ahead = Watch { after: Some(EventPlace { position, ..place }), ..watch.clone() };
    let (lost, next, events) = told(&client, &ahead).await;
    assert!(lost && events.is_empty() && next.position >= place.position && next.position < position);
    // Another cluster epoch.
    let epoch = client.new_epoch(Some(soon())).await.unwrap();
    let (lost, next, _) = told(&client, &Watch { sequence: 3, ..watch.clone() }).await;
    assert!(lost);
    assert_eq!(next.epoch, epoch);
    // A set that nobody has.
    let unknown = Watch { watcher: 8, ..watch.clone() };
    assert_eq!(ask(&client, &unknown).await, Watched::Unknown);
    // A master that starts again knows no watcher; and if it does not know what came behind the place, it says that.
    client.mutate_by(create(ROOT, "before"), Some(soon())).await.unwrap();
    cluster.running.remove(&1).unwrap().shutdown().await;
    cluster.start_one(1).await;
    let on = Watch { sequence: 4, acknowledged: 3, after: Some(next), ..watch };
    assert_eq!(ask(&client, &on).await, Watched::Unknown);
    let anew = Watch { sequence: 5, acknowledged: 0, add: vec![ROOT], ..on };
    let (lost, next, events) = told(&client, &anew).await;
    assert!(lost || brief(&events) == [(EventKind::Created, "before".to_owned())]);
    client.mutate_by(create(ROOT, "after"), Some(soon())).await.unwrap();
    let on = Watch { sequence: 6, acknowledged: 5, add: vec![], after: Some(next), ..anew };
    assert_eq!(brief(&told(&client, &on).await.2), [(EventKind::Created, "after".to_owned())]);
    cluster.shutdown().await;
}
