//! The operations on the tree. A refusal leaves changes behind, which its command drops.

use nuwa_model::proto::{Delete, Entry, Existence, Get, MakeDirectory, OperationResult, Put, Rename};
use nuwa_model::{Path, Refusal, VALUE_MAX_BYTES};

use crate::error::{Outcome, path};
use crate::keys::{self, ClaimKind};
use crate::quotas::Use;
use crate::records::EntryRecord;
use crate::sequence;
use crate::state::{State, read_lock, shown};

/// `session`: whose the command is, open; 0 for nobody's.
pub(crate) fn put(state: &mut State<'_>, session: u64, request: Put) -> Outcome<OperationResult> {
    let existence =
        Existence::try_from(request.existence).map_err(|_| Refusal::Invalid("no such existence"))?;
    if request.owned && session == 0 {
        return Err(Refusal::Invalid("only a session can own an entry: open one").into());
    }
    let mut target = path(&request.path, Path::file)?;
    if request.sequential {
        if existence != Existence::MustNotExist && existence != Existence::Any {
            return Err(Refusal::Invalid("a sequential name is new always").into());
        }
        make_parents(state, &target, request.with_parents)?;
        target = sequence::next(state, &target)?;
    }
    check_value(&target, &request.value)?;
    let entry = match state.entry(&target)? {
        Some(_) if existence == Existence::MustNotExist => {
            return Err(Refusal::Exists(target).into());
        }
        Some(record) => replace(state, &target, record, request.value)?,
        None if existence == Existence::MustExist => return Err(Refusal::NotFound(target).into()),
        None => {
            make_parents(state, &target, request.with_parents)?;
            let owner = if request.owned { session } else { 0 };
            let record = EntryRecord { value: request.value, owner, ..EntryRecord::default() };
            create(state, &target, record)?
        }
    };
    Ok(OperationResult { entry: Some(Entry { value: bytes::Bytes::new(), ..entry }), touched: 1 })
}

/// A new value for a file that exists.
pub(crate) fn replace(
    state: &mut State<'_>,
    target: &Path,
    record: EntryRecord,
    value: bytes::Bytes,
) -> Outcome<Entry> {
    let added = Use::of_value(value.len()) - Use::of_value(record.value.len());
    state.charge(target, added)?;
    state.look_at(target, record.value.len())?;
    state.set(target, EntryRecord { value, version: record.version + 1, ..record })
}

pub(crate) fn check_value(target: &Path, value: &[u8]) -> Result<(), Refusal> {
    if value.len() > VALUE_MAX_BYTES {
        return Err(Refusal::ValueTooLarge { path: target.clone(), bytes: value.len() });
    }
    Ok(())
}

/// Writes an entry that is not there, into a directory that is.
pub(crate) fn create(state: &mut State<'_>, target: &Path, record: EntryRecord) -> Outcome<Entry> {
    check_no_other_kind(state, target)?;
    state.charge(target, Use::of(target, &record))?;
    let created = state.revision();
    state.set(target, EntryRecord { version: 1, created, ..record })
}

/// `name` and `name/` do not coexist.
pub(crate) fn check_no_other_kind(state: &State<'_>, target: &Path) -> Outcome<()> {
    let Some(other) = target.other_kind() else { return Ok(()) };
    let other = path(&other, Path::new)?;
    match state.entry(&other)? {
        None => Ok(()),
        Some(_) if other.is_directory() => Err(Refusal::IsADirectory(other).into()),
        Some(_) => Err(Refusal::NotADirectory(other).into()),
    }
}

/// Sees to it that the directory it is to be in exists.
pub(crate) fn make_parents(state: &mut State<'_>, target: &Path, may_make: bool) -> Outcome<()> {
    let Some(parent) = target.parent() else { return Ok(()) };
    if state.entry(&parent)?.is_some() {
        return Ok(());
    }
    if !may_make {
        return Err(Refusal::ParentNotFound(parent).into());
    }
    let directories: Vec<Path> =
        target.ancestors().map(|ancestor| path(ancestor, Path::directory)).collect::<Result<_, _>>()?;
    for directory in directories {
        if state.entry(&directory)?.is_none() {
            create(state, &directory, EntryRecord::default())?;
        }
    }
    Ok(())
}

pub(crate) fn make_directory(state: &mut State<'_>, request: &MakeDirectory) -> Outcome<OperationResult> {
    let target = path(&request.path, Path::directory)?;
    let (entry, touched) = match state.entry(&target)? {
        Some(record) if request.may_exist => (shown(&target, record), 0),
        Some(_) => return Err(Refusal::Exists(target).into()),
        None => {
            make_parents(state, &target, request.with_parents)?;
            (create(state, &target, EntryRecord::default())?, 1)
        }
    };
    Ok(OperationResult { entry: Some(entry), touched })
}

