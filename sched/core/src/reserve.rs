//! Room that is kept: for a unit that others were stopped for, and for one that waited too long behind smaller ones.
//!
//! Without the first, whoever comes by would take what was freed at others' cost. Without the second, small units
//! would fill every gap, and a large one would never find a node empty enough. Each has an end, so a job that does
//! not use its room blocks it for a while only.

use crate::ids::{Group, Priority, Slot, UnitKey};
use crate::lists::Place;
use crate::node::{Reservation, ReservationKind};
use crate::resources::Resources;
use crate::scheduler::Scheduler;
use crate::work::{Look, Timer};

/// At most one node in so many is kept for the starving: they are served one after another, not all at once.
const STARVED_SHARE: usize = 10;
/// What a scan over nodes counts as, in decisions.
pub(crate) const SCAN_COST: usize = 16;

impl Scheduler {
    pub(crate) fn reserve(&mut self, key: UnitKey, slot: Slot, kind: ReservationKind) {
        let id = self.next_count();
        let hold_ms = match kind {
            ReservationKind::Preempted => self.config.preempt_hold_ms,
            ReservationKind::Starved => self.config.reserve_hold_ms,
        };
        let until = self.now.after(hold_ms);
        let Some(group) = self.jobs.get(&key.0).map(|job| job.group) else { return };
        let (Some(unit), Some(node)) = (self.units.get_mut(&key), self.nodes.get_mut(slot)) else { return };
        let resources = unit.resources;
        unit.reservations.push((slot, id));
        node.reservations.push(Reservation { id, key, priority: unit.priority, resources, until, kind });
        self.queues.change(group, |usage| usage.reserved = usage.reserved.plus(&resources));
        self.kept.insert((slot, id));
        if kind == ReservationKind::Starved {
            self.starved.insert((slot, id));
        }
        self.timers.arm(until, Timer::Reservation(slot, id));
        self.refresh(slot);
        self.work.push(Look::Node(slot));
    }

    /// Gives up a reservation, if it is still there, and offers its room to others.
    pub(crate) fn drop_reservation(&mut self, slot: Slot, id: u64) {
        let Some(node) = self.nodes.get_mut(slot) else { return };
        let Some(at) = node.reservations.iter().position(|kept| kept.id == id) else { return };
        let kept = node.reservations.remove(at);
        if let Some(unit) = self.units.get_mut(&kept.key) {
            unit.reservations.retain(|own| *own != (slot, id));
        }
        if let Some(group) = self.jobs.get(&kept.key.0).map(|job| job.group) {
            self.queues.change(group, |usage| usage.reserved = usage.reserved.minus(&kept.resources));
            self.quota_freed(group);
        }
        self.kept.remove(&(slot, id));
        self.starved.remove(&(slot, id));
        self.refresh(slot);
        self.work.push(Look::Node(slot));
    }

    /// All of a unit.
    pub(crate) fn drop_reservations(&mut self, key: UnitKey) {
        let kept = self.units.get(&key).map(|unit| unit.reservations.clone());
        for (slot, id) in kept.into_iter().flatten() {
            self.drop_reservation(slot, id);
        }
    }

    /// Those beyond what the unit still waits for; first those that cost nobody anything.
    pub(crate) fn trim_reservations(&mut self, key: UnitKey) {
        while let Some(unit) = self.units.get(&key) {
            if unit.reservations.len() <= unit.waiting as usize {
                return;
            }
            let cheap = unit.reservations.iter().find(|kept| self.starved.contains(kept));
            let Some((slot, id)) = cheap.or_else(|| unit.reservations.last()).copied() else { return };
            self.drop_reservation(slot, id);
        }
    }

    /// Grants what is kept on this node and has become free.
    pub(crate) fn fulfil(&mut self, slot: Slot) {
        let Some(node) = self.nodes.get(slot).filter(|node| node.is_usable()) else { return };
        for kept in node.reservations.clone() {
            let Some(node) = self.nodes.get(slot) else { return };
            if !kept.resources.fits_in(&node.free()) {
                continue;
            }
            let Some(group) = self.jobs.get(&kept.key.0).map(|job| job.group) else { continue };
            // What is kept counts as used for everybody else, but not for itself.
            let denied = self.queues.path(group).iter().copied().find(|level| {
                let queue = self.queues.get(*level);
                !queue.sum.used.plus(&kept.resources).fits_in(&queue.spec.max)
            });
            if let Some(level) = denied {
                self.queues.get_mut(level).denied = true;
                continue;
            }
            self.drop_reservation(slot, kept.id);
            self.grant(kept.key, slot);
        }
    }

