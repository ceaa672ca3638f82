//! A tree taken out of one store and put into another.

use nuwa_core::{export, query};
use nuwa_model::proto::{
    Put, RefusalCode as Code, Restore, RestoreAbandon, RestoreBegin, RestoreBlock, RestoreFinish,
    RestoreReply, SetHistory, SetQuota, SnapshotHeader, SnapshotRecord, SnapshotRecords, command, reply,
    restore::Step,
};
use proptest::prelude::*;

use crate::random::any_command;
use crate::world::{Does, World, delete, directory, exclusive, owned, path, put};

fn exported(world: &World) -> Vec<SnapshotRecord> {
    let (mut records, mut after) = (Vec::new(), None);
    loop {
        let page = export::page(&world.kv, after.as_ref()).unwrap();
        assert!(!nuwa_model::snapshot::is_too_much(&page.records));
        records.extend(page.records);
        match page.next_after {
            Some(behind) => after = Some(behind),
            None => return records,
        }
    }
}

fn step(world: &mut World, restore: u64, step: Step) -> Result<RestoreReply, Code> {
    let before = world.revision();
    let is_finish = matches!(step, Step::Finish(_));
    let reply = world.run(command::What::Restore(Restore { restore, step: Some(step) }));
    assert!(is_finish || reply.revision == before, "it moves at the end");
    assert_eq!((reply.revision, world.events.len()), (world.revision(), 0));
    match reply.what {
        Some(reply::What::Restore(reply)) => Ok(reply),
        Some(reply::What::Refused(refused)) => Err(refused.code()),
        other => panic!("{other:?}"),
    }
}

fn begin(world: &mut World, restore: u64, header: &SnapshotHeader) -> Result<RestoreReply, Code> {
    step(world, restore, Step::Begin(RestoreBegin { header: Some(header.clone()), revision_bump: 0 }))
}

fn block(
    world: &mut World,
    restore: u64,
    number: u64,
    records: &[SnapshotRecord],
) -> Result<RestoreReply, Code> {
    let records = Some(SnapshotRecords { records: records.to_vec() });
    step(world, restore, Step::Block(RestoreBlock { number, records }))
}

fn finish(world: &mut World, restore: u64, records: usize) -> Result<RestoreReply, Code> {
    step(world, restore, Step::Finish(RestoreFinish { records: records as u64 }))
}

fn restored(from: &World, into: &mut World, cut: usize) {
    let (header, records) = (export::header(&from.kv).unwrap(), exported(from));
    begin(into, 7, &header).unwrap();
    for (number, records) in (0..).zip(records.chunks(cut)) {
        block(into, 7, number, records).unwrap();
    }
    finish(into, 7, records.len()).unwrap();
}

fn busy() -> World {
    let mut world = World::new();
    for at in ["/d/x", "/d/e/y", "/z"] {
        world.op(Put { with_parents: true, ..put(at, "value") }).unwrap();
    }
    world.op(put("/z", "again")).unwrap();
    world.op(directory("/q/")).unwrap();
    for _ in 0..3 {
        world.op(Put { sequential: true, ..put("/q/n-", "") }).unwrap();
        world.op(Put { sequential: true, ..put("/top-", "") }).unwrap();
    }
    world.op(delete("/q/n-0000000002")).unwrap();
    world
}

