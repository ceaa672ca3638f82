//! The invariants of the namespace, checked over a whole store: by tests after every step, and offline on a copy.
//!
//! - every entry names an inode of the kind it says, every inode is named or an orphan;
//! - a file's link count is its names, a directory's is 2 and its subdirectories; a directory's size is its entries;
//! - a directory's parent is where its name is; another inode's parents are where its names are ([`crate::names`]);
//! - extended attributes belong to inodes that say they have some;
//! - an orphan has no name and belongs to an open session;
//! - the counters are the sums they claim to be; no data is both alive and deleted.

use std::collections::{BTreeMap, BTreeSet};

use coord_kv::{Range, Read};
use coord_types::{DataId, InodeId};
use master_model::mode;

use crate::error::{OpResult, corrupt};
use crate::inode::Inode;
use crate::keys;
use crate::names::{self, Filled};
use crate::state::{Entry, read_counters};
use crate::{deletion, session};

/// What is wrong, a line each; empty if all is well. Reads everything: for tests and small stores.
///
/// # Errors
/// A store that failed, or a record that cannot be read.
pub fn check(read: &dyn Read) -> OpResult<Vec<String>> {
    let mut found = Findings { wrong: Vec::new() };
    let all = Range::prefix(&[]);
    let mut inodes = BTreeMap::new();
    for (key, value) in read.scan(keys::INODES, &all, usize::MAX)? {
        let ino = InodeId(keys::split_id(&key).ok_or_else(|| corrupt("the key of an inode"))?);
        inodes.insert(ino, Inode::decode(ino, &value)?);
    }
    let seen = entries(read, &inodes, &mut found)?;
    let orphans = orphans(read, &inodes, &mut found)?;
    for (ino, inode) in &inodes {
        links(*ino, inode, &seen, &orphans, &mut found);
    }
    parents(read, &inodes, &seen, &mut found)?;
    xattrs(read, &inodes, &mut found)?;
    counters(read, &inodes, &mut found)?;
    Ok(found.wrong)
}

struct Findings {
    wrong: Vec<String>,
}

impl Findings {
    fn expect(&mut self, holds: bool, otherwise: impl FnOnce() -> String) {
        if !holds {
            self.wrong.push(otherwise());
        }
    }
}

#[derive(Default)]
struct Seen {
    names: BTreeMap<InodeId, u32>,
    entries: BTreeMap<InodeId, u64>,
    subdirectories: BTreeMap<InodeId, u32>,
    /// The parents of what is no directory, with the number of names there.
    parents: BTreeMap<InodeId, BTreeMap<InodeId, u32>>,
    /// The same, without the names that the walk for older releases' files has not passed.
    passed: BTreeMap<InodeId, BTreeMap<InodeId, u32>>,
}

fn entries(read: &dyn Read, inodes: &BTreeMap<InodeId, Inode>, found: &mut Findings) -> OpResult<Seen> {
    let mut seen = Seen::default();
    let filled = Filled::read(read)?;
    for (key, value) in read.scan(keys::DENTRIES, &Range::prefix(&[]), usize::MAX)? {
        let (parent, cookie, name) =
            keys::split_dentry(&key).ok_or_else(|| corrupt("the key of a directory entry"))?;
        let entry = Entry::decode(&value)?;
        let what = || format!("{} in directory {parent}", name.escape_ascii());
        found.expect(cookie == keys::cookie(name), || format!("{} stands at a wrong place", what()));
        found.expect(inodes.get(&parent).is_some_and(|inode| inode.attr.is_directory()), || {
            format!("{} is in no directory", what())
        });
        *seen.names.entry(entry.ino).or_default() += 1;
        *seen.entries.entry(parent).or_default() += 1;
        match inodes.get(&entry.ino) {
            None => found.wrong.push(format!("{} names inode {}, which is not there", what(), entry.ino)),
            Some(inode) => {
                found.expect(inode.attr.kind() == entry.kind, || format!("{} tells a wrong kind", what()));
                if entry.kind == mode::DIRECTORY {
                    *seen.subdirectories.entry(parent).or_default() += 1;
                    found.expect(inode.parent == Some(parent), || {
                        format!("{} thinks it is in {:?}", what(), inode.parent)
                    });
                } else {
                    *seen.parents.entry(entry.ino).or_default().entry(parent).or_default() += 1;
                    if filled.passed_key(&key) {
                        *seen.passed.entry(entry.ino).or_default().entry(parent).or_default() += 1;
                    }
                }
            }
        }
    }
    Ok(seen)
}

