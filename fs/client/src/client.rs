//! What all operations share, and how work outlives the operation that began it.

use std::future::Future;
use std::pin::Pin as StdPin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use coord_types::InodeId;
use master_api::model::{Attr, Mutated, Mutation, Query};
use tokio::runtime::Handle;
use tokio::task::AbortHandle;

use crate::bare::Bare;
use crate::chunks::Chunks;
use crate::handle::Handles;
use crate::inode::{Source, file_attr};
use crate::inode_table::InodeTable;
use crate::known::Known;
use crate::meta::Meta;
use crate::write::flush::Flusher;
use crate::write::memory::Memory;
use crate::{ClientConfig, Entry, Errno, FileAttr};

/// A client.
pub(crate) struct Client {
    pub(crate) meta: Arc<dyn Meta>,
    pub(crate) chunks: Arc<dyn Chunks>,
    pub(crate) config: ClientConfig,
    pub(crate) runtime: Handle,
    pub(crate) memory: Arc<Memory>,
    pub(crate) inodes: Arc<InodeTable>,
    pub(crate) handles: Handles,
    pub(crate) known: Known,
    pub(crate) bare: Bare,
    pub(crate) flusher: Arc<Flusher>,
    /// Shared by what takes names away; who opens a file waits for them (`open`).
    pub(crate) unlinks: tokio::sync::RwLock<()>,
    /// The flusher's task; it ends with the client.
    pub(crate) flushing: std::sync::OnceLock<AbortHandle>,
}

impl Drop for Client {
    fn drop(&mut self) {
        if let Some(task) = self.flushing.get() {
            task.abort();
        }
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("config", &self.config).finish_non_exhaustive()
    }
}

type Boxed<T> = StdPin<Box<dyn Future<Output = T> + Send>>;

/// Polls once, here: what it sends is on a socket before this returns, and no other thread was woken for it.
/// `Err`: it has to wait, and whoever polls it next is woken when it need no more.
fn poll_once<T>(runtime: &Handle, mut future: Boxed<T>) -> Result<T, Boxed<T>> {
    let _entered = runtime.enter();
    match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => Ok(value),
        Poll::Pending => Err(future),
    }
}

impl Client {
    /// Runs `future` to its end whatever becomes of the caller: an operation in several steps must not stop between them
    /// because a signal interrupted its caller.
    pub(crate) async fn to_the_end<T: Send + 'static>(
        &self,
        future: impl Future<Output = T> + Send + 'static,
    ) -> T {
        let waiting = match poll_once(&self.runtime, Box::pin(future)) {
            Ok(value) => return value,
            Err(waiting) => waiting,
        };
        match self.runtime.spawn(waiting).await {
            Ok(value) => value,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The runtime is shutting down, and this task with it.
                Err(_) => std::future::pending().await,
            },
        }
    }

    /// Runs `future` in the background; its first step here.
    pub(crate) fn detach(&self, future: Boxed<()>) {
        if let Err(waiting) = poll_once(&self.runtime, future) {
            self.runtime.spawn(waiting);
        }
    }

    /// The attributes the caller sees: the master's, with what it does not know yet; and how long the kernel may believe them.
    pub(crate) fn shown(&self, attr: &Attr, source: Source) -> (FileAttr, Duration) {
        let pin = if attr.is_regular() { self.inodes.find(attr.ino) } else { None };
        let Some(pin) = pin else { return (file_attr(attr), self.config.ttl) };
        let mut state = pin.lock();
        state.refresh(attr.clone(), source);
        (state.shown(), state.ttl(self.config.ttl))
    }

    pub(crate) fn entry(&self, attr: &Attr, source: Source) -> Entry {
        let (attr, attr_ttl) = self.shown(attr, source);
        Entry { attr, entry_ttl: self.config.ttl, attr_ttl }
    }

    /// An inode's attributes from the master.
    pub(crate) async fn ask(&self, ino: InodeId) -> Result<Attr, Errno> {
        let asked_at = Instant::now();
        let answer = self.meta.query(Query::GetAttr(ino)).await?;
        let attr = answer.attr.ok_or(Errno::EIO)?;
        self.told(&attr, asked_at);
        Ok(attr)
    }

    /// What the master said to a question sent at `asked_at`.
    pub(crate) fn told(&self, attr: &Attr, asked_at: Instant) {
        self.bare.told(attr, asked_at);
        if attr.is_directory() {
            self.known.told(attr, asked_at);
        }
    }

    pub(crate) async fn mutate(&self, mutation: Mutation) -> Result<Mutated, Errno> {
        let asked_at = Instant::now();
        self.known.before(&mutation);
        let result = self.meta.mutate(mutation.clone()).await;
        if let Ok(mutated) = &result {
            self.known.after(&mutation, mutated, asked_at);
            if let Some(attr) = &mutated.attr {
                self.bare.told(attr, asked_at);
            }
        }
        result
    }
}
