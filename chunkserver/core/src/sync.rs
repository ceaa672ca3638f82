//! How a primary fills syncing members beside its work: compare lists page by page, install what differs, forward what is
//! committed meanwhile. `chunkserver/docs/replication.md`, "A syncing member", has the table of states.
//!
//! Invariants:
//! - a syncing member is sent committed versions only;
//! - it only runs while the group is active, and begins anew with each activation;
//! - what is kept for it is bounded: installs, forwards under way, writes kept back during an install.
//!
//! Nothing else relies on it being right: the epoch in which the member joins begins with a comparison.

use std::collections::BTreeMap;

use coord_types::{ChunkKey, DiskId, Stamp, Version};

use crate::event::{Effect, Io, MemberInfo, Page, PeerError, Store};
use crate::prepare::{Step, differing};
use crate::replica::{Replica, Role};

/// Chunks of one group on their way to one member: the server bounds them over all groups again.
const INSTALLS_MAX: usize = 2;
/// Forwards to one member that are not answered. Each may hold 1 MiB; a chunk beyond is installed once more.
const FORWARDS_MAX: usize = 64;
/// Writes of one chunk kept back while it is installed.
const KEPT_MAX: usize = 64;

/// What the primary knows of a syncing member.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Sync<C> {
    pub(crate) disk: DiskId,
    /// Of the process that promised; 0 before it did.
    incarnation: u64,
    state: State,
    /// Compared up to here.
    cursor: Option<ChunkKey>,
    last_page: bool,
    /// Compared chunks the member does not have as they are here.
    behind: BTreeMap<ChunkKey, Behind<C>>,
    installs: usize,
    forwards: usize,
    failures: u32,
    /// A chunk that differs cannot be read here, so the member does not have it when all others are done.
    unreadable: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum State {
    /// Begins when the group is active.
    Idle,
    Preparing,
    Comparing,
    /// Between two pages, or at the end: with nothing behind and the last page compared it is level.
    Copying,
    Waiting,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Behind<C> {
    Waiting,
    /// On its way; what was committed since.
    Installing {
        kept: Vec<Forward<C>>,
        again: bool,
    },
}

/// A committed write.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Forward<C> {
    pub(crate) previous: Version,
    pub(crate) version: Version,
    pub(crate) stamp: Option<Stamp>,
    pub(crate) content: C,
}

impl<C> Sync<C> {
    pub(crate) const fn new(member: MemberInfo) -> Self {
        Self {
            disk: member.disk,
            incarnation: 0,
            state: State::Idle,
            cursor: None,
            last_page: false,
            behind: BTreeMap::new(),
            installs: 0,
            forwards: 0,
            failures: 0,
            unreadable: false,
        }
    }

    /// All that was under way counts for nothing any more.
    pub(crate) fn reset(&mut self) {
        self.incarnation = 0;
        self.state = State::Idle;
        self.cursor = None;
        self.last_page = false;
        self.behind.clear();
        self.installs = 0;
        self.forwards = 0;
        self.unreadable = false;
    }

    fn is_level(&self) -> bool {
        self.state == State::Copying && self.last_page && self.behind.is_empty() && !self.unreadable
    }

    fn compared(&self, key: ChunkKey) -> bool {
        match self.state {
            State::Comparing | State::Copying => {
                self.last_page || self.cursor.is_some_and(|cursor| key <= cursor)
            }
            State::Idle | State::Preparing | State::Waiting => false,
        }
    }

    /// Whether the member has said it is another process than the one that is being filled.
    pub(crate) fn is_news(&self, incarnation: u64) -> bool {
        incarnation > self.incarnation && self.incarnation != 0
    }
}

impl<C: Clone> Replica<C> {
    /// Whether committed writes have to be kept for somebody.
    pub(crate) fn fills(&self) -> bool {
        matches!(&self.role, Role::Primary(primary) if !primary.syncing.is_empty())
    }

