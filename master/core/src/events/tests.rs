//! What each operation tells; and that it is enough to know what is in every directory.

use std::collections::BTreeMap;

use coord_types::{Fence, InodeId};
use master_model::{Changes, Errno, EventKind, Mutation, RaiseFence, RenameFlags, XattrFlags, mode};
use proptest::prelude::*;

use super::DIRECTORIES_TOLD_MAX;
use crate::testing::Tree;

const ROOT: InodeId = InodeId::ROOT;

/// The last command's events: directory, kind, inode, name.
fn told(tree: &Tree) -> Vec<(InodeId, EventKind, InodeId, String)> {
    let name = |change: &super::Change| change.name.as_ref().map_or_else(String::new, ToString::to_string);
    tree.told().iter().map(|change| (change.directory, change.kind, change.ino, name(change))).collect()
}

fn event(
    directory: InodeId,
    kind: EventKind,
    ino: InodeId,
    name: &str,
) -> (InodeId, EventKind, InodeId, String) {
    (directory, kind, ino, name.to_owned())
}

#[test]
fn names_that_come() {
    let mut tree = Tree::new();
    let file = tree.create(ROOT, "f").unwrap().attr.unwrap().ino;
    assert_eq!(told(&tree), [event(ROOT, EventKind::Created, file, "f")]);
    // It is there already.
    tree.create(ROOT, "f").unwrap();
    assert_eq!(told(&tree), []);
    assert_eq!(tree.create_exclusive(ROOT, "f").unwrap_err(), Errno::EEXIST);
    assert_eq!(told(&tree), []);
    let dir = tree.mkdir(ROOT, "d").unwrap().attr.unwrap().ino;
    assert_eq!(told(&tree), [event(ROOT, EventKind::Created, dir, "d")]);
    let fifo = tree.mknod(dir, "p", mode::FIFO | 0o600, 0).unwrap().attr.unwrap().ino;
    assert_eq!(told(&tree), [event(dir, EventKind::Created, fifo, "p")]);
    let link = tree.symlink(dir, "s", "f").unwrap().attr.unwrap().ino;
    assert_eq!(told(&tree), [event(dir, EventKind::Created, link, "s")]);
    tree.link(file, dir, "second").unwrap();
    assert_eq!(told(&tree), [event(dir, EventKind::Created, file, "second")]);
}

#[test]
fn names_that_go() {
    let mut tree = Tree::new();
    let file = tree.create(ROOT, "f").unwrap().attr.unwrap().ino;
    let dir = tree.mkdir(ROOT, "d").unwrap().attr.unwrap().ino;
    tree.create(dir, "in").unwrap();
    assert_eq!(tree.rmdir(ROOT, "d").unwrap_err(), Errno::ENOTEMPTY);
    assert_eq!(told(&tree), []);
    tree.unlink(dir, "in").unwrap();
    tree.rmdir(ROOT, "d").unwrap();
    let expected = [event(dir, EventKind::Gone, dir, ""), event(ROOT, EventKind::Removed, dir, "d")];
    assert_eq!(told(&tree), expected);
    // That it is held open changes nothing; that it is let go is no event.
    tree.unlink_held(ROOT, "f", file).unwrap();
    assert_eq!(told(&tree), [event(ROOT, EventKind::Removed, file, "f")]);
    tree.forget(&[file]).unwrap();
    assert_eq!(told(&tree), []);
}

