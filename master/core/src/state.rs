//! One command's view of the store: reads through, gathers the changes, and gives them up as one batch.
//!
//! An operation reads what it needs, checks, then changes; when it fails, its `State` is dropped and nothing happened.
//! Inodes and counters that were changed are seen changed; entries, attributes and table records are written straight into the batch,
//! so an operation must read those before it writes them.

use coord_kv::{Batch, Family, Read};
use coord_types::{CHUNK_SIZE_DEFAULT, DataId, GroupId, InodeId, Layout, SessionId};
use master_model::{Attr, Errno, Name, Time};

use crate::error::{OpResult, corrupt};
use crate::events::Change;
use crate::inode::Inode;
use crate::keys;
use crate::records::{Counters, Deletion};

/// Groups a file is striped over, if there are that many.
const LAYOUT_WIDTH: u32 = 4;

/// A name's inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    pub ino: InodeId,
    /// st_mode's type bits.
    pub kind: u32,
}

impl Entry {
    #[must_use]
    pub fn encode(self) -> [u8; 9] {
        let mut out = [0; 9];
        out[..8].copy_from_slice(&self.ino.0.to_be_bytes());
        // The type is the top four of st_mode's sixteen bits.
        out[8] = (self.kind >> 12) as u8;
        out
    }

    /// # Errors
    /// A record that is not one.
    pub fn decode(record: &[u8]) -> OpResult<Self> {
        match record.split_first_chunk::<8>() {
            Some((ino, [kind])) => {
                Ok(Self { ino: InodeId(u64::from_be_bytes(*ino)), kind: u32::from(*kind) << 12 })
            }
            _ => Err(corrupt("a directory entry")),
        }
    }
}

/// Point reads both queries and commands make.
pub(crate) fn read_inode(read: &dyn Read, ino: InodeId) -> OpResult<Option<Inode>> {
    read.get(keys::INODES, &keys::inode(ino))?.map(|record| Inode::decode(ino, &record)).transpose()
}

pub(crate) fn read_entry(read: &dyn Read, parent: InodeId, name: &[u8]) -> OpResult<Option<Entry>> {
    read.get(keys::DENTRIES, &keys::dentry(parent, name))?.map(|record| Entry::decode(&record)).transpose()
}

pub(crate) fn read_counters(read: &dyn Read) -> OpResult<Option<Counters>> {
    read.get(keys::SETTINGS, keys::COUNTERS_KEY)?.map(|record| Counters::decode(&record)).transpose()
}

/// See the module.
pub struct State<'a> {
    read: &'a dyn Read,
    now: Time,
    now_nanos: u64,
    session: SessionId,
    /// At most a handful: searched from the front.
    inodes: Vec<Slot>,
    counters: Option<Changed<Counters>>,
    batch: Batch,
    /// What watchers are told.
    changes: Vec<Change>,
}

struct Slot {
    inode: Inode,
    status: Status,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Status {
    Read,
    Changed,
    Gone,
}

struct Changed<T> {
    value: T,
    changed: bool,
}

impl std::fmt::Debug for State<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State")
            .field("now", &self.now)
            .field("session", &self.session)
            .finish_non_exhaustive()
    }
}

impl<'a> State<'a> {
    /// `now_nanos`: since 1970. `session`: on whose behalf, 0 for none.
    #[must_use]
    pub fn new(read: &'a dyn Read, now_nanos: u64, session: SessionId) -> Self {
        Self {
            read,
            now: Time::from_nanos(now_nanos),
            now_nanos,
            session,
            inodes: Vec::with_capacity(4),
            counters: None,
            batch: Batch::new(),
            changes: Vec::new(),
        }
    }

    /// To be told to whoever watches the directory, if the command succeeds.
    pub(crate) fn tell(&mut self, change: Change) {
        self.changes.push(change);
    }

