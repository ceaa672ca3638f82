//! Names: programs on all mounts create, remove, rename and link a few names of one directory, the arena.
//!
//! What a call changed was decided by the master: a call that succeeded took effect at a moment between its call and its
//! return. What a call saw may come from the kernel's cache, which believes a name for one time to live after it was told
//! (fs/docs/client.md): a refusal (EEXIST, ENOENT, ...) and a listing may be of an earlier moment ([`believed`]).
//!
//! A link's source is found in that cache too, and the master is asked by inode: nothing is concluded from it. A rename between
//! two names of one file does nothing, and the kernel decides by its cache whether they are: links get names that are never
//! renamed, and a rename that succeeds may have done nothing if another moved a file between those names, or to one of
//! them, while this one's kernel may have looked.
//!
//! One of the mounts believes nothing (`--ttl-ms 0`): there all this shrinks to what overlaps with the call.

use std::ffi::CString;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use rand::Rng as _;
use rand::rngs::StdRng;
use serde::Serialize;

use crate::crew::{Crew, Mounts};
use crate::linear::{Model, Operation};

/// Names that are created, removed and renamed.
pub(crate) const NAMED: usize = 4;
/// And those that are linked to them.
const LINKS: usize = 2;
/// All names of an arena.
pub(crate) const WATCHED: usize = NAMED + LINKS;
pub(crate) const NAMES: [&str; WATCHED] = ["a", "b", "c", "d", "l", "m"];
const FOLDER: &str = "names";
/// A dead mount answers at once: thousands of calls that may have happened would only make the search long.
const DEAD_PAUSE: Duration = Duration::from_millis(200);

const ABSENT: u8 = 0;
pub(crate) const FILE: u8 = 1;
const FOLDER_KIND: u8 = 2;

/// A call; names by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) enum Act {
    Create(usize),
    Mkdir(usize),
    Unlink(usize),
    Rmdir(usize),
    Rename { from: usize, to: usize, replace: bool },
    Link { from: usize, to: usize },
    List,
}

/// What the call was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) enum Said {
    Ok,
    Exists,
    NoEntry,
    IsFolder,
    NotFolder,
    NotPermitted,
    /// Of each name what it is.
    Listed([u8; WATCHED]),
}

/// A call with what it was told, if that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Done {
    pub(crate) act: Act,
    pub(crate) result: Option<Said>,
    /// It may have succeeded without doing anything.
    pub(crate) nothing: bool,
}

impl Done {
    pub(crate) fn new(act: Act, result: Option<Said>) -> Self {
        Self { act, result, nothing: false }
    }

    /// It changed the directory, or may have.
    fn changes(&self) -> bool {
        matches!(self.result, None | Some(Said::Ok))
    }
}

impl Act {
    /// The `what`th kind of call, on two names.
    pub(crate) fn of(what: usize, one: usize, other: usize) -> Self {
        let (one, to) = (one % NAMED, other % NAMED);
        let to = if to == one { (to + 1) % NAMED } else { to };
        match what {
            0 => Self::Create(one),
            1 => Self::Mkdir(one),
            // Links are removed too.
            2 => Self::Unlink(other % WATCHED),
            3 => Self::Rmdir(one),
            4 => Self::Rename { from: one, to, replace: other.is_multiple_of(2) },
            5 => Self::Link { from: one, to: NAMED + other % LINKS },
            _ => Self::List,
        }
    }

    fn dice(dice: &mut StdRng) -> Self {
        let what = [0, 0, 1, 2, 2, 3, 4, 4, 5, 6][dice.random_range(0..10)];
        Self::of(what, dice.random_range(0..NAMED), dice.random_range(0..WATCHED))
    }
}

/// A directory.
#[derive(Debug)]
pub(crate) struct Names;

impl Names {
    /// What a call that sees this directory is told.
    #[cfg(test)]
    pub(crate) fn result(state: &[u8; WATCHED], act: Act) -> Said {
        match act {
            Act::Create(name) | Act::Mkdir(name) => match state[name] {
                ABSENT => Said::Ok,
                _ => Said::Exists,
            },
            Act::Unlink(name) => match state[name] {
                ABSENT => Said::NoEntry,
                FILE => Said::Ok,
                _ => Said::IsFolder,
            },
            Act::Rmdir(name) => match state[name] {
                ABSENT => Said::NoEntry,
                FILE => Said::NotFolder,
                _ => Said::Ok,
            },
            Act::Rename { from, to, replace } => match (state[from], state[to]) {
                (ABSENT, _) => Said::NoEntry,
                (_, ABSENT) => Said::Ok,
                (_, _) if !replace => Said::Exists,
                (FILE, FOLDER_KIND) => Said::IsFolder,
                (FOLDER_KIND, FILE) => Said::NotFolder,
                _ => Said::Ok,
            },
            Act::Link { from, to } => match (state[from], state[to]) {
                (ABSENT, _) => Said::NoEntry,
                (_, FILE) => Said::Exists,
                (FILE, _) => Said::Ok,
                _ => Said::NotPermitted,
            },
            Act::List => Said::Listed(*state),
        }
    }