#[test]
fn renames_tell_both_ends() {
    use EventKind::{Gone, MovedFrom, MovedTo, Removed};
    let mut tree = Tree::new();
    let a = tree.create(ROOT, "a").unwrap().attr.unwrap().ino;
    let d = tree.mkdir(ROOT, "d").unwrap().attr.unwrap().ino;
    tree.rename(ROOT, "a", d, "b").unwrap();
    assert_eq!(told(&tree), [event(ROOT, MovedFrom, a, "a"), event(d, MovedTo, a, "b")]);
    // Replacing a file.
    let c = tree.create(ROOT, "c").unwrap().attr.unwrap().ino;
    tree.rename(d, "b", ROOT, "c").unwrap();
    assert_eq!(
        told(&tree),
        [event(ROOT, Removed, c, "c"), event(d, MovedFrom, a, "b"), event(ROOT, MovedTo, a, "c")]
    );
    // Replacing a directory.
    let e = tree.mkdir(ROOT, "e").unwrap().attr.unwrap().ino;
    tree.rename(ROOT, "d", ROOT, "e").unwrap();
    assert_eq!(
        told(&tree),
        [
            event(e, Gone, e, ""),
            event(ROOT, Removed, e, "e"),
            event(ROOT, MovedFrom, d, "d"),
            event(ROOT, MovedTo, d, "e")
        ]
    );
    // Exchanging.
    tree.rename_with(ROOT, "c", ROOT, "e", RenameFlags::Exchange, None).unwrap();
    assert_eq!(
        told(&tree),
        [
            event(ROOT, MovedFrom, a, "c"),
            event(ROOT, MovedFrom, d, "e"),
            event(ROOT, MovedTo, a, "e"),
            event(ROOT, MovedTo, d, "c")
        ]
    );
    // Two names of one file: nothing is done.
    tree.link(a, ROOT, "again").unwrap();
    tree.rename(ROOT, "again", ROOT, "e").unwrap();
    assert_eq!(told(&tree), []);
    assert_eq!(
        tree.rename_with(ROOT, "e", ROOT, "c", RenameFlags::NoReplace, None).unwrap_err(),
        Errno::EEXIST
    );
    assert_eq!(told(&tree), []);
}

#[test]
fn writes_and_attributes_are_told_where_the_names_are() {
    use EventKind::{Attributes, Written};
    let mut tree = Tree::new();
    let dir = tree.mkdir(ROOT, "d").unwrap().attr.unwrap().ino;
    let file = tree.create(dir, "f").unwrap().attr.unwrap();
    let ino = file.ino;
    tree.commit(ino, file.data, 10, 10).unwrap();
    assert_eq!(told(&tree), [event(dir, Written, ino, "")]);
    tree.truncate(ino, 3).unwrap();
    assert_eq!(told(&tree), [event(dir, Written, ino, "")]);
    tree.truncate(ino, 0).unwrap();
    assert_eq!(told(&tree), [event(dir, Written, ino, "")]);
    // What was written is gone with the truncation, and nothing else was asked.
    tree.commit(ino, file.data, 10, 10).unwrap();
    assert_eq!(told(&tree), []);
    for change in 0..4 {
        match change {
            0 => tree.chmod(ino, 0o600).unwrap(),
            1 => tree.setattr(ino, Changes { uid: Some(1), ..Changes::default() }).unwrap(),
            2 => tree.set_xattr(ino, "user.a", b"b", XattrFlags::Any).unwrap(),
            _ => tree.remove_xattr(ino, "user.a").unwrap(),
        };
        assert_eq!(told(&tree), [event(dir, Attributes, ino, "")], "{change}");
    }
    for expected in [vec![event(dir, Attributes, ino, "")], vec![]] {
        tree.mutate(Mutation::RaiseFence(RaiseFence { ino, fence: Fence(5) })).unwrap();
        assert_eq!(told(&tree), expected, "the same fence again changes nothing");
    }
    // Directories' are told above them.
    tree.chmod(dir, 0o700).unwrap();
    assert_eq!(told(&tree), [event(ROOT, Attributes, dir, "")]);
    tree.link(ino, ROOT, "second").unwrap();
    tree.link(ino, ROOT, "third").unwrap();
    tree.truncate(ino, 1).unwrap();
    assert_eq!(told(&tree), [event(ROOT, Written, ino, ""), event(dir, Written, ino, "")]);
    for (parent, name) in [(ROOT, "second"), (ROOT, "third"), (dir, "f")] {
        tree.unlink_held(parent, name, ino).unwrap();
    }
    tree.truncate(ino, 0).unwrap();
    assert_eq!(told(&tree), [], "it has no name");
}