    /// The same for all that is kept for a group, whose usage fell.
    pub(crate) fn fulfil_group(&mut self, group: Group) {
        if self.queues.get(group).sum.reserved.is_zero() {
            return;
        }
        let slots: Vec<Slot> = self.kept.iter().map(|(slot, _)| *slot).collect();
        for slot in slots {
            let Some(node) = self.nodes.get(slot) else { continue };
            let mine = node.reservations.iter().any(|kept| {
                let job = self.jobs.get(&kept.key.0);
                job.is_some_and(|job| self.queues.path(job.group).contains(&group))
            });
            if mine {
                self.fulfil(slot);
            }
        }
    }

    /// A unit has waited for long: a node is kept for it, if it is only behind others of its own importance.
    pub(crate) fn starving(&mut self, key: UnitKey) {
        let Some(unit) = self.units.get_mut(&key) else { return };
        unit.watched = false;
        if unit.listed.is_none() {
            return;
        }
        let due = unit.since.after(self.config.reserve_after_ms);
        unit.watched = true;
        if due > self.now {
            self.timers.arm(due, Timer::Starving(key));
            return;
        }
        let (resources, priority) = (unit.resources, unit.priority);
        let may = unit.loose > 0 && unit.reservations.is_empty();
        let again = self.now.after(self.config.reserve_after_ms.max(1));
        self.timers.arm(again, Timer::Starving(key));
        let poor = self.budget < SCAN_COST.min(self.config.decisions_max);
        if !may || poor || self.recovering.is_some() {
            return;
        }
        let first = self.lists.lanes(Place::Cluster).and_then(|lanes| lanes.keys().next());
        let is_first = first.is_some_and(|lane| lane.priority.0 <= priority);
        let group = self.jobs.get(&key.0).map(|job| job.group);
        let has_quota = group.is_some_and(|group| self.queues.room_for(group, &resources).is_ok());
        if !is_first || !has_quota || !self.has_place_for_starving(&resources) {
            return;
        }
        self.budget = self.budget.saturating_sub(SCAN_COST);
        if let Some(slot) = self.emptiest(key, &resources) {
            self.reserve(key, slot, ReservationKind::Starved);
        }
    }

    /// Where many wait for long, the largest are helped first: a smaller one gives up its place, because it has the
    /// better chances without.
    fn has_place_for_starving(&mut self, resources: &Resources) -> bool {
        let starved_max = (self.nodes.len() / STARVED_SHARE).max(1);
        if self.kept.len() < self.config.reservations_max && self.starved.len() < starved_max {
            return true;
        }
        // The search below is as dear as a decision, and timers of many units can fire at once.
        self.budget = self.budget.saturating_sub(SCAN_COST / 4);
        let smaller = self.starved.iter().copied().find(|(slot, id)| {
            let kept =
                self.nodes.get(*slot).and_then(|node| node.reservations.iter().find(|kept| kept.id == *id));
            kept.is_some_and(|kept| kept.resources != *resources && kept.resources.fits_in(resources))
        });
        let Some((slot, id)) = smaller else { return false };
        self.drop_reservation(slot, id);
        true
    }

    /// Among the nodes of one scan, the one where the least is missing.
    fn emptiest(&mut self, key: UnitKey, resources: &Resources) -> Option<Slot> {
        let mut best: Option<(u64, Slot)> = None;
        for slot in self.scan() {
            let Some(node) = self.nodes.get(slot).filter(|node| node.is_usable()) else { continue };
            let fits = resources.fits_in(&node.capacity) && node.reservations.is_empty();
            if !fits || self.avoids(key.0, slot) {
                continue;
            }
            let missing = resources.minus(&node.coming()).share_of(&node.capacity);
            if best.is_none_or(|(least, _)| missing < least) {
                best = Some((missing, slot));
            }
        }
        best.map(|(_, slot)| slot)
    }

    /// The next nodes to be looked through, and moves on behind them.
    pub(crate) fn scan(&mut self) -> Vec<Slot> {
        let len = self.nodes.slots_len();
        let count = len.min(self.config.scan_nodes_max);
        let start = self.nodes.scan;
        self.nodes.scan = (start + count).checked_rem(len).unwrap_or(0);
        (0..count).map(|at| Slot((start + at) % len)).collect()
    }

    /// Gives up what is kept for less important starving units where `resources` would then fit. True if any was.
    pub(crate) fn drop_starved_below(&mut self, priority: Priority, resources: &Resources) -> bool {
        let lower = |slot: Slot, id: u64| {
            let node = self.nodes.get(slot)?;
            let kept = node.reservations.iter().find(|kept| kept.id == id)?;
            let fits = node.is_usable() && resources.fits_in(&node.free());
            (fits && kept.priority < priority).then_some((slot, id))
        };
        let dropped: Vec<_> = self.starved.iter().filter_map(|(slot, id)| lower(*slot, *id)).collect();
        for (slot, id) in &dropped {
            self.drop_reservation(*slot, *id);
        }
        !dropped.is_empty()
    }
}
