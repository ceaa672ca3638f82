//! For each node, the instances of one stage that prefer it and may still be waiting.

use std::collections::BTreeMap;

use crate::bits::Bits;
use crate::nodes::{NodeIx, Nodes};
use crate::plan::Preferences;

#[derive(Debug)]
pub(crate) struct Locality {
    /// Of the positions in the preferences' own table, the job's.
    nodes: Vec<NodeIx>,
    preferences: Preferences,
    lists: BTreeMap<NodeIx, List>,
}

/// Instances are only ever taken from the front: one that was taken otherwise is skipped, and one that comes back waits among
/// those with a history, where [`Locality::prefers`] is asked.
#[derive(Debug, Default)]
struct List {
    instances: Vec<u32>,
    taken: usize,
}

impl Locality {
    pub(crate) fn new(preferences: Preferences, nodes: &mut Nodes) -> Locality {
        let known: Vec<NodeIx> = preferences.nodes().iter().map(|name| nodes.intern(name)).collect();
        let mut lists: BTreeMap<NodeIx, List> = BTreeMap::new();
        for instance in 0..preferences.len() as u32 {
            for entry in preferences.of(instance) {
                lists.entry(known[*entry as usize]).or_default().instances.push(instance);
            }
        }
        Locality { nodes: known, preferences, lists }
    }

    pub(crate) fn prefers(&self, instance: u32, node: NodeIx) -> bool {
        self.preferences.of(instance).iter().any(|entry| self.nodes[*entry as usize] == node)
    }

    /// The first of `fresh` that prefers the node. Each entry is passed once, whatever the number of calls.
    pub(crate) fn first(&mut self, node: NodeIx, fresh: &Bits) -> Option<u32> {
        let list = self.lists.get_mut(&node)?;
        while let Some(instance) = list.instances.get(list.taken) {
            if fresh.contains(*instance) {
                return Some(*instance);
            }
            list.taken += 1;
        }
        None
    }

    /// How many may still wait for each node: never too few.
    pub(crate) fn waiting(&self) -> impl Iterator<Item = (NodeIx, u64)> {
        self.lists.iter().map(|(node, list)| (*node, (list.instances.len() - list.taken) as u64))
    }
}
