//! What one command may cost every member, and what its answer may be.

use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use coord_kv::{Family, MemKv, Pair, Range, Read};
use nuwa_core::query;
use nuwa_model::VALUE_MAX_BYTES;
use nuwa_model::proto::compare::With;
use nuwa_model::proto::{Command, Get, Lock, Put, RefusalCode as Code, Reply, SetQuota, Txn, command, reply};
use prost::Message as _;

use crate::world::{Does, World, compare, delete, directory, exclusive, path, put, shared, subtree};

fn large(at: &str) -> Put {
    Put { value: Bytes::from(vec![7; VALUE_MAX_BYTES]), ..put(at, "") }
}

fn get(at: &str) -> nuwa_model::proto::Operation {
    Get { path: at.to_owned() }.operation()
}

/// Nobody counted what was got: 4,096 times the same large file were an answer of 4 GiB, built by every member, and again
/// at each restart. What is above Kuafu's 4 MiB cannot be sent, and was asked for again for ever.
#[test]
fn what_a_transaction_gets_has_a_limit() {
    let mut world = World::new();
    world.op(large("/large")).unwrap();
    world.op(put("/small", "x")).unwrap();
    let gets = |count: usize| {
        let then = std::iter::repeat_with(|| get("/large")).take(count);
        Txn { then: then.chain([put("/made", "").operation()]).collect(), ..Txn::default() }
    };
    assert_eq!(world.txn(gets(100)), Err(Code::TooMuch));
    assert_eq!((world.get("/made"), world.revision()), (None, 2));
    assert_eq!(world.txn(gets(1)).unwrap().results[0].entry.as_ref().unwrap().value.len(), VALUE_MAX_BYTES);
    let small = Txn { then: vec![get("/small"); 4096], ..Txn::default() };
    assert_eq!(world.txn(small).unwrap().results.len(), 4096);
}

#[test]
fn paths_in_an_answer_count_too() {
    let mut world = World::new();
    let deep: String = (0..15).map(|_| format!("/{}", "d".repeat(255))).collect();
    let make = |count: usize| {
        let puts =
            (0..count).map(|n| Put { with_parents: true, ..put(&format!("{deep}/{n}"), "") }.operation());
        Txn { then: puts.collect(), ..Txn::default() }
    };
    assert_eq!(world.txn(make(700)), Err(Code::TooMuch));
    assert_eq!(world.list("/"), Vec::<String>::new());
    world.txn(make(500)).unwrap();
    let gets = (0..700).map(|n| get(&format!("{deep}/{}", n % 500))).collect();
    assert_eq!(world.txn(Txn { then: gets, ..Txn::default() }), Err(Code::TooMuch));
}

/// A path that is none was repeated twice in the refusal, however long, and once of these as Rust writes it.
#[test]
fn a_refusal_is_short_whatever_the_path() {
    let mut world = World::new();
    for long in ["\u{1}".repeat(3 << 20), "\u{1F9ED}".repeat(700 << 10)] {
        let reply = world.run(command::What::Txn(Txn { then: vec![get(&long)], ..Txn::default() }));
        let Some(reply::What::Refused(refused)) = reply.what else { panic!("{:?}", reply.what) };
        assert_eq!(refused.code(), Code::BadPath);
        assert!(refused.path.len() <= 4096 && long.starts_with(&refused.path) && refused.path.len() > 4000);
        assert!(refused.message.len() < 32 << 10, "{}", refused.message.len());
    }
}

#[test]
fn what_a_command_looks_at_has_a_limit() {
    let mut world = World::new();
    world.op(large("/large")).unwrap();
    let looks = |count| Txn {
        compares: vec![compare("/large", With::Version(1)); count],
        otherwise: vec![put("/a", "").operation()],
        ..Txn::default()
    };
    world.txn(looks(8)).unwrap();
    assert_eq!(world.txn(looks(9)), Err(Code::TooMuch));
    for n in 0..9 {
        world.op(large(&format!("/{n}"))).unwrap();
    }
    let puts = |count| (0..count).map(|n| put(&format!("/{n}"), "").operation()).collect();
    assert_eq!(
        world.txn(Txn { then: puts(9), ..Txn::default() }),
        Err(Code::TooMuch),
        "what is replaced is read"
    );
    world.txn(Txn { then: puts(8), ..Txn::default() }).unwrap();
}

/// A store that notes the most that was read at a time.
struct Measured<'a> {
    kv: &'a MemKv,
    most_bytes: AtomicUsize,
}

impl Read for Measured<'_> {
    fn get(&self, family: Family, key: &[u8]) -> coord_kv::Result<Option<Vec<u8>>> {
        self.kv.get(family, key)
    }

    fn scan(&self, family: Family, range: &Range, limit: usize) -> coord_kv::Result<Vec<Pair>> {
        let pairs = self.kv.scan(family, range, limit)?;
        let bytes = pairs.iter().map(|(key, record)| key.len() + record.len()).sum();
        self.most_bytes.fetch_max(bytes, Ordering::Relaxed);
        Ok(pairs)
    }
}

/// What it answers, and the most it reads at a time.
fn measure(world: &World, what: command::What) -> (Option<reply::What>, usize) {
    let read = Measured { kv: &world.kv, most_bytes: AtomicUsize::new(0) };
    let command = Command { what: Some(what) }.encode_to_vec();
    let applied = nuwa_core::apply(&read, 1, &command).unwrap();
    (Reply::decode(applied.reply).unwrap().what, read.most_bytes.into_inner())
}

