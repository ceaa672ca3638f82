//! What this client knows of directories from the answers to its own changes, so that it need not ask again at once.
//!
//! The kernel forgets a directory's attributes with every change it makes there, and looks a name up before it makes it:
//! two questions for each create, whose answers the last create has just brought. The master's answer to a change
//! carries the directory's attributes as they are after it, and in them a counter of its changes: if that is one more
//! than before, nobody else has changed the directory in between (RFC 7530, `change_info4`).
//!
//! Two things are known, both for [`Known::lasting`] after the question that brought them was sent:
//! - the *attributes* of a directory;
//! - the *names* of a directory made here: all of them, and perhaps some that are gone. A name that is not among them
//!   does not exist. A name is added before the change that makes it is sent, and taken out only by the answer to the newest
//!   change known; what this client did itself it therefore never misses. Names are kept as 64-bit hashes:
//!   two names with one hash cost a question.
//!
//! A change by somebody else leaves a gap in the counters; from then on nothing is believed, and after `lasting` the master is
//! asked whether the directory is still as it was known.

use std::collections::hash_map::RandomState;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::hash::BuildHasher;
use std::time::{Duration, Instant};

use coord_types::InodeId;
use master_api::model::{Attr, Mutated, Mutation, Name};
use parking_lot::Mutex;

/// Directories remembered.
const DIRECTORIES_MAX: usize = 1024;
/// Names remembered, of all directories together: 16 MiB or so.
const NAMES_MAX: usize = 1 << 20;
/// Answers that may overtake one another. With more missing, something was lost.
const AHEAD_MAX: usize = 64;

/// All names of a directory.
#[derive(Debug)]
struct Names {
    /// Hashes of all that exist, and maybe of more.
    present: HashSet<u64>,
    /// All changes of the directory up to this one are ours.
    change: u64,
    /// Changes of ours behind a gap.
    ahead: BTreeSet<u64>,
    /// When the directory was known to be at `change`.
    at: Instant,
}

#[derive(Debug)]
struct Directory {
    attr: Attr,
    attr_at: Option<Instant>,
    names: Option<Names>,
    /// The clock's tick of the last use.
    used: u64,
}

#[derive(Debug, Default)]
struct Inner {
    directories: HashMap<InodeId, Directory>,
    /// Names in all of them.
    names: usize,
    ticks: u64,
}

/// Whether a name exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Absence {
    /// It does not.
    Certain,
    /// It does not, if the directory is still at this change: ask for its attributes.
    IfStillAt(u64),
    /// Ask for the name.
    Unknown,
}

/// The table.
#[derive(Debug)]
pub(crate) struct Known {
    inner: Mutex<Inner>,
    hasher: RandomState,
    lasting: Duration,
}

impl Names {
    /// Our own change came back. `newest`: all that is known to have happened is in.
    fn changed(&mut self, change: u64, asked_at: Instant) -> Result<bool, Lost> {
        if change > self.change + 1 {
            self.ahead.insert(change);
            return if self.ahead.len() > AHEAD_MAX { Err(Lost) } else { Ok(false) };
        }
        if change == self.change + 1 {
            self.change = change;
            while self.ahead.first() == Some(&(self.change + 1)) {
                self.ahead.pop_first();
                self.change += 1;
            }
            if self.ahead.is_empty() {
                self.at = self.at.max(asked_at);
            }
        }
        Ok(self.change == change && self.ahead.is_empty())
    }
}

/// Too much is missing to go on.
struct Lost;

/// Names that a mutation makes or may leave, each with its directory.
fn added(mutation: &Mutation) -> impl Iterator<Item = (InodeId, &Name)> {
    let (one, two) = match mutation {
        Mutation::Create(op) => (Some((op.parent, &op.name)), None),
        Mutation::Mkdir(op) => (Some((op.parent, &op.name)), None),
        Mutation::Mknod(op) => (Some((op.parent, &op.name)), None),
        Mutation::Symlink(op) => (Some((op.parent, &op.name)), None),
        Mutation::Link(op) => (Some((op.parent, &op.name)), None),
        // An exchange leaves both.
        Mutation::Rename(op) => (Some((op.new_parent, &op.new_name)), Some((op.parent, &op.name))),
        _ => (None, None),
    };
    one.into_iter().chain(two)
}

/// The name that a mutation takes away, with its directory.
fn removed(mutation: &Mutation) -> Option<(InodeId, &Name)> {
    match mutation {
        Mutation::Unlink(op) => Some((op.parent, &op.name)),
        Mutation::Rmdir(op) => Some((op.parent, &op.name)),
        Mutation::Rename(op)
            if op.flags != master_api::model::RenameFlags::Exchange
                && (op.parent, &op.name) != (op.new_parent, &op.new_name) =>
        {
            Some((op.parent, &op.name))
        }
        _ => None,
    }
}

impl Known {
    /// `lasting`: for how long an answer is believed.
    pub(crate) fn new(lasting: Duration) -> Self {
        Self { inner: Mutex::default(), hasher: RandomState::new(), lasting }
    }

    fn hash(&self, name: &Name) -> u64 {
        self.hasher.hash_one(name.as_slice())
    }

    /// Before a change is sent.
    pub(crate) fn before(&self, mutation: &Mutation) {
        let mut inner = self.inner.lock();
        for (parent, name) in added(mutation) {
            inner.add(parent, self.hash(name));
        }
    }

