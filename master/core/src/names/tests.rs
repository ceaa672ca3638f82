//! Parents of files: exact through every operation, and filled in for older stores while operations go on.

use coord_kv::{Batch, Durability, Kv as _, Range, Read as _};
use coord_types::{InodeId, SessionId};
use master_model::{Errno, RenameFlags};

use super::*;
use crate::command::{Command, Context, apply};
use crate::error::OpError;
use crate::testing::Tree;

const ROOT: InodeId = InodeId::ROOT;

fn is_within(tree: &Tree, ino: InodeId, directory: InodeId) -> bool {
    within(tree.kv(), ino, directory, None).unwrap()
}

fn directory(tree: &mut Tree, parent: InodeId, name: &str) -> InodeId {
    tree.mkdir(parent, name).unwrap().attr.unwrap().ino
}

fn file(tree: &mut Tree, parent: InodeId, name: &str) -> InodeId {
    tree.create(parent, name).unwrap().attr.unwrap().ino
}

fn counted(tree: &Tree, ino: InodeId) -> Vec<(InodeId, u32)> {
    parents(tree.kv(), ino, None, usize::MAX).unwrap()
}

/// As if all had been made by an older release.
fn forget_parents(tree: &Tree) {
    let mut batch = Batch::new();
    batch.delete(keys::SETTINGS, keys::PARENTS_KEY);
    batch.delete_range(keys::NAMES, Range::prefix(&[]));
    tree.kv().write(batch, Durability::Logged).unwrap();
    for (key, _) in tree.kv().scan(keys::INODES, &Range::prefix(&[]), usize::MAX).unwrap() {
        let ino = InodeId(keys::split_id(&key).unwrap());
        tree.edit(ino, |inode| inode.parent = inode.parent.filter(|_| inode.attr.is_directory()));
    }
}

#[test]
fn below_by_any_name() {
    let mut tree = Tree::new();
    let a = directory(&mut tree, ROOT, "a");
    let b = directory(&mut tree, a, "b");
    let c = directory(&mut tree, ROOT, "c");
    let f = file(&mut tree, b, "f");
    let all = |tree: &Tree, ino| [ROOT, a, b, c].map(|directory| is_within(tree, ino, directory));
    assert_eq!(all(&tree, f), [true, true, true, false]);
    assert_eq!(all(&tree, b), [true, true, true, false]);
    assert_eq!(all(&tree, a), [true, true, false, false]);
    assert_eq!(all(&tree, ROOT), [true, false, false, false]);
    assert!(is_within(&tree, f, f) && !is_within(&tree, b, f));
    tree.link(f, c, "second").unwrap();
    assert_eq!(all(&tree, f), [true, true, true, true]);
    tree.rename(a, "b", c, "b").unwrap();
    assert_eq!(all(&tree, f), [true, false, true, true]);
    tree.unlink(b, "f").unwrap();
    assert_eq!(all(&tree, f), [true, false, false, true]);
    assert!(matches!(within(tree.kv(), InodeId(99), a, None), Err(OpError::Errno(Errno::ENOENT))));
    tree.check();
}

#[test]
fn names_are_counted_while_there_are_several() {
    let mut tree = Tree::new();
    let [a, b, c] = ["a", "b", "c"].map(|name| directory(&mut tree, ROOT, name));
    let f = file(&mut tree, a, "1");
    assert_eq!(counted(&tree, f), []);
    tree.link(f, a, "2").unwrap();
    assert_eq!(counted(&tree, f), [(a, 2)]);
    tree.link(f, b, "3").unwrap();
    assert_eq!(counted(&tree, f), [(a, 2), (b, 1)]);
    tree.rename(a, "1", a, "one").unwrap();
    tree.rename(a, "2", c, "2").unwrap();
    assert_eq!(counted(&tree, f), [(a, 1), (b, 1), (c, 1)]);
    let g = file(&mut tree, ROOT, "g");
    tree.rename_with(ROOT, "g", a, "one", RenameFlags::Exchange, None).unwrap();
    assert_eq!(counted(&tree, f), [(ROOT, 1), (b, 1), (c, 1)]);
    assert!(is_within(&tree, g, a) && !is_within(&tree, f, a));
    tree.check();
    tree.rename(a, "one", c, "2").unwrap();
    assert_eq!(counted(&tree, f), [(ROOT, 1), (b, 1)]);
    assert!(is_within(&tree, g, c));
    tree.unlink(ROOT, "g").unwrap();
    assert_eq!(counted(&tree, f), []);
    assert!(is_within(&tree, f, b));
    tree.check();
}

