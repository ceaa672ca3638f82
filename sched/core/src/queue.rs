//! The quota tree: what each group uses, what it is guaranteed and what it may not exceed.
//!
//! Sums of children are kept in every ancestor, so a grant costs the depth of the tree and a question one look at each
//! level. In a group: `used` includes `dying` (being stopped), `reserved` is room kept for it and not used yet.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use crate::config::Limits;
use crate::error::EventError;
use crate::event::QueueSpec;
use crate::ids::{Group, Priority, QueueId};
use crate::resources::Resources;

/// Amounts of one group.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    pub(crate) used: Resources,
    pub(crate) dying: Resources,
    pub(crate) reserved: Resources,
}

#[derive(Debug)]
pub(crate) struct Queue {
    pub(crate) id: QueueId,
    pub(crate) spec: QueueSpec,
    /// From the top to this group itself.
    pub(crate) path: Vec<Group>,
    /// Of its own jobs.
    pub(crate) own: Usage,
    /// Of its own jobs and all below it.
    pub(crate) sum: Usage,
    /// The minimum, or the sum of the children's if that is more: what is guaranteed below is guaranteed here.
    pub(crate) floor: Resources,
    /// `spec.max`, or what was used already when that was lowered or a new master heard of it; falls with the usage.
    pub(crate) ceiling: Resources,
    pub(crate) share: u64,
    pub(crate) below_floor: bool,
    /// Something waits for this group's maximum; looked at again when its usage falls.
    pub(crate) denied: bool,
    /// Its own and its children's grants that could be preempted, by priority.
    pub(crate) by_priority: BTreeMap<Priority, usize>,
    /// Only its own; what the sums are made of when the tree changes.
    own_by_priority: BTreeMap<Priority, usize>,
    pub(crate) jobs: usize,
    pub(crate) children: usize,
}

#[derive(Debug, Default)]
pub(crate) struct Queues {
    slots: Vec<Option<Queue>>,
    by_id: BTreeMap<QueueId, Group>,
    /// What all nodes have: shares are of this.
    total: Resources,
    /// Any group has a minimum at all.
    pub(crate) has_floors: bool,
}

impl Queues {
    pub(crate) fn group(&self, id: QueueId) -> Result<Group, EventError> {
        self.by_id.get(&id).copied().ok_or(EventError::UnknownQueue(id))
    }

    pub(crate) fn get(&self, group: Group) -> &Queue {
        self.slots[group.0].as_ref().expect("a group is vacant only when no job, grant or child names it")
    }

    pub(crate) fn get_mut(&mut self, group: Group) -> &mut Queue {
        self.slots[group.0].as_mut().expect("a group is vacant only when no job, grant or child names it")
    }

    pub(crate) fn groups(&self) -> impl Iterator<Item = Group> {
        self.by_id.values().copied()
    }

    pub(crate) fn path(&self, group: Group) -> &[Group] {
        &self.get(group).path
    }

    pub(crate) fn define(
        &mut self,
        id: QueueId,
        spec: QueueSpec,
        limits: &Limits,
    ) -> Result<Group, EventError> {
        self.validate(id, &spec, limits)?;
        if let Some(group) = self.by_id.get(&id).copied() {
            self.get_mut(group).spec = spec;
            self.rebuild();
            return Ok(group);
        }
        if self.by_id.len() >= limits.queues_max {
            return Err(EventError::TooMany { what: "queues", max: limits.queues_max });
        }
        let queue = Queue {
            id,
            spec,
            path: Vec::new(),
            own: Usage::default(),
            sum: Usage::default(),
            floor: Resources::ZERO,
            ceiling: Resources::ZERO,
            share: 0,
            below_floor: false,
            denied: false,
            by_priority: BTreeMap::new(),
            own_by_priority: BTreeMap::new(),
            jobs: 0,
            children: 0,
        };
        let vacant = self.slots.iter().position(Option::is_none).unwrap_or(self.slots.len());
        if vacant == self.slots.len() {
            self.slots.push(None);
        }
        self.slots[vacant] = Some(queue);
        self.by_id.insert(id, Group(vacant));
        self.rebuild();
        Ok(Group(vacant))
    }