#[test]
fn a_tree_comes_back_as_it_was_and_goes_on_from_there() {
    let mut world = busy();
    for (at, entries_max, bytes_max) in [("/", 100, 0), ("/d/", 2, 0), ("/d/e/", 0, 1000)] {
        world.ask(command::What::SetQuota(SetQuota { path: at.to_owned(), entries_max, bytes_max })).unwrap();
    }
    world.ask(command::What::SetHistory(SetHistory { events_max: 50, bytes_max: 0 })).unwrap();
    let session = world.session();
    world.op_of(session, owned(put("/mine", "goes with me"))).unwrap();
    world.lock(exclusive(session, "/z")).unwrap();
    let before = world.revision();

    let mut new = World::new();
    restored(&world, &mut new, 2);
    assert_eq!(exported(&new), exported(&world));
    let (old, now) = (query::meta(&world.kv).unwrap(), query::meta(&new.kv).unwrap());
    assert_eq!((now.revision, now.next_session), (before + 1_000_000_000, old.next_session + 1_000_000_000));
    assert_eq!((now.history_first, now.history_events, now.history_events_max), (now.revision + 1, 0, 50));
    assert_eq!(
        query::events(&new.kv, (before, 0), 9).unwrap(),
        query::Page::Lost { first: now.revision + 1 }
    );
    assert_eq!((new.get("/mine"), new.holders("/z")), (None, (vec![], 0)));
    for at in ["/", "/d/", "/d/e/"] {
        let (of_old, of_new) =
            (query::quota(&world.kv, &path(at)).unwrap(), query::quota(&new.kv, &path(at)).unwrap());
        let (of_old, of_new) = (of_old.unwrap(), of_new.unwrap());
        assert_eq!((of_new.entries_max, of_new.bytes_max), (of_old.entries_max, of_old.bytes_max));
    }

    // It counts on from where it was.
    assert_eq!(new.op(put("/d/more", "")), Err(Code::Quota));
    new.op(Put { sequential: true, ..put("/q/n-", "") }).unwrap();
    new.op(Put { sequential: true, ..put("/top-", "") }).unwrap();
    assert!(new.get("/q/n-0000000003").is_some() && new.get("/top-0000000003").is_some());
    let again = new.session();
    assert!(again > session);
    assert!(new.lock(exclusive(again, "/z")).unwrap().fence > before + 1_000_000_000);
    assert_eq!(new.get("/z").unwrap().version, 2);
}

#[test]
fn everything_else_is_refused_meanwhile() {
    let (world, mut new) = (busy(), World::new());
    let session = new.session();
    let header = export::header(&world.kv).unwrap();
    begin(&mut new, 1, &header).unwrap();
    block(&mut new, 1, 0, &exported(&world)[..2]).unwrap();
    assert_eq!(new.op(put("/a", "")), Err(Code::Restoring));
    assert_eq!(new.op_of(session, owned(put("/a", ""))), Err(Code::Restoring));
    assert_eq!(new.lock(exclusive(session, "/a")), Err(Code::Restoring));
    assert_eq!(new.ask(command::What::OpenSession(Default::default())), Err(Code::Restoring));
    assert!(!new.end(session), "whose time is over must go");
    assert_eq!(new.ask(command::What::SetHistory(Default::default())), Err(Code::Restoring));
}

#[test]
fn steps_are_done_once_and_in_order() {
    let (world, mut new) = (busy(), World::new());
    let (header, records) = (export::header(&world.kv).unwrap(), exported(&world));
    assert_eq!(block(&mut new, 1, 0, &records), Err(Code::Invalid), "not begun");
    assert_eq!(begin(&mut new, 0, &header), Err(Code::Invalid));
    begin(&mut new, 1, &header).unwrap();
    assert_eq!(block(&mut new, 1, 1, &records[2..]), Err(Code::Invalid), "the first is due");
    assert_eq!(block(&mut new, 1, 0, &records[..2]).unwrap().next_block, 1);
    assert_eq!(block(&mut new, 1, 0, &records[..2]).unwrap().next_block, 1, "again, as after a lost reply");
    assert_eq!(begin(&mut new, 1, &header).unwrap().next_block, 1, "the same");
    assert_eq!(finish(&mut new, 1, records.len()), Err(Code::Invalid), "there is more");
    block(&mut new, 1, 1, &records[2..]).unwrap();
    assert_eq!(block(&mut new, 2, 2, &[]), Err(Code::Invalid), "another one's");
    finish(&mut new, 1, records.len()).unwrap();
    let done = new.revision();
    finish(&mut new, 1, records.len()).unwrap();
    assert_eq!((new.revision(), finish(&mut new, 2, 0)), (done, Err(Code::Invalid)));
    assert_eq!(begin(&mut new, 3, &header), Err(Code::NotEmpty));
    assert_eq!(exported(&new), exported(&world), "what is refused changes nothing");
}

#[test]
fn a_restore_that_was_broken_off_is_begun_again_or_given_up() {
    let (world, mut new) = (busy(), World::new());
    let (header, records) = (export::header(&world.kv).unwrap(), exported(&world));
    begin(&mut new, 1, &header).unwrap();
    block(&mut new, 1, 0, &records[..4]).unwrap();
    begin(&mut new, 2, &header).unwrap();
    assert_eq!(new.list("/"), Vec::<String>::new());
    assert_eq!(block(&mut new, 1, 1, &records[4..]), Err(Code::Invalid), "another has begun");
    block(&mut new, 2, 0, &records).unwrap();
    step(&mut new, 0, Step::Abandon(RestoreAbandon {})).unwrap();
    step(&mut new, 0, Step::Abandon(RestoreAbandon {})).unwrap();
    assert_eq!((new.list("/"), new.revision()), (Vec::new(), 0));
    new.op(put("/a", "")).unwrap();
    assert_eq!(begin(&mut new, 3, &header), Err(Code::NotEmpty));
    new.op(delete("/a")).unwrap();
    restored(&world, &mut new, 3);
    assert_eq!(exported(&new), exported(&world));
}