    /// The directory after a call that did what it was asked.
    fn change(state: &[u8; WATCHED], act: Act) -> Option<[u8; WATCHED]> {
        let mut new = *state;
        match act {
            Act::Create(name) if state[name] == ABSENT => new[name] = FILE,
            Act::Mkdir(name) if state[name] == ABSENT => new[name] = FOLDER_KIND,
            Act::Unlink(name) if state[name] == FILE => new[name] = ABSENT,
            Act::Rmdir(name) if state[name] == FOLDER_KIND => new[name] = ABSENT,
            Act::Link { to, .. } if state[to] == ABSENT => new[to] = FILE,
            Act::Rename { from, to, replace } => match (state[from], state[to]) {
                (kind, ABSENT) if kind != ABSENT => (new[from], new[to]) = (ABSENT, kind),
                (kind, other) if kind == other && kind != ABSENT && replace => new[from] = ABSENT,
                _ => return None,
            },
            _ => return None,
        }
        Some(new)
    }

    /// Whether a directory like this is a reason to refuse.
    fn refuses(state: &[u8; WATCHED], act: Act, said: Said) -> bool {
        let (subject, target) = match act {
            Act::Create(name) | Act::Mkdir(name) => (FILE, state[name]),
            Act::Unlink(name) | Act::Rmdir(name) => (state[name], state[name]),
            Act::Rename { from, to, .. } | Act::Link { from, to } => (state[from], state[to]),
            Act::List => return said == Said::Listed(*state),
        };
        match said {
            Said::Exists => target != ABSENT,
            // Its source went by inode.
            Said::NoEntry | Said::NotPermitted if matches!(act, Act::Link { .. }) => true,
            Said::NoEntry => subject == ABSENT,
            Said::IsFolder => target == FOLDER_KIND,
            Said::NotFolder => target == FILE,
            Said::Ok | Said::NotPermitted | Said::Listed(_) => false,
        }
    }
}

impl Model for Names {
    type State = [u8; WATCHED];
    type Action = Done;

    fn start(&self) -> Self::State {
        [ABSENT; WATCHED]
    }

    fn step(&self, state: &Self::State, done: &Done) -> Option<Self::State> {
        match done.result {
            None | Some(Said::Ok) => Self::change(state, done.act),
            Some(said) => Self::refuses(state, done.act, said).then_some(*state),
        }
    }

    fn otherwise(&self, state: &Self::State, done: &Done) -> Option<Self::State> {
        done.nothing.then_some(*state)
    }

    fn only_looks(&self, done: &Done) -> bool {
        !done.changes()
    }
}

/// The same history with every call that changed nothing beginning where its mount may have learnt what it saw, and every rename
/// marked that its kernel may have taken for one between two names of one file.
pub(crate) fn believed(history: &[Operation<Done>], mounts: &Mounts) -> Vec<Operation<Done>> {
    let believe = |operation: &Operation<Done>| {
        let mut operation = operation.clone();
        let since_ns = learnt_since(&operation, history, mounts);
        if !operation.action.changes() {
            operation.called_ns = since_ns;
        } else if let Act::Rename { from, to, replace: true } = operation.action.act {
            let moved = |other: &Operation<Done>| {
                let arrives =
                    matches!(other.action.act, Act::Rename { to: name, .. } if name == from || name == to);
                let before_its_end = operation.returned_ns.is_none_or(|returned| other.called_ns <= returned);
                let after_that = other.returned_ns.is_none_or(|returned| returned >= since_ns);
                let another = other.worker != operation.worker || other.called_ns != operation.called_ns;
                another && arrives && other.action.changes() && before_its_end && after_that
            };
            operation.action.nothing = history.iter().any(moved);
        }
        operation
    };
    history.iter().map(believe).collect()
}

