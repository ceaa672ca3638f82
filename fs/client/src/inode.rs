//! One inode as this client has it: what the master last said, what the master does not know yet, and the data on its
//! way. An inode lives here only while it is open or has something the master does not know (`docs/client.md`).
//!
//! Lock order, outermost first: [`Inode::ops`], [`Inode::commit`], the table's lock, [`Inode::state`]. The last two are
//! never held across an await.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use coord_types::{DataId, Fence, InodeId};
use master_api::model::attr::mode;
use master_api::model::{Attr, Changes, CommitWrite, Mutation, SetAttr, Time, TimeSet};
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::write::dirty::Dirty;
use crate::write::flights::Flights;
use crate::{Errno, FileAttr};

/// An inode of the table.
#[derive(Debug)]
pub(crate) struct Inode {
    pub(crate) ino: InodeId,
    /// Shared by writes, exclusive for what moves the end of the file or makes holes.
    pub(crate) ops: tokio::sync::RwLock<()>,
    /// Held while the master changes this inode at our request, so that answers are ours in order.
    pub(crate) commit: tokio::sync::Mutex<()>,
    state: Mutex<State>,
    /// A write landed, or a limit was lifted.
    progress: Notify,
}

/// What the kernel's page cache of a file is true for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CacheToken {
    pub(crate) data: DataId,
    pub(crate) change: u64,
}

/// Where attributes come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// The answer to a change this client made.
    OurChange,
    /// An answer to a question.
    Question,
}

/// Changes the master does not know yet.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pending {
    /// The file is at least this long.
    pub(crate) size: Option<u64>,
    /// Permission bits.
    pub(crate) mode: Option<u32>,
    pub(crate) uid: Option<u32>,
    pub(crate) gid: Option<u32>,
    pub(crate) atime: Option<Time>,
    pub(crate) mtime: Option<Time>,
    /// Only shown: the master sets its own.
    pub(crate) ctime: Option<Time>,
    pub(crate) kill_privileges: bool,
    pub(crate) allocated_delta: i64,
}

/// Errors of buffered writes, numbered: a handle that has seen number n is told of n + 1 once.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Failures {
    pub(crate) count: u64,
    last: Option<Errno>,
}

#[derive(Debug)]
pub(crate) struct State {
    /// As the master said last.
    pub(crate) attr: Attr,
    pub(crate) attr_at: Instant,
    /// This client made the present data generation: nobody else can have left bytes beyond its end.
    pub(crate) made_here: bool,
    /// Everything between the size and `attr.garbage_end_bytes` was zeroed by this client.
    pub(crate) garbage_cleared: bool,
    /// No byte of this generation beyond this was ever sent by this client.
    pub(crate) sent_end: u64,
    pub(crate) pending: Pending,
    /// Sent to the master, not answered yet.
    pub(crate) committing: Option<Pending>,
    pub(crate) dirty: Dirty,
    pub(crate) flights: Flights,
    /// Number of the newest write.
    pub(crate) written: u64,
    /// How often the file became shorter.
    pub(crate) shrinks: u64,
    pub(crate) failures: Failures,
    /// The file's fence as far as this client knows. Everything dirty was written under it: what came under a lower
    /// one goes when this rises.
    pub(crate) fence: Fence,
    /// Written data was dropped or refused because of a fence; this is the highest of them.
    pub(crate) refused_below: Fence,
    pub(crate) opens: u32,
    pub(crate) writers: u32,
    /// The writers' fences, and how many have each.
    pub(crate) writer_fences: BTreeMap<Fence, u32>,
    /// Nothing is sent: the file is being made shorter.
    pub(crate) frozen: bool,
    /// Waits in the flusher's queue.
    pub(crate) queued: bool,
    /// It has no name left; the master keeps it for our session.
    pub(crate) orphan: bool,
    /// It is no more: an orphan whose session ended.
    pub(crate) gone: bool,
    pub(crate) cached: Option<CacheToken>,
}

