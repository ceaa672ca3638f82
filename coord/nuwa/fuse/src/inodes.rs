//! Paths behind the kernel's numbers.
//!
//! Nuwa has no inodes: a number is given to a path when the kernel first looks it up, follows a rename made through this mount, and
//! is forgotten with the kernel. A number is never used twice.

use std::collections::HashMap;

use coord_types::InodeId;
use fs_client::{Errno, HandleId};
use nuwa_api::{Path, Place};
use parking_lot::Mutex;

/// What is behind a number.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Node {
    Entry(Path),
    /// `.events` of a directory. Each look gives another number, so that an open one has its own.
    Feed {
        directory: Path,
        from: Place,
        opened: Option<HandleId>,
    },
}

#[derive(Debug)]
struct Inner {
    nodes: HashMap<u64, (Node, u64)>,
    numbers: HashMap<Path, u64>,
    next: u64,
}

/// Bounded by what the kernel remembers.
#[derive(Debug)]
pub(crate) struct Inodes {
    inner: Mutex<Inner>,
}

impl Inodes {
    pub(crate) fn new() -> Self {
        let root = InodeId::ROOT.0;
        let nodes = [(root, (Node::Entry(Path::root()), 1))].into();
        let numbers = [(Path::root(), root)].into();
        Self { inner: Mutex::new(Inner { nodes, numbers, next: root + 1 }) }
    }

    pub(crate) fn node(&self, ino: InodeId) -> Result<Node, Errno> {
        self.inner.lock().nodes.get(&ino.0).map(|(node, _)| node.clone()).ok_or(Errno::ESTALE)
    }

    pub(crate) fn path(&self, ino: InodeId) -> Result<Path, Errno> {
        match self.node(ino)? {
            Node::Entry(path) => Ok(path),
            Node::Feed { .. } => Err(Errno::EPERM),
        }
    }

    /// The kernel looked a path up.
    pub(crate) fn look_up(&self, path: &Path) -> InodeId {
        let mut inner = self.inner.lock();
        let known = inner.numbers.get(path).copied();
        let number = known.unwrap_or_else(|| {
            let number = inner.next;
            inner.next += 1;
            inner.numbers.insert(path.clone(), number);
            inner.nodes.insert(number, (Node::Entry(path.clone()), 0));
            number
        });
        if let Some((_, lookups)) = inner.nodes.get_mut(&number) {
            *lookups += 1;
        }
        InodeId(number)
    }

    /// The number for a listing, which counts as no look: of what is not known, one that is never used.
    pub(crate) fn shown(&self, path: &Path) -> InodeId {
        let mut inner = self.inner.lock();
        match inner.numbers.get(path) {
            Some(number) => InodeId(*number),
            None => {
                inner.next += 1;
                InodeId(inner.next - 1)
            }
        }
    }

    /// The kernel looked `.events` up.
    pub(crate) fn look_up_feed(&self, directory: Path, from: Place) -> InodeId {
        let mut inner = self.inner.lock();
        let number = inner.next;
        inner.next += 1;
        inner.nodes.insert(number, (Node::Feed { directory, from, opened: None }, 1));
        InodeId(number)
    }

    pub(crate) fn feed_opened(&self, ino: InodeId, handle: HandleId) {
        if let Some((Node::Feed { opened, .. }, _)) = self.inner.lock().nodes.get_mut(&ino.0) {
            *opened = Some(handle);
        }
    }

    pub(crate) fn forget(&self, ino: InodeId, count: u64) {
        let mut inner = self.inner.lock();
        let Some((_, lookups)) = inner.nodes.get_mut(&ino.0) else { return };
        *lookups = lookups.saturating_sub(count);
        if *lookups > 0 || ino == InodeId::ROOT {
            return;
        }
        if let Some((Node::Entry(path), _)) = inner.nodes.remove(&ino.0)
            && inner.numbers.get(&path) == Some(&ino.0)
        {
            inner.numbers.remove(&path);
        }
    }

    /// A path is gone: whoever makes another of that name gets another number.
    pub(crate) fn gone(&self, path: &Path) {
        self.inner.lock().numbers.remove(path);
    }

    /// A file or directory was renamed, with all below it.
    pub(crate) fn renamed(&self, from: &Path, to: &Path) {
        let mut inner = self.inner.lock();
        inner.numbers.remove(to);
        let moved: Vec<(Path, u64)> = inner
            .numbers
            .iter()
            .filter(|(path, _)| *path == from || (from.is_directory() && path.is_below(from)))
            .map(|(path, number)| (path.clone(), *number))
            .collect();
        for (old, number) in moved {
            inner.numbers.remove(&old);
            let Ok(new) = Path::new(format!("{to}{}", &old.as_str()[from.as_str().len()..])) else {
                continue;
            };
            inner.numbers.insert(new.clone(), number);
            if let Some((node, _)) = inner.nodes.get_mut(&number) {
                *node = Node::Entry(new);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> Path {
        Path::new(text).unwrap()
    }

    #[test]
    fn numbers_follow_renames_and_are_never_used_twice() {
        let inodes = Inodes::new();
        let (directory, file) = (inodes.look_up(&path("/d/")), inodes.look_up(&path("/d/f")));
        assert_eq!(inodes.look_up(&path("/d/f")), file);
        inodes.renamed(&path("/d/"), &path("/e/"));
        assert_eq!(inodes.path(file).unwrap(), path("/e/f"));
        assert_eq!(inodes.look_up(&path("/e/f")), file);
        inodes.gone(&path("/e/f"));
        let again = inodes.look_up(&path("/e/f"));
        assert_ne!(again, file);
        inodes.forget(file, 3);
        assert_eq!(inodes.path(file), Err(Errno::ESTALE));
        assert_eq!(inodes.look_up(&path("/e/f")), again, "it belongs to the new one");
        inodes.forget(directory, 1);
        inodes.forget(InodeId::ROOT, 9);
        assert!(inodes.path(InodeId::ROOT).unwrap().is_root());
    }
}