pub(crate) fn get(state: &mut State<'_>, request: &Get) -> Outcome<OperationResult> {
    let target = path(&request.path, Path::new)?;
    let entry = state.entry(&target)?.map(|record| shown(&target, record));
    let value_bytes = entry.as_ref().map_or(0, |entry| entry.value.len());
    state.touch(&target, target.as_str().len() + value_bytes)?;
    Ok(OperationResult { entry, touched: 0 })
}

pub(crate) fn delete(state: &mut State<'_>, session: u64, request: &Delete) -> Outcome<OperationResult> {
    let target = path(&request.path, Path::new)?;
    if target.is_root() {
        return Err(Refusal::Invalid("the root cannot be deleted").into());
    }
    let Some(record) = state.entry(&target)? else {
        if request.may_be_absent {
            return Ok(OperationResult::default());
        }
        return Err(Refusal::NotFound(target).into());
    };
    let mut gone = vec![(target.clone(), record)];
    if target.is_directory() {
        if !request.subtree && !state.is_empty(&target)? {
            return Err(Refusal::NotEmpty(target).into());
        }
        gone.extend(state.subtree(&target)?);
        state.forget_quotas(&target)?;
    }
    let used = gone.iter().fold(Use::default(), |used, (path, record)| used + Use::of(path, record));
    state.charge(&target, -used)?;
    let touched = u32::try_from(gone.len()).expect("few");
    // Children first.
    for (path, record) in gone.into_iter().rev() {
        if !path.is_directory() {
            state.drop_lock(&path, Some(session))?;
        }
        state.unset(&path, record)?;
    }
    Ok(OperationResult { entry: None, touched })
}

pub(crate) fn rename(state: &mut State<'_>, session: u64, request: &Rename) -> Outcome<OperationResult> {
    let (from, to) = (path(&request.from, Path::new)?, path(&request.to, Path::new)?);
    if from.is_root() || to.is_root() || to.is_below(&from) {
        return Err(Refusal::Invalid("a directory cannot be moved into itself, nor the root at all").into());
    }
    if from.is_directory() != to.is_directory() {
        return Err(
            Refusal::Invalid("a file stays a file, a directory a directory: end both in / or none").into()
        );
    }
    let Some(record) = state.entry(&from)? else { return Err(Refusal::NotFound(from).into()) };
    if from == to {
        return Ok(OperationResult { entry: Some(shown(&from, record)), touched: 0 });
    }
    if let Some(replaced) = state.entry(&to)? {
        if to.is_directory() || request.no_replace {
            return Err(Refusal::Exists(to).into());
        }
        state.drop_lock(&to, Some(session))?;
        state.look_at(&to, replaced.value.len())?;
        state.charge(&to, -Use::of(&to, &replaced))?;
        if replaced.owner != 0 {
            state.delete(keys::CLAIMS, keys::claim(replaced.owner, ClaimKind::File, &to));
        }
        state.delete(keys::ENTRIES, keys::entry(&to));
    }
    make_parents(state, &to, false)?;
    check_no_other_kind(state, &to)?;
    let mut moved = vec![(from.clone(), record)];
    if from.is_directory() {
        moved.extend(state.subtree(&from)?);
    }
    state.check_no_locks(&from)?;
    let used = moved.iter().fold(Use::default(), |used, (path, record)| used + Use::of(path, record));
    state.charge(&from, -used)?;
    state.move_quotas(&from, &to)?;
    for (path, record) in moved.iter().rev() {
        state.unset(path, record.clone())?;
    }
    let touched = u32::try_from(moved.len()).expect("few");
    let mut entry = None;
    for (old, record) in moved {
        let new = format!("{to}{}", &old.as_str()[from.as_str().len()..]);
        let new = path(&new, Path::new)?;
        let moved = state.set(&new, record)?;
        entry.get_or_insert(moved);
    }
    // The name itself may be of another length.
    let top = Use::of(&to, &EntryRecord::default()) - Use::of(&from, &EntryRecord::default());
    state.charge(&to, used + top)?;
    let entry = entry.map(|entry| Entry { value: bytes::Bytes::new(), ..entry });
    Ok(OperationResult { entry, touched })
}

impl State<'_> {
    /// Refuses if a file is locked or waited for: this one, or one below this directory.
    fn check_no_locks(&self, target: &Path) -> Outcome<()> {
        if target.is_directory() {
            return match self.scan(keys::LOCKS, &keys::below(target), 1)?.first() {
                None => Ok(()),
                Some((key, _)) => {
                    Err(Refusal::Locked(keys::split_path(key).unwrap_or_else(|| target.clone())).into())
                }
            };
        }
        let lock = read_lock(self.read(), target)?;
        if lock.holders.is_empty() && lock.waiters.is_empty() {
            Ok(())
        } else {
            Err(Refusal::Locked(target.clone()).into())
        }
    }
}