#[test]
fn without_a_name_it_is_its_holders() {
    let mut tree = Tree::new();
    let [a, b] = ["a", "b"].map(|name| directory(&mut tree, ROOT, name));
    let f = file(&mut tree, a, "f");
    let holder = crate::session::sessions(tree.kv()).unwrap()[0].id;
    let seen = |tree: &Tree, session| within(tree.kv(), f, b, session).unwrap();
    assert!(!seen(&tree, Some(holder)));
    tree.unlink_held(a, "f", f).unwrap();
    tree.check();
    assert!(seen(&tree, Some(holder)) && !seen(&tree, Some(SessionId(77))) && !seen(&tree, None));
    assert!(!within(tree.kv(), f, ROOT, None).unwrap());
}

#[test]
fn a_create_writes_two_inodes_one_entry_and_the_counters() {
    let mut tree = Tree::new();
    let request = master_model::proto::MutateRequest {
        session: 1,
        sequence: 1,
        acknowledged_below: 1,
        op: Some(
            master_model::Mutation::Mknod(master_model::Mknod {
                parent: ROOT,
                name: crate::testing::name("p"),
                mode: master_model::mode::FIFO,
                uid: 0,
                gid: 0,
                rdev: 0,
            })
            .into(),
        ),
    };
    let bytes = prost::Message::encode_to_vec(&request);
    let applied = apply(tree.kv(), Context { time_nanos: 1 }, &bytes).unwrap();
    assert_eq!(applied.batch.into_changes().len(), 4);
    tree.create(ROOT, "f").unwrap();
}

#[test]
fn new_stores_have_nothing_to_fill_in() {
    let tree = Tree::new();
    assert!(!fill_parents_pending(tree.kv()).unwrap());
    assert!(!fill_parents_pending(&coord_kv::MemKv::new()).unwrap(), "nor has one that has not begun");
}

#[test]
fn an_older_store_is_filled_in_page_by_page() {
    let mut tree = Tree::new();
    let [a, b] = ["a", "b"].map(|name| directory(&mut tree, ROOT, name));
    let files: Vec<_> = (0..10).map(|number| file(&mut tree, a, &format!("{number}"))).collect();
    tree.link(files[0], a, "again").unwrap();
    tree.link(files[1], b, "1").unwrap();
    tree.unlink_held(a, "9", files[9]).unwrap();
    forget_parents(&tree);
    tree.check();
    assert!(fill_parents_pending(tree.kv()).unwrap() && !is_within(&tree, files[3], a));
    let before: Vec<_> = files.iter().map(|file| tree.getattr(*file)).collect();
    let mut commands = 0;
    while fill_parents_pending(tree.kv()).unwrap() {
        tree.apply(&Command::FillParents { entries: 3 });
        tree.check();
        commands += 1;
    }
    // Two directories, nine files, two names more: 13 entries.
    assert_eq!(commands, 5);
    assert_eq!(before, files.iter().map(|file| tree.getattr(*file)).collect::<Vec<_>>());
    assert!(files[..9].iter().all(|file| is_within(&tree, *file, a)));
    assert!(is_within(&tree, files[1], b) && !is_within(&tree, files[0], b));
    assert_eq!(counted(&tree, files[0]), [(a, 2)]);
    let again = apply(tree.kv(), Context { time_nanos: 1 }, &Command::FillParents { entries: 3 }.encode());
    assert!(again.unwrap().batch.is_empty());
}