    /// What was to be told.
    pub(crate) fn take_changes(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.changes)
    }

    /// All changes, to be written together.
    #[must_use]
    pub fn finish(mut self) -> Batch {
        for slot in self.inodes {
            let key = keys::inode(slot.inode.attr.ino);
            match slot.status {
                Status::Read => {}
                Status::Changed => self.batch.put(keys::INODES, key, slot.inode.encode()),
                Status::Gone => self.batch.delete(keys::INODES, key),
            }
        }
        if let Some(Changed { value, changed: true }) = self.counters {
            self.batch.put(keys::SETTINGS, keys::COUNTERS_KEY, value.encode());
        }
        self.batch
    }

    #[must_use]
    pub const fn now(&self) -> Time {
        self.now
    }

    pub(crate) const fn now_nanos(&self) -> u64 {
        self.now_nanos
    }

    pub(crate) const fn session(&self) -> SessionId {
        self.session
    }

    pub(crate) const fn read(&self) -> &'a dyn Read {
        self.read
    }

    pub(crate) fn put(&mut self, family: Family, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) {
        self.batch.put(family, key, value);
    }

    pub(crate) fn delete(&mut self, family: Family, key: impl Into<Vec<u8>>) {
        self.batch.delete(family, key);
    }

    // ---- counters ----

    /// EAGAIN before the cluster is initialised.
    pub(crate) fn counters(&mut self) -> OpResult<&Counters> {
        self.load_counters().map(|counters| &counters.value)
    }

    pub(crate) fn counters_mut(&mut self) -> OpResult<&mut Counters> {
        let counters = self.load_counters()?;
        counters.changed = true;
        Ok(&mut counters.value)
    }

    pub(crate) fn start_counters(&mut self, value: Counters) {
        self.counters = Some(Changed { value, changed: true });
    }

    fn load_counters(&mut self) -> OpResult<&mut Changed<Counters>> {
        if self.counters.is_none() {
            let value = read_counters(self.read)?.ok_or(Errno::EAGAIN)?;
            self.counters = Some(Changed { value, changed: false });
        }
        Ok(self.counters.as_mut().expect("loaded just above"))
    }

    /// A number for an inode or a generation of data.
    pub(crate) fn next_id(&mut self) -> OpResult<u64> {
        let counters = self.counters_mut()?;
        let id = counters.next_id;
        counters.next_id += 1;
        Ok(id)
    }

    // ---- inodes ----

    fn slot(&mut self, ino: InodeId) -> OpResult<usize> {
        if let Some(at) = self.inodes.iter().position(|slot| slot.inode.attr.ino == ino) {
            return if self.inodes[at].status == Status::Gone { Err(Errno::ENOENT.into()) } else { Ok(at) };
        }
        let inode = read_inode(self.read, ino)?.ok_or(Errno::ENOENT)?;
        self.inodes.push(Slot { inode, status: Status::Read });
        Ok(self.inodes.len() - 1)
    }

    /// ENOENT if there is none.
    pub(crate) fn inode(&mut self, ino: InodeId) -> OpResult<&Inode> {
        let at = self.slot(ino)?;
        Ok(&self.inodes[at].inode)
    }

    /// For changing: raises the inode's change counter, once a command.
    pub(crate) fn inode_mut(&mut self, ino: InodeId) -> OpResult<&mut Inode> {
        let at = self.slot(ino)?;
        let slot = &mut self.inodes[at];
        if slot.status == Status::Read {
            slot.status = Status::Changed;
            slot.inode.attr.change += 1;
        }
        Ok(&mut slot.inode)
    }

    /// ENOTDIR if it is something else.
    pub(crate) fn directory(&mut self, ino: InodeId) -> OpResult<&Inode> {
        let inode = self.inode(ino)?;
        if inode.attr.is_directory() { Ok(inode) } else { Err(Errno::ENOTDIR.into()) }
    }

    /// A copy for the reply.
    pub(crate) fn attr(&mut self, ino: InodeId) -> OpResult<Attr> {
        Ok(self.inode(ino)?.attr.clone())
    }

    /// An inode that was not there before.
    pub(crate) fn add_inode(&mut self, inode: Inode) -> OpResult<()> {
        self.counters_mut()?.inodes += 1;
        self.inodes.push(Slot { inode, status: Status::Changed });
        Ok(())
    }

    /// The inode goes: its record, its extended attributes, its data. Gives its last state.
    pub(crate) fn free_inode(&mut self, ino: InodeId) -> OpResult<Attr> {
        let at = self.slot(ino)?;
        self.inodes[at].status = Status::Gone;
        let attr = self.inodes[at].inode.attr.clone();
        if attr.has_xattrs {
            self.batch.delete_range(keys::XATTRS, keys::xattrs(ino));
        }
        if let Some(layout) = &attr.layout {
            self.delete_data(attr.data, layout)?;
        }
        let counters = self.counters_mut()?;
        counters.inodes = counters.inodes.saturating_sub(1);
        counters.allocated_bytes = counters.allocated_bytes.saturating_sub(attr.allocated_bytes);
        Ok(attr)
    }

    // ---- data ----

    /// A fresh generation of data and its place. EAGAIN while there are no groups: the client waits and asks again.
    pub(crate) fn new_data(&mut self, data: DataId) -> OpResult<(DataId, Layout)> {
        let groups = self.counters()?.groups;
        if groups == 0 {
            return Err(Errno::EAGAIN.into());
        }
        Ok((data, layout(data, groups)))
    }

    /// The generation's chunks are freed in the background.
    pub(crate) fn delete_data(&mut self, data: DataId, layout: &Layout) -> OpResult<()> {
        self.counters_mut()?.deletions_pending += 1;
        self.batch.put(keys::DELETIONS, keys::deletion(data), Deletion::encode(self.now_nanos, layout));
        Ok(())
    }

    // ---- entries ----

    /// What `name` means in `parent`, as it was before this command.
    pub(crate) fn entry(&self, parent: InodeId, name: &Name) -> OpResult<Option<Entry>> {
        read_entry(self.read, parent, name.as_slice())
    }

    /// A name appears in a directory, which shows in its times and size.
    pub(crate) fn add_entry(&mut self, parent: InodeId, name: &Name, entry: Entry) -> OpResult<()> {
        self.set_entry(parent, name, entry);
        self.directory_changed(parent)?.attr.size_bytes += 1;
        Ok(())
    }

    /// A name comes to mean something (else); the directory's size does not change.
    pub(crate) fn set_entry(&mut self, parent: InodeId, name: &Name, entry: Entry) {
        self.batch.put(keys::DENTRIES, keys::dentry(parent, name.as_slice()), entry.encode());
    }

    /// A name goes.
    pub(crate) fn remove_entry(&mut self, parent: InodeId, name: &Name) -> OpResult<()> {
        self.batch.delete(keys::DENTRIES, keys::dentry(parent, name.as_slice()));
        let directory = self.directory_changed(parent)?;
        directory.attr.size_bytes = directory.attr.size_bytes.saturating_sub(1);
        Ok(())
    }

    /// A directory's entries changed.
    pub(crate) fn directory_changed(&mut self, ino: InodeId) -> OpResult<&mut Inode> {
        let now = self.now;
        let inode = self.inode_mut(ino)?;
        inode.attr.mtime = now;
        inode.attr.ctime = now;
        Ok(inode)
    }
}

