//! How much there may be below a directory.

use std::ops::{Add, Neg, Sub};

use coord_kv::{Range, Read};
use nuwa_model::proto::SetQuota;
use nuwa_model::refusal::Limit;
use nuwa_model::{Path, Refusal};

use crate::error::{Outcome, corrupt, path};
use crate::keys;
use crate::records::{EntryRecord, QuotaRecord};
use crate::state::{PAGE, State, decode};

/// What is counted when a quota is set, at most: no member does anything else meanwhile. Not measured: 4,096 scans of 16.
const COUNTED_MAX: u64 = 65_536;
/// Of names and values.
const COUNTED_BYTES_MAX: u64 = 64 << 20;

/// What entries take, or less of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Use {
    entries: i64,
    bytes: i64,
}

/// What a quota had used before the command.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Before {
    entries: u64,
    bytes: u64,
}

impl Use {
    pub(crate) fn of(path: &Path, record: &EntryRecord) -> Self {
        let name = path.split().map_or(0, |(_, name)| name.trim_end_matches('/').len());
        Self { entries: 1, bytes: (name + record.value.len()) as i64 }
    }

    pub(crate) fn of_quota(record: &QuotaRecord) -> Self {
        Self { entries: record.entries.cast_signed(), bytes: record.bytes.cast_signed() }
    }

    pub(crate) fn of_value(len_bytes: usize) -> Self {
        Self { entries: 0, bytes: len_bytes as i64 }
    }
}

impl Add for Use {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { entries: self.entries + other.entries, bytes: self.bytes + other.bytes }
    }
}

impl Neg for Use {
    type Output = Self;

    fn neg(self) -> Self {
        Self { entries: -self.entries, bytes: -self.bytes }
    }
}

impl Sub for Use {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        self + -other
    }
}

/// Counts what is below a directory, as far as that may go on.
struct Count<'a> {
    read: &'a dyn Read,
    directory: &'a Path,
    used: Use,
    /// Of it, what was read for it.
    looked_at: Use,
}

impl Count<'_> {
    /// All of it. What is below a directory with a quota is known.
    fn all(mut self) -> Outcome<Use> {
        let mut rest = keys::below(self.directory);
        let mut parts = keys::below(self.directory).after(keys::path(self.directory));
        while let Some((part, record)) = self.read.scan(keys::QUOTAS, &parts, 1)?.pop() {
            let below = Range::prefix(&part);
            self.entries(Range { end_exclusive: Some(below.start), ..rest.clone() })?;
            self.used = self.used + Use::of_quota(&decode("a quota", &record)?);
            self.look_at(Use { entries: 1, bytes: 0 })?;
            let behind = below.end_exclusive.ok_or_else(|| corrupt("the key of a quota"))?;
            (rest.start, parts.start) = (behind.clone(), behind);
        }
        self.entries(rest)?;
        Ok(self.used)
    }

    fn entries(&mut self, mut rest: Range) -> Outcome<()> {
        loop {
            let page = self.read.scan(keys::ENTRIES, &rest, PAGE)?;
            for (key, record) in &page {
                let path = keys::entry_path(key).ok_or_else(|| corrupt("the key of an entry"))?;
                let one = Use::of(&path, &decode("an entry", record)?);
                self.used = self.used + one;
                self.look_at(one)?;
            }
            match page.last() {
                Some((key, _)) if page.len() == PAGE => rest = rest.after(key),
                Some(_) | None => return Ok(()),
            }
        }
    }

    fn look_at(&mut self, one: Use) -> Outcome<()> {
        self.looked_at = self.looked_at + one;
        let limit = if self.looked_at.entries.unsigned_abs() > COUNTED_MAX {
            Limit::Entries(COUNTED_MAX)
        } else if self.looked_at.bytes.unsigned_abs() > COUNTED_BYTES_MAX {
            Limit::Bytes(COUNTED_BYTES_MAX)
        } else {
            return Ok(());
        };
        Err(Refusal::TooMuchToCount { directory: self.directory.clone(), limit }.into())
    }
}

fn count(read: &dyn Read, directory: &Path) -> Outcome<Use> {
    Count { read, directory, used: Use::default(), looked_at: Use::default() }.all()
}