    fn validate(&self, id: QueueId, spec: &QueueSpec, limits: &Limits) -> Result<(), EventError> {
        if !spec.min.fits_in(&spec.max) {
            return Err(EventError::QueueBounds(id));
        }
        if !spec.min.is_sane() {
            return Err(EventError::Amount { subject: format!("the minimum of queue {}", spec.name) });
        }
        if spec.weight == 0 {
            return Err(EventError::QueueWeight(id));
        }
        let mut above = 0;
        let mut parent = spec.parent;
        while let Some(at) = parent {
            if at == id {
                return Err(EventError::QueueRing { queue: id, parent: spec.parent.unwrap_or(id) });
            }
            above += 1;
            parent = self.get(self.group(at)?).spec.parent;
        }
        let below = self.by_id.get(&id).map_or(0, |group| self.height_below(*group));
        let level = above + 1 + below;
        if level > limits.depth_max {
            return Err(EventError::QueueDepth { queue: id, level, max: limits.depth_max });
        }
        Ok(())
    }

    /// Levels under `group`.
    fn height_below(&self, group: Group) -> usize {
        let own = self.get(group).path.len();
        let paths = self.groups().map(|other| self.path(other)).filter(|path| path.contains(&group));
        paths.map(|path| path.len() - own).max().unwrap_or(0)
    }

    pub(crate) fn remove(&mut self, id: QueueId) -> Result<(), EventError> {
        let group = self.group(id)?;
        let queue = self.get(group);
        let in_use = queue.own != Usage::default();
        if queue.children > 0 || queue.jobs > 0 || in_use {
            return Err(EventError::QueueInUse {
                queue: id,
                children: queue.children,
                jobs: queue.jobs,
                in_use,
            });
        }
        self.slots[group.0] = None;
        self.by_id.remove(&id);
        self.rebuild();
        Ok(())
    }

    /// Computes paths and sums anew: definitions change rarely, and there are few.
    fn rebuild(&mut self) {
        let groups: Vec<Group> = self.groups().collect();
        for group in &groups {
            let mut path = vec![*group];
            let mut parent = self.get(*group).spec.parent;
            while let Some(at) = parent.and_then(|id| self.by_id.get(&id)).copied() {
                path.push(at);
                parent = self.get(at).spec.parent;
            }
            path.reverse();
            let queue = self.get_mut(*group);
            queue.path = path;
            queue.sum = Usage::default();
            queue.by_priority = queue.own_by_priority.clone();
            queue.children = 0;
            queue.floor = Resources::ZERO;
        }
        let mut deepest_first = groups;
        deepest_first.sort_by_key(|group| std::cmp::Reverse(self.path(*group).len()));
        for group in deepest_first {
            let queue = self.get_mut(group);
            let own = queue.own;
            queue.sum.add(&own);
            queue.floor = queue.floor.each_max(&queue.spec.min);
            queue.ceiling = queue.spec.max.each_max(&queue.sum.used);
            let (sum, floor, counts) = (queue.sum, queue.floor, queue.by_priority.clone());
            let parent = queue.path.len().checked_sub(2).map(|at| queue.path[at]);
            if let Some(parent) = parent {
                let parent = self.get_mut(parent);
                parent.sum.add(&sum);
                for (priority, count) in counts {
                    *parent.by_priority.entry(priority).or_default() += count;
                }
                parent.floor = parent.floor.plus(&floor);
                parent.children += 1;
            }
        }
        self.has_floors = self.slots.iter().flatten().any(|queue| !queue.floor.is_zero());
        self.set_total(self.total);
    }

    pub(crate) fn total(&self) -> Resources {
        self.total
    }

    pub(crate) fn set_total(&mut self, total: Resources) {
        self.total = total;
        for queue in self.slots.iter_mut().flatten() {
            queue.weigh(&total);
        }
    }

