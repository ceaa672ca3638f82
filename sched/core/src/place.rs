//! Decisions that start from a request: where is room for it?

use crate::ids::{Group, Slot, UnitKey};
use crate::job::Unit;
use crate::lists::Place;
use crate::offer::Candidate;
use crate::resources::Resources;
use crate::scheduler::Scheduler;
use crate::work::{Look, Timer};

/// Units at the head of one line that are tried before the line is passed over: those that avoid a node or wait for
/// their turn elsewhere must not make a decision as long as the line.
pub(crate) const HEADS_MAX: usize = 32;

/// What came of looking for places.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Placed {
    /// Nothing waits any more, or only for places it prefers.
    Enough,
    /// A maximum forbids more.
    Denied,
    /// There is no room.
    NoRoom,
    /// This event has decided enough.
    Later,
}

impl Scheduler {
    /// Works off what is to be looked at, as far as one event may go.
    pub(crate) fn decide(&mut self) {
        if self.recovering.is_some() {
            return;
        }
        while self.budget > 0 {
            let Some(look) = self.work.pop() else { return };
            self.budget -= 1;
            match look {
                Look::Node(slot) => self.offer(slot),
                Look::Group(group) => self.refill(group),
                Look::Unit(key) => self.place(key),
            }
        }
    }

    /// Grants a unit as many as there is room for; then, if it may, makes room.
    pub(crate) fn place(&mut self, key: UnitKey) {
        match self.place_near(key) {
            Placed::Enough => {}
            Placed::Later => self.work.push(Look::Unit(key)),
            Placed::Denied | Placed::NoRoom => {
                self.preempt(key);
                if !self.preempt_armed {
                    self.preempt_armed = true;
                    self.timers.arm(self.now.after(self.config.preempt_retry_ms), Timer::Preempt);
                }
            }
        }
    }

    /// Machines it prefers, then racks, then anywhere.
    fn place_near(&mut self, key: UnitKey) -> Placed {
        let Some(unit) = self.listed(key) else { return Placed::Enough };
        let (machines, racks): (Vec<_>, Vec<_>) =
            (unit.machines.keys().copied().collect(), unit.racks.keys().copied().collect());
        for machine in machines {
            let slots: Vec<Slot> = self.nodes.machines.get(&machine).into_iter().flatten().copied().collect();
            let wanted = |unit: &Unit| unit.machines.contains_key(&machine);
            if let Err(placed) = self.place_among(key, &slots, wanted) {
                return placed;
            }
        }
        for rack in racks {
            let slots: Vec<Slot> = self.nodes.racks.get(&rack).into_iter().flatten().copied().collect();
            let wanted = |unit: &Unit| unit.racks.contains_key(&rack);
            if let Err(placed) = self.place_among(key, &slots, wanted) {
                return placed;
            }
        }
        self.place_anywhere(key)
    }

    fn place_among(
        &mut self,
        key: UnitKey,
        slots: &[Slot],
        wanted: impl Fn(&Unit) -> bool,
    ) -> Result<(), Placed> {
        for slot in slots {
            while let Some(unit) = self.listed(key).filter(|unit| wanted(unit)) {
                let resources = unit.resources;
                if !resources.fits_in(&self.nodes.tree.get(*slot)) || self.avoids(key.0, *slot) {
                    break;
                }
                self.may_grant(key, &resources)?;
                self.grant(key, *slot);
            }
        }
        Ok(())
    }

    fn place_anywhere(&mut self, key: UnitKey) -> Placed {
        loop {
            let Some(unit) = self.listed(key).filter(|unit| unit.loose > 0) else { return Placed::Enough };
            let (resources, priority) = (unit.resources, unit.priority);
            if let Err(placed) = self.may_grant(key, &resources) {
                return placed;
            }
            match self.find_node(key, &resources) {
                Some(slot) => {
                    self.nodes.cursor = Slot(slot.0 + 1);
                    self.grant(key, slot);
                }
                // Room that is kept for something less important is no obstacle.
                None if self.drop_starved_below(priority, &resources) => {}
                None => return Placed::NoRoom,
            }
        }
    }

