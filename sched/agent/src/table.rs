//! What is on this machine, and what is to be done when orders come. Pure: time comes in, as milliseconds of a clock that only grows.
//!
//! | now | ordered | no longer ordered | time | it ended |
//! | --- | --- | --- | --- | --- |
//! | – | start → running | | | |
//! | running | | terminate → stopping | | → ended |
//! | stopping | | | kill, when the grace is over, and again each grace | → ended |
//! | ended | told again | | | |
//! | ended, acknowledged | told again → ended | | forgotten, when [`REMEMBERED`] are newer | |
//!
//! A master that has just begun to lead (`recovering`) starts things and stops none.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::order::{Grant, Order};

/// Ended grants that are remembered after their end was acknowledged, lest a master that was replaced meanwhile has them started again.
pub const REMEMBERED: usize = 256;

/// A process that cannot be mistaken for another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    pub pid: i32,
    /// When it was started, in the kernel's ticks since it booted.
    pub start_ticks: u64,
}

/// How a grant's program ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// Exit code, or 128 + signal.
    pub code: i32,
    /// For people.
    pub how: String,
    pub out_of_memory: bool,
}

/// Where a grant stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Its process is being started, or runs.
    Running(Option<Process>),
    /// It was told to stop, and is killed at this time.
    Stopping {
        process: Option<Process>,
        kill_at_ms: u64,
    },
    Ended {
        end: End,
        acknowledged: bool,
    },
}

/// One grant here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub order: Order,
    /// Milliseconds since 1970, for people.
    pub started_unix_ms: u64,
    pub phase: Phase,
}

/// What is to be done, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    Start(Order),
    /// Tell it to stop.
    Terminate(Grant),
    /// All of it.
    Kill(Grant),
    /// The end was told (or is to be told again): write that down.
    Note(Grant),
    /// Remove what is left of it.
    Forget(Grant),
}

/// What the master said.
#[derive(Clone, Debug, Default)]
pub struct Orders {
    pub version: u64,
    pub orders: Vec<Order>,
    /// Grants that are ordered and that this agent cannot carry out: they are not to be stopped for it.
    pub not_understood: BTreeSet<Grant>,
    pub acknowledged: Vec<Grant>,
    pub recovering: bool,
}

/// See the module.
#[derive(Debug)]
pub struct Table {
    entries: BTreeMap<Grant, Entry>,
    seen_version: u64,
    grace_ms: u64,
}

impl Table {
    /// What is told to stop may take `grace_ms` for it.
    #[must_use]
    pub fn new(grace_ms: u64) -> Self {
        Self { entries: BTreeMap::new(), seen_version: 0, grace_ms }
    }

    /// Of the orders that were carried out last; 0 at the start.
    #[must_use]
    pub fn seen_version(&self) -> u64 {
        self.seen_version
    }

