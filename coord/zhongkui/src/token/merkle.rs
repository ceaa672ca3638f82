//! The tree of RFC 9162, section 2.1, over a batch: one root stands for all leaves, and a leaf is proved by the siblings on its way up.
//!
//! Built from below: neighbours are paired, and who is left over goes up as it is. That is the RFC's tree, which it defines from above.

use crate::crypto::{Digest, digest};

/// Before what is hashed, so that a node is never taken for a leaf, nor a leaf for a node.
const LEAF: &[u8] = &[0];
const NODE: &[u8] = &[1];

pub(super) fn leaf_hash(leaf: &[u8]) -> Digest {
    digest(&[LEAF, leaf])
}

fn node_hash(left: &Digest, right: &Digest) -> Digest {
    digest(&[NODE, &left.0, &right.0])
}

/// All levels of a tree, the leaves first and the root last.
pub(super) struct Tree(Vec<Vec<Digest>>);

impl Tree {
    /// Of at least one leaf.
    pub(super) fn new(leaves: Vec<Digest>) -> Self {
        assert!(!leaves.is_empty(), "a tree has a root");
        let above = |level: &Vec<Digest>| -> Option<Vec<Digest>> {
            let parents = level.chunks(2).map(|pair| match pair {
                [left, right] => node_hash(left, right),
                rest => rest[0],
            });
            (level.len() > 1).then(|| parents.collect())
        };
        Self(std::iter::successors(Some(leaves), above).collect())
    }

    pub(super) fn root(&self) -> Digest {
        self.0.last().expect("a tree has a root")[0]
    }

    pub(super) fn path(&self, index: u16, count: u16) -> impl Iterator<Item = &Digest> {
        siblings(index, count).map(|sibling| &self.0[sibling.level][sibling.position])
    }
}

/// A node whose hash is needed on the way up.
struct Sibling {
    /// From the leaves, which are level 0.
    level: usize,
    /// In its level, from the left.
    position: usize,
}

/// Those of a leaf, from below. No two leaves of a tree have theirs on the same sides.
fn siblings(index: u16, count: u16) -> impl Iterator<Item = Sibling> {
    let way = std::iter::successors(Some((usize::from(index), usize::from(count))), |(position, width)| {
        Some((position / 2, width.div_ceil(2)))
    });
    way.take_while(|(_, width)| *width > 1).enumerate().filter_map(|(level, (own, width))| {
        let position = own ^ 1;
        (position < width).then_some(Sibling { level, position })
    })
}

pub(super) fn path_len(index: u16, count: u16) -> usize {
    siblings(index, count).count()
}

/// The root of the tree in which this leaf is at this place, with these siblings from below.
pub(super) fn root(leaf: Digest, index: u16, count: u16, path: &[Digest]) -> Digest {
    siblings(index, count).zip(path).fold(leaf, |below, (sibling, hash)| {
        let is_left = sibling.position.is_multiple_of(2);
        if is_left { node_hash(hash, &below) } else { node_hash(&below, hash) }
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::token::{BATCH_MAX, PATH_MAX};

    fn leaves(count: u16) -> Vec<Digest> {
        (0..count).map(|leaf| leaf_hash(&leaf.to_le_bytes())).collect()
    }

    /// As the RFC says it: the left side has the largest power of two that is smaller than the whole.
    fn from_above(leaves: &[Digest]) -> Digest {
        match leaves {
            [leaf] => *leaf,
            _ => {
                let (left, right) = leaves.split_at(leaves.len().next_power_of_two() / 2);
                node_hash(&from_above(left), &from_above(right))
            }
        }
    }

    #[test]
    fn the_tree_is_that_of_the_rfc() {
        for count in (1..=65).chain([1023, BATCH_MAX]) {
            let leaves = leaves(count);
            let tree = Tree::new(leaves.clone());
            assert_eq!(tree.root(), from_above(&leaves), "{count} leaves");
            for index in 0..count {
                let path: Vec<Digest> = tree.path(index, count).copied().collect();
                assert_eq!(path.len(), path_len(index, count));
                assert!(path.len() <= PATH_MAX);
                let found = root(leaves[usize::from(index)], index, count, &path);
                assert_eq!(found, tree.root(), "{index} of {count}");
            }
        }
    }

    #[test]
    fn each_leaf_has_a_way_of_its_own() {
        for count in (1..=65).chain([1023, BATCH_MAX]) {
            let sides = |index| -> Vec<bool> {
                siblings(index, count).map(|sibling| sibling.position.is_multiple_of(2)).collect()
            };
            let ways: BTreeSet<Vec<bool>> = (0..count).map(sides).collect();
            assert_eq!(ways.len(), usize::from(count));
        }
    }

    #[test]
    fn a_node_is_no_leaf() {
        let (left, right) = (leaf_hash(b"left"), leaf_hash(b"right"));
        assert_ne!(leaf_hash(&[left.0, right.0].concat()), node_hash(&left, &right));
    }
}