    /// The answer to a change that was sent at `asked_at`.
    pub(crate) fn after(&self, mutation: &Mutation, mutated: &Mutated, asked_at: Instant) {
        let mut inner = self.inner.lock();
        if let Mutation::Rename(_) = mutation {
            // A directory that moved changed too, and is not in the answer.
            inner.directories.values_mut().for_each(|directory| directory.attr_at = None);
        }
        for (parent, name) in added(mutation) {
            inner.add(parent, self.hash(name));
        }
        if let Some(attr) = mutated.attr.as_ref().filter(|attr| attr.is_directory()) {
            match mutation {
                Mutation::Mkdir(_) => inner.made(attr, asked_at),
                _ if attr.nlink == 0 => inner.remove(attr.ino),
                _ => {
                    inner.changed(attr, asked_at);
                }
            }
        }
        let second = mutated.new_parent.as_ref();
        let second =
            second.filter(|second| mutated.parent.as_ref().is_none_or(|first| first.ino != second.ino));
        for attr in mutated.parent.iter().chain(second) {
            let newest = inner.changed(attr, asked_at);
            if let Some((parent, name)) = removed(mutation)
                && newest
                && parent == attr.ino
            {
                inner.take(parent, self.hash(name));
            }
        }
        inner.shrink();
    }

    /// The answer to a question that was sent at `asked_at`: a directory's attributes.
    pub(crate) fn told(&self, attr: &Attr, asked_at: Instant) {
        let mut inner = self.inner.lock();
        // A directory nobody changes here is the kernel's to remember.
        let Some(directory) = inner.directories.get_mut(&attr.ino) else { return };
        directory.see(attr, asked_at);
        if let Some(names) = &mut directory.names
            && names.change == attr.change
        {
            names.at = names.at.max(asked_at);
        }
    }

    /// The directory is not as it was known.
    pub(crate) fn forget_names(&self, directory: InodeId) {
        self.inner.lock().forget_names(directory);
    }

    /// A directory's attributes.
    pub(crate) fn attr(&self, ino: InodeId, now: Instant) -> Option<(Attr, Instant)> {
        let mut inner = self.inner.lock();
        let directory = inner.used(ino)?;
        let at = directory.attr_at.filter(|at| now.saturating_duration_since(*at) < self.lasting)?;
        Some((directory.attr.clone(), at))
    }

    /// Whether a name exists.
    pub(crate) fn absence(&self, parent: InodeId, name: &Name, now: Instant) -> Absence {
        let mut inner = self.inner.lock();
        let Some(names) = inner.used(parent).and_then(|directory| directory.names.as_ref()) else {
            return Absence::Unknown;
        };
        if names.present.contains(&self.hash(name)) {
            Absence::Unknown
        } else if now.saturating_duration_since(names.at) < self.lasting {
            Absence::Certain
        } else {
            Absence::IfStillAt(names.change)
        }
    }
}

impl Directory {
    fn see(&mut self, attr: &Attr, asked_at: Instant) {
        if attr.change >= self.attr.change {
            self.attr_at = Some(self.attr_at.map_or(asked_at, |at| at.max(asked_at)));
            self.attr = attr.clone();
        }
    }
}

impl Inner {
    fn used(&mut self, ino: InodeId) -> Option<&mut Directory> {
        let directory = self.directories.get_mut(&ino)?;
        self.ticks += 1;
        directory.used = self.ticks;
        Some(directory)
    }

    /// A directory this client has just made: nothing is in it.
    fn made(&mut self, attr: &Attr, asked_at: Instant) {
        self.remove(attr.ino);
        let names =
            Names { present: HashSet::new(), change: attr.change, ahead: BTreeSet::new(), at: asked_at };
        self.insert(attr, asked_at, Some(names));
    }

    fn insert(&mut self, attr: &Attr, asked_at: Instant, names: Option<Names>) {
        self.ticks += 1;
        let directory = Directory { attr: attr.clone(), attr_at: Some(asked_at), names, used: self.ticks };
        self.directories.insert(attr.ino, directory);
    }

    /// A directory after a change of ours. True: nothing newer is known.
    fn changed(&mut self, attr: &Attr, asked_at: Instant) -> bool {
        let Some(directory) = self.used(attr.ino) else {
            self.insert(attr, asked_at, None);
            return false;
        };
        directory.see(attr, asked_at);
        match directory.names.as_mut().map(|names| names.changed(attr.change, asked_at)) {
            Some(Ok(newest)) => newest,
            Some(Err(Lost)) => {
                self.forget_names(attr.ino);
                false
            }
            None => false,
        }
    }

    fn add(&mut self, ino: InodeId, hash: u64) {
        let names = self.directories.get_mut(&ino).and_then(|directory| directory.names.as_mut());
        self.names += usize::from(names.is_some_and(|names| names.present.insert(hash)));
    }

    fn take(&mut self, ino: InodeId, hash: u64) {
        let names = self.directories.get_mut(&ino).and_then(|directory| directory.names.as_mut());
        self.names -= usize::from(names.is_some_and(|names| names.present.remove(&hash)));
    }

    fn forget_names(&mut self, ino: InodeId) {
        let names = self.directories.get_mut(&ino).and_then(|directory| directory.names.take());
        self.names -= names.map_or(0, |names| names.present.len());
    }

    fn remove(&mut self, ino: InodeId) {
        self.forget_names(ino);
        self.directories.remove(&ino);
    }

    /// Keeps within the bounds: what was used least lately goes.
    fn shrink(&mut self) {
        while self.directories.len() > DIRECTORIES_MAX || self.names > NAMES_MAX {
            let oldest = self.directories.iter().min_by_key(|(_, directory)| directory.used);
            let Some((&ino, _)) = oldest else { return };
            self.remove(ino);
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
