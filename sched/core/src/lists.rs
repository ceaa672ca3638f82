//! Who waits for what where: one list for each machine and rack that somebody prefers, and one for the cluster.
//!
//! In a list units are grouped by (priority, quota group), then by size. A node that frees room so asks once for each
//! kind of request, never for each request; with 100,000 units waiting there are some hundreds of kinds.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use crate::ids::{Group, MachineId, Priority, RackId, UnitKey};
use crate::resources::Resources;

/// A list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    Machine(MachineId),
    Rack(RackId),
    Cluster,
}

/// Highest priority first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Lane {
    pub(crate) priority: Reverse<Priority>,
    pub(crate) group: Group,
}

pub(crate) type Line = BTreeSet<(u64, UnitKey)>;
pub(crate) type Lanes = BTreeMap<Lane, BTreeMap<Resources, Line>>;

/// One size of request.
#[derive(Debug, Default)]
pub(crate) struct Shape {
    /// Units of this size in any list.
    pub(crate) units: usize,
    /// No node has room for it; forgotten when one gets it.
    pub(crate) exhausted: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Lists {
    places: BTreeMap<Place, Lanes>,
    pub(crate) shapes: BTreeMap<Resources, Shape>,
}

impl Lists {
    pub(crate) fn lanes(&self, place: Place) -> Option<&Lanes> {
        self.places.get(&place)
    }

    pub(crate) fn insert(&mut self, place: Place, lane: Lane, shape: Resources, entry: (u64, UnitKey)) {
        let lanes = self.places.entry(place).or_default();
        lanes.entry(lane).or_default().entry(shape).or_default().insert(entry);
    }

    pub(crate) fn remove(&mut self, place: Place, lane: Lane, shape: &Resources, entry: (u64, UnitKey)) {
        let Some(lanes) = self.places.get_mut(&place) else { return };
        let Some(shapes) = lanes.get_mut(&lane) else { return };
        let Some(line) = shapes.get_mut(shape) else { return };
        line.remove(&entry);
        if line.is_empty() {
            shapes.remove(shape);
            if shapes.is_empty() {
                lanes.remove(&lane);
                if lanes.is_empty() {
                    self.places.remove(&place);
                }
            }
        }
    }

    /// One more unit of this size waits.
    pub(crate) fn count(&mut self, shape: Resources) {
        self.shapes.entry(shape).or_default().units += 1;
    }

    /// One less.
    pub(crate) fn uncount(&mut self, shape: &Resources) {
        if let Some(found) = self.shapes.get_mut(shape) {
            found.units -= 1;
            if found.units == 0 {
                self.shapes.remove(shape);
            }
        }
    }

    /// A node has this room now: sizes that fit are worth a search again.
    pub(crate) fn room_appeared(&mut self, available: &Resources) {
        for (shape, state) in &mut self.shapes {
            if state.exhausted && shape.fits_in(available) {
                state.exhausted = false;
            }
        }
    }

    pub(crate) fn any_fits(&self, available: &Resources) -> bool {
        self.shapes.keys().any(|shape| shape.fits_in(available))
    }

    /// Every entry, for checks.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (Place, Lane, &Resources, u64, UnitKey)> {
        self.places.iter().flat_map(|(place, lanes)| {
            lanes.iter().flat_map(move |(lane, shapes)| {
                shapes.iter().flat_map(move |(shape, line)| {
                    line.iter().map(move |(turn, key)| (*place, *lane, shape, *turn, *key))
                })
            })
        })
    }
}
