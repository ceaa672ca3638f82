//! An open file: one value, read when it is opened and written back as one.
//!
//! Invariants: a value is put whole or not at all; what others did since it was read is never overwritten without having been seen, unless the
//! file was opened to be replaced.

use std::sync::Arc;

use bytes::Bytes;
use coord_types::InodeId;
use fs_client::Errno;
use nuwa_api::model::VALUE_MAX_BYTES;
use nuwa_api::proto::compare::With;
use nuwa_api::proto::{Entry, Relation};
use nuwa_api::{Path, Session, SessionState, ops};
use parking_lot::Mutex;

use crate::errno::errno;
use crate::keeper::Keeper;

/// How a file is opened.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Mode {
    pub(crate) append: bool,
    pub(crate) truncate: bool,
}

#[derive(Debug, Default)]
struct State {
    value: Vec<u8>,
    /// The revision of its last change when it was read; 0: it was not there.
    base: u64,
    /// It differs from what is in the tree.
    dirty: bool,
    /// It is to replace whatever is there.
    whole: bool,
    /// It was made or emptied by being opened, and nothing was written yet.
    only_opened: bool,
    /// What was appended since the last put.
    appended: Vec<u8>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct OpenFile {
    pub(crate) ino: InodeId,
    append: bool,
    state: tokio::sync::Mutex<State>,
    /// The lock that was taken through it: by which session, for which owner.
    lock: Mutex<Option<(Arc<Session>, u64)>>,
}

impl OpenFile {
    /// `entry`: as it is in the tree; `None`: it is not there, and made when it is first put.
    pub(crate) fn new(ino: InodeId, mode: Mode, entry: Option<Entry>) -> Self {
        let is_new = entry.is_none();
        let entry = entry.unwrap_or_default();
        let replaces = is_new || (mode.truncate && !entry.value.is_empty());
        let state = State {
            value: if mode.truncate { Vec::new() } else { entry.value.to_vec() },
            base: entry.modified,
            dirty: false,
            // What is appended goes behind what another made meanwhile.
            whole: mode.truncate || (is_new && !mode.append),
            only_opened: replaces,
            appended: Vec::new(),
        };
        Self { ino, append: mode.append, state: tokio::sync::Mutex::new(state), lock: Mutex::default() }
    }

    /// EIO if it held a lock of a session that is over.
    pub(crate) fn check_lock(&self) -> Result<(), Errno> {
        match &*self.lock.lock() {
            Some((session, _)) if session.state() == SessionState::Lost => Err(Errno::EIO),
            Some(_) | None => Ok(()),
        }
    }

    pub(crate) fn set_lock(&self, lock: Option<(Arc<Session>, u64)>) -> Option<(Arc<Session>, u64)> {
        std::mem::replace(&mut *self.lock.lock(), lock)
    }

    pub(crate) async fn read(&self, offset_bytes: u64, len_bytes: u32) -> Bytes {
        let state = self.state.lock().await;
        let from = usize::try_from(offset_bytes).unwrap_or(usize::MAX).min(state.value.len());
        let to = from.saturating_add(len_bytes as usize).min(state.value.len());
        Bytes::copy_from_slice(&state.value[from..to])
    }

    pub(crate) async fn write(&self, offset_bytes: u64, data: &[u8]) -> Result<u32, Errno> {
        let mut state = self.state.lock().await;
        let from = if self.append {
            state.value.len()
        } else {
            usize::try_from(offset_bytes).map_err(|_| Errno::EFBIG)?
        };
        let to = from.checked_add(data.len()).filter(|to| *to <= VALUE_MAX_BYTES).ok_or(Errno::EFBIG)?;
        if state.value.len() < to {
            state.value.resize(to, 0);
        }
        state.value[from..to].copy_from_slice(data);
        if self.append {
            state.appended.extend_from_slice(data);
        }
        state.dirty = true;
        state.only_opened = false;
        u32::try_from(data.len()).map_err(|_| Errno::EFBIG)
    }

    pub(crate) async fn truncate(&self, size_bytes: u64) -> Result<(), Errno> {
        let size = usize::try_from(size_bytes).ok().filter(|size| *size <= VALUE_MAX_BYTES);
        let size = size.ok_or(Errno::EFBIG)?;
        let mut state = self.state.lock().await;
        if size != state.value.len() {
            state.value.resize(size, 0);
            state.dirty = true;
        }
        state.whole |= size == 0;
        Ok(())
    }

    /// Its size, if it is another than the tree's.
    pub(crate) fn size_of_change(&self) -> Option<u64> {
        // Who writes to it at this moment is not done.
        let state = self.state.try_lock().ok()?;
        (state.dirty || state.only_opened).then_some(state.value.len() as u64)
    }

    /// It is not in the tree yet.
    pub(crate) fn is_new(&self) -> bool {
        self.state.try_lock().is_ok_and(|state| state.base == 0)
    }

    /// Something was written: puts it, if it differs from what is in the tree.
    pub(crate) async fn put_written(&self, keeper: &Keeper, path: &Path) -> Result<(), Errno> {
        let mut state = self.state.lock().await;
        if state.dirty { self.put(&mut state, keeper, path).await } else { Ok(()) }
    }

    /// The same, if it was only made or emptied, too.
    pub(crate) async fn put_all(&self, keeper: &Keeper, path: &Path) -> Result<(), Errno> {
        let mut state = self.state.lock().await;
        if state.dirty || state.only_opened { self.put(&mut state, keeper, path).await } else { Ok(()) }
    }

    async fn put(&self, state: &mut State, keeper: &Keeper, path: &Path) -> Result<(), Errno> {
        self.check_lock()?;
        loop {
            let session = keeper.session().await.map_err(|error| errno(&error))?;
            let unchanged = ops::compare(path.as_str(), Relation::Equal, With::Modified(state.base));
            let compares = if state.whole { Vec::new() } else { vec![unchanged] };
            let then = vec![ops::put(path.as_str(), state.value.clone()).into()];
            let otherwise = vec![ops::get(path.as_str()).into()];
            let done = session.txn(compares, then, otherwise, None).await.map_err(|error| errno(&error))?;
            let entry = done.results.into_iter().next().and_then(|result| result.entry);
            if done.succeeded {
                state.base = entry.map_or(0, |entry| entry.modified);
                (state.dirty, state.whole, state.only_opened) = (false, false, false);
                state.appended.clear();
                return Ok(());
            }
            if !self.append {
                return Err(Errno::ESTALE);
            }
            // Somebody was faster: behind what is there now.
            let there = entry.unwrap_or_default();
            state.base = there.modified;
            state.value = [&there.value, state.appended.as_slice()].concat();
            if state.value.len() > VALUE_MAX_BYTES {
                return Err(Errno::EFBIG);
            }
        }
    }
}