fn code(what: Option<reply::What>) -> Option<Code> {
    match what {
        Some(reply::What::Refused(refused)) => Some(refused.code()),
        _ => None,
    }
}

fn quota(at: &str, entries_max: u64) -> command::What {
    command::What::SetQuota(SetQuota { path: at.to_owned(), entries_max, bytes_max: 0 })
}

/// A thousand entries with their values were read at a time, up to 1 GiB.
#[test]
fn large_values_are_read_a_few_at_a_time() {
    let mut world = World::new();
    world.op(directory("/d/")).unwrap();
    for n in 0..24 {
        world.fill(0, [large(&format!("/d/{n}"))]);
    }
    let (answer, most_bytes) = measure(&world, quota("/d/", 100));
    assert!(code(answer).is_none() && most_bytes < 17 << 20, "{most_bytes}");
    let txn = |operation| command::What::Txn(Txn { then: vec![operation], ..Txn::default() });
    let (answer, most_bytes) = measure(&world, txn(subtree("/d/").operation()));
    assert!(code(answer) == Some(Code::TooMuch) && most_bytes < 17 << 20, "{most_bytes}");
    let (answer, most_bytes) = measure(&world, txn(delete("/d/").operation()));
    assert!(code(answer) == Some(Code::NotEmpty) && most_bytes < 2 << 20, "{most_bytes}");
}

/// Counting went on until it was done, inside of `apply`, however much there was.
#[test]
fn a_quota_is_set_on_what_can_be_counted() {
    let mut world = World::new();
    for at in ["/d/", "/d/a/", "/d/b/", "/d/a/in/"] {
        world.op(directory(at)).unwrap();
    }
    world.ask(quota("/d/a/", 1_000_000)).unwrap();
    world.ask(quota("/d/a/in/", 1_000_000)).unwrap();
    world.fill(0, (0..66_000).map(|n| put(&format!("/d/a/{n}"), "")));
    world.fill(0, (0..10).map(|n| put(&format!("/d/b/{n}"), "")));
    world.ask(quota("/d/", 1_000_000)).unwrap();
    let used = query::quota(&world.kv, &path("/d/")).unwrap().unwrap().entries;
    assert_eq!(used, 66_013, "what has a quota is counted already");
    world.ask(quota("/d/", 0)).unwrap();
    world.ask(quota("/d/a/", 0)).unwrap();
    let refused = world.run(quota("/d/", 1_000_000)).what;
    let Some(reply::What::Refused(refused)) = refused else { panic!("{refused:?}") };
    assert_eq!((refused.code(), &*refused.path), (Code::TooMuch, "/d/"));
    assert!(refused.message.contains("65536 entries"), "{}", refused.message);
    assert_eq!(query::meta(&world.kv).unwrap().quotas, 1);
}

/// Only those who waited were counted: shared holders made the lock's record, which each claim writes anew, as long as
/// they liked.
#[test]
fn a_lock_has_so_many_claims() {
    let mut world = World::new();
    let session = world.session();
    world.op(put("/l", "")).unwrap();
    let claim = |owner| Lock { owner, ..shared(session, "/l") };
    for owner in 0..1024 {
        let reply = world.run_unchecked(command::What::Lock(claim(owner)));
        assert!(matches!(reply.what, Some(reply::What::Lock(lock)) if lock.held));
    }
    let reply = world.run(command::What::Lock(claim(1024)));
    let Some(reply::What::Refused(refused)) = reply.what else { panic!("{:?}", reply.what) };
    assert_eq!(refused.code(), Code::TooMuch);
    assert!(refused.message.contains("1024 claims"), "{}", refused.message);
    assert_eq!(world.lock(Lock { wait: false, ..claim(1025) }), Err(Code::TooMuch));
    assert!(world.lock(claim(7)).unwrap().held, "it has it");
    assert!(!world.lock(Lock { shared: false, ..claim(7) }).unwrap().held, "of the other kind, in its place");
    world.unlock(session, "/l").unwrap();
    assert!(!world.lock(claim(1024)).unwrap().held);
}

/// A command that lets go of many locks tells of all who get them: that is work, too.
#[test]
fn events_of_locks_count() {
    let mut world = World::new();
    let (leader, others) = (world.session(), world.session());
    world.op(directory("/d/")).unwrap();
    for at in ["/d/1", "/d/2", "/d/3"] {
        world.op(put(at, "")).unwrap();
        assert!(world.lock(exclusive(leader, at)).unwrap().held);
        for owner in 0..1000 {
            world.run_unchecked(command::What::Lock(Lock { owner, ..shared(others, at) }));
        }
    }
    let mut told = Vec::new();
    while world.end(leader) {
        told.push(world.events.len());
    }
    told.push(world.events.len());
    assert_eq!(told, [2002, 1001], "of three locks");
    assert_eq!(world.holders("/d/3").0.len(), 1000);
    for at in ["/d/4", "/d/5"] {
        world.op(put(at, "")).unwrap();
        for owner in 0..1000 {
            world.run_unchecked(command::What::Lock(Lock { owner, ..shared(others, at) }));
        }
    }
    // 5,000 claims of its own, and 5 files.
    assert_eq!(world.op_of(others, subtree("/d/")), Err(Code::TooMuch));
    for at in ["/d/1", "/d/2"] {
        world.op_of(others, delete(at)).unwrap();
    }
    world.op_of(others, subtree("/d/")).unwrap();
}
