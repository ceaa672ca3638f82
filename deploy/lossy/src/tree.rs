//! Names, now and durable: directories, the changes of names between the two versions, what survives of them.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};

use crate::dice::{Dice, Report};

pub(crate) type Ino = u64;
pub(crate) type Names = BTreeMap<OsString, Ino>;

/// One name becomes another inode's, or nobody's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Set {
    pub(crate) dir: Ino,
    pub(crate) name: OsString,
    pub(crate) to: Option<Ino>,
}

/// Names that change together or not at all.
#[derive(Debug)]
struct Change {
    sets: Vec<Set>,
    /// Inodes that get or lose a name.
    about: BTreeSet<Ino>,
}

impl Change {
    /// This one cannot be durable before `earlier` is.
    fn needs(&self, earlier: &Self) -> bool {
        let same_name = |a: &Set| earlier.sets.iter().any(|b| a.dir == b.dir && a.name == b.name);
        self.about.intersection(&earlier.about).next().is_some() || self.sets.iter().any(same_name)
    }
}

/// The directories of a disk.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    now: BTreeMap<Ino, Names>,
    durable: BTreeMap<Ino, Names>,
    /// In order; what separates `now` from `durable`.
    pending: Vec<Change>,
}

impl Tree {
    /// A directory without names. Itself durable as soon as a name of it is.
    pub(crate) fn add_dir(&mut self, ino: Ino) {
        self.now.insert(ino, Names::new());
        self.durable.insert(ino, Names::new());
    }

    /// The names in a directory, if it is one.
    pub(crate) fn names(&self, dir: Ino) -> Option<&Names> {
        self.now.get(&dir)
    }

    pub(crate) fn find(&self, dir: Ino, name: &OsStr) -> Option<Ino> {
        self.now.get(&dir)?.get(name).copied()
    }

    /// Changes names, all at once.
    pub(crate) fn change(&mut self, sets: Vec<Set>) {
        let before = sets.iter().filter_map(|set| self.find(set.dir, &set.name));
        let about = before.chain(sets.iter().filter_map(|set| set.to)).collect();
        apply(&mut self.now, &sets);
        self.pending.push(Change { sets, about });
    }

    /// Every change of names in `dir` is durable, and what must be before.
    pub(crate) fn sync_dir(&mut self, dir: Ino) {
        let mut taken: Vec<Change> = Vec::new();
        for change in std::mem::take(&mut self.pending).into_iter().rev() {
            let here = change.sets.iter().any(|set| set.dir == dir);
            if here || taken.iter().any(|later| later.needs(&change)) {
                taken.push(change);
            } else {
                self.pending.push(change);
            }
        }
        self.pending.reverse();
        taken.iter().rev().for_each(|change| apply(&mut self.durable, &change.sets));
    }

    /// Power is cut: what the dice spare of the pending changes is durable, the rest never was.
    pub(crate) fn cut(&mut self, dice: &mut Dice, report: &mut Report) {
        let mut chances: BTreeMap<Ino, u32> = BTreeMap::new();
        let mut lost: Vec<Change> = Vec::new();
        for change in std::mem::take(&mut self.pending) {
            let dir = change.sets[0].dir;
            let chance = *chances.entry(dir).or_insert_with(|| dice.chance());
            if dice.hits(chance) && !lost.iter().any(|earlier| change.needs(earlier)) {
                report.names_kept += 1;
                apply(&mut self.durable, &change.sets);
            } else {
                report.names_lost += 1;
                lost.push(change);
            }
        }
        self.now = self.durable.clone();
    }

    /// Inodes that have a name in one of the versions, or may get one back. Directories below one that has none
    /// have none.
    pub(crate) fn reachable(&self, root: Ino) -> BTreeSet<Ino> {
        let mut reachable = BTreeSet::from([root]);
        let mut todo: Vec<Ino> = vec![root];
        todo.extend(self.pending.iter().flat_map(|change| &change.about));
        reachable.extend(&todo);
        while let Some(dir) = todo.pop() {
            for version in [&self.now, &self.durable] {
                let found = version.get(&dir).into_iter().flat_map(BTreeMap::values);
                todo.extend(found.filter(|ino| reachable.insert(**ino)));
            }
        }
        reachable
    }

    /// Forgets directories.
    pub(crate) fn retain(&mut self, keep: impl Fn(Ino) -> bool) {
        self.now.retain(|ino, _| keep(*ino));
        self.durable.retain(|ino, _| keep(*ino));
    }

