//! Decisions that start from a node: who may use its room?

use std::cmp::Ordering;

use crate::ids::{Slot, UnitKey};
use crate::lists::{Lane, Place};
use crate::place::HEADS_MAX;
use crate::queue::Queues;
use crate::resources::Resources;
use crate::scheduler::Scheduler;
use crate::work::Look;

/// A unit that could be served next.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Candidate {
    /// Its group has less than it is guaranteed.
    owed: bool,
    pub(crate) lane: Lane,
    place: Place,
    pub(crate) shape: Resources,
    turn: u64,
    pub(crate) key: UnitKey,
}

impl Candidate {
    pub(crate) fn new(
        queues: &Queues,
        lane: Lane,
        place: Place,
        shape: Resources,
        turn: u64,
        key: UnitKey,
    ) -> Self {
        Self { owed: queues.is_owed(lane.group), lane, place, shape, turn, key }
    }

    /// Whether a whole lane goes after this candidate: then nothing in it has to be looked at.
    pub(crate) fn outranks(&self, lane: &Lane, queues: &Queues) -> bool {
        let owed = queues.is_owed(lane.group);
        self.order_of_lane(owed, lane, queues) == Ordering::Less
    }

    /// The order of service, see the crate's head, as far as it does not depend on the unit.
    fn order_of_lane(&self, owed: bool, lane: &Lane, queues: &Queues) -> Ordering {
        (owed.cmp(&self.owed))
            .then_with(|| self.lane.priority.cmp(&lane.priority))
            .then_with(|| queues.compare(self.lane.group, lane.group))
    }

    /// The whole order of service.
    pub(crate) fn goes_before(&self, other: &Self, queues: &Queues) -> bool {
        let order = (self.order_of_lane(other.owed, &other.lane, queues))
            .then_with(|| self.place.cmp(&other.place))
            .then_with(|| self.turn.cmp(&other.turn))
            .then_with(|| self.key.cmp(&other.key));
        order == Ordering::Less
    }
}

impl Scheduler {
    /// Gives a node's room away: first to those it is kept for, then in the order of service.
    pub(crate) fn offer(&mut self, slot: Slot) {
        self.fulfil(slot);
        loop {
            let available = self.nodes.tree.get(slot);
            if available.is_zero() || !self.lists.any_fits(&available) {
                return;
            }
            if self.budget == 0 {
                return self.work.push(Look::Node(slot));
            }
            match self.next_for(slot, &available) {
                Some(key) => self.grant(key, slot),
                None => return,
            }
        }
    }

    fn next_for(&mut self, slot: Slot, available: &Resources) -> Option<UnitKey> {
        let node = self.nodes.get(slot)?;
        let places = [Place::Machine(node.machine), Place::Rack(node.rack), Place::Cluster];
        let mut denied = Vec::new();
        let mut best: Option<Candidate> = None;
        for place in places {
            for (lane, shapes) in self.lists.lanes(place).into_iter().flatten() {
                // Lanes come by priority: behind the best one only what is owed can still be better.
                if let Some(best) = &best
                    && lane.priority > best.lane.priority
                    && (best.owed || !self.queues.has_floors)
                {
                    break;
                }
                if best.as_ref().is_some_and(|best| best.outranks(lane, &self.queues)) {
                    continue;
                }
                let headroom = self.queues.headroom(lane.group);
                for (shape, line) in shapes {
                    if !shape.fits_in(available) {
                        continue;
                    }
                    if !shape.fits_in(&headroom) {
                        denied.extend(self.queues.room_for(lane.group, shape).err());
                        continue;
                    }
                    let mut heads = line.iter().take(HEADS_MAX);
                    let Some((turn, key)) = heads.find(|(_, key)| !self.avoids(key.0, slot)) else {
                        continue;
                    };
                    let candidate = Candidate::new(&self.queues, *lane, place, *shape, *turn, *key);
                    if best.as_ref().is_none_or(|best| candidate.goes_before(best, &self.queues)) {
                        best = Some(candidate);
                    }
                }
            }
        }
        for level in denied {
            self.queues.get_mut(level).denied = true;
        }
        best.map(|best| best.key)
    }
}