impl Inode {
    pub(crate) fn new(attr: Attr, cached: Option<CacheToken>) -> Self {
        Self {
            ino: attr.ino,
            ops: tokio::sync::RwLock::default(),
            commit: tokio::sync::Mutex::default(),
            progress: Notify::new(),
            state: Mutex::new(State {
                attr_at: Instant::now(),
                made_here: false,
                garbage_cleared: false,
                sent_end: 0,
                pending: Pending::default(),
                committing: None,
                dirty: Dirty::default(),
                flights: Flights::default(),
                written: 0,
                shrinks: 0,
                failures: Failures::default(),
                fence: attr.fence,
                refused_below: Fence::NONE,
                opens: 0,
                writers: 0,
                writer_fences: BTreeMap::new(),
                frozen: false,
                queued: false,
                orphan: false,
                gone: false,
                cached,
                attr,
            }),
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    pub(crate) fn notify(&self) {
        self.progress.notify_waiters();
    }

    /// Waits until `check` finds what it looks for.
    pub(crate) async fn until<T>(&self, mut check: impl FnMut(&mut State) -> Option<T>) -> T {
        loop {
            if let Some(found) = check(&mut self.lock()) {
                return found;
            }
            let progress = self.progress.notified();
            tokio::pin!(progress);
            progress.as_mut().enable();
            if let Some(found) = check(&mut self.lock()) {
                return found;
            }
            progress.await;
        }
    }
}

pub(crate) fn now() -> Time {
    Time::from(SystemTime::now())
}

/// What a write by an unprivileged caller leaves of a mode.
const fn without_privileges(bits: u32) -> u32 {
    let bits = bits & !mode::SUID;
    if bits & mode::GROUP_EXEC == 0 { bits } else { bits & !mode::SGID }
}

impl Failures {
    pub(crate) const fn add(&mut self, errno: Errno) {
        self.count += 1;
        self.last = Some(errno);
    }

    /// The newest error, if it came after number `seen`.
    pub(crate) fn since(&self, seen: u64) -> Option<Errno> {
        if self.count > seen { self.last } else { None }
    }
}

impl Pending {
    /// Whether the master should hear of it some time.
    pub(crate) const fn is_empty(&self) -> bool {
        self.size.is_none()
            && self.mode.is_none()
            && self.uid.is_none()
            && self.gid.is_none()
            && self.atime.is_none()
            && self.mtime.is_none()
            && !self.kill_privileges
            && self.allocated_delta == 0
    }

    /// Takes over what setattr changes, but for the size.
    pub(crate) fn change(&mut self, changes: &Changes) {
        let at = |set: TimeSet| match set {
            TimeSet::Now => now(),
            TimeSet::At(time) => time,
        };
        if changes.kill_privileges {
            self.kill();
        }
        if changes.mode.is_none() && (changes.uid.is_some() || changes.gid.is_some()) {
            self.kill();
        }
        if let Some(bits) = changes.mode {
            // A later chmod overrules what an earlier write took away.
            self.kill_privileges = false;
            self.mode = Some(bits & mode::PERMISSIONS);
        }
        self.uid = changes.uid.or(self.uid);
        self.gid = changes.gid.or(self.gid);
        self.atime = changes.atime.map(at).or(self.atime);
        self.mtime = changes.mtime.map(at).or(self.mtime);
        self.ctime = Some(now());
    }

    pub(crate) fn kill(&mut self) {
        match &mut self.mode {
            Some(bits) => *bits = without_privileges(*bits),
            None => self.kill_privileges = true,
        }
    }

    /// What the master is asked to change besides size and space; `None` if nothing.
    pub(crate) fn changes(&self) -> Option<Changes> {
        let changes = Changes {
            mode: self.mode,
            uid: self.uid,
            gid: self.gid,
            size_bytes: None,
            atime: self.atime.map(TimeSet::At),
            mtime: self.mtime.map(TimeSet::At),
            kill_privileges: self.kill_privileges,
            fence: None,
        };
        (changes != Changes::default()).then_some(changes)
    }

    /// Forgets what a write left; what was set by name stays, and the space that is used.
    fn forget_writes(&mut self) {
        self.size = None;
        self.mtime = None;
        self.ctime = None;
    }

    /// Takes over what an older one holds and this does not.
    fn take_over(&mut self, old: &Self) {
        self.mode = self.mode.or(old.mode);
        self.uid = self.uid.or(old.uid);
        self.gid = self.gid.or(old.gid);
        self.atime = self.atime.or(old.atime);
        self.kill_privileges |= old.kill_privileges && self.mode.is_none();
        self.allocated_delta += old.allocated_delta;
    }

    fn show(&self, attr: &mut FileAttr) {
        if self.kill_privileges {
            attr.mode = without_privileges(attr.mode);
        }
        if let Some(bits) = self.mode {
            attr.mode = attr.mode & mode::TYPE | bits;
        }
        attr.uid = self.uid.unwrap_or(attr.uid);
        attr.gid = self.gid.unwrap_or(attr.gid);
        attr.atime = self.atime.map_or(attr.atime, Into::into);
        attr.mtime = self.mtime.map_or(attr.mtime, Into::into);
        attr.ctime = self.ctime.map_or(attr.ctime, |at| attr.ctime.max(at.into()));
        attr.allocated_bytes = attr.allocated_bytes.saturating_add_signed(self.allocated_delta);
    }
}

/// Attributes as the master has them, as `stat(2)` shows them.
pub(crate) fn file_attr(attr: &Attr) -> FileAttr {
    FileAttr {
        ino: attr.ino,
        mode: attr.mode,
        nlink: attr.nlink,
        uid: attr.uid,
        gid: attr.gid,
        rdev: attr.rdev,
        size_bytes: attr.size_bytes,
        allocated_bytes: attr.allocated_bytes,
        atime: attr.atime.into(),
        mtime: attr.mtime.into(),
        ctime: attr.ctime.into(),
    }
}

impl State {
    /// The file's length as this client has it.
    pub(crate) fn size(&self) -> u64 {
        let committing = self.committing.as_ref().and_then(|pending| pending.size);
        [self.pending.size, committing].into_iter().flatten().fold(self.attr.size_bytes, u64::max)
    }

    /// The attributes as this client has them.
    pub(crate) fn shown(&self) -> FileAttr {
        let mut attr = file_attr(&self.attr);
        if let Some(committing) = &self.committing {
            committing.show(&mut attr);
        }
        self.pending.show(&mut attr);
        attr.size_bytes = if self.attr.is_regular() { self.size() } else { attr.size_bytes };
        attr.allocated_bytes += (self.dirty.bytes() + self.flights.bytes()).next_multiple_of(512);
        if self.orphan {
            attr.nlink = 0;
        }
        attr
    }

    /// Where bytes of an earlier life of the file may still be, beyond its end.
    pub(crate) fn garbage_end(&self) -> u64 {
        if self.garbage_cleared { 0 } else { self.attr.garbage_end_bytes }
    }

    /// Whether there is anything the master does not know or the chunkservers do not have.
    pub(crate) fn is_clean(&self) -> bool {
        self.dirty.is_empty()
            && self.flights.is_empty()
            && self.pending.is_empty()
            && self.committing.is_none()
    }

    /// The oldest write that is not durable.
    pub(crate) fn oldest_write(&self) -> Option<u64> {
        match (self.dirty.oldest(), self.flights.oldest()) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// How long the kernel may believe what is [`shown`](Self::shown), if it otherwise may for `ttl`. What the master was not told yet it
    /// will date by its own clock: the time of change that is shown until then is not the one that stays, and a kernel that
    /// remembers it sees the file change by itself, a moment after it was closed.
    pub(crate) fn ttl(&self, ttl: Duration) -> Duration {
        if self.is_clean() { ttl } else { Duration::ZERO }
    }

    /// Whether the attributes are young enough to be believed.
    pub(crate) fn is_fresh(&self, ttl: Duration) -> bool {
        self.orphan || self.attr_at.elapsed() < ttl
    }

    /// The master said this. Older than what is known: ignored.
    pub(crate) fn refresh(&mut self, attr: Attr, source: Source) {
        self.fenced(attr.fence);
        if attr.change < self.attr.change {
            return;
        }
        self.attr_at = Instant::now();
        if attr.change == self.attr.change {
            return;
        }
        let known = CacheToken { data: self.attr.data, change: self.attr.change };
        if source == Source::OurChange && attr.change == known.change + 1 {
            // Nobody else changed it in between: what the kernel's cache was true for, it still is.
            if self.cached == Some(known) {
                self.cached = Some(CacheToken { data: attr.data, change: attr.change });
            }
        } else {
            self.garbage_cleared = false;
        }
        if attr.data != self.attr.data {
            self.replaced(&attr);
        } else if attr.garbage_end_bytes >= self.sent_end {
            // Somebody made it shorter, and the master knows how far there may be bytes.
            self.sent_end = self.sent_end.min(attr.size_bytes);
        }
        self.attr = attr;
    }

    /// The file's fence is at least this. What was written under a lower one and is not sent could only be refused: it goes. The
    /// handles it came through say so from now on.
    pub(crate) fn fenced(&mut self, fence: Fence) {
        if fence <= self.fence {
            return;
        }
        self.fence = fence;
        if self.dirty.is_empty() && self.flights.is_empty() && self.pending.size.is_none() {
            return;
        }
        tracing::warn!(ino = %self.attr.ino, %fence, "the file was fenced: what was written here before goes no further");
        if !self.dirty.is_empty() || self.pending.size.is_some() {
            self.refused_below = fence;
        }
        self.dirty.truncate(0);
        self.pending.forget_writes();
        // A flush that began with the length of what went begins again.
        self.shrinks += 1;
        self.cached = None;
    }

    /// What was to go along with a truncation that was refused is held back as before. If the file was fenced meanwhile, what was
    /// written under the lower fence goes no further, as in [`fenced`](Self::fenced): its length would be told under the new one.
    pub(crate) fn hold_again(&mut self, held: Pending, fence_before: Fence) {
        let mut held = Pending { ctime: None, ..held };
        if self.fence > fence_before {
            if held.size.is_some() {
                self.refused_below = self.fence;
            }
            held.forget_writes();
        }
        self.pending = held;
    }

    /// The lowest fence somebody here writes under.
    pub(crate) fn lowest_fence(&self) -> Fence {
        self.writer_fences.keys().next().copied().unwrap_or(self.fence)
    }

    /// Somebody else truncated the file to nothing. What was sent went with the old generation; what was not yet
    /// sent goes to the new one.
    fn replaced(&mut self, attr: &Attr) {
        self.made_here = false;
        self.garbage_cleared = false;
        self.sent_end = 0;
        self.pending.allocated_delta = 0;
        self.pending.size = self.dirty.end().filter(|end| *end > attr.size_bytes);
        if let Some(committing) = &mut self.committing {
            committing.size = None;
            committing.allocated_delta = 0;
        }
    }

    /// What to tell the master now that all of the file as of `size` is durable; `None` if nothing. Followed by
    /// [`end_commit`](Self::end_commit).
    pub(crate) fn begin_commit(&mut self, size: u64) -> Option<Mutation> {
        if self.orphan || self.gone || self.pending.is_empty() {
            return None;
        }
        let mut going = std::mem::take(&mut self.pending);
        if going.size.is_some_and(|latest| latest > size) {
            // Newer writes made it longer still; they are not durable yet.
            self.pending.size = going.size;
            going.size = Some(size);
        }
        let ino = self.attr.ino;
        let written = going.size.is_some() || going.mtime.is_some() || going.allocated_delta != 0;
        let mut changes = going.changes().unwrap_or_default();
        let mutation = if written {
            // Without a time, the master would take the commit for the write.
            changes.mtime = changes.mtime.or(Some(TimeSet::At(self.attr.mtime)));
            changes.fence = Some(self.fence);
            Mutation::CommitWrite(CommitWrite {
                ino,
                data: self.attr.data,
                size_at_least_bytes: going.size.unwrap_or(0),
                allocated_delta_bytes: going.allocated_delta,
                garbage_cleared: self.garbage_cleared && self.attr.garbage_end_bytes > 0,
                attributes: Some(changes),
            })
        } else {
            Mutation::SetAttr(SetAttr { ino, changes })
        };
        self.committing = Some(going);
        Some(mutation)
    }

    /// The master's answer to what [`begin_commit`](Self::begin_commit) said.
    pub(crate) fn end_commit(&mut self, answer: Result<Option<Attr>, Errno>) {
        let going = self.committing.take();
        match answer {
            Ok(Some(attr)) => self.refresh(attr, Source::OurChange),
            Ok(None) => {}
            // Somebody else removed it while we had it open.
            Err(Errno::ENOENT) => self.failures.add(Errno::ESTALE),
            // It was fenced since. Who wrote hears of that by its handle; what was set by name is for the next commit.
            Err(Errno::ESTALE) => {
                let mut going = going.unwrap_or_default();
                going.forget_writes();
                self.pending.take_over(&going);
            }
            Err(errno) => self.failures.add(errno),
        }
    }
}

#[cfg(test)]
mod tests {
    use coord_types::{GroupId, Layout};

    use super::*;

    fn attr() -> Attr {
        Attr {
            ino: InodeId(5),
            mode: mode::REGULAR | 0o4755,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            size_bytes: 100,
            allocated_bytes: 4096,
            atime: Time::default(),
            mtime: Time::default(),
            ctime: Time::default(),
            data: DataId(7),
            layout: Layout::new(1 << 20, vec![GroupId(1)]).ok(),
            garbage_end_bytes: 0,
            change: 10,
            has_xattrs: false,
            fence: Fence::NONE,
        }
    }

    #[tokio::test]
    async fn what_is_pending_is_shown_and_committed_once() {
        let inode = Inode::new(attr(), None);
        let mut state = inode.lock();
        state.pending.size = Some(500);
        state.pending.kill();
        state.pending.mtime = Some(Time::from_nanos(9));
        assert_eq!(state.shown().size_bytes, 500);
        assert_eq!(state.shown().mode, mode::REGULAR | 0o755);
        let told = |mutation| match mutation {
            Some(Mutation::CommitWrite(commit)) => commit.size_at_least_bytes,
            other => panic!("{other:?}"),
        };
        assert_eq!(told(state.begin_commit(400)), 400);
        assert_eq!(state.shown().size_bytes, 500, "the rest is still pending");
        state.end_commit(Ok(Some(Attr {
            size_bytes: 400,
            change: 11,
            mode: mode::REGULAR | 0o755,
            ..attr()
        })));
        assert_eq!(state.shown().size_bytes, 500);
        assert_eq!(told(state.begin_commit(500)), 500);
    }

    #[tokio::test]
    async fn what_the_master_did_not_take_is_an_error_of_the_file() {
        let inode = Inode::new(attr(), None);
        let mut state = inode.lock();
        for (said, told) in [(Errno::ENOENT, Errno::ESTALE), (Errno::EDQUOT, Errno::EDQUOT)] {
            state.pending.size = Some(500);
            assert!(state.begin_commit(500).is_some());
            let seen = state.failures.count;
            state.end_commit(Err(said));
            assert_eq!(state.failures.since(seen), Some(told));
            assert_eq!(state.size(), 100);
        }
    }

    #[tokio::test]
    async fn a_chmod_after_a_write_wins_and_one_before_it_loses() {
        let inode = Inode::new(attr(), None);
        let mut state = inode.lock();
        state.pending.kill();
        state.pending.change(&Changes { mode: Some(0o4711), ..Changes::default() });
        assert_eq!(state.shown().mode & mode::PERMISSIONS, 0o4711);
        state.pending.kill();
        assert_eq!(state.shown().mode & mode::PERMISSIONS, 0o711);
        assert_eq!(state.pending.changes().map(|c| (c.mode, c.kill_privileges)), Some((Some(0o711), false)));
    }

    #[tokio::test]
    async fn old_answers_change_nothing_and_foreign_changes_end_trust() {
        let inode = Inode::new(attr(), Some(CacheToken { data: DataId(7), change: 10 }));
        let mut state = inode.lock();
        state.garbage_cleared = true;
        state.refresh(Attr { change: 9, size_bytes: 1, ..attr() }, Source::Question);
        assert_eq!(state.size(), 100);
        state.refresh(Attr { change: 11, ..attr() }, Source::OurChange);
        assert!(state.garbage_cleared);
        assert_eq!(state.cached, Some(CacheToken { data: DataId(7), change: 11 }));
        state.pending.size = Some(1000);
        state.refresh(Attr { change: 13, data: DataId(8), size_bytes: 0, ..attr() }, Source::OurChange);
        assert!(!state.garbage_cleared);
        assert_eq!(state.cached, Some(CacheToken { data: DataId(7), change: 11 }));
        assert_eq!(state.size(), 0, "what was sent to the old generation is gone");
    }

    #[tokio::test]
    async fn a_fence_drops_what_was_written_and_keeps_what_was_set() {
        let inode = Inode::new(attr(), None);
        let mut state = inode.lock();
        state.pending.size = Some(500);
        state.pending.mode = Some(0o600);
        state.pending.allocated_delta = 4096;
        state.refresh(Attr { change: 11, fence: Fence(7), ..attr() }, Source::Question);
        assert_eq!((state.size(), state.fence, state.refused_below), (100, Fence(7), Fence(7)));
        assert_eq!((state.pending.mode, state.pending.allocated_delta), (Some(0o600), 4096));
        let Some(Mutation::CommitWrite(commit)) = state.begin_commit(100) else { panic!("nothing to tell") };
        assert_eq!(commit.attributes.unwrap().fence, Some(Fence(7)));
        state.pending.uid = Some(5);
        state.end_commit(Err(Errno::ESTALE));
        assert_eq!((state.pending.mode, state.pending.uid), (Some(0o600), Some(5)), "for the next commit");
        assert_eq!(state.failures.since(0), None, "a handle opened since does not hear of it");
        state.refresh(Attr { change: 9, ..attr() }, Source::Question);
        assert_eq!(state.fence, Fence(7), "an older answer");
    }
}
