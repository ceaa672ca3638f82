//! What the job asks of the master: for each unit how many it wants in all, and where.

use std::collections::BTreeMap;

use super::{Job, JobPhase};
use crate::effect::{Effect, Want};
use crate::ids::{NodeName, UnitId};
use crate::nodes::NodeIx;

/// Nodes that are named: the master places by the first ones, and a job of a million instances must not send all its nodes
/// every second.
const PREFERRED_MAX: usize = 32;

/// Workers are asked for so that what waits is probably done in this time, if instances are shorter: starting a worker takes longer than
/// many of them.
const SHORT_WORK_MS: u64 = 1_000;

/// What was said last.
#[derive(Debug)]
pub(super) struct Said {
    total: u64,
    preferred: Vec<NodeIx>,
}

/// When a want is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum When {
    /// If it is more than before: at once, for workers take long to come.
    Raised,
    /// If it is different: with the ticks, for it falls with every instance that ends.
    Any,
}

impl Job {
    pub(super) fn want(&mut self, when: When) {
        if self.adopting.is_some() && self.phase == JobPhase::Open {
            // The master goes on with what it was told; less than that could take workers from what runs.
            return;
        }
        for (unit, total) in self.totals() {
            let preferred = self.preferred(unit);
            let names: Vec<NodeIx> = preferred.iter().map(|(node, _)| *node).collect();
            let (said, places_changed) = match self.wanted.get(&unit) {
                Some(said) => (said.total, said.preferred != names),
                None => (0, !names.is_empty()),
            };
            let closing = self.phase != JobPhase::Open;
            let changed = total > said || (when == When::Any || closing) && (total < said || places_changed);
            if !changed {
                continue;
            }
            self.want_version += 1;
            // Above all versions of former job masters.
            let version = u64::from(self.generation) << 32 | self.want_version;
            self.wanted.insert(unit, Said { total, preferred: names });
            let named: Vec<(NodeName, u64)> =
                preferred.into_iter().map(|(node, n)| (self.nodes.name(node).clone(), n)).collect();
            let want = Want { unit, version, total, preferred: named };
            self.out.effect(Effect::Want(want));
        }
    }

    /// How many workers of each unit the job has use for.
    fn totals(&self) -> BTreeMap<UnitId, u64> {
        let mut totals: BTreeMap<UnitId, u64> =
            self.stages.iter().map(|stage| (stage.spec.unit, 0)).collect();
        if self.phase != JobPhase::Open {
            return totals;
        }
        if self.paused {
            for worker in self.workers.values().filter(|worker| !worker.held.is_empty()) {
                *totals.entry(worker.unit).or_default() += 1;
            }
            return totals;
        }
        for (at, stage) in self.stages.iter().enumerate() {
            if stage.announced || !self.is_ready(at) {
                continue;
            }
            let left = u64::from(stage.waiting() + stage.sleeping + stage.running);
            let backups = u64::from(stage.backups_running) + stage.backups_due.len() as u64;
            let median_ms = stage.durations.median_ms().unwrap_or(SHORT_WORK_MS).clamp(1, SHORT_WORK_MS);
            let useful = (left * median_ms).div_ceil(SHORT_WORK_MS);
            let most = stage.spec.parallel_max.map_or(u64::MAX, u64::from);
            *totals.entry(stage.spec.unit).or_default() += (useful + backups).min(most);
        }
        totals
    }

    /// Grants of each unit beyond what it has use for.
    pub(super) fn spare(&self) -> BTreeMap<UnitId, u64> {
        let totals = self.totals();
        let mut held: BTreeMap<UnitId, u64> = BTreeMap::new();
        for worker in self.workers.values() {
            *held.entry(worker.unit).or_default() += 1;
        }
        held.into_iter()
            .map(|(unit, held)| (unit, held.saturating_sub(totals.get(&unit).copied().unwrap_or(0))))
            .collect()
    }

    /// The nodes that most waiting instances prefer, the most first.
    fn preferred(&self, unit: UnitId) -> Vec<(NodeIx, u64)> {
        let mut counts: BTreeMap<NodeIx, u64> = BTreeMap::new();
        for (at, stage) in self.stages.iter().enumerate() {
            let waits = stage.spec.unit == unit && stage.fresh.ones() > 0 && self.phase == JobPhase::Open;
            if let Some(locality) = stage.locality.as_ref().filter(|_| waits && self.is_ready(at)) {
                for (node, waiting) in locality.waiting().filter(|(_, waiting)| *waiting > 0) {
                    *counts.entry(node).or_default() += waiting;
                }
            }
        }
        let mut counts: Vec<(NodeIx, u64)> = counts.into_iter().collect();
        counts.sort_by_key(|(node, count)| (u64::MAX - count, *node));
        counts.truncate(PREFERRED_MAX);
        counts
    }
}