#[test]
fn records_that_no_tree_has_are_refused() {
    let mut new = World::new();
    begin(&mut new, 1, &SnapshotHeader { revision: 9, ..SnapshotHeader::default() }).unwrap();
    let record = |path: &str| SnapshotRecord {
        path: path.to_owned(),
        version: 1,
        created: 1,
        modified: 1,
        ..SnapshotRecord::default()
    };
    for (records, code) in [
        (vec![record("a")], Code::BadPath),
        (vec![record("/no/x")], Code::ParentNotFound),
        (vec![record("/a"), record("/a")], Code::Exists),
        (vec![record("/a"), record("/a/")], Code::IsADirectory),
        (vec![SnapshotRecord { modified: 10, ..record("/a") }], Code::Invalid),
        (vec![SnapshotRecord { value: vec![0; (1 << 20) + 1].into(), ..record("/a") }], Code::ValueTooLarge),
        (vec![SnapshotRecord { sequence: 1, ..record("/a") }], Code::Invalid),
        ((0..1001).map(|n| record(&format!("/{n}"))).collect(), Code::Invalid),
    ] {
        let code = if code == Code::IsADirectory { Code::NotADirectory } else { code };
        assert_eq!(block(&mut new, 1, 0, &records), Err(code), "{:?}", records[0].path);
        assert_eq!(exported(&new).len(), 1, "the root alone");
    }
    // Whatever counts on from them would come to an end.
    for (revision, bump) in [(u64::MAX, 0), (1 << 62, 1), (0, u64::MAX)] {
        let header = Some(SnapshotHeader { revision, ..SnapshotHeader::default() });
        let begin = Step::Begin(RestoreBegin { header, revision_bump: bump });
        assert_eq!(step(&mut new, 2, begin), Err(Code::Invalid));
    }
    assert_eq!(step(&mut new, 2, Step::Begin(RestoreBegin::default())), Err(Code::Invalid));
    assert_eq!(block(&mut new, 1, 0, &[record("/a")]).unwrap().records, 1, "the first is still under way");
}

#[test]
fn pages_are_bounded_and_pass_what_sessions_own() {
    let mut world = World::new();
    let session = world.session();
    world.op(directory("/d/")).unwrap();
    for n in 0..3 {
        let value = bytes::Bytes::from(vec![n; 900 << 10]);
        world.op(Put { value, ..put("/large", "").named(&format!("/large{n}")) }).unwrap();
    }
    for batch in 0..3 {
        let names =
            (0..1500).map(|n| owned(put("", "")).named(&format!("/d/{batch}-{n}")).operation()).collect();
        world.txn(nuwa_model::proto::Txn { session, then: names, ..Default::default() }).unwrap();
    }
    world.op(put("/d/last", "")).unwrap();
    let records = exported(&world);
    let paths: Vec<_> = records.iter().map(|record| record.path.as_str()).collect();
    assert_eq!(paths, ["/", "/d/", "/large0", "/large1", "/large2", "/d/last"]);
    let first = export::page(&world.kv, None).unwrap();
    assert_eq!((first.records.len(), first.next_after), (3, Some(path("/large0"))));
    let second = export::page(&world.kv, Some(&path("/large1"))).unwrap();
    assert_eq!(second.records.len(), 1, "and 4,096 entries were looked at");
}

trait Named {
    fn named(self, path: &str) -> Self;
}

impl Named for Put {
    fn named(self, path: &str) -> Self {
        Self { path: path.to_owned(), ..self }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    /// Whatever was done, the tree comes back the same, however the records are cut, and works on.
    #[test]
    fn any_tree_comes_back(
        commands in proptest::collection::vec(any_command(), 1..60), cut in 1..9_usize,
        later in proptest::collection::vec(any_command(), 0..20),
    ) {
        let mut world = World::new();
        for _ in 0..3 {
            world.session();
        }
        for command in commands {
            let _outcome = world.ask(command);
        }
        let mut new = World::new();
        restored(&world, &mut new, cut);
        prop_assert_eq!(exported(&new), exported(&world));
        for command in later {
            let _outcome = new.ask(command);
        }
    }
}