pub(crate) fn set(state: &mut State<'_>, request: &SetQuota) -> Outcome<()> {
    let directory = path(&request.path, Path::directory)?;
    if state.entry(&directory)?.is_none() {
        return Err(Refusal::NotFound(directory).into());
    }
    let had = state.quota(&directory)?;
    let SetQuota { entries_max, bytes_max, .. } = *request;
    if entries_max == 0 && bytes_max == 0 {
        if had.is_some() {
            state.delete(keys::QUOTAS, keys::path(&directory));
            state.meta.quotas -= 1;
        }
        return Ok(());
    }
    let (entries, bytes) = match &had {
        Some(record) => (record.entries, record.bytes),
        None => {
            state.meta.quotas += 1;
            let used = count(state.read(), &directory)?;
            (used.entries.unsigned_abs(), used.bytes.unsigned_abs())
        }
    };
    state.put(keys::QUOTAS, keys::path(&directory), &QuotaRecord { entries_max, bytes_max, entries, bytes });
    Ok(())
}

impl State<'_> {
    fn quota(&self, directory: &Path) -> Outcome<Option<QuotaRecord>> {
        let record = self.read().get(keys::QUOTAS, keys::path(directory))?;
        Ok(record.map(|record| decode("a quota", &record)).transpose()?)
    }

    /// Of a directory that had none.
    pub(crate) fn set_quota(&mut self, directory: &Path, record: QuotaRecord) {
        self.put(keys::QUOTAS, keys::path(directory), &record);
        self.meta.quotas += 1;
    }

    /// Notes in the quotas above an entry what it takes.
    pub(crate) fn charge(&mut self, target: &Path, used: Use) -> Outcome<()> {
        if self.meta.quotas == 0 {
            return Ok(());
        }
        for directory in target.ancestors() {
            let directory = path(directory, Path::directory)?;
            let Some(mut record) = self.quota(&directory)? else { continue };
            let before = Before { entries: record.entries, bytes: record.bytes };
            record.entries = record.entries.saturating_add_signed(used.entries);
            record.bytes = record.bytes.saturating_add_signed(used.bytes);
            self.put(keys::QUOTAS, keys::path(&directory), &record);
            self.charged.entry(directory).or_insert(before);
        }
        Ok(())
    }

    /// Refuses what leads above a quota, or farther above it.
    pub(crate) fn check_quotas(&self) -> Outcome<()> {
        for (directory, before) in &self.charged {
            let Some(record) = self.quota(directory)? else { continue };
            let is_over = |now, then, max| max != 0 && now > max && now > then;
            let limit = if is_over(record.entries, before.entries, record.entries_max) {
                Limit::Entries(record.entries_max)
            } else if is_over(record.bytes, before.bytes, record.bytes_max) {
                Limit::Bytes(record.bytes_max)
            } else {
                continue;
            };
            return Err(Refusal::Quota { directory: directory.clone(), limit }.into());
        }
        Ok(())
    }

    /// The directory goes, and with it its quota and those below.
    pub(crate) fn forget_quotas(&mut self, directory: &Path) -> Outcome<()> {
        for (directory, _) in self.quotas_from(directory)? {
            self.delete(keys::QUOTAS, keys::path(&directory));
            self.meta.quotas -= 1;
        }
        Ok(())
    }

    /// As the directory goes elsewhere, so do its quota and those below.
    pub(crate) fn move_quotas(&mut self, from: &Path, to: &Path) -> Outcome<()> {
        for (old, record) in self.quotas_from(from)? {
            let new = path(&format!("{to}{}", &old.as_str()[from.as_str().len()..]), Path::directory)?;
            self.delete(keys::QUOTAS, keys::path(&old));
            self.put(keys::QUOTAS, keys::path(&new), &record);
            if let Some(before) = self.charged.remove(&old) {
                self.charged.insert(new, before);
            }
        }
        Ok(())
    }

    fn quotas_from(&self, directory: &Path) -> Outcome<Vec<(Path, QuotaRecord)>> {
        if self.meta.quotas == 0 || !directory.is_directory() {
            return Ok(Vec::new());
        }
        let pairs = self.scan(keys::QUOTAS, &keys::below(directory), usize::MAX)?;
        let quotas = pairs.iter().map(|(key, record)| {
            let directory = keys::split_path(key).ok_or_else(|| corrupt("the key of a quota"))?;
            Ok((directory, decode("a quota", record)?))
        });
        quotas.collect()
    }
}
