//! Who answers operations. `fs_client::FileSystem` does; tests have doubles.

use std::future::Future;

use fs_client::{Caller, FileSystem, Op, OpResult};

/// Answers the operations of a mount.
pub trait Handler: Send + Sync + 'static {
    /// Answers one operation. The future is polled first on the transport's thread with the runtime's handle
    /// entered, later on the runtime, and may be dropped at any time (its caller was interrupted).
    fn handle(&self, caller: &Caller, op: Op<'_>) -> impl Future<Output = OpResult> + Send;

    /// The same if it needs no waiting at all; `None` if it does, and then nothing was done. Saves the copy of
    /// the operation's names and data, because the transport still holds them.
    fn try_now(&self, caller: &Caller, op: &Op<'_>) -> Option<OpResult> {
        let _ = (caller, op);
        None
    }
}

impl Handler for FileSystem {
    fn handle(&self, caller: &Caller, op: Op<'_>) -> impl Future<Output = OpResult> + Send {
        Self::handle(self, caller, op)
    }

    fn try_now(&self, caller: &Caller, op: &Op<'_>) -> Option<OpResult> {
        Self::try_now(self, caller, op)
    }
}
