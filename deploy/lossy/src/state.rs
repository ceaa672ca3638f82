//! The disk without the kernel: inodes, and what system calls do to them.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use nix::errno::Errno;

use crate::bytes::Bytes;
use crate::dice::{Dice, Loss, Report};
use crate::tree::{Ino, Set, Tree};

pub(crate) const ROOT: Ino = 1;

/// What an inode is.
#[derive(Debug)]
pub(crate) enum Kind {
    Dir,
    File(Bytes),
    Symlink(PathBuf),
}

#[derive(Debug)]
pub(crate) struct Inode {
    pub(crate) kind: Kind,
    pub(crate) owner: Owner,
    pub(crate) atime: SystemTime,
    pub(crate) mtime: SystemTime,
    pub(crate) ctime: SystemTime,
    pub(crate) names: u32,
    /// Handles of programs.
    opened: u32,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Owner {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mode: u32,
}

/// A directory and a name in it.
pub(crate) type Place<'a> = (Ino, &'a OsStr);
pub(crate) type Result<T> = std::result::Result<T, Errno>;

/// See the module.
#[derive(Debug)]
pub(crate) struct State {
    backing: PathBuf,
    inodes: BTreeMap<Ino, Inode>,
    tree: Tree,
    next: Ino,
}

fn errno(error: std::io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}

impl Inode {
    fn new(kind: Kind, owner: Owner) -> Self {
        let now = SystemTime::now();
        Self { kind, owner, atime: now, mtime: now, ctime: now, names: 0, opened: 0 }
    }

    pub(crate) fn len(&self) -> u64 {
        match &self.kind {
            Kind::Dir => 4096,
            Kind::File(bytes) => bytes.len(),
            Kind::Symlink(target) => target.as_os_str().len() as u64,
        }
    }
}

impl State {
    /// An empty disk, whose files have their bytes in nameless files below `backing`.
    pub(crate) fn new(backing: &Path) -> Self {
        let owner =
            Owner { uid: nix::unistd::getuid().as_raw(), gid: nix::unistd::getgid().as_raw(), mode: 0o755 };
        let mut tree = Tree::default();
        tree.add_dir(ROOT);
        let inodes = BTreeMap::from([(ROOT, Inode::new(Kind::Dir, owner))]);
        Self { backing: backing.to_owned(), inodes, tree, next: ROOT + 1 }
    }

    pub(crate) fn inode(&self, ino: Ino) -> Result<&Inode> {
        self.inodes.get(&ino).ok_or(Errno::ESTALE)
    }

    pub(crate) fn inode_mut(&mut self, ino: Ino) -> Result<&mut Inode> {
        self.inodes.get_mut(&ino).ok_or(Errno::ESTALE)
    }

    fn bytes(&mut self, ino: Ino) -> Result<&mut Bytes> {
        match &mut self.inode_mut(ino)?.kind {
            Kind::File(bytes) => Ok(bytes),
            Kind::Dir => Err(Errno::EISDIR),
            Kind::Symlink(_) => Err(Errno::EINVAL),
        }
    }

    pub(crate) fn find(&self, (dir, name): Place<'_>) -> Result<Ino> {
        self.tree.find(dir, name).ok_or(Errno::ENOENT)
    }

    pub(crate) fn list(&self, dir: Ino) -> Result<Vec<(OsString, Ino)>> {
        let names = self.tree.names(dir).ok_or(Errno::ENOTDIR)?;
        Ok(names.iter().map(|(name, ino)| (name.clone(), *ino)).collect())
    }

    pub(crate) fn make_file(&mut self, place: Place<'_>, owner: Owner) -> Result<Ino> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).custom_flags(libc::O_TMPFILE);
        let file = options.open(&self.backing).map_err(errno)?;
        self.make(place, Kind::File(Bytes::new(file)), owner)
    }

    pub(crate) fn make(&mut self, (dir, name): Place<'_>, kind: Kind, owner: Owner) -> Result<Ino> {
        let names = self.tree.names(dir).ok_or(Errno::ENOTDIR)?;
        if names.contains_key(name) {
            return Err(Errno::EEXIST);
        }
        let ino = self.next;
        self.next += 1;
        if matches!(kind, Kind::Dir) {
            self.tree.add_dir(ino);
        }
        self.inodes.insert(ino, Inode::new(kind, owner));
        self.change(vec![Set { dir, name: name.to_owned(), to: Some(ino) }]);
        Ok(ino)
    }

    /// Changes names and counts them.
    fn change(&mut self, sets: Vec<Set>) {
        for set in &sets {
            for (ino, more) in [(self.tree.find(set.dir, &set.name), false), (set.to, true)] {
                let Some(inode) = ino.and_then(|ino| self.inodes.get_mut(&ino)) else { continue };
                inode.names = if more { inode.names + 1 } else { inode.names.saturating_sub(1) };
            }
        }
        for dir in sets.iter().map(|set| set.dir) {
            if let Some(inode) = self.inodes.get_mut(&dir) {
                inode.mtime = SystemTime::now();
            }
        }
        self.tree.change(sets);
    }