    /// How many names an inode has now.
    pub(crate) fn count_names(&self) -> BTreeMap<Ino, u32> {
        let mut counts = BTreeMap::new();
        for ino in self.now.values().flat_map(BTreeMap::values) {
            *counts.entry(*ino).or_insert(0) += 1;
        }
        counts
    }
}

fn apply(version: &mut BTreeMap<Ino, Names>, sets: &[Set]) {
    for set in sets {
        let Some(names) = version.get_mut(&set.dir) else { continue };
        match set.to {
            Some(ino) => names.insert(set.name.clone(), ino),
            None => names.remove(&set.name),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dice::Loss;

    const ROOT: Ino = 1;
    const SUB: Ino = 2;

    fn set(dir: Ino, name: &str, to: Option<Ino>) -> Set {
        Set { dir, name: name.into(), to }
    }

    fn tree() -> Tree {
        let mut tree = Tree::default();
        tree.add_dir(ROOT);
        tree.add_dir(SUB);
        tree.change(vec![set(ROOT, "sub", Some(SUB))]);
        tree.sync_dir(ROOT);
        tree
    }

    fn cut(tree: &mut Tree, loss: Loss) -> Report {
        let mut report = Report::default();
        tree.cut(&mut Dice::new(loss), &mut report);
        report
    }

    fn shown(tree: &Tree, dir: Ino) -> Vec<String> {
        tree.names(dir).unwrap().iter().map(|(name, ino)| format!("{}={ino}", name.display())).collect()
    }

    #[test]
    fn a_rename_without_a_sync_of_the_directory_is_undone() {
        let mut tree = tree();
        tree.change(vec![set(ROOT, "new", Some(10))]);
        tree.change(vec![set(ROOT, "file", Some(9))]);
        tree.sync_dir(ROOT);
        tree.change(vec![set(ROOT, "new", None), set(ROOT, "file", Some(10))]);
        assert_eq!(shown(&tree, ROOT), ["file=10", "sub=2"]);
        assert_eq!(cut(&mut tree, Loss::All).names_lost, 1);
        assert_eq!(shown(&tree, ROOT), ["file=9", "new=10", "sub=2"]);
        tree.change(vec![set(ROOT, "new", None), set(ROOT, "file", Some(10))]);
        tree.sync_dir(ROOT);
        cut(&mut tree, Loss::All);
        assert_eq!(shown(&tree, ROOT), ["file=10", "sub=2"]);
    }

    #[test]
    fn a_move_is_durable_with_either_directory_and_takes_along_what_it_needs() {
        let mut tree = tree();
        tree.change(vec![set(ROOT, "a", Some(10))]);
        tree.change(vec![set(ROOT, "b", Some(11))]);
        tree.change(vec![set(ROOT, "a", None), set(SUB, "c", Some(10))]);
        tree.sync_dir(SUB);
        cut(&mut tree, Loss::All);
        assert_eq!(shown(&tree, ROOT), ["sub=2"], "b was not needed");
        assert_eq!(shown(&tree, SUB), ["c=10"]);
    }

    #[test]
    fn no_seed_leaves_half_a_rename_or_two_names() {
        let mut seen = BTreeSet::new();
        for seed in 0..400 {
            let mut tree = tree();
            tree.change(vec![set(ROOT, "a", Some(10))]);
            tree.change(vec![set(ROOT, "a", None), set(SUB, "b", Some(10))]);
            tree.change(vec![set(SUB, "b", None), set(ROOT, "c", Some(10))]);
            tree.change(vec![set(ROOT, "x", Some(11))]);
            cut(&mut tree, Loss::Subset(seed));
            let names = [shown(&tree, ROOT), shown(&tree, SUB)].concat();
            assert!(names.iter().filter(|name| name.ends_with("=10")).count() <= 1, "{names:?}");
            seen.insert(names);
        }
        assert_eq!(seen.len(), 8, "each of four states, with x and without: {seen:?}");
    }

    #[test]
    fn what_has_no_name_in_any_version_is_not_reachable() {
        let mut tree = tree();
        tree.change(vec![set(SUB, "a", Some(10))]);
        tree.sync_dir(SUB);
        tree.change(vec![set(SUB, "a", None)]);
        assert!(tree.reachable(ROOT).contains(&10), "it may come back");
        tree.sync_dir(SUB);
        assert!(!tree.reachable(ROOT).contains(&10));
    }
}
