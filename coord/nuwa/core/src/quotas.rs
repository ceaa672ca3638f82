//! How much there may be below a directory.

use std::ops::{Add, Neg, Sub};

use nuwa_model::proto::SetQuota;
use nuwa_model::refusal::Limit;
use nuwa_model::{Path, Refusal};

use crate::error::{Outcome, corrupt, path};
use crate::keys;
use crate::records::{EntryRecord, QuotaRecord};
use crate::state::{State, decode};

/// Entries that are read at a time while a subtree is counted.
const PAGE: usize = 1024;

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

/// Counts everything below a directory.
pub(crate) fn count(read: &dyn coord_kv::Read, directory: &Path) -> coord_kv::Result<Use> {
    let mut used = Use::default();
    let mut range = keys::below(directory);
    loop {
        let page = read.scan(keys::ENTRIES, &range, PAGE)?;
        for (key, record) in &page {
            let path = keys::entry_path(key).ok_or_else(|| corrupt("the key of an entry"))?;
            used = used + Use::of(&path, &decode("an entry", record)?);
        }
        match page.last() {
            Some((key, _)) if page.len() == PAGE => range = range.after(key),
            Some(_) | None => return Ok(used),
        }
    }
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
