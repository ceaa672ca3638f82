//! The nodes of one job, and which of them are avoided. Failures are held against a node only for a while, and never against so
//! many that fewer than half are left: what fails everywhere is not the nodes' fault.

use std::collections::{BTreeMap, BTreeSet};

use crate::ids::{NodeName, Time};
use crate::settings::Settings;

/// A node's number within one job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct NodeIx(u32);

impl NodeIx {
    pub(crate) const MIN: NodeIx = NodeIx(0);
    pub(crate) const MAX: NodeIx = NodeIx(u32::MAX);
}

/// Failures of different instances that are remembered for a node and a task: more would change nothing.
const REMEMBERED: usize = 32;

#[derive(Debug, Default)]
pub(crate) struct Nodes {
    names: Vec<NodeName>,
    by_name: BTreeMap<NodeName, NodeIx>,
    /// Those that ever had a worker.
    used: BTreeSet<NodeIx>,
    /// For a node and a stage: instances that failed there, and when last.
    failures: BTreeMap<(NodeIx, usize), Vec<(u32, Time)>>,
    avoided_by_stage: BTreeSet<(usize, NodeIx)>,
    avoided: BTreeSet<NodeIx>,
}

impl Nodes {
    pub(crate) fn intern(&mut self, name: &NodeName) -> NodeIx {
        if let Some(node) = self.by_name.get(name) {
            return *node;
        }
        let node = NodeIx(self.names.len() as u32);
        self.names.push(name.clone());
        self.by_name.insert(name.clone(), node);
        node
    }

    pub(crate) fn name(&self, node: NodeIx) -> &NodeName {
        &self.names[node.0 as usize]
    }

    pub(crate) fn use_node(&mut self, node: NodeIx) {
        self.used.insert(node);
    }

    pub(crate) fn is_avoided(&self, node: NodeIx, stage: usize) -> bool {
        self.avoided.contains(&node) || self.avoided_by_stage.contains(&(stage, node))
    }

    pub(crate) fn is_avoided_by_job(&self, node: NodeIx) -> bool {
        self.avoided.contains(&node)
    }

    pub(crate) fn avoided(&self) -> Vec<NodeName> {
        self.avoided.iter().map(|node| self.name(*node).clone()).collect()
    }

    /// Whether that may change what is avoided: then [`Nodes::decide`] should be asked.
    pub(crate) fn failed(&mut self, node: NodeIx, stage: usize, instance: u32, now: Time) -> bool {
        let failures = self.failures.entry((node, stage)).or_default();
        if let Some((_, at)) = failures.iter_mut().find(|(other, _)| *other == instance) {
            *at = now;
            return false;
        }
        if failures.len() == REMEMBERED {
            return false;
        }
        failures.push((instance, now));
        true
    }

    /// Forgets what is old and decides again; whether the job's own list changed.
    pub(crate) fn decide(&mut self, settings: &Settings, now: Time) -> bool {
        self.failures.retain(|_, failures| {
            failures.retain(|(_, at)| now.since_ms(*at) < settings.node_decay_ms);
            !failures.is_empty()
        });
        let avoidable = self.used.len() / 2;
        let mut by_node: BTreeMap<NodeIx, usize> = BTreeMap::new();
        let mut by_stage: BTreeMap<usize, Vec<(usize, NodeIx)>> = BTreeMap::new();
        for ((node, stage), failures) in &self.failures {
            *by_node.entry(*node).or_default() += failures.len();
            if failures.len() >= settings.node_failures_task {
                by_stage.entry(*stage).or_default().push((failures.len(), *node));
            }
        }
        self.avoided_by_stage = by_stage
            .into_iter()
            .flat_map(|(stage, nodes)| worst(nodes, avoidable).into_iter().map(move |node| (stage, node)))
            .collect();
        let bad = by_node.into_iter().filter(|(_, n)| *n >= settings.node_failures_job);
        let avoided: BTreeSet<NodeIx> =
            worst(bad.map(|(node, n)| (n, node)).collect(), avoidable).into_iter().collect();
        let changed = avoided != self.avoided;
        self.avoided = avoided;
        changed
    }
}

/// Those with the most failures, at most so many; of equals the ones known first.
fn worst(mut nodes: Vec<(usize, NodeIx)>, most: usize) -> Vec<NodeIx> {
    nodes.sort_by_key(|(failures, node)| (usize::MAX - failures, *node));
    nodes.into_iter().take(most).map(|(_, node)| node).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(count: u32) -> (Nodes, Vec<NodeIx>) {
        let mut nodes = Nodes::default();
        let ixs = (0..count).map(|n| nodes.intern(&NodeName::new(&format!("n{n}")))).collect::<Vec<_>>();
        for node in &ixs {
            nodes.use_node(*node);
        }
        (nodes, ixs)
    }

    #[test]
    fn different_instances_count_and_one_that_fails_often_does_not() {
        let (mut nodes, n) = nodes(4);
        let settings = Settings::default();
        for _ in 0..10 {
            nodes.failed(n[0], 0, 7, Time(0));
        }
        nodes.decide(&settings, Time(0));
        assert!(!nodes.is_avoided(n[0], 0));
        nodes.failed(n[0], 0, 8, Time(0));
        nodes.failed(n[0], 0, 9, Time(0));
        assert!(!nodes.decide(&settings, Time(0)), "the job does not avoid it yet");
        assert!(nodes.is_avoided(n[0], 0));
        assert!(!nodes.is_avoided(n[0], 1), "only the task avoids it");
        nodes.failed(n[0], 1, 0, Time(0));
        nodes.failed(n[0], 1, 1, Time(0));
        assert!(nodes.decide(&settings, Time(0)));
        assert_eq!(nodes.avoided(), [NodeName::new("n0")]);
    }

    #[test]
    fn failures_are_forgotten_after_a_while() {
        let (mut nodes, n) = nodes(4);
        let settings = Settings::default();
        for instance in 0..5 {
            nodes.failed(n[1], 0, instance, Time(0));
        }
        assert!(nodes.decide(&settings, Time(1)));
        assert!(!nodes.decide(&settings, Time(settings.node_decay_ms - 1)));
        assert!(nodes.decide(&settings, Time(settings.node_decay_ms)));
        assert!(nodes.avoided().is_empty());
    }

    #[test]
    fn never_more_than_half_are_avoided() {
        for count in 1..6 {
            let (mut nodes, n) = nodes(count);
            for node in &n {
                for instance in 0..9 {
                    nodes.failed(*node, 0, instance, Time(0));
                }
            }
            nodes.decide(&Settings::default(), Time(0));
            assert_eq!(nodes.avoided().len(), count as usize / 2);
            assert_eq!(n.iter().filter(|node| nodes.is_avoided(**node, 0)).count(), count as usize / 2);
        }
    }
}