/// The moment from which a call's mount may have what the call saw: the earliest call there that returned at most one time to
/// live before. (Without a time to live: that was under way. Who looks for a name waits for another who does.)
fn learnt_since(operation: &Operation<Done>, history: &[Operation<Done>], mounts: &Mounts) -> u64 {
    let since = operation.called_ns.saturating_sub(mounts.belief_ns(operation.worker));
    let same = |other: &&Operation<Done>| {
        mounts.index(other.worker) == mounts.index(operation.worker)
            && other.called_ns <= operation.called_ns
            && other.returned_ns.is_none_or(|returned| returned >= since)
    };
    history.iter().filter(same).map(|other| other.called_ns).min().unwrap_or(operation.called_ns)
}

fn folder(mount: &Path, arena: usize) -> PathBuf {
    mount.join(FOLDER).join(format!("arena{arena}"))
}

/// Makes an arena.
pub(crate) fn make(mount: &Path, arena: usize) -> io::Result<()> {
    fs::create_dir_all(mount.join(FOLDER))?;
    fs::create_dir(folder(mount, arena))
}

/// What whoever made an arena has seen of it: its mount knows that nothing is in there, and may go on believing it.
pub(crate) fn made(worker: usize, span: crate::crew::Span) -> Operation<Done> {
    operation(worker, Act::List, span, Ok(Said::Listed([ABSENT; WATCHED])))
}

fn list(folder: &Path) -> io::Result<Said> {
    let mut found = [ABSENT; WATCHED];
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let at = NAMES.iter().position(|known| name == *known);
        let at = at.ok_or_else(|| io::Error::other(format!("{name:?} is listed, which nobody made")))?;
        found[at] = if entry.file_type()?.is_dir() { FOLDER_KIND } else { FILE };
    }
    Ok(Said::Listed(found))
}

fn perform(folder: &Path, act: Act) -> io::Result<Said> {
    let path = |name: usize| folder.join(NAMES[name]);
    let done = match act {
        Act::Create(name) => OpenOptions::new().write(true).create_new(true).open(path(name)).map(drop),
        Act::Mkdir(name) => fs::create_dir(path(name)),
        Act::Unlink(name) => unlink(&path(name)),
        Act::Rmdir(name) => fs::remove_dir(path(name)),
        Act::Rename { from, to, replace } => {
            let flags = if replace { RenameFlags::empty() } else { RenameFlags::RENAME_NOREPLACE };
            renameat2(AT_FDCWD, &path(from), AT_FDCWD, &path(to), flags).map_err(io::Error::from)
        }
        Act::Link { from, to } => fs::hard_link(path(from), path(to)),
        Act::List => return list(folder),
    };
    let Err(error) = done else { return Ok(Said::Ok) };
    match error.raw_os_error() {
        Some(libc::EEXIST) => Ok(Said::Exists),
        Some(libc::ENOENT) => Ok(Said::NoEntry),
        Some(libc::EISDIR) => Ok(Said::IsFolder),
        Some(libc::ENOTDIR) => Ok(Said::NotFolder),
        Some(libc::EPERM) if matches!(act, Act::Link { .. }) => Ok(Said::NotPermitted),
        _ => Err(error),
    }
}

