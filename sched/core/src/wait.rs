//! How a unit waits: into the lists, up the locality tree when time passes, and out when it has what it wants.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use crate::event::Preferences;
use crate::ids::{JobId, Millis, Slot, UnitKey};
use crate::job::{Listed, Unit};
use crate::lists::{Lane, Place};
use crate::scheduler::Scheduler;
use crate::work::{Look, Timer};

impl Listed {
    pub(crate) fn lane(&self) -> Lane {
        Lane { priority: Reverse(self.priority), group: self.group }
    }
}

impl Scheduler {
    /// Puts a waiting unit into the lists of all places where it would take room.
    pub(crate) fn enlist(&mut self, key: UnitKey) {
        let order = self.next_count();
        let (Some(unit), Some(job)) = (self.units.get_mut(&key), self.jobs.get_mut(&key.0)) else { return };
        if unit.listed.is_some() || unit.waiting == 0 || job.backoff_until.is_some() {
            return;
        }
        job.listed.insert(key.1);
        let listed = Listed {
            group: job.group,
            priority: unit.priority,
            resources: unit.resources,
            turn: job.turn,
            order,
        };
        unit.listed = Some(listed);
        self.lists.count(listed.resources);
        for machine in unit.machines.keys() {
            self.lists.insert(Place::Machine(*machine), listed.lane(), listed.resources, (order, key));
        }
        for rack in unit.racks.keys() {
            self.lists.insert(Place::Rack(*rack), listed.lane(), listed.resources, (order, key));
        }
        if unit.loose > 0 {
            self.lists.insert(Place::Cluster, listed.lane(), listed.resources, (listed.turn, key));
        }
        if !unit.watched {
            unit.watched = true;
            self.timers.arm(unit.since.after(self.config.reserve_after_ms), Timer::Starving(key));
        }
        let wait = match (unit.machines.is_empty(), unit.racks.is_empty()) {
            (false, _) => self.config.relax_machine_ms,
            (true, false) => self.config.relax_rack_ms,
            (true, true) => {
                unit.relax_at = None;
                return;
            }
        };
        let at = *unit.relax_at.get_or_insert_with(|| self.now.after(wait));
        self.timers.arm(at, Timer::Relax(key));
    }

    /// Takes a unit out of all lists.
    pub(crate) fn delist(&mut self, key: UnitKey) {
        let Some(unit) = self.units.get_mut(&key) else { return };
        let Some(listed) = unit.listed.take() else { return };
        for machine in unit.machines.keys() {
            let entry = (listed.order, key);
            self.lists.remove(Place::Machine(*machine), listed.lane(), &listed.resources, entry);
        }
        for rack in unit.racks.keys() {
            let entry = (listed.order, key);
            self.lists.remove(Place::Rack(*rack), listed.lane(), &listed.resources, entry);
        }
        if unit.loose > 0 {
            self.lists.remove(Place::Cluster, listed.lane(), &listed.resources, (listed.turn, key));
        }
        self.lists.uncount(&listed.resources);
        if let Some(job) = self.jobs.get_mut(&key.0) {
            job.listed.remove(&key.1);
        }
    }

    /// The unit got one on `slot`: it waits for one less, for the nearest place first.
    pub(crate) fn take_one(&mut self, key: UnitKey, slot: Slot) {
        let Some(node) = self.nodes.get(slot) else { return };
        let (machine, rack) = (node.machine, node.rack);
        let Some(unit) = self.units.get_mut(&key) else { return };
        unit.held += 1;
        unit.since = self.now;
        if unit.waiting == 0 {
            return;
        }
        unit.waiting -= 1;
        // A relaxed unit may get one elsewhere than it still prefers others; then any of those is done.
        let emptied = if unit.machines.contains_key(&machine) {
            down(&mut unit.machines, machine).then_some(Place::Machine(machine))
        } else if unit.racks.contains_key(&rack) {
            down(&mut unit.racks, rack).then_some(Place::Rack(rack))
        } else if unit.loose > 0 {
            unit.loose -= 1;
            (unit.loose == 0).then_some(Place::Cluster)
        } else if let Some(other) = unit.machines.keys().next().copied() {
            down(&mut unit.machines, other).then_some(Place::Machine(other))
        } else if let Some(other) = unit.racks.keys().next().copied() {
            down(&mut unit.racks, other).then_some(Place::Rack(other))
        } else {
            None
        };
        let Some(listed) = unit.listed else { return };
        if let Some(place) = emptied {
            let turn = if place == Place::Cluster { listed.turn } else { listed.order };
            self.lists.remove(place, listed.lane(), &listed.resources, (turn, key));
        }
        if unit.waiting == 0 {
            self.delist(key);
        }
    }

