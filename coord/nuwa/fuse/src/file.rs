//! An open file: one value, read when it is opened and written back as one.
//!
//! Invariants: a value is put whole or not at all; what others did since it was read is never overwritten without having been seen, unless the
//! file was opened to be replaced (`O_TRUNC`); what a call failed to put, or was interrupted in putting, no later one puts that nobody hears of.

use std::sync::Arc;

use bytes::Bytes;
use coord_types::InodeId;
use fs_client::Errno;
use nuwa_api::model::VALUE_MAX_BYTES;
use nuwa_api::proto::compare::With;
use nuwa_api::proto::{Entry, Relation};
use nuwa_api::{Path, Session, ops};

use crate::claims::Claims;
use crate::descriptors;
use crate::errno::errno;
use crate::keeper::Keeper;

/// How a file is opened.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Mode {
    pub(crate) append: bool,
    pub(crate) truncate: bool,
    /// It is made if it is not there. Whoever opens a file that somebody else is about to make does not make it.
    pub(crate) create: bool,
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
    /// Its length was set since the last put: more than appending.
    is_cut: bool,
    /// More was written than a value can have: what there is of it is not put.
    too_large: bool,
    /// A put was asked for and has not succeeded. Who asked was told so, or has gone: nothing is put behind their back.
    refused: bool,
    /// The last put was not answered: it may be in the tree.
    is_doubtful: bool,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct OpenFile {
    pub(crate) ino: InodeId,
    append: bool,
    state: tokio::sync::Mutex<State>,
    /// The process that made or emptied it by opening it, if it can be seen from here.
    opener: Option<u32>,
    /// What it has of its lock.
    pub(crate) claims: Claims,
}

impl OpenFile {
    /// `entry`: as it is in the tree; `None`: it is not there, and made when it is first put.
    pub(crate) fn new(ino: InodeId, mode: Mode, entry: Option<Entry>) -> Self {
        let is_new = entry.is_none();
        let entry = entry.unwrap_or_default();
        let is_made = is_new && (mode.create || mode.truncate);
        let state = State {
            value: if mode.truncate { Vec::new() } else { entry.value.to_vec() },
            base: entry.modified,
            whole: mode.truncate,
            only_opened: is_made || (mode.truncate && !entry.value.is_empty()),
            ..State::default()
        };
        let state = tokio::sync::Mutex::new(state);
        Self { ino, append: mode.append, state, opener: None, claims: Claims::default() }
    }

    /// Who, if it matters: a thread; 0 is nobody that can be seen from here.
    pub(crate) fn opened_by(&mut self, thread: u32) {
        if self.state.get_mut().only_opened {
            self.opener = descriptors::process_of(thread);
        }
    }

    pub(crate) fn opener(&self) -> Option<u32> {
        self.opener
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
        state.dirty = true;
        state.only_opened = false;
        state.refused = false;
        let Some(to) = from.checked_add(data.len()).filter(|to| *to <= VALUE_MAX_BYTES) else {
            // The kernel writes in pieces, and those before this one are no value anybody wanted.
            state.too_large = true;
            return Err(Errno::EFBIG);
        };
        if state.value.len() < to {
            state.value.resize(to, 0);
        }
        state.value[from..to].copy_from_slice(data);
        if self.append {
            state.appended.extend_from_slice(data);
        }
        u32::try_from(data.len()).map_err(|_| Errno::EFBIG)
    }

    pub(crate) async fn truncate(&self, size_bytes: u64) -> Result<(), Errno> {
        let size = usize::try_from(size_bytes).ok().filter(|size| *size <= VALUE_MAX_BYTES);
        let size = size.ok_or(Errno::EFBIG)?;
        let mut state = self.state.lock().await;
        if size != state.value.len() {
            state.value.resize(size, 0);
            (state.dirty, state.is_cut, state.only_opened) = (true, true, false);
        }
        (state.too_large, state.refused) = (false, false);
        Ok(())
    }

    /// Its size, if it is another than the tree's.
    pub(crate) fn size_of_change(&self) -> Option<u64> {
        // Who writes to it at this moment is not done.
        let state = self.state.try_lock().ok()?;
        (state.dirty || state.only_opened).then_some(state.value.len() as u64)
    }