/// Which of `groups` groups (at least 1) hold a generation's chunks: distinct ones, spread by hash.
fn layout(data: DataId, groups: u32) -> Layout {
    let mut chosen: Vec<GroupId> = Vec::with_capacity(LAYOUT_WIDTH as usize);
    let mut seed = data.0;
    while chosen.len() < LAYOUT_WIDTH.min(groups) as usize {
        seed = mix(seed);
        // Below `groups`, which is a u32; then the next free one, so that this ends.
        let mut at = (seed % u64::from(groups)) as u32;
        while chosen.contains(&GroupId(at + 1)) {
            at = (at + 1) % groups;
        }
        chosen.push(GroupId(at + 1));
    }
    Layout::new(CHUNK_SIZE_DEFAULT, chosen)
        .expect("between one and four groups, and a chunk size that is allowed")
}

/// splitmix64: spreads consecutive ids over all groups.
pub(crate) const fn mix(seed: u64) -> u64 {
    let z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn layouts_use_all_groups_evenly_and_none_twice() {
        for groups in [1, 2, 3, 4, 5, 64] {
            let mut first = vec![0_u32; groups as usize + 1];
            for data in 0..10_000 {
                let layout = layout(DataId(data), groups);
                let distinct: BTreeSet<_> = layout.groups().iter().copied().collect();
                assert_eq!(distinct.len(), groups.min(4) as usize);
                assert!(distinct.iter().all(|group| (1..=groups).contains(&group.0)));
                first[layout.groups()[0].0 as usize] += 1;
            }
            let mean = 10_000 / groups;
            assert!(first[1..].iter().all(|count| (mean / 2..=mean * 2).contains(count)), "{first:?}");
        }
    }
}
