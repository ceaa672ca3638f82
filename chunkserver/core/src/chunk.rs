//! What is in flight of one chunk. Lives only while something is: an op without all its answers, or (at a secondary)
//! a version that is not known to be committed.

use std::collections::VecDeque;

use coord_types::{Fence, Stamp, Version};

use crate::event::{Fault, Token};
use crate::sync::Forward;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Chunk<C> {
    /// The version the next write follows.
    pub(crate) ordered: Version,
    /// What may be shown to readers.
    pub(crate) committed: Version,
    /// Oldest first, versions consecutive.
    pub(crate) ops: VecDeque<Op<C>>,
    /// Ops the disk works on now.
    pub(crate) running: usize,
    /// Readers at the primary that saw a version not yet committed.
    pub(crate) readers: Vec<(Token, Version)>,
    /// A write failed here, or the chunk was installed: takes no writes until the next activation.
    pub(crate) closed: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Op<C> {
    pub(crate) version: Version,
    pub(crate) previous: Version,
    pub(crate) stamp: Option<Stamp>,
    /// At a primary: what it was written under, or raises to.
    pub(crate) fence: Fence,
    /// Taken when the disk begins.
    pub(crate) content: Option<C>,
    /// The same, for members that are being filled; `None` if there are none.
    pub(crate) forward: Option<C>,
    pub(crate) waiter: Waiter,
    /// Callers that retried it, or wait for it. Rarely any.
    pub(crate) joined: Vec<Waiter>,
    /// One bit for each other member that has not said that it is durable.
    pub(crate) awaiting: u32,
    pub(crate) local: Local,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Waiter {
    pub(crate) token: Token,
    /// It is this write the caller asked for; otherwise an earlier one that is done when this is.
    pub(crate) own: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Local {
    Queued,
    Running,
    Durable { allocated_delta_bytes: i64 },
    Failed(Fault),
}

impl<C> Op<C> {
    /// What a member that is being filled gets of it.
    pub(crate) fn into_forward(self) -> Option<Forward<C>> {
        let Self { previous, version, stamp, forward, .. } = self;
        forward.map(|content| Forward { previous, version, stamp, content })
    }

    /// Everybody who waits for it.
    pub(crate) fn waiters(&self) -> impl Iterator<Item = Waiter> + '_ {
        std::iter::once(self.waiter).chain(self.joined.iter().copied())
    }
}

impl<C> Chunk<C> {
    pub(crate) const fn new(stored: Version) -> Self {
        Self {
            ordered: stored,
            committed: stored,
            ops: VecDeque::new(),
            running: 0,
            readers: Vec::new(),
            closed: false,
        }
    }

    pub(crate) fn op_mut(&mut self, version: Version) -> Option<&mut Op<C>> {
        let front = self.ops.front()?.version.counter;
        let index = usize::try_from(version.counter.checked_sub(front)?).ok()?;
        self.ops.get_mut(index).filter(|op| op.version == version)
    }

    /// The next op the disk may begin, if it has room.
    pub(crate) fn startable(&mut self, depth: usize) -> Option<&mut Op<C>> {
        if self.running >= depth || self.ops.iter().any(|op| matches!(op.local, Local::Failed(_))) {
            return None;
        }
        let op = self.ops.iter_mut().find(|op| op.local == Local::Queued)?;
        self.running += 1;
        op.local = Local::Running;
        Some(op)
    }

    /// Nothing is left to remember.
    pub(crate) fn idle(&self) -> bool {
        self.ops.is_empty() && self.readers.is_empty() && !self.closed && self.committed >= self.ordered
    }
}