    /// It is not in the tree yet, and will be.
    pub(crate) fn is_to_be_made(&self) -> bool {
        self.state.try_lock().is_ok_and(|state| state.base == 0 && (state.dirty || state.only_opened))
    }

    /// It was made or emptied, and nothing was written yet.
    pub(crate) async fn is_only_opened(&self) -> bool {
        self.state.lock().await.only_opened
    }

    /// It is to be made if it is not there, though somebody else was about to do that.
    pub(crate) async fn is_needed(&self) {
        let mut state = self.state.lock().await;
        state.only_opened |= state.base == 0 && !state.dirty;
    }

    /// Puts what was written, made or emptied.
    pub(crate) async fn put_all(&self, keeper: &Keeper, path: &Path) -> Result<(), Errno> {
        let mut state = self.state.lock().await;
        if state.dirty || state.only_opened { self.put(&mut state, keeper, path).await } else { Ok(()) }
    }

    /// The same when it was closed for the last time, and nobody is told any more what came of it: what was written since (to mapped
    /// pages), and what nobody tried to put.
    pub(crate) async fn put_at_last(&self, keeper: &Keeper, path: &Path) -> Result<(), Errno> {
        let refused = self.state.lock().await.refused;
        if refused { Ok(()) } else { self.put_all(keeper, path).await }
    }

    async fn put(&self, state: &mut State, keeper: &Keeper, path: &Path) -> Result<(), Errno> {
        // Before the first wait, which may be the last.
        state.refused = true;
        let put = self.try_put(state, keeper, path).await;
        state.refused = put.is_err();
        put
    }

    /// Under whose session it is put: that of its lock, so that nothing is put once the lock is gone, not even before this mount
    /// knows.
    async fn session(&self, keeper: &Keeper) -> Result<Arc<Session>, Errno> {
        self.claims.check()?;
        match self.claims.held() {
            Some(held) => Ok(held.session),
            None => keeper.session().await.map_err(|error| errno(&error)),
        }
    }

    async fn try_put(&self, state: &mut State, keeper: &Keeper, path: &Path) -> Result<(), Errno> {
        if state.too_large {
            return Err(Errno::EFBIG);
        }
        loop {
            let session = self.session(keeper).await?;
            let unchanged = ops::compare(path.as_str(), Relation::Equal, With::Modified(state.base));
            let compares = if state.whole { Vec::new() } else { vec![unchanged] };
            let then = vec![ops::put(path.as_str(), state.value.clone()).into()];
            let otherwise = vec![ops::get(path.as_str()).into()];
            let was_doubtful = std::mem::replace(&mut state.is_doubtful, true);
            let done = session.txn(compares, then, otherwise, None).await;
            if done.as_ref().map_or_else(|error| error.refusal().is_some(), |_| true) {
                state.is_doubtful = was_doubtful;
            }
            let done = done.map_err(|error| errno(&error))?;
            let entry = done.results.into_iter().next().and_then(|result| result.entry);
            if done.succeeded {
                state.is_put(entry.map_or(0, |entry| entry.modified));
                return Ok(());
            }
            let there = entry.unwrap_or_default();
            if state.only_opened {
                // Another one made it: now it is there, which is all that was asked for.
                state.value = there.value.to_vec();
                state.is_put(there.modified);
                return Ok(());
            }
            if !self.append || state.is_cut || was_doubtful {
                return Err(Errno::ESTALE);
            }
            // Somebody was faster: behind what is there now.
            state.base = there.modified;
            state.value = [&there.value, state.appended.as_slice()].concat();
            if state.value.len() > VALUE_MAX_BYTES {
                return Err(Errno::EFBIG);
            }
        }
    }
}

impl State {
    /// It is as in the tree.
    fn is_put(&mut self, base: u64) {
        self.base = base;
        (self.dirty, self.whole, self.only_opened, self.is_cut) = (false, false, false, false);
        self.is_doubtful = false;
        self.appended.clear();
    }
}