    pub(crate) fn link(&mut self, ino: Ino, (dir, name): Place<'_>) -> Result<()> {
        if self.tree.names(dir).ok_or(Errno::ENOTDIR)?.contains_key(name) {
            return Err(Errno::EEXIST);
        }
        self.change(vec![Set { dir, name: name.to_owned(), to: Some(ino) }]);
        Ok(())
    }

    pub(crate) fn unlink(&mut self, place: Place<'_>) -> Result<()> {
        if self.tree.names(self.find(place)?).is_some() {
            return Err(Errno::EISDIR);
        }
        self.change(vec![Set { dir: place.0, name: place.1.to_owned(), to: None }]);
        Ok(())
    }

    pub(crate) fn rmdir(&mut self, place: Place<'_>) -> Result<()> {
        match self.tree.names(self.find(place)?) {
            None => return Err(Errno::ENOTDIR),
            Some(names) if !names.is_empty() => return Err(Errno::ENOTEMPTY),
            Some(_) => {}
        }
        self.change(vec![Set { dir: place.0, name: place.1.to_owned(), to: None }]);
        Ok(())
    }

    pub(crate) fn rename(&mut self, from: Place<'_>, to: Place<'_>) -> Result<()> {
        let moved = self.find(from)?;
        if let Some(replaced) = self.tree.find(to.0, to.1) {
            if replaced == moved {
                return Ok(());
            }
            match (self.tree.names(moved), self.tree.names(replaced)) {
                (Some(_), None) => return Err(Errno::ENOTDIR),
                (None, Some(_)) => return Err(Errno::EISDIR),
                (Some(_), Some(names)) if !names.is_empty() => return Err(Errno::ENOTEMPTY),
                _ => {}
            }
        }
        self.tree.names(to.0).ok_or(Errno::ENOTDIR)?;
        self.change(vec![
            Set { dir: from.0, name: from.1.to_owned(), to: None },
            Set { dir: to.0, name: to.1.to_owned(), to: Some(moved) },
        ]);
        Ok(())
    }

    pub(crate) fn read(&mut self, ino: Ino, offset: u64, size: usize) -> Result<Vec<u8>> {
        self.bytes(ino)?.read(offset, size).map_err(errno)
    }

    pub(crate) fn write(&mut self, ino: Ino, offset: u64, data: &[u8]) -> Result<()> {
        self.bytes(ino)?.write(offset, data).map_err(errno)?;
        self.inode_mut(ino)?.mtime = SystemTime::now();
        Ok(())
    }

    pub(crate) fn set_len(&mut self, ino: Ino, len: u64) -> Result<()> {
        self.bytes(ino)?.set_len(len).map_err(errno)
    }

    /// As fallocate(2) without modes: the file is at least so long.
    pub(crate) fn extend(&mut self, ino: Ino, len: u64) -> Result<()> {
        let bytes = self.bytes(ino)?;
        if len > bytes.len() { bytes.set_len(len).map_err(errno) } else { Ok(()) }
    }

    pub(crate) fn sync_file(&mut self, ino: Ino) -> Result<()> {
        self.bytes(ino)?.sync();
        Ok(())
    }

    pub(crate) fn sync_range(&mut self, ino: Ino, offset: u64, len: u64) -> Result<()> {
        self.bytes(ino)?.sync_range(offset, len);
        Ok(())
    }

    pub(crate) fn sync_dir(&mut self, dir: Ino) -> Result<()> {
        self.tree.names(dir).ok_or(Errno::ENOTDIR)?;
        self.tree.sync_dir(dir);
        self.forget_unreachable();
        Ok(())
    }

    pub(crate) fn opened(&mut self, ino: Ino) -> Result<()> {
        self.inode_mut(ino)?.opened += 1;
        Ok(())
    }

    pub(crate) fn closed(&mut self, ino: Ino) -> Result<()> {
        let inode = self.inode_mut(ino)?;
        inode.opened = inode.opened.saturating_sub(1);
        if inode.opened == 0 && inode.names == 0 {
            self.forget_unreachable();
        }
        Ok(())
    }

    fn forget_unreachable(&mut self) {
        let reachable = self.tree.reachable(ROOT);
        self.inodes.retain(|ino, inode| inode.opened > 0 || reachable.contains(ino));
        let inodes = &self.inodes;
        self.tree.retain(|ino| inodes.contains_key(&ino));
    }

    /// Power is cut.
    pub(crate) fn cut(&mut self, loss: Loss) -> std::io::Result<Report> {
        let (mut dice, mut report) = (Dice::new(loss), Report::default());
        self.tree.cut(&mut dice, &mut report);
        let names = self.tree.count_names();
        for (ino, inode) in &mut self.inodes {
            inode.opened = 0;
            inode.names = names.get(ino).copied().unwrap_or(0);
            if let Kind::File(bytes) = &mut inode.kind {
                bytes.cut(&mut dice, &mut report)?;
            }
        }
        self.forget_unreachable();
        Ok(report)
    }
}