#[test]
fn a_file_with_names_everywhere_is_told_in_some_directories() {
    let mut tree = Tree::new();
    let file = tree.create(ROOT, "f").unwrap().attr.unwrap().ino;
    for number in 0..DIRECTORIES_TOLD_MAX {
        let dir = tree.mkdir(ROOT, &format!("{number}")).unwrap().attr.unwrap().ino;
        tree.link(file, dir, "f").unwrap();
    }
    tree.truncate(file, 1).unwrap();
    assert_eq!(tree.told().len(), DIRECTORIES_TOLD_MAX);
    assert_eq!(tree.told()[0].directory, ROOT);
}

/// A copy of all directories, made of events alone.
type Copy = BTreeMap<InodeId, BTreeMap<String, InodeId>>;

fn follow(copy: &mut Copy, tree: &Tree) {
    for (directory, kind, ino, name) in told(tree) {
        let entries = copy.entry(directory).or_default();
        match kind {
            EventKind::Created | EventKind::MovedTo => assert_eq!(entries.insert(name, ino), None),
            EventKind::Removed | EventKind::MovedFrom => assert_eq!(entries.remove(&name), Some(ino)),
            EventKind::Gone => assert!(copy.remove(&directory).is_some_and(|entries| entries.is_empty())),
            EventKind::Written | EventKind::Attributes => {
                assert!(entries.values().any(|known| *known == ino), "{ino} has no name in {directory}");
            }
        }
    }
}

fn listed(tree: &Tree, directory: InodeId) -> BTreeMap<String, InodeId> {
    let page = master_model::ReadDir { ino: directory, after_cookie: 0, limit: 1000, with_attributes: false };
    let page = tree.query(&master_model::Query::ReadDir(page)).unwrap();
    let name = |entry: &master_model::DirEntry| String::from_utf8_lossy(&entry.name).into_owned();
    page.entries.iter().map(|entry| (name(entry), entry.ino)).collect()
}

proptest! {
    /// Whatever is done, and whatever of it fails: who takes the events one after the other has all directories as they are.
    #[test]
    fn events_are_enough_to_follow_directories(
        ops in prop::collection::vec((0..9_u8, 0..4_usize, 0..4_usize, 0..4_usize, 0..4_usize), 1..80)
    ) {
        let names = ["a", "b", "c", "d"];
        let mut tree = Tree::new();
        let mut copy = Copy::new();
        let mut dirs = vec![ROOT];
        for (op, dir, name, other_dir, other) in ops {
            let at = |dir: usize| dirs[dir % dirs.len()];
            let (dir, name, other_dir, other) = (at(dir), names[name], at(other_dir), names[other]);
            let ino = tree.lookup(dir, name).map(|attr| attr.ino).unwrap_or(InodeId(999_999));
            let made = match op {
                0 => tree.create(dir, name),
                1 => tree.mkdir(dir, name),
                2 => tree.link(ino, other_dir, other),
                3 => tree.unlink(dir, name),
                4 => tree.rmdir(dir, name),
                5 => tree.rename(dir, name, other_dir, other),
                6 => tree.rename_with(dir, name, other_dir, other, RenameFlags::Exchange, None),
                7 => tree.truncate(ino, 1),
                _ => tree.chmod(ino, 0o600),
            };
            if made.is_err() {
                prop_assert_eq!(tree.told(), []);
            }
            follow(&mut copy, &tree);
            if op == 1 && let Ok(made) = &made {
                let made = made.attr.as_ref().unwrap().ino;
                dirs.push(made);
                copy.insert(made, BTreeMap::new());
            }
            dirs.retain(|dir| tree.get(*dir).is_ok());
            for dir in &dirs {
                let known = copy.get(dir).cloned().unwrap_or_default();
                prop_assert_eq!(known, listed(&tree, *dir));
            }
        }
    }
}
