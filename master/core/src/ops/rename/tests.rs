//! What rename must and must not do, by plain calls.

use coord_types::InodeId;
use master_model::{Errno, RenameFlags};

use crate::testing::Tree;

const ROOT: InodeId = InodeId::ROOT;

#[test]
fn moves_a_file_and_shows_it_in_all_times() {
    let mut tree = Tree::new();
    let dir = tree.mkdir(ROOT, "d").unwrap().attr.unwrap();
    let file = tree.create(ROOT, "a").unwrap().attr.unwrap();
    let moved = tree.rename(ROOT, "a", dir.ino, "b").unwrap();
    assert_eq!(moved.attr, None);
    let attr = tree.lookup(dir.ino, "b").unwrap();
    assert_eq!((attr.ino, attr.ctime, attr.mtime), (file.ino, tree.now(), file.mtime));
    assert_eq!(moved.parent.unwrap().mtime, tree.now());
    assert_eq!(moved.new_parent.unwrap().mtime, tree.now());
    assert_eq!(tree.lookup(ROOT, "a").unwrap_err(), Errno::ENOENT);
}

#[test]
fn a_moved_directory_moves_a_link() {
    let mut tree = Tree::new();
    let a = tree.mkdir(ROOT, "a").unwrap().attr.unwrap().ino;
    let b = tree.mkdir(ROOT, "b").unwrap().attr.unwrap().ino;
    let moved = tree.rename(ROOT, "a", b, "a").unwrap();
    assert_eq!((moved.parent.unwrap().nlink, moved.new_parent.unwrap().nlink), (3, 3));
    // The loop is found through the new place.
    assert_eq!(tree.rename(ROOT, "b", a, "x").unwrap_err(), Errno::EINVAL);
    assert_eq!(tree.rename(ROOT, "b", b, "x").unwrap_err(), Errno::EINVAL);
}

#[test]
fn replaces_like_with_like_only() {
    let mut tree = Tree::new();
    let file = tree.create(ROOT, "f").unwrap().attr.unwrap();
    tree.create(ROOT, "g").unwrap();
    tree.mkdir(ROOT, "d").unwrap();
    let full = tree.mkdir(ROOT, "full").unwrap().attr.unwrap().ino;
    tree.create(full, "x").unwrap();
    assert_eq!(tree.rename(ROOT, "f", ROOT, "d").unwrap_err(), Errno::EISDIR);
    assert_eq!(tree.rename(ROOT, "d", ROOT, "f").unwrap_err(), Errno::ENOTDIR);
    assert_eq!(tree.rename(ROOT, "d", ROOT, "full").unwrap_err(), Errno::ENOTEMPTY);
    assert_eq!(tree.rename(ROOT, "none", ROOT, "f").unwrap_err(), Errno::ENOENT);
    assert_eq!(tree.rename(ROOT, "f", file.ino, "x").unwrap_err(), Errno::ENOTDIR);
    let over = tree.rename(ROOT, "full", ROOT, "d").unwrap();
    assert_eq!((over.attr.unwrap().nlink, over.parent.unwrap().nlink), (0, 3));
    let over = tree.rename(ROOT, "g", ROOT, "f").unwrap();
    assert_eq!(over.attr.unwrap().ino, file.ino);
    assert_eq!(tree.deletions(), [file.data]);
    assert_eq!(tree.getattr(ROOT).size_bytes, 2);
}

#[test]
fn a_replaced_open_file_is_held() {
    let mut tree = Tree::new();
    let old = tree.create(ROOT, "old").unwrap().attr.unwrap();
    tree.create(ROOT, "new").unwrap();
    let moved = tree.rename_with(ROOT, "new", ROOT, "old", RenameFlags::Replace, Some(old.ino)).unwrap();
    assert!(moved.held);
    assert_eq!(tree.get(old.ino).unwrap().nlink, 0);
    tree.end_session();
    assert_eq!(tree.get(old.ino).unwrap_err(), Errno::ENOENT);
}

#[test]
fn two_names_of_one_file_stay() {
    let mut tree = Tree::new();
    let file = tree.create(ROOT, "a").unwrap().attr.unwrap();
    tree.link(file.ino, ROOT, "b").unwrap();
    let before = tree.get(file.ino).unwrap();
    tree.rename(ROOT, "a", ROOT, "b").unwrap();
    tree.rename(ROOT, "a", ROOT, "a").unwrap();
    assert_eq!(tree.get(file.ino).unwrap(), before);
    assert_eq!(tree.lookup(ROOT, "a").unwrap().nlink, 2);
}

#[test]
fn noreplace() {
    let mut tree = Tree::new();
    tree.create(ROOT, "a").unwrap();
    tree.create(ROOT, "b").unwrap();
    let noreplace = RenameFlags::NoReplace;
    assert_eq!(tree.rename_with(ROOT, "a", ROOT, "b", noreplace, None).unwrap_err(), Errno::EEXIST);
    tree.rename_with(ROOT, "a", ROOT, "c", noreplace, None).unwrap();
    assert!(tree.lookup(ROOT, "c").is_ok());
}

#[test]
fn exchange_of_a_file_and_a_directory() {
    let mut tree = Tree::new();
    let dir = tree.mkdir(ROOT, "d").unwrap().attr.unwrap().ino;
    let inner = tree.mkdir(dir, "inner").unwrap().attr.unwrap().ino;
    let file = tree.create(ROOT, "f").unwrap().attr.unwrap().ino;
    let exchange = RenameFlags::Exchange;
    assert_eq!(tree.rename_with(ROOT, "f", ROOT, "none", exchange, None).unwrap_err(), Errno::ENOENT);
    // Neither may come to lie below itself, whichever is named first.
    assert_eq!(tree.rename_with(ROOT, "d", dir, "inner", exchange, None).unwrap_err(), Errno::EINVAL);
    assert_eq!(tree.rename_with(dir, "inner", ROOT, "d", exchange, None).unwrap_err(), Errno::EINVAL);
    tree.rename_with(ROOT, "f", dir, "inner", exchange, None).unwrap();
    assert_eq!(tree.lookup(ROOT, "f").unwrap().ino, inner);
    assert_eq!(tree.lookup(dir, "inner").unwrap().ino, file);
    assert_eq!((tree.getattr(ROOT).nlink, tree.getattr(dir).nlink), (4, 2));
    assert_eq!(tree.get(file).unwrap().ctime, tree.now());
}
