//! Quotas: what they count, what they refuse, and where they go.

use nuwa_core::query;
use nuwa_model::proto::{Put, RefusalCode as Code, SetQuota, Txn, command};

use crate::world::{Does, World, delete, directory, path, put, rename, subtree};

fn quota(world: &mut World, at: &str, entries_max: u64, bytes_max: u64) -> Result<(), Code> {
    world.ask(command::What::SetQuota(SetQuota { path: at.to_owned(), entries_max, bytes_max })).map(drop)
}

fn used(world: &World, at: &str) -> (u64, u64) {
    let record = query::quota(&world.kv, &path(at)).unwrap().unwrap();
    (record.entries, record.bytes)
}

#[test]
fn a_quota_counts_what_is_below_and_refuses_more() {
    let mut world = World::new();
    for at in ["/d/a", "/d/e/bb"] {
        world.op(Put { with_parents: true, ..put(at, "12345") }).unwrap();
    }
    assert_eq!(quota(&mut world, "/gone/", 1, 1), Err(Code::NotFound));
    assert_eq!(quota(&mut world, "/d", 1, 1), Err(Code::BadPath));
    quota(&mut world, "/d/", 4, 20).unwrap();
    assert_eq!(used(&world, "/d/"), (3, 1 + 5 + 1 + 2 + 5));
    world.op(put("/d/c", "1")).unwrap();
    assert_eq!(used(&world, "/d/"), (4, 16));
    assert_eq!(world.op(put("/d/x", "")), Err(Code::Quota), "entries");
    assert_eq!(world.op(put("/d/c", "123456")), Err(Code::Quota), "bytes");
    world.op(put("/d/c", "12345")).unwrap();
    assert_eq!(world.op(rename("/d/c", "/d/longer")), Err(Code::Quota), "a longer name");
    let swap = Txn { then: vec![delete("/d/c").operation(), put("/d/x", "1").operation()], ..Txn::default() };
    world.txn(swap).unwrap();
    quota(&mut world, "/d/", 1, 0).unwrap();
    world.op(put("/d/x", "as it adds no entry, it may be written")).unwrap();
    world.op(delete("/d/x")).unwrap();
    quota(&mut world, "/d/", 0, 0).unwrap();
    assert_eq!(query::quota(&world.kv, &path("/d/")).unwrap(), None);
    world.op(put("/d/x", "")).unwrap();
}

#[test]
fn quotas_are_nested_and_go_with_their_directories() {
    let mut world = World::new();
    for at in ["/a/", "/a/b/", "/z/"] {
        world.op(directory(at)).unwrap();
    }
    quota(&mut world, "/", 9, 0).unwrap();
    quota(&mut world, "/a/", 3, 0).unwrap();
    quota(&mut world, "/a/b/", 2, 0).unwrap();
    quota(&mut world, "/z/", 2, 0).unwrap();
    world.op(put("/a/b/x", "")).unwrap();
    assert_eq!((used(&world, "/"), used(&world, "/a/").0, used(&world, "/a/b/").0), ((4, 4), 2, 1));
    world.op(rename("/a/b/", "/z/moved/")).unwrap();
    assert_eq!((used(&world, "/a/").0, used(&world, "/z/").0, used(&world, "/z/moved/").0), (0, 2, 1));
    assert_eq!(world.op(put("/z/moved/y", "")), Err(Code::Quota), "that of /z/");
    world.op(subtree("/z/")).unwrap();
    assert_eq!(query::meta(&world.kv).unwrap().quotas, 2);
    assert_eq!(used(&world, "/"), (1, 1));
}