/// `fs::remove_file` by its own words, without what a library may add.
fn unlink(path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: the path is a string that ends with zero and lives over the call.
    match unsafe { libc::unlink(path.as_ptr()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// A worker: in the arena of the moment, until it is told to stop; answers in which arena each operation was.
pub(crate) fn work(
    crew: &Crew,
    mounts: &Mounts,
    worker: usize,
    mut dice: StdRng,
) -> Vec<(usize, Operation<Done>)> {
    let mount = mounts.of(worker);
    let mut history = Vec::new();
    while crew.goes_on() {
        let arena = crew.enter_arena();
        let act = Act::dice(&mut dice);
        let (span, said) = crew.attempt("change names", || perform(&folder(mount, arena), act));
        let unsent = matches!(&said, Err(error) if error.raw_os_error() == Some(libc::ENOTCONN));
        if !did_nothing(act, &said) {
            history.push((arena, operation(worker, act, span, said)));
        }
        crew.breathe(&mut dice);
        if unsent {
            std::thread::sleep(DEAD_PAUSE);
        }
    }
    history
}

/// It failed and changed nothing for sure: it only looked, or its mount was dead before it was asked. (What its mount was asked
/// as it died fails with ECONNABORTED. A create asks once more after it was done.)
fn did_nothing(act: Act, said: &io::Result<Said>) -> bool {
    let Err(error) = said else { return false };
    act == Act::List || (error.raw_os_error() == Some(libc::ENOTCONN) && !matches!(act, Act::Create(_)))
}

fn operation(worker: usize, act: Act, span: crate::crew::Span, said: io::Result<Said>) -> Operation<Done> {
    let result = said.ok();
    Operation {
        worker,
        action: Done::new(act, result),
        called_ns: span.called_ns,
        returned_ns: result.map(|_| span.returned_ns),
    }
}

/// What is in these arenas, as this mount has it.
pub(crate) fn list_all(
    crew: &Crew,
    mount: &Path,
    worker: usize,
    arenas: &[usize],
) -> Vec<(usize, Operation<Done>)> {
    let list = |&arena: &usize| {
        let (span, said) =
            crew.attempt("list names at the end", || perform(&folder(mount, arena), Act::List));
        (arena, operation(worker, Act::List, span, said))
    };
    arenas.iter().map(list).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linear::{Verdict, check};

    /// On a local file system one caller is told what the model says, and listings are the model's.
    #[test]
    fn the_model_is_what_the_kernel_does() {
        let folder = tempfile::tempdir().unwrap();
        let mut dice = <StdRng as rand::SeedableRng>::seed_from_u64(5);
        let mut state = Names.start();
        for _ in 0..3000 {
            let act = Act::dice(&mut dice);
            let said = perform(folder.path(), act).unwrap();
            assert_eq!(said, Names::result(&state, act), "{act:?} in {state:?}");
            state = Names.step(&state, &Done::new(act, Some(said))).unwrap();
            assert_eq!(list(folder.path()).unwrap(), Said::Listed(state));
        }
    }

    fn done(worker: usize, called_s: u64, act: Act, said: Said) -> Operation<Done> {
        let called_ns = called_s * 1_000_000_000;
        Operation {
            worker,
            action: Done::new(act, Some(said)),
            called_ns,
            returned_ns: Some(called_ns + 1000),
        }
    }

    fn two_mounts() -> Mounts {
        Mounts::new(["one", "two"].map(|name| (PathBuf::from(name), Duration::from_secs(1))).to_vec())
    }

    /// One mount's kernel believes that both names are one file, for another mount has just moved it.
    #[test]
    fn a_rename_may_have_done_nothing_if_the_kernel_could_think_so() {
        let rename = |from, to| Act::Rename { from, to, replace: true };
        let mut history = vec![
            done(0, 1, Act::Create(0), Said::Ok),
            done(1, 2, rename(0, 1), Said::Ok),
            done(1, 2, Act::Mkdir(0), Said::Ok),
            done(0, 2, rename(0, 1), Said::Ok),
            done(0, 2, Act::List, Said::Listed([FOLDER_KIND, FILE, ABSENT, ABSENT, ABSENT, ABSENT])),
        ];
        for (at, operation) in history.iter_mut().enumerate().skip(1) {
            operation.called_ns += at as u64 * 10_000;
            operation.returned_ns = Some(operation.called_ns + 1000);
        }
        let linearizable =
            |history: &[_], mounts| check(&Names, &believed(history, mounts)) == Verdict::Linearizable;
        let believing = two_mounts();
        assert!(linearizable(&history, &believing));
        let asking = Mounts::new(vec![(PathBuf::from("one"), Duration::ZERO); 2]);
        assert!(!linearizable(&history, &asking), "it was asked about each name");
        for late in &mut history[3..] {
            late.called_ns += 3_000_000_000;
            late.returned_ns = late.returned_ns.map(|at| at + 3_000_000_000);
        }
        assert!(!linearizable(&history, &believing), "nobody believes that for so long");
    }

    #[test]
    fn a_refusal_may_be_a_second_old_and_a_success_may_not() {
        let mounts = two_mounts();
        let seen_absent = done(1, 1, Act::Unlink(0), Said::NoEntry);
        let created = done(0, 2, Act::Create(0), Said::Ok);
        let mut history = vec![seen_absent, created, done(1, 2, Act::Unlink(0), Said::NoEntry)];
        history[2].called_ns = 2_050_000_000;
        history[2].returned_ns = Some(2_060_000_000);
        assert!(matches!(check(&Names, &history), Verdict::Not { .. }));
        assert_eq!(check(&Names, &believed(&history, &mounts)), Verdict::Linearizable);
        // Two seconds later nobody may believe that any more.
        history[2] = done(1, 5, Act::Unlink(0), Said::NoEntry);
        assert!(matches!(check(&Names, &believed(&history, &mounts)), Verdict::Not { .. }));
        history[2] = done(1, 2, Act::Create(0), Said::Ok);
        assert!(matches!(check(&Names, &believed(&history, &mounts)), Verdict::Not { .. }));
    }
}