    /// A grant of the unit is gone: it waits for one more, anywhere, if it still wants that many.
    pub(crate) fn wants_back(&mut self, key: UnitKey) {
        let Some(unit) = self.units.get_mut(&key) else { return };
        unit.held = unit.held.saturating_sub(1);
        if unit.total.saturating_sub(unit.held) <= unit.waiting {
            return;
        }
        if unit.waiting == 0 {
            unit.since = self.now;
        }
        unit.waiting += 1;
        unit.loose += 1;
        match unit.listed {
            Some(listed) if unit.loose == 1 => {
                self.lists.insert(Place::Cluster, listed.lane(), listed.resources, (listed.turn, key));
            }
            Some(_) => {}
            None => self.enlist(key),
        }
        self.work.push(Look::Unit(key));
    }

    /// The job was served: all its units go to the end of their lines in the cluster's list.
    pub(crate) fn served(&mut self, job_id: JobId) {
        let turn = self.next_count();
        let Some(job) = self.jobs.get_mut(&job_id) else { return };
        job.turn = turn;
        for unit_id in &job.listed {
            let key = (job_id, *unit_id);
            let Some(unit) = self.units.get_mut(&key) else { continue };
            let Some(listed) = &mut unit.listed else { continue };
            let before = std::mem::replace(&mut listed.turn, turn);
            if unit.loose > 0 {
                let lane = listed.lane();
                self.lists.remove(Place::Cluster, lane, &listed.resources, (before, key));
                self.lists.insert(Place::Cluster, lane, listed.resources, (turn, key));
            }
        }
    }

    /// A unit has waited long enough for the places it prefers: it is content with more.
    pub(crate) fn relax(&mut self, key: UnitKey, at: Millis) {
        if self.units.get(&key).is_none_or(|unit| unit.relax_at != Some(at)) {
            return;
        }
        self.delist(key);
        let Some(unit) = self.units.get_mut(&key) else { return };
        unit.relax_at = None;
        if unit.machines.is_empty() {
            unit.racks.clear();
            unit.loose = unit.waiting;
        } else {
            for (machine, count) in std::mem::take(&mut unit.machines) {
                match self.nodes.rack_of(machine) {
                    Some(rack) => *unit.racks.entry(rack).or_default() += count,
                    None => unit.loose += count,
                }
            }
        }
        self.enlist(key);
        self.work.push(Look::Unit(key));
    }

    /// Divides what a unit waits for among the places it prefers. A machine or rack without nodes has nothing to
    /// wait for.
    pub(crate) fn spread(&mut self, key: UnitKey, prefer: &Preferences) {
        let Some(unit) = self.units.get_mut(&key) else { return };
        let mut rest = unit.waiting;
        unit.machines.clear();
        unit.racks.clear();
        unit.relax_at = None;
        for (machine, count) in &prefer.machines {
            let count = rest.min(*count);
            if count > 0 && self.nodes.machines.contains_key(machine) {
                unit.machines.insert(*machine, count);
                rest -= count;
            }
        }
        for (rack, count) in &prefer.racks {
            let count = rest.min(*count);
            if count > 0 && self.nodes.racks.contains_key(rack) {
                unit.racks.insert(*rack, count);
                rest -= count;
            }
        }
        unit.loose = rest;
    }

    /// True if the job does not want to be on this node.
    pub(crate) fn avoids(&self, job: JobId, slot: Slot) -> bool {
        self.jobs.get(&job).is_some_and(|job| job.avoid.get(&slot).is_some_and(|until| *until > self.now))
    }
}

impl Unit {
    /// What it waits for, recomputed from its parts; for checks.
    pub(crate) fn parts(&self) -> u64 {
        let preferred = self.machines.values().chain(self.racks.values()).map(|count| u64::from(*count));
        preferred.sum::<u64>() + u64::from(self.loose)
    }
}

/// One less at `place`; true if that was the last.
fn down<K: Ord>(counts: &mut BTreeMap<K, u32>, place: K) -> bool {
    let Some(count) = counts.get_mut(&place) else { return false };
    *count -= 1;
    if *count > 0 {
        return false;
    }
    counts.remove(&place);
    true
}