fn orphans(
    read: &dyn Read,
    inodes: &BTreeMap<InodeId, Inode>,
    found: &mut Findings,
) -> OpResult<BTreeSet<InodeId>> {
    let open: BTreeSet<_> = session::sessions(read)?.into_iter().map(|session| session.id).collect();
    let mut orphans = BTreeSet::new();
    for (key, _) in read.scan(keys::ORPHANS, &Range::prefix(&[]), usize::MAX)? {
        let (session, ino) = keys::split_orphan(&key).ok_or_else(|| corrupt("the key of an orphan"))?;
        found.expect(open.contains(&session), || format!("orphan {ino} belongs to ended session {session}"));
        found.expect(inodes.get(&ino).is_some_and(|inode| inode.attr.nlink == 0), || {
            format!("orphan {ino} is not there, or has a name")
        });
        orphans.insert(ino);
    }
    Ok(orphans)
}

fn links(ino: InodeId, inode: &Inode, seen: &Seen, orphans: &BTreeSet<InodeId>, found: &mut Findings) {
    let names = seen.names.get(&ino).copied().unwrap_or(0);
    if inode.attr.is_directory() {
        let wanted = u32::from(ino != InodeId::ROOT);
        found.expect(names == wanted, || format!("directory {ino} has {names} names"));
        let subdirectories = seen.subdirectories.get(&ino).copied().unwrap_or(0);
        let nlink = inode.attr.nlink;
        found.expect(nlink == 2 + subdirectories, || {
            format!("directory {ino} has {subdirectories} subdirectories and {nlink} links")
        });
        let entries = seen.entries.get(&ino).copied().unwrap_or(0);
        let size = inode.attr.size_bytes;
        found.expect(size == entries, || format!("directory {ino} has {entries} entries and size {size}"));
    } else {
        let nlink = inode.attr.nlink;
        found.expect(nlink == names, || format!("inode {ino} has {names} names and {nlink} links"));
        found.expect(nlink > 0 || orphans.contains(&ino), || format!("inode {ino} is lost"));
    }
    let garbage = inode.attr.garbage_end_bytes;
    found.expect(garbage == 0 || garbage > inode.attr.size_bytes, || {
        format!("inode {ino} has garbage up to {garbage} within its size")
    });
    found.expect(inode.attr.is_regular() == inode.attr.layout.is_some(), || {
        format!("inode {ino} of mode {:o} and its layout do not fit", inode.attr.mode)
    });
}

fn parents(
    read: &dyn Read,
    inodes: &BTreeMap<InodeId, Inode>,
    seen: &Seen,
    found: &mut Findings,
) -> OpResult<()> {
    let mut counted: BTreeMap<InodeId, BTreeMap<InodeId, u32>> = BTreeMap::new();
    for (key, value) in read.scan(keys::NAMES, &Range::prefix(&[]), usize::MAX)? {
        let (ino, parent) = keys::split_name(&key).ok_or_else(|| corrupt("the key of a parent"))?;
        found.expect(inodes.contains_key(&ino), || format!("names of inode {ino}, which is not there"));
        counted.entry(ino).or_default().insert(parent, names::count(&value)?);
    }
    let none = BTreeMap::new();
    for (ino, inode) in inodes.iter().filter(|(_, inode)| !inode.attr.is_directory()) {
        let of = |map: &BTreeMap<InodeId, _>| map.get(ino).unwrap_or(&none).clone();
        let (all, passed, counted) = (of(&seen.parents), of(&seen.passed), of(&counted));
        let wanted = match (inode.parent, inode.attr.nlink) {
            (_, 0 | 1) => &none,
            (Some(_), _) => &all,
            (None, _) => &passed,
        };
        found.expect(counted == *wanted, || {
            format!("inode {ino} has its names in {all:?}, and counts {counted:?}")
        });
        let right = match inode.parent {
            Some(parent) => all.contains_key(&parent),
            // Those that the walk passed have one, unless they had several names then.
            None => inode.attr.nlink != 1 || passed.is_empty(),
        };
        found.expect(right, || {
            format!("inode {ino} has its names in {all:?} and thinks it is in {:?}", inode.parent)
        });
    }
    Ok(())
}

fn xattrs(read: &dyn Read, inodes: &BTreeMap<InodeId, Inode>, found: &mut Findings) -> OpResult<()> {
    let mut owners = BTreeSet::new();
    for (key, _) in read.scan(keys::XATTRS, &Range::prefix(&[]), usize::MAX)? {
        let (ino, _) = keys::split_xattr(&key).ok_or_else(|| corrupt("the key of an extended attribute"))?;
        owners.insert(ino);
    }
    let say: BTreeSet<_> =
        inodes.values().filter(|inode| inode.attr.has_xattrs).map(|inode| inode.attr.ino).collect();
    found.expect(owners == say, || format!("inodes {say:?} say they have attributes, {owners:?} have"));
    Ok(())
}