    /// All grants here, those that ended included.
    pub fn entries(&self) -> impl Iterator<Item = (Grant, &Entry)> + '_ {
        self.entries.iter().map(|(grant, entry)| (*grant, entry))
    }

    #[must_use]
    pub fn get(&self, grant: Grant) -> Option<&Entry> {
        self.entries.get(&grant)
    }

    /// Whether anything waits to be killed.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.entries.values().any(|entry| matches!(entry.phase, Phase::Stopping { .. }))
    }

    /// Whether anything runs, or is being stopped.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.entries.values().any(|entry| !matches!(entry.phase, Phase::Ended { .. }))
    }

    /// A grant as an earlier agent left it.
    pub fn restore(&mut self, entry: Entry) {
        self.entries.insert(entry.order.grant, entry);
    }

    /// Takes orders in. What is to be started counts as running from now on.
    pub fn apply(&mut self, orders: Orders, now_ms: u64, unix_ms: u64) -> Vec<Action> {
        let mut actions = Vec::new();
        for grant in &orders.acknowledged {
            if let Some(Entry { phase: Phase::Ended { acknowledged, .. }, .. }) = self.entries.get_mut(grant)
                && !*acknowledged
            {
                *acknowledged = true;
                actions.push(Action::Note(*grant));
            }
        }
        let mut wanted = orders.not_understood;
        wanted.extend(orders.orders.iter().map(|order| order.grant));
        if !orders.recovering {
            let unwanted = self.entries.keys().filter(|grant| !wanted.contains(grant));
            for grant in unwanted.copied().collect::<Vec<_>>() {
                actions.extend(self.stop(grant, now_ms));
            }
        }
        for order in orders.orders {
            match self.entries.get_mut(&order.grant) {
                None => {
                    let phase = Phase::Running(None);
                    let entry = Entry { order: order.clone(), started_unix_ms: unix_ms, phase };
                    self.entries.insert(order.grant, entry);
                    actions.push(Action::Start(order));
                }
                // The master that noted this end is not the one that orders now.
                Some(Entry { phase: Phase::Ended { acknowledged, .. }, .. })
                    if *acknowledged && !orders.acknowledged.contains(&order.grant) =>
                {
                    *acknowledged = false;
                    actions.push(Action::Note(order.grant));
                }
                Some(_) => {}
            }
        }
        self.seen_version = orders.version;
        actions.extend(self.forget());
        actions
    }

    /// Stops everything.
    pub fn stop_all(&mut self, now_ms: u64) -> Vec<Action> {
        let all: Vec<Grant> = self.entries.keys().copied().collect();
        all.into_iter().filter_map(|grant| self.stop(grant, now_ms)).collect()
    }

    fn stop(&mut self, grant: Grant, now_ms: u64) -> Option<Action> {
        let entry = self.entries.get_mut(&grant)?;
        let Phase::Running(process) = entry.phase else { return None };
        entry.phase = Phase::Stopping { process, kill_at_ms: now_ms.saturating_add(self.grace_ms) };
        Some(Action::Terminate(grant))
    }

    fn forget(&mut self) -> Vec<Action> {
        let is_over =
            |entry: &Entry| matches!(entry.phase, Phase::Ended { acknowledged, .. } if acknowledged);
        let mut over: Vec<(u64, Grant)> = self
            .entries
            .iter()
            .filter(|(_, entry)| is_over(entry))
            .map(|(grant, entry)| (entry.started_unix_ms, *grant))
            .collect();
        over.sort_unstable();
        let surplus = over.len().saturating_sub(REMEMBERED);
        let oldest = over.into_iter().take(surplus).map(|(_, grant)| grant);
        oldest
            .inspect(|grant| {
                self.entries.remove(grant);
            })
            .map(Action::Forget)
            .collect()
    }

    /// The grant's process has been started.
    pub fn started(&mut self, grant: Grant, process: Process) {
        if let Some(entry) = self.entries.get_mut(&grant) {
            match &mut entry.phase {
                Phase::Running(slot) | Phase::Stopping { process: slot, .. } => *slot = Some(process),
                Phase::Ended { .. } => {}
            }
        }
    }

    /// Nothing of the grant runs any more, or it could not be started.
    pub fn ended(&mut self, grant: Grant, end: End) {
        if let Some(entry) = self.entries.get_mut(&grant)
            && !matches!(entry.phase, Phase::Ended { .. })
        {
            entry.phase = Phase::Ended { end, acknowledged: false };
        }
    }

    /// What has had time enough to stop.
    pub fn tick(&mut self, now_ms: u64) -> Vec<Action> {
        let grace_ms = self.grace_ms.max(1);
        let mut actions = Vec::new();
        for (grant, entry) in &mut self.entries {
            if let Phase::Stopping { kill_at_ms, .. } = &mut entry.phase
                && *kill_at_ms <= now_ms
            {
                *kill_at_ms = now_ms.saturating_add(grace_ms);
                actions.push(Action::Kill(*grant));
            }
        }
        actions
    }
}

#[cfg(test)]
#[path = "table/tests.rs"]
mod tests;
