//! The inodes this client has something to remember about.
//!
//! An inode is here while somebody pins it: an open handle, an operation under way, or data and attributes that the
//! flusher still has to send. All others are as the master says. The kernel's lookup counts are therefore not kept:
//! nothing here depends on an inode the kernel merely knows, and a million looked-up files cost nothing.
//!
//! After the last pin, only what the kernel's page cache of the file was true for is remembered, in a bounded table.

use std::collections::{BTreeMap, HashMap};
use std::ops::Deref;
use std::sync::Arc;

use coord_types::{DataId, InodeId};
use master_api::model::Attr;
use parking_lot::Mutex;

use crate::inode::{CacheToken, Inode, Source};

/// Closed files whose page cache is kept valid: 24 bytes each, more than most machines cache files.
const TOKENS_MAX: usize = 1 << 16;

#[derive(Debug)]
struct Entry {
    inode: Arc<Inode>,
    pins: usize,
}

#[derive(Debug, Default)]
struct Inner {
    inodes: HashMap<InodeId, Entry>,
    tokens: BTreeMap<InodeId, CacheToken>,
    /// Directories' parents as last looked up, for "..".
    parents: BTreeMap<InodeId, InodeId>,
}

/// The table.
#[derive(Debug, Default)]
pub(crate) struct InodeTable {
    inner: Mutex<Inner>,
}

/// Keeps an inode in the table. Clones share one count, so that cloning takes no lock; the last clone takes the
/// table's lock and must not be dropped under an inode's.
#[derive(Clone, Debug)]
pub(crate) struct Pin(Arc<Pinned>);

#[derive(Debug)]
struct Pinned {
    inode: Arc<Inode>,
    table: Arc<InodeTable>,
}

impl InodeTable {
    /// Pins an inode, with attributes the master just told.
    pub(crate) fn pin(self: &Arc<Self>, attr: Attr) -> Pin {
        let mut inner = self.inner.lock();
        let inner = &mut *inner;
        let ino = attr.ino;
        let entry = match inner.inodes.entry(ino) {
            std::collections::hash_map::Entry::Occupied(entry) => {
                let entry = entry.into_mut();
                entry.inode.lock().refresh(attr, Source::Question);
                entry
            }
            std::collections::hash_map::Entry::Vacant(entry) => {
                let inode = Arc::new(Inode::new(attr, inner.tokens.remove(&ino)));
                entry.insert(Entry { inode, pins: 0 })
            }
        };
        entry.pins += 1;
        Pin::new(&entry.inode, self)
    }

    /// Pins an inode if it is here.
    pub(crate) fn find(self: &Arc<Self>, ino: InodeId) -> Option<Pin> {
        let mut inner = self.inner.lock();
        let entry = inner.inodes.get_mut(&ino)?;
        entry.pins += 1;
        Some(Pin::new(&entry.inode, self))
    }

    /// Which of those that are here has these data. As long as there are open files: for what is seldom asked.
    pub(crate) fn with_data(&self, data: DataId) -> Option<InodeId> {
        let inodes: Vec<_> =
            self.inner.lock().inodes.values().map(|entry| Arc::clone(&entry.inode)).collect();
        inodes.into_iter().find(|inode| inode.lock().attr.data == data).map(|inode| inode.ino)
    }

    pub(crate) fn count(&self) -> usize {
        self.inner.lock().inodes.len()
    }

    /// Whether any inode is here at all.
    pub(crate) fn is_empty(&self) -> bool {
        self.inner.lock().inodes.is_empty()
    }

    /// All that are here.
    pub(crate) fn all(self: &Arc<Self>) -> Vec<Pin> {
        let mut inner = self.inner.lock();
        inner
            .inodes
            .values_mut()
            .map(|entry| {
                entry.pins += 1;
                Pin::new(&entry.inode, self)
            })
            .collect()
    }

    /// What the old session held is no more.
    pub(crate) fn session_lost(self: &Arc<Self>) {
        for pin in self.all() {
            let mut state = pin.lock();
            if state.orphan {
                tracing::error!(ino = %pin.ino, "an unlinked open file was lost with the session");
                state.gone = true;
            }
        }
    }

    /// The kernel has dropped the inode and its pages.
    pub(crate) fn forget(&self, ino: InodeId) {
        let mut inner = self.inner.lock();
        inner.tokens.remove(&ino);
        inner.parents.remove(&ino);
    }

    pub(crate) fn note_parent(&self, directory: InodeId, parent: InodeId) {
        let mut inner = self.inner.lock();
        if inner.parents.len() >= TOKENS_MAX {
            inner.parents.pop_first();
        }
        inner.parents.insert(directory, parent);
    }

    /// The directory's parent, or itself if nobody went there by its name.
    pub(crate) fn parent_of(&self, directory: InodeId) -> InodeId {
        self.inner.lock().parents.get(&directory).copied().unwrap_or(directory)
    }

    fn unpin(&self, inode: &Arc<Inode>) {
        let mut inner = self.inner.lock();
        let Some(entry) = inner.inodes.get_mut(&inode.ino) else { return };
        entry.pins -= 1;
        if entry.pins > 0 {
            return;
        }
        inner.inodes.remove(&inode.ino);
        let state = inode.lock();
        if let Some(token) = state.cached {
            if inner.tokens.len() >= TOKENS_MAX {
                inner.tokens.pop_first();
            }
            inner.tokens.insert(inode.ino, token);
        }
    }
}

impl Pin {
    fn new(inode: &Arc<Inode>, table: &Arc<InodeTable>) -> Self {
        Self(Arc::new(Pinned { inode: Arc::clone(inode), table: Arc::clone(table) }))
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        self.table.unpin(&self.inode);
    }
}

impl Deref for Pin {
    type Target = Inode;

    fn deref(&self) -> &Inode {
        &self.0.inode
    }
}
