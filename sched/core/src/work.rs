//! What is still to be looked at, and what is to be done when: both without duplicates and in a fixed order.

use std::collections::{BTreeSet, VecDeque};

use crate::ids::{GrantId, Group, JobId, Millis, Slot, UnitKey};

/// Something changed here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Look {
    /// A node has more room, or may be used again.
    Node(Slot),
    /// A group may use more.
    Group(Group),
    /// A unit wants more, or is content with more places.
    Unit(UnitKey),
}

/// First in, first out; a thing that waits already is not added again, so it is bounded by what there is.
#[derive(Debug, Default)]
pub(crate) struct Work {
    queue: VecDeque<Look>,
    queued: BTreeSet<Look>,
}

impl Work {
    pub(crate) fn push(&mut self, look: Look) {
        if self.queued.insert(look) {
            self.queue.push_back(look);
        }
    }

    pub(crate) fn pop(&mut self) -> Option<Look> {
        let look = self.queue.pop_front()?;
        self.queued.remove(&look);
        Some(look)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}

/// What a time is for. A timer that is not needed any more is not looked for: when it fires, it is seen to be old.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Timer {
    Recovery,
    Relax(UnitKey),
    Starving(UnitKey),
    Reservation(Slot, u64),
    Blacklist(Slot),
    Avoid(JobId, Slot),
    Backoff(JobId),
    RevokeAgain(GrantId),
    Preempt,
}

#[derive(Debug, Default)]
pub(crate) struct Timers(BTreeSet<(Millis, Timer)>);

impl Timers {
    pub(crate) fn arm(&mut self, at: Millis, timer: Timer) {
        self.0.insert((at, timer));
    }

    pub(crate) fn next(&self) -> Option<Millis> {
        self.0.first().map(|(at, _)| *at)
    }

    pub(crate) fn due(&mut self, now: Millis) -> Option<(Millis, Timer)> {
        if self.next()? > now {
            return None;
        }
        self.0.pop_first()
    }
}