    /// Whether the maxima allow `more` beside what is used and kept, or the level nearest to the top that forbids it.
    pub(crate) fn room_for(&self, group: Group, more: &Resources) -> Result<(), Group> {
        let over = |level: &&Group| {
            let queue = self.get(**level);
            !more.fits_in(&queue.spec.max.minus(&queue.sum.used.plus(&queue.sum.reserved)))
        };
        self.path(group).iter().find(over).map_or(Ok(()), |level| Err(*level))
    }

    /// What the maxima still allow the group, over all levels.
    pub(crate) fn headroom(&self, group: Group) -> Resources {
        self.path(group).iter().fold(Resources::UNLIMITED, |room, level| {
            let queue = self.get(*level);
            room.each_min(&queue.spec.max.minus(&queue.sum.used.plus(&queue.sum.reserved)))
        })
    }

    /// Applies `change` to the group and to all above it.
    pub(crate) fn change(&mut self, group: Group, change: impl Fn(&mut Usage)) {
        change(&mut self.get_mut(group).own);
        let total = self.total;
        for at in 0..self.path(group).len() {
            let level = self.path(group)[at];
            let queue = self.get_mut(level);
            change(&mut queue.sum);
            queue.ceiling = queue.spec.max.each_max(&queue.ceiling.each_min(&queue.sum.used));
            queue.weigh(&total);
        }
    }

    /// One more grant of this priority.
    pub(crate) fn count(&mut self, group: Group, priority: Priority) {
        *self.get_mut(group).own_by_priority.entry(priority).or_default() += 1;
        for at in 0..self.path(group).len() {
            let level = self.path(group)[at];
            *self.get_mut(level).by_priority.entry(priority).or_default() += 1;
        }
    }

    /// One less.
    pub(crate) fn uncount(&mut self, group: Group, priority: Priority) {
        one_less(&mut self.get_mut(group).own_by_priority, priority);
        for at in 0..self.path(group).len() {
            let level = self.path(group)[at];
            one_less(&mut self.get_mut(level).by_priority, priority);
        }
    }

    /// Allows what is used now although it is above the maximum: it was granted by a master before this one.
    pub(crate) fn excuse(&mut self, group: Group) {
        for at in 0..self.path(group).len() {
            let level = self.path(group)[at];
            let queue = self.get_mut(level);
            queue.ceiling = queue.spec.max.each_max(&queue.sum.used);
        }
    }

    /// True if the group or one above it has not got what it is guaranteed.
    pub(crate) fn is_owed(&self, group: Group) -> bool {
        self.has_floors && self.path(group).iter().any(|level| self.get(*level).below_floor)
    }

    /// Which of two groups is served first, at equal priority: the one on the side of the tree, just below their
    /// last common ancestor, that has the smaller share. A group's own jobs go before those of its children.
    pub(crate) fn compare(&self, a: Group, b: Group) -> Ordering {
        let (left, right) = (self.path(a), self.path(b));
        for (x, y) in left.iter().zip(right) {
            if x != y {
                return self.get(*x).share.cmp(&self.get(*y).share).then(x.cmp(y));
            }
        }
        left.len().cmp(&right.len())
    }
}

impl Queue {
    fn weigh(&mut self, total: &Resources) {
        self.share = self.sum.used.share_of(total) / u64::from(self.spec.weight);
        self.below_floor = !self.floor.is_zero() && self.sum.used.share_of(&self.floor) < 1_000_000;
    }
}

impl Usage {
    pub(crate) fn add(&mut self, other: &Self) {
        self.used = self.used.plus(&other.used);
        self.dying = self.dying.plus(&other.dying);
        self.reserved = self.reserved.plus(&other.reserved);
    }
}

/// Counts down; a count of zero is not kept.
pub(crate) fn one_less(counts: &mut BTreeMap<Priority, usize>, priority: Priority) {
    if let Some(count) = counts.get_mut(&priority) {
        *count -= 1;
        if *count == 0 {
            counts.remove(&priority);
        }
    }
}
