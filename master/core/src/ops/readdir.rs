//! The entries of a directory, page by page, in the order of their cookies.
//!
//! A cookie is a hash of the name, so an entry keeps its place whatever happens around it: one that is there during
//! the whole reading is seen exactly once. Names of equal hash stand on one page, or the second would be skipped.

use coord_kv::{Pair, Range, Read};
use master_model::{Answer, DirEntry, Errno, ReadDir};

use crate::error::{OpResult, corrupt};
use crate::keys;
use crate::state::{Entry, read_inode};

/// Entries a page holds at most, whatever was asked for: 4096 names of 255 bytes with attributes are 1.5 MiB.
pub const PAGE_MAX: u32 = 4096;

pub(super) fn readdir(read: &dyn Read, op: &ReadDir) -> OpResult<Answer> {
    let directory = read_inode(read, op.ino)?.ok_or(Errno::ENOENT)?;
    if !directory.attr.is_directory() {
        return Err(Errno::ENOTDIR.into());
    }
    let limit = op.limit.clamp(1, PAGE_MAX) as usize;
    let range = keys::dentries_after(op.ino, op.after_cookie);
    let mut pairs = read.scan(keys::DENTRIES, &range, limit)?;
    let mut end = pairs.len() < limit;
    if !end {
        end = !complete(read, &range, &mut pairs)?;
    }
    let mut entries = Vec::with_capacity(pairs.len());
    for (key, value) in &pairs {
        entries.push(entry(read, key, value, op.with_attributes)?);
    }
    Ok(Answer { entries, end, parent: Some(directory.attr), ..Answer::default() })
}

/// Takes along what shares the last entry's cookie. True if more follows.
fn complete(read: &dyn Read, range: &Range, pairs: &mut Vec<Pair>) -> OpResult<bool> {
    while let Some((last, _)) = pairs.last() {
        let mut next = read.scan(keys::DENTRIES, &range.clone().after(last), 1)?;
        let Some(pair) = next.pop() else { return Ok(false) };
        let cookie = |key| keys::split_dentry(key).map(|(_, cookie, _)| cookie);
        if cookie(&pair.0) != cookie(last) {
            return Ok(true);
        }
        pairs.push(pair);
    }
    Ok(false)
}

fn entry(read: &dyn Read, key: &[u8], value: &[u8], with_attributes: bool) -> OpResult<DirEntry> {
    let (_, cookie, name) = keys::split_dentry(key).ok_or_else(|| corrupt("the key of a directory entry"))?;
    let Entry { ino, kind } = Entry::decode(value)?;
    let attr = if with_attributes {
        let inode = read_inode(read, ino)?
            .ok_or_else(|| corrupt(format_args!("{} names no inode", name.escape_ascii())))?;
        Some(inode.attr)
    } else {
        None
    };
    Ok(DirEntry { name: bytes::Bytes::copy_from_slice(name), ino, kind, cookie, attr })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use coord_kv::{Batch, Durability, Kv as _};
    use coord_types::InodeId;
    use master_model::{Errno, Query, ReadDir, mode};

    use crate::keys;
    use crate::state::Entry;
    use crate::testing::Tree;

    fn page(tree: &Tree, after_cookie: u64, limit: u32) -> master_model::Answer {
        let op = ReadDir { ino: InodeId::ROOT, after_cookie, limit, with_attributes: true };
        tree.query(&Query::ReadDir(op)).unwrap()
    }

    #[test]
    fn pages_show_every_entry_once() {
        let mut tree = Tree::new();
        let names: BTreeSet<_> = (0..100).map(|number| format!("file {number}")).collect();
        for name in &names {
            tree.create(InodeId::ROOT, name).unwrap();
        }
        let (mut seen, mut after) = (Vec::new(), 0);
        loop {
            let answer = page(&tree, after, 7);
            for entry in &answer.entries {
                let attr = entry.attr.as_ref().unwrap();
                assert_eq!((attr.ino, attr.kind()), (entry.ino, entry.kind));
                seen.push(String::from_utf8(entry.name.to_vec()).unwrap());
            }
            if answer.end {
                break;
            }
            after = answer.entries.last().unwrap().cookie;
        }
        assert_eq!(seen.len(), 100);
        assert_eq!(seen.into_iter().collect::<BTreeSet<_>>(), names);
    }

    #[test]
    fn an_exact_page_is_the_end() {
        let mut tree = Tree::new();
        tree.mkdir(InodeId::ROOT, "d").unwrap();
        assert!(page(&tree, 0, 1).end);
        assert_eq!(page(&tree, 0, 1).entries[0].kind, mode::DIRECTORY);
        let file = tree.create(InodeId::ROOT, "f").unwrap().attr.unwrap();
        assert!(!page(&tree, 0, 1).end);
        let op = ReadDir { ino: file.ino, after_cookie: 0, limit: 9, with_attributes: false };
        assert_eq!(tree.query(&Query::ReadDir(op)).unwrap_err(), Errno::ENOTDIR);
    }

    #[test]
    fn equal_cookies_stand_on_one_page() {
        let mut tree = Tree::new();
        let ino = tree.create(InodeId::ROOT, "f").unwrap().attr.unwrap().ino;
        // Two made-up entries whose hashes collide.
        let mut batch = Batch::new();
        for name in [b"x", b"y"] {
            let key = [InodeId::ROOT.0.to_be_bytes().as_slice(), &5_u64.to_be_bytes(), name].concat();
            batch.put(keys::DENTRIES, key, Entry { ino, kind: mode::REGULAR }.encode());
        }
        tree.kv().write(batch, Durability::Logged).unwrap();
        let first = page(&tree, 0, 1);
        assert_eq!(first.entries.iter().map(|entry| entry.cookie).collect::<Vec<_>>(), [5, 5]);
        assert!(!first.end);
        assert_eq!(page(&tree, 5, 1).entries.len(), 1);
    }
}