    /// The syncing members that have everything that is committed, but for what is on its way to them.
    pub fn level(&self) -> impl Iterator<Item = DiskId> + '_ {
        let syncing = match &self.role {
            Role::Primary(primary) if primary.step == Step::Active => primary.syncing.as_slice(),
            Role::Primary(_) | Role::Secondary(_) | Role::Out => &[],
        };
        syncing.iter().filter(|sync| sync.is_level()).map(|sync| sync.disk)
    }

    /// Syncing members and how many chunks each is known to be behind, for people.
    pub fn behind(&self) -> impl Iterator<Item = (DiskId, usize)> + '_ {
        let syncing = match &self.role {
            Role::Primary(primary) => primary.syncing.as_slice(),
            Role::Secondary(_) | Role::Out => &[],
        };
        syncing.iter().map(|sync| (sync.disk, sync.behind.len()))
    }

    /// The group is active: filling begins.
    pub(crate) fn begin_syncs(&mut self, io: &mut Io<'_, impl Store, C>) {
        let Role::Primary(primary) = &mut self.role else { return };
        let disks: Vec<_> = primary.syncing.iter().map(|sync| sync.disk).collect();
        for disk in disks {
            self.begin_sync(disk, io);
        }
    }

    pub(crate) fn begin_sync(&mut self, disk: DiskId, io: &mut Io<'_, impl Store, C>) {
        let (epoch, activation) = self.promised;
        let Some(sync) = self.sync_mut(disk, activation) else { return };
        sync.reset();
        sync.state = State::Preparing;
        io.emit(Effect::Prepare { peer: disk, epoch, activation, after: None, fill: true });
    }

    /// The syncing member, if the group is active with this activation.
    fn sync_mut(&mut self, disk: DiskId, activation: u64) -> Option<&mut Sync<C>> {
        if activation != self.promised.1 {
            return None;
        }
        match &mut self.role {
            Role::Primary(primary) if primary.step == Step::Active => {
                primary.syncing.iter_mut().find(|sync| sync.disk == disk)
            }
            Role::Primary(_) | Role::Secondary(_) | Role::Out => None,
        }
    }

    /// A syncing member answered [`Effect::Prepare`]. Whether it was one.
    pub(crate) fn sync_prepared(
        &mut self,
        disk: DiskId,
        activation: u64,
        result: &Result<Page, PeerError>,
        io: &mut Io<'_, impl Store, C>,
    ) -> bool {
        let epoch = self.promised.0;
        let Some(sync) = self.sync_mut(disk, activation) else { return false };
        let page = match result {
            Ok(page) => page,
            Err(error) => {
                let error = *error;
                self.fail_sync(disk, error, io);
                return true;
            }
        };
        match sync.state {
            State::Preparing => {
                sync.incarnation = page.incarnation;
                sync.state = State::Comparing;
                io.emit(Effect::Prepare { peer: disk, epoch, activation, after: Some(None), fill: true });
            }
            State::Comparing if sync.incarnation == page.incarnation => self.compare_sync(disk, page, io),
            State::Comparing => self.fail_sync(disk, PeerError::Failed, io),
            State::Idle | State::Copying | State::Waiting => {}
        }
        true
    }

    /// Finds what differs within a page. What is in flight here counts as what is committed of it.
    fn compare_sync(&mut self, disk: DiskId, page: &Page, io: &mut Io<'_, impl Store, C>) {
        let activation = self.promised.1;
        let Some(sync) = self.sync_mut(disk, activation) else { return };
        let (cursor, upto) = (sync.cursor, page.chunks.last().map(|(key, _)| *key));
        let upto = if page.end { None } else { upto };
        let forwards = page.end || upto.is_some_and(|upto| cursor.is_none_or(|cursor| upto > cursor));
        let listed = if forwards { io.store.list(cursor, upto).ok() } else { None };
        let Some(mut mine) = listed else { return self.fail_sync(disk, PeerError::Failed, io) };
        let upto = if mine.truncated { mine.chunks.last().map(|(key, _)| *key) } else { upto };
        for (key, version) in &mut mine.chunks {
            if let Some(chunk) = self.chunks.get(key) {
                *version = chunk.committed;
            }
        }
        mine.chunks.retain(|(_, version)| *version != Version::NONE);
        let theirs = page.chunks.iter().filter(|(key, _)| upto.is_none_or(|upto| *key <= upto));
        let behind = differing(&mine.chunks, theirs);
        let Some(sync) = self.sync_mut(disk, activation) else { return };
        sync.behind.extend(behind.into_iter().map(|key| (key, Behind::Waiting)));
        sync.last_page = upto.is_none();
        sync.cursor = upto.or(sync.cursor);
        sync.state = State::Copying;
        self.continue_sync(disk, io);
    }

    /// Begins what there is room for: installs, the next page; or says that the member is level.
    fn continue_sync(&mut self, disk: DiskId, io: &mut Io<'_, impl Store, C>) {
        let (epoch, activation) = self.promised;
        let Some(sync) = self.sync_mut(disk, activation) else { return };
        if sync.state != State::Copying {
            return;
        }
        for (key, behind) in &mut sync.behind {
            if sync.installs >= INSTALLS_MAX {
                return;
            }
            if matches!(behind, Behind::Waiting) {
                *behind = Behind::Installing { kept: Vec::new(), again: false };
                sync.installs += 1;
                io.emit(Effect::Fill { peer: disk, epoch, activation, key: *key });
            }
        }
        if !sync.behind.is_empty() {
            return;
        }
        if sync.last_page && sync.unreadable {
            self.fail_sync(disk, PeerError::Failed, io);
        } else if sync.last_page {
            sync.failures = 0;
            io.emit(Effect::Level { peer: disk, epoch });
        } else {
            sync.state = State::Comparing;
            let after = Some(sync.cursor);
            io.emit(Effect::Prepare { peer: disk, epoch, activation, after, fill: true });
        }
    }

    /// [`Effect::Fill`] is done: the member has the chunk as it was here at this version ([`Version::NONE`]: not at all).
    pub fn filled(
        &mut self,
        disk: DiskId,
        activation: u64,
        key: ChunkKey,
        result: Result<Version, PeerError>,
        io: &mut Io<'_, impl Store, C>,
    ) {
        let Some(sync) = self.sync_mut(disk, activation) else { return };
        if sync.state == State::Waiting || !matches!(sync.behind.get(&key), Some(Behind::Installing { .. })) {
            return;
        }
        let version = match result {
            Ok(version) => version,
            Err(PeerError::SourceDamaged) => {
                // Nobody can be filled with it from here before it is repaired. All others go on; then it is tried again. Without
                // it the member must not join: it could lead one day, and what a primary does not have is removed everywhere.
                sync.installs -= 1;
                sync.behind.remove(&key);
                sync.unreadable = true;
                return self.continue_sync(disk, io);
            }
            Err(error @ (PeerError::Stale { .. } | PeerError::Failed)) => {
                return self.fail_sync(disk, error, io);
            }
        };
        sync.installs -= 1;
        let Some(Behind::Installing { kept, again }) = sync.behind.remove(&key) else { return };
        if again {
            sync.behind.insert(key, Behind::Waiting);
        } else {
            for forward in kept.into_iter().filter(|forward| forward.version > version) {
                self.forward(disk, key, forward, io);
            }
        }
        self.continue_sync(disk, io);
    }

    /// A write is committed: every member that is being filled gets it, if it has the chunk.
    pub(crate) fn forward_all(
        &mut self,
        key: ChunkKey,
        committed: &Forward<C>,
        io: &mut Io<'_, impl Store, C>,
    ) {
        let activation = self.promised.1;
        let Role::Primary(primary) = &self.role else { return };
        let disks: Vec<_> = primary.syncing.iter().map(|sync| sync.disk).collect();
        for disk in disks {
            let Some(sync) = self.sync_mut(disk, activation) else { continue };
            if !sync.compared(key) {
                continue;
            }
            match sync.behind.get_mut(&key) {
                None => self.forward(disk, key, committed.clone(), io),
                Some(Behind::Waiting) => {}
                Some(Behind::Installing { kept, again }) => {
                    if kept.len() < KEPT_MAX && !*again {
                        kept.push(committed.clone());
                    } else {
                        kept.clear();
                        *again = true;
                    }
                }
            }
        }
    }

    fn forward(&mut self, disk: DiskId, key: ChunkKey, forward: Forward<C>, io: &mut Io<'_, impl Store, C>) {
        let (epoch, activation) = self.promised;
        let Some(sync) = self.sync_mut(disk, activation) else { return };
        if sync.behind.contains_key(&key) {
            return;
        }
        if sync.forwards >= FORWARDS_MAX {
            sync.behind.insert(key, Behind::Waiting);
            return self.continue_sync(disk, io);
        }
        sync.forwards += 1;
        let Forward { previous, version, stamp, content } = forward;
        io.emit(Effect::Forward { peer: disk, epoch, activation, key, previous, version, stamp, content });
    }

    /// [`Effect::Forward`] was answered.
    pub fn forwarded(
        &mut self,
        disk: DiskId,
        activation: u64,
        key: ChunkKey,
        result: Result<(), PeerError>,
        io: &mut Io<'_, impl Store, C>,
    ) {
        let Some(sync) = self.sync_mut(disk, activation) else { return };
        // Answers to what was sent before the filling began anew may come late.
        sync.forwards = sync.forwards.saturating_sub(1);
        if result.is_err() && sync.compared(key) {
            sync.behind.entry(key).or_insert(Behind::Waiting);
            self.continue_sync(disk, io);
        }
    }

    fn fail_sync(&mut self, disk: DiskId, error: PeerError, io: &mut Io<'_, impl Store, C>) {
        if let PeerError::Stale { epoch, activation } = error {
            if epoch > self.promised.0 {
                io.emit(Effect::Outdated { epoch });
            } else if (epoch, activation) > self.promised {
                // It follows an activation of this primary's earlier life, drawn from a clock that was ahead.
                self.heed(error, io);
                return self.begin_attempt(io);
            }
        }
        let activation = self.promised.1;
        let Some(sync) = self.sync_mut(disk, activation) else { return };
        if matches!(sync.state, State::Waiting | State::Idle) {
            return;
        }
        sync.reset();
        sync.state = State::Waiting;
        io.emit(Effect::RetryFill { peer: disk, activation, attempt: sync.failures });
        sync.failures = sync.failures.saturating_add(1);
    }

    /// The back-off of a filling that failed is over.
    pub fn retry_fill(&mut self, disk: DiskId, activation: u64, io: &mut Io<'_, impl Store, C>) {
        if self.sync_mut(disk, activation).is_some_and(|sync| sync.state == State::Waiting) {
            self.begin_sync(disk, io);
        }
    }
}
