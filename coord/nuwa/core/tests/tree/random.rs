//! Random commands; the invariants are checked after each.

use nuwa_core::query;
use nuwa_model::proto::{
    Delete, EndSession, Lock, MakeDirectory, Operation, Put, RefusalCode, Rename, SetHistory, SetQuota, Txn,
    Unlock, command, operation,
};
use proptest::prelude::*;

use crate::world::{Does, World, directory, put, rename, subtree};

fn name() -> impl Strategy<Value = String> {
    let plain = proptest::collection::vec(0..2_u8, 1..4)
        .prop_map(|parts| parts.iter().map(|part| if *part == 0 { "/a" } else { "/b" }).collect());
    // As sequential ones are called.
    let numbered = (0..6_u64).prop_map(|number| format!("/a{number:010}"));
    prop_oneof![8 => plain, 1 => numbered]
}

fn of_nobody(then: Vec<Operation>) -> command::What {
    command::What::Txn(Txn { then, ..Txn::default() })
}

fn folder() -> impl Strategy<Value = String> {
    name().prop_map(|name| format!("{name}/"))
}

fn operation() -> impl Strategy<Value = Operation> {
    let flags = (any::<bool>(), any::<bool>(), 0..10_u8);
    prop_oneof![
        6 => (name(), flags.clone(), 0..3_i32).prop_map(|(path, (owned, with_parents, len), existence)| {
            let value = vec![len; usize::from(len)].into();
            Put { path, value, owned, with_parents, existence, sequential: len == 9 }.operation()
        }),
        2 => (folder(), any::<bool>(), any::<bool>())
            .prop_map(|(path, with_parents, may_exist)| MakeDirectory { path, with_parents, may_exist }.operation()),
        2 => (prop_oneof![name(), folder()], any::<bool>(), any::<bool>())
            .prop_map(|(path, subtree, may_be_absent)| Delete { path, subtree, may_be_absent }.operation()),
        2 => (name(), name(), any::<bool>(), any::<bool>()).prop_map(|(from, to, no_replace, folders)| {
            let end = if folders { "/" } else { "" };
            Rename { from: format!("{from}{end}"), to: format!("{to}{end}"), no_replace }.operation()
        }),
    ]
}

pub(crate) fn any_command() -> impl Strategy<Value = command::What> {
    let session = || 0..4_u64;
    prop_oneof![
        8 => (session(), proptest::collection::vec(operation(), 1..4))
            .prop_map(|(session, then)| command::What::Txn(Txn { session, then, ..Txn::default() })),
        1 => Just(of_nobody(vec![Put { sequential: true, ..put("/a", "") }.operation()])),
        4 => (session(), name(), 0..2_u64, any::<(bool, bool, bool)>()).prop_map(
            |(session, path, owner, (shared, wait, with_file))| {
                let value = (owner == 1 && !shared).then(|| "leads".into());
                command::What::Lock(Lock { session, path, owner, shared, wait, value, with_file })
            }
        ),
        2 => (session(), name(), 0..2_u64)
            .prop_map(|(session, path, owner)| command::What::Unlock(Unlock { session, path, owner })),
        1 => Just(command::What::OpenSession(Default::default())),
        1 => session().prop_map(|session| command::What::EndSession(EndSession { session })),
        1 => (folder(), 0..6_u64, 0..40_u64).prop_map(|(path, entries_max, bytes_max)| {
            command::What::SetQuota(SetQuota { path, entries_max, bytes_max })
        }),
    ]
}

/// Revisions of hundreds of events.
fn large_command() -> impl Strategy<Value = command::What> {
    let files = || (0..140).map(|n| put(&format!("/large/{n}"), "").operation());
    prop_oneof![
        Just(of_nobody([directory("/large/").operation()].into_iter().chain(files()).collect())),
        Just(of_nobody(vec![rename("/large/", "/b/").operation()])),
        Just(of_nobody(vec![subtree("/b/").operation()])),
    ]
}

fn is_sequential(command: &command::What) -> bool {
    let command::What::Txn(Txn { then, .. }) = command else { return false };
    let [Operation { what: Some(operation::What::Put(put)) }] = &then[..] else { return false };
    put.sequential
}

/// What was dropped suffices, unless there is only what the last command did.
fn is_within(world: &World, events_max: u64) -> bool {
    let meta = query::meta(&world.kv).unwrap();
    events_max == 0 || meta.history_events <= events_max || meta.history_first == meta.revision
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn the_invariants_hold_with_large_revisions(
        commands in proptest::collection::vec(prop_oneof![any_command(), large_command()], 1..40), events_max in 1..400_u64,
    ) {
        let mut world = World::new();
        world.ask(command::What::SetHistory(SetHistory { events_max, bytes_max: 0 })).unwrap();
        for _ in 0..3 {
            world.session();
        }
        for command in commands {
            let _outcome = world.ask(command);
            prop_assert!(is_within(&world, events_max));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// The invariants hold after every command ([`World::run`]), and what is refused changes nothing ([`World::ask`]).
    #[test]
    fn the_invariants_hold(
        commands in proptest::collection::vec(any_command(), 1..100), events_max in prop_oneof![Just(0), 1..9_u64],
    ) {
        let mut world = World::new();
        if events_max > 0 {
            world.ask(command::What::SetHistory(SetHistory { events_max, bytes_max: 0 })).unwrap();
        }
        for _ in 0..3 {
            world.session();
        }
        for command in commands {
            let is_sequential = is_sequential(&command);
            let outcome = world.ask(command);
            prop_assert!(!is_sequential || outcome != Err(RefusalCode::Exists), "a number that is taken is passed");
            prop_assert!(is_within(&world, events_max));
        }
    }
}
