//! Sequential names among names that somebody else gave.

use nuwa_core::query;
use nuwa_model::proto::{Put, RefusalCode as Code, SnapshotRecord, Txn};

use crate::world::{Does, World, delete, directory, path, put, rename};

fn next(prefix: &str) -> Put {
    Put { sequential: true, ..put(prefix, "") }
}

/// The name it got.
fn made(world: &mut World, prefix: &str) -> Result<String, Code> {
    let reply = world.txn(Txn { then: vec![next(prefix).operation()], ..Txn::default() })?;
    Ok(reply.results[0].entry.clone().unwrap().path)
}

/// The put was refused as the name exists, and the counter's step was dropped with it: no sequential name was made in that
/// directory any more.
#[test]
fn a_number_that_is_taken_is_passed() {
    let mut world = World::new();
    world.op(directory("/q/")).unwrap();
    world.op(put("/other", "")).unwrap();
    world.op(put("/q/job-0000000000", "put there")).unwrap();
    world.op(rename("/other", "/q/job-0000000001")).unwrap();
    world.op(directory("/q/job-0000000002/")).unwrap();
    assert_eq!(made(&mut world, "/q/job-").unwrap(), "/q/job-0000000003");
    assert_eq!(made(&mut world, "/q/else-").unwrap(), "/q/else-0000000004", "one counter for all");
    assert_eq!(world.value("/q/job-0000000000").unwrap(), "put there");
    // The digits of the number, and not those before them, count.
    world.op(put("/q/1230000000005", "")).unwrap();
    assert_eq!(made(&mut world, "/q/123").unwrap(), "/q/1230000000006");
    world.op(directory("/moved/")).unwrap();
    world.op(put("/moved/job-0000000000", "")).unwrap();
    world.op(rename("/moved/", "/q/in/")).unwrap();
    assert_eq!(made(&mut world, "/q/in/job-").unwrap(), "/q/in/job-0000000001", "it moved with its names");
}

#[test]
fn names_with_large_numbers_are_no_business_of_the_counter() {
    let mut world = World::new();
    for name in ["/job-1764500000000000000", "/job-18446744073709551615", "/job-9999999999", "/job-123456789"]
    {
        world.op(put(name, "")).unwrap();
    }
    assert_eq!(made(&mut world, "/job-").unwrap(), "/job-0000000000", "until one is in the way");
}

/// However many follow one another, a command passes them at once.
#[test]
fn a_long_run_of_taken_numbers_is_passed_in_one_command() {
    let mut world = World::new();
    world.fill(0, (0..10_000).map(|n| put(&format!("/job-{n:010}"), "")));
    assert_eq!(made(&mut world, "/job-").unwrap(), "/job-0000010000");
    world.op(delete("/job-0000010000")).unwrap();
    assert_eq!(made(&mut world, "/job-").unwrap(), "/job-0000010001", "never twice");
    // Some of them with digits that no counter reaches.
    world.fill(0, (10_002..10_100).map(|n| put(&format!("/job-{n:010}"), "")));
    world.op(put("/job-99999999999999999999999999", "")).unwrap();
    assert_eq!(made(&mut world, "/job-").unwrap(), "/job-1000000000000000000", "above the last 18 digits");
    assert_eq!(made(&mut world, "/job-").unwrap(), "/job-1000000000000000001");
}

/// A directory of a snapshot may say any number.
#[test]
fn a_counter_at_its_end_is_a_refusal() {
    use nuwa_model::proto::{
        Restore, RestoreBegin, RestoreBlock, RestoreFinish, SnapshotHeader, command, restore,
    };
    let mut world = World::new();
    let record = |path: &str, sequence| SnapshotRecord {
        path: path.to_owned(),
        version: 1,
        created: 1,
        modified: 1,
        sequence,
        ..SnapshotRecord::default()
    };
    let records = vec![record("/q/", u64::MAX), record("/r/", 0), record("/r/job-0000000000", 0)];
    let header = Some(SnapshotHeader { revision: 1, ..SnapshotHeader::default() });
    let steps = [
        restore::Step::Begin(RestoreBegin { header, revision_bump: 0 }),
        restore::Step::Block(RestoreBlock {
            number: 0,
            records: Some(nuwa_model::proto::SnapshotRecords { records }),
        }),
        restore::Step::Finish(RestoreFinish { records: 3 }),
    ];
    for step in steps {
        world.run(command::What::Restore(Restore { restore: 1, step: Some(step) }));
    }
    assert_eq!(made(&mut world, "/q/job-"), Err(Code::Invalid));
    assert_eq!(
        made(&mut world, "/r/job-").unwrap(),
        "/r/job-0000000001",
        "names that were restored count, too"
    );
    assert!(query::get(&world.kv, &path("/q/")).unwrap().is_some());
}
