//! The fuzz target's driver on random and on mutated commands, so that every run of the tests does a little of it.
//! `coord/nuwa/fuzz` does it at length.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

#[path = "common/drive.rs"]
mod drive;

use nuwa_model::ops;
use nuwa_model::proto::{
    Command, Compare, EndSession, Lock, RefusalCode, Restore, RestoreBegin, RestoreBlock, RestoreFinish,
    SetHistory, SetQuota, SnapshotHeader, SnapshotRecord, SnapshotRecords, Txn, Unlock, command, compare,
    restore,
};
use proptest::prelude::*;
use prost::Message as _;

/// Numbers as they are, and as nobody would choose them.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![4 => 0..4_u64, 1 => Just(u64::MAX), 1 => Just(1 << 63), 1 => Just((1 << 62) - 1_000_000_000), 1 => any::<u64>()]
}

fn any_path() -> impl Strategy<Value = String> {
    prop_oneof![6 => "(/[ab]){1,2}/?", 1 => Just("/".to_owned()), 1 => "[/.a\\x00]{0,8}", 1 => "/a{250,260}", 1 => "(/a){30,34}"]
}

fn operation() -> impl Strategy<Value = nuwa_model::proto::Operation> {
    let flags = any::<(bool, bool, bool)>();
    prop_oneof![
        4 => (any_path(), flags, -1..5_i32).prop_map(|(path, (owned, sequential, with_parents), existence)| {
            nuwa_model::proto::Put { owned, sequential, with_parents, existence, ..ops::put(path, "v") }.into()
        }),
        1 => any_path().prop_map(|path| ops::make_directory(path).into()),
        1 => any_path().prop_map(|path| ops::delete(path).into()),
        1 => (any_path(), any_path()).prop_map(|(from, to)| ops::rename(from, to).into()),
        1 => Just(nuwa_model::proto::Operation::default()),
    ]
}

fn comparison() -> impl Strategy<Value = Compare> {
    let with = prop_oneof![
        Just(None),
        any::<bool>().prop_map(|exists| Some(compare::With::Exists(exists))),
        number().prop_map(|version| Some(compare::With::Version(version))),
        number().prop_map(|fence| Some(compare::With::Fence(fence))),
        Just(Some(compare::With::Value("v".into()))),
    ];
    (any_path(), -1..6_i32, with).prop_map(|(path, relation, with)| Compare { path, relation, with })
}

fn step() -> impl Strategy<Value = Option<restore::Step>> {
    let record = (any_path(), number(), number(), number(), number()).prop_map(
        |(path, version, created, modified, quota_entries_max)| SnapshotRecord {
            path,
            version,
            created,
            modified,
            quota_entries_max,
            ..SnapshotRecord::default()
        },
    );
    let header = (number(), number(), number()).prop_map(|(revision, next_session, history_events_max)| {
        SnapshotHeader { revision, next_session, history_events_max, ..SnapshotHeader::default() }
    });
    let begin = (proptest::option::of(header), number())
        .prop_map(|(header, revision_bump)| restore::Step::Begin(RestoreBegin { header, revision_bump }));
    let block = (number(), proptest::collection::vec(record, 0..3)).prop_map(|(number, records)| {
        restore::Step::Block(RestoreBlock { number, records: Some(SnapshotRecords { records }) })
    });
    let finish = number().prop_map(|records| restore::Step::Finish(RestoreFinish { records }));
    let abandon = Just(restore::Step::Abandon(Default::default()));
    proptest::option::weighted(0.9, prop_oneof![2 => begin, 3 => block, 2 => finish, 1 => abandon])
}

fn any_command() -> impl Strategy<Value = Command> {
    let operations = || proptest::collection::vec(operation(), 0..4);
    let what = prop_oneof![
        6 => (number(), proptest::collection::vec(comparison(), 0..2), operations(), operations()).prop_map(
            |(session, compares, then, otherwise)| command::What::Txn(Txn { session, compares, then, otherwise })
        ),
        2 => (number(), any_path(), number(), any::<bool>()).prop_map(|(session, path, owner, shared)| {
            command::What::Lock(Lock { session, path, owner, shared, wait: true, with_file: true, value: None })
        }),
        1 => (number(), any_path(), number())
            .prop_map(|(session, path, owner)| command::What::Unlock(Unlock { session, path, owner })),
        1 => number().prop_map(|session| command::What::EndSession(EndSession { session })),
        1 => (any_path(), number(), number()).prop_map(|(path, entries_max, bytes_max)| {
            command::What::SetQuota(SetQuota { path, entries_max, bytes_max })
        }),
        1 => (number(), number())
            .prop_map(|(events_max, bytes_max)| command::What::SetHistory(SetHistory { events_max, bytes_max })),
        6 => (1..3_u64, step()).prop_map(|(restore, step)| command::What::Restore(Restore { restore, step })),
    ];
    proptest::option::weighted(0.95, what).prop_map(|what| Command { what })
}

fn framed(command: &[u8]) -> Vec<u8> {
    let len = u16::try_from(command.len()).unwrap();
    [&len.to_le_bytes()[..], command].concat()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn absurd_commands(commands in proptest::collection::vec(any_command(), 1..30)) {
        let bytes: Vec<u8> = commands.iter().flat_map(|command| framed(&command.encode_to_vec())).collect();
        drive::drive(&bytes);
    }

    #[test]
    fn mutated_commands(
        commands in proptest::collection::vec(any_command(), 1..10),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
    ) {
        let mut bytes: Vec<u8> = commands.iter().flat_map(|command| framed(&command.encode_to_vec())).collect();
        for (at, to) in changes {
            let at = at.index(bytes.len());
            bytes[at] = to;
        }
        drive::drive(&bytes);
    }

    #[test]
    fn random_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        drive::drive(&framed(&bytes));
    }
}

/// Numbers of refusals are on the wire.
#[test]
fn codes_keep_their_numbers() {
    assert_eq!((RefusalCode::Invalid as i32, RefusalCode::Restoring as i32), (14, 15));
}