    /// Any node with room that the job does not avoid. That there is none is remembered for the size, so that the
    /// next thousand requests of that size do not search.
    fn find_node(&mut self, key: UnitKey, resources: &Resources) -> Option<Slot> {
        if self.lists.shapes.get(resources).is_some_and(|shape| shape.exhausted) {
            return None;
        }
        let mut avoided = false;
        let found = self.nodes.tree.find(self.nodes.cursor, resources, &mut |slot| {
            let avoids = self.avoids(key.0, slot);
            avoided |= avoids;
            !avoids
        });
        if found.is_none()
            && !avoided
            && let Some(shape) = self.lists.shapes.get_mut(resources)
        {
            shape.exhausted = true;
        }
        found
    }

    fn may_grant(&mut self, key: UnitKey, resources: &Resources) -> Result<(), Placed> {
        if self.budget == 0 {
            return Err(Placed::Later);
        }
        let Some(job) = self.jobs.get(&key.0) else { return Err(Placed::Enough) };
        self.queues.room_for(job.group, resources).map_err(|level| {
            self.queues.get_mut(level).denied = true;
            Placed::Denied
        })
    }

    fn listed(&self, key: UnitKey) -> Option<&Unit> {
        self.units.get(&key).filter(|unit| unit.listed.is_some())
    }

    /// A group's usage fell: what waited for its maximum is served in order, on any node.
    fn refill(&mut self, group: Group) {
        self.fulfil_group(group);
        let mut passed_over: Vec<(crate::lists::Lane, Resources)> = Vec::new();
        loop {
            if self.budget == 0 {
                return self.work.push(Look::Group(group));
            }
            let sizes = self.lists.shapes.iter().filter(|(_, shape)| !shape.exhausted);
            let open: Vec<Resources> = sizes.map(|(size, _)| *size).collect();
            if open.is_empty() {
                // Nothing that waits fits anywhere; whoever frees room looks for them.
                return;
            }
            let mut denied = Vec::new();
            let mut best: Option<Candidate> = None;
            for (lane, shapes) in self.lists.lanes(Place::Cluster).into_iter().flatten() {
                if !self.queues.path(lane.group).contains(&group) {
                    continue;
                }
                if best.as_ref().is_some_and(|best| best.outranks(lane, &self.queues)) {
                    continue;
                }
                let headroom = self.queues.headroom(lane.group);
                for shape in &open {
                    let Some(line) = shapes.get(shape) else { continue };
                    if passed_over.contains(&(*lane, *shape)) {
                        continue;
                    }
                    if !shape.fits_in(&headroom) {
                        denied.extend(self.queues.room_for(lane.group, shape).err());
                        continue;
                    }
                    let Some((turn, key)) = line.first() else { continue };
                    let candidate = Candidate::new(&self.queues, *lane, Place::Cluster, *shape, *turn, *key);
                    if best.as_ref().is_none_or(|best| candidate.goes_before(best, &self.queues)) {
                        best = Some(candidate);
                    }
                }
            }
            for level in denied {
                self.queues.get_mut(level).denied = true;
            }
            let Some(best) = best else { return };
            match self.find_node(best.key, &best.shape) {
                Some(slot) => {
                    self.nodes.cursor = Slot(slot.0 + 1);
                    self.grant(best.key, slot);
                }
                None if self.lists.shapes.get(&best.shape).is_some_and(|shape| shape.exhausted) => {}
                None => {
                    // The head only avoids what there is; the others of its line are looked at on their own.
                    let line = self
                        .lists
                        .lanes(Place::Cluster)
                        .and_then(|lanes| lanes.get(&best.lane)?.get(&best.shape));
                    let heads: Vec<UnitKey> =
                        line.into_iter().flatten().take(HEADS_MAX).map(|(_, key)| *key).collect();
                    for key in heads {
                        self.work.push(Look::Unit(key));
                    }
                    passed_over.push((best.lane, best.shape));
                }
            }
        }
    }
}
