//! A file system as simple as can be: what the real one is compared with.

use std::collections::BTreeMap;

use coord_types::InodeId;
use fs_client::Errno;

use crate::generators::{Dir, Spot};

/// A regular file.
#[derive(Clone, Debug)]
pub(crate) struct File {
    pub(crate) ino: InodeId,
    pub(crate) mode: u32,
    pub(crate) mtime: Option<u32>,
    pub(crate) data: Vec<u8>,
    /// Contents since all of it was last made durable, oldest first, the present one not among them.
    pub(crate) past: Vec<Vec<u8>>,
    /// Attributes changed since.
    pub(crate) attributes_at_risk: bool,
}

/// The tree: files by number, names in three directories (the first is the root).
#[derive(Debug, Default)]
pub(crate) struct Model {
    pub(crate) files: BTreeMap<u64, File>,
    pub(crate) dirs: [Option<InodeId>; 3],
    pub(crate) names: BTreeMap<(Dir, usize), u64>,
    next: u64,
}

impl File {
    /// About to be changed.
    pub(crate) fn change(&mut self) -> &mut Vec<u8> {
        self.past.push(self.data.clone());
        &mut self.data
    }

    pub(crate) fn write(&mut self, offset: u64, bytes: &[u8]) {
        let offset = usize::try_from(offset).unwrap();
        let data = self.change();
        if data.len() < offset + bytes.len() {
            data.resize(offset + bytes.len(), 0);
        }
        data[offset..offset + bytes.len()].copy_from_slice(bytes);
        self.mtime = None;
    }

    pub(crate) fn resize(&mut self, size: u64) {
        self.change().resize(usize::try_from(size).unwrap(), 0);
        self.mtime = None;
    }

    pub(crate) fn zero(&mut self, offset: u64, end: u64) {
        let data = self.change();
        let end = usize::try_from(end).unwrap().min(data.len());
        let offset = usize::try_from(offset).unwrap().min(end);
        data[offset..end].fill(0);
        self.mtime = None;
    }

    pub(crate) fn kill_privileges(&mut self) {
        self.mode &= !0o4000;
        if self.mode & 0o010 != 0 {
            self.mode &= !0o2000;
        }
    }

    pub(crate) fn synced(&mut self) {
        self.past.clear();
        self.attributes_at_risk = false;
    }

    pub(crate) fn read(&self, offset: u64, len: u32) -> &[u8] {
        let from = usize::try_from(offset).unwrap().min(self.data.len());
        &self.data[from..(from + len as usize).min(self.data.len())]
    }

    /// After a crash the file is this; was that possible?
    pub(crate) fn survived_as(&self, found: &[u8]) -> Result<(), String> {
        let all: Vec<&Vec<u8>> = self.past.iter().chain([&self.data]).collect();
        let longest = all.iter().map(|data| data.len()).max().unwrap_or(0);
        let shortest = all.iter().map(|data| data.len()).min().unwrap_or(0);
        if found.len() > longest || found.len() < shortest {
            return Err(format!("{} bytes, not {shortest}..={longest}", found.len()));
        }
        let possible = |at: usize| all.iter().any(|data| data.get(at).copied().unwrap_or(0) == found[at]);
        match (0..found.len()).find(|at| !possible(*at)) {
            Some(at) => {
                Err(format!("byte {at} is {}, which was never there since it was durable", found[at]))
            }
            None => Ok(()),
        }
    }
}

impl Model {
    pub(crate) fn new() -> Self {
        Self { dirs: [Some(InodeId::ROOT), None, None], ..Self::default() }
    }

    pub(crate) fn at(&self, spot: Spot) -> Option<u64> {
        self.names.get(&(spot.dir, spot.name)).copied()
    }

    pub(crate) fn create(&mut self, spot: Spot, ino: InodeId, mode: u32) -> u64 {
        self.next += 1;
        let file =
            File { ino, mode, mtime: None, data: Vec::new(), past: Vec::new(), attributes_at_risk: false };
        self.files.insert(self.next, file);
        self.names.insert((spot.dir, spot.name), self.next);
        self.next
    }

    pub(crate) fn nlink(&self, file: u64) -> u32 {
        u32::try_from(self.names.values().filter(|named| **named == file).count()).unwrap()
    }

    pub(crate) fn rename(&mut self, from: Spot, to: Spot, flags: u32) -> Result<(), Errno> {
        let (Some(_), Some(_)) = (self.dirs[from.dir], self.dirs[to.dir]) else { return Err(Errno::ENOENT) };
        let source = self.at(from).ok_or(Errno::ENOENT)?;
        let target = self.at(to);
        match flags {
            libc::RENAME_NOREPLACE if target.is_some() => return Err(Errno::EEXIST),
            libc::RENAME_EXCHANGE => {
                let target = target.ok_or(Errno::ENOENT)?;
                self.names.insert((from.dir, from.name), target);
                self.names.insert((to.dir, to.name), source);
                return Ok(());
            }
            _ => {}
        }
        // Two names of one file: nothing happens.
        if target != Some(source) {
            self.names.remove(&(from.dir, from.name));
            self.names.insert((to.dir, to.name), source);
        }
        Ok(())
    }

    pub(crate) fn is_empty(&self, dir: Dir) -> bool {
        !self.names.keys().any(|(at, _)| *at == dir)
    }
}