fn counters(read: &dyn Read, inodes: &BTreeMap<InodeId, Inode>, found: &mut Findings) -> OpResult<()> {
    let Some(counters) = read_counters(read)? else {
        found.expect(inodes.is_empty(), || "there are inodes and no counters".to_owned());
        return Ok(());
    };
    let mut expect = |name: &str, counter: u64, sum: u64| {
        found.expect(counter == sum, || format!("counter {name} is {counter}, the sum is {sum}"));
    };
    let deletions = deletion::deletions(read, None, usize::MAX)?;
    expect("inodes", counters.inodes, inodes.len() as u64);
    let allocated = inodes.values().map(|inode| inode.attr.allocated_bytes).sum();
    expect("allocated_bytes", counters.allocated_bytes, allocated);
    expect("deletions_pending", counters.deletions_pending, deletions.len() as u64);
    expect("sessions", counters.sessions, session::sessions(read)?.len() as u64);
    expect("groups", counters.groups.into(), crate::table::read_groups(read)?.len() as u64);
    let mut data: BTreeSet<DataId> = BTreeSet::new();
    let alive = inodes.values().filter(|inode| inode.attr.layout.is_some()).map(|inode| inode.attr.data);
    for id in alive.chain(deletions.iter().map(|deletion| deletion.data)) {
        found.expect(data.insert(id), || format!("data {id} is there twice"));
        found.expect(id.0 < counters.next_id, || format!("data {id} was never handed out"));
    }
    let last = inodes.keys().last().map_or(0, |ino| ino.0);
    found.expect(last < counters.next_id, || format!("inode {last} was never handed out"));
    Ok(())
}

#[cfg(test)]
mod tests {
    use coord_kv::{Batch, Durability, Kv as _};

    use super::*;
    use crate::testing::Tree;

    #[test]
    fn finds_what_is_wrong() {
        let spoil = |change: &dyn Fn(&mut Tree, InodeId, InodeId)| {
            let mut tree = Tree::new();
            let dir = tree.mkdir(InodeId::ROOT, "d").unwrap().attr.unwrap().ino;
            let file = tree.create(dir, "f").unwrap().attr.unwrap().ino;
            assert_eq!(check(tree.kv()).unwrap(), Vec::<String>::new());
            change(&mut tree, dir, file);
            check(tree.kv()).unwrap().join("\n")
        };
        let links = spoil(&|tree, dir, _| tree.edit(dir, |inode| inode.attr.nlink = 3));
        assert!(links.contains("0 subdirectories and 3 links"), "{links}");
        let size = spoil(&|tree, dir, _| tree.edit(dir, |inode| inode.attr.size_bytes = 0));
        assert!(size.contains("1 entries and size 0"), "{size}");
        let names = spoil(&|tree, _, file| tree.edit(file, |inode| inode.attr.nlink = 2));
        assert!(names.contains("1 names and 2 links"), "{names}");
        let lost = spoil(&|tree, dir, file| {
            let mut batch = Batch::new();
            batch.delete(keys::DENTRIES, keys::dentry(dir, b"f"));
            tree.kv().write(batch, Durability::Logged).unwrap();
            tree.edit(dir, |inode| inode.attr.size_bytes = 0);
            tree.edit(file, |inode| inode.attr.nlink = 0);
        });
        assert!(lost.contains("is lost"), "{lost}");
        let dangling = spoil(&|tree, _, file| {
            let mut batch = Batch::new();
            batch.delete(keys::INODES, keys::inode(file));
            tree.kv().write(batch, Durability::Logged).unwrap();
        });
        assert!(dangling.contains("which is not there") && dangling.contains("counter inodes"), "{dangling}");
        let xattrs = spoil(&|tree, _, file| tree.edit(file, |inode| inode.attr.has_xattrs = true));
        assert!(xattrs.contains("say they have attributes"), "{xattrs}");
        let parent = spoil(&|tree, dir, _| {
            tree.edit(dir, |inode| inode.parent = Some(InodeId(5)));
        });
        assert!(parent.contains("thinks it is in"), "{parent}");
        for wrong in [None, Some(InodeId::ROOT)] {
            let parent = spoil(&|tree, _, file| tree.edit(file, |inode| inode.parent = wrong));
            assert!(parent.contains("thinks it is in"), "{parent}");
        }
        let counted = spoil(&|tree, dir, file| {
            let mut batch = Batch::new();
            batch.put(keys::NAMES, keys::name(file, dir), 1_u32.to_be_bytes());
            batch.put(keys::NAMES, keys::name(InodeId(99), dir), 1_u32.to_be_bytes());
            tree.kv().write(batch, Durability::Logged).unwrap();
        });
        assert!(counted.contains("and counts {") && counted.contains("names of inode 99"), "{counted}");
    }
}
