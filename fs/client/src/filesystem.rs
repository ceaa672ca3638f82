//! The file system: one operation in, one answer out.

use crate::{Caller, ClientConfig, ConnectError, Errno, Op, OpResult};

/// A file system without a kernel. Cheap to clone; all clones are one client.
#[derive(Clone, Debug)]
pub struct FileSystem {}

impl FileSystem {
    /// Opens a session with the masters. Must be called inside a tokio runtime, which then carries all
    /// background work of this client.
    ///
    /// # Errors
    /// [`ConnectError`] if the configuration is unusable. A master that is away is waited for.
    pub async fn connect(config: ClientConfig) -> Result<Self, ConnectError> {
        let _ = config;
        Ok(Self {})
    }

    /// Answers one operation.
    ///
    /// The future may be polled first outside the runtime (with its handle entered) and later on it, and may be
    /// dropped at any time: an operation half done then goes on in the background or was not begun.
    ///
    /// # Errors
    /// The errno the caller is to see.
    pub async fn handle(&self, caller: &Caller, op: Op<'_>) -> OpResult {
        let _ = (caller, op);
        Err(Errno::ENOSYS)
    }

    /// The same, if it needs no waiting at all; `None` if it does, and then nothing was done: hand the operation to
    /// [`handle`](Self::handle). Lets a transport answer a buffered write straight from its own receive buffer.
    pub fn try_now(&self, caller: &Caller, op: &Op<'_>) -> Option<OpResult> {
        let _ = (caller, op);
        None
    }

    /// Sends all written data, commits it and closes the session.
    ///
    /// # Errors
    /// The first error of written data that nobody was told of.
    pub async fn shutdown(&self) -> Result<(), Errno> {
        Ok(())
    }
}
