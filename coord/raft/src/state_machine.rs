//! What a service gives to the kit: its families and its deterministic `apply`.

use bytes::Bytes;
use coord_kv::FamilySpec;
use coord_types::SessionId;

use crate::transaction::Transaction;

/// A replicated service. All members apply the same commands in the same order to the same state, so `apply` must
/// depend on nothing but the state, the context and the command.
pub trait StateMachine: Send + Sync + 'static {
    /// The service's families; `Family(i)` is the i-th. Families may be added to the end later. Names that begin
    /// with `raft_` are the kit's.
    fn families(&self) -> &'static [FamilySpec];

    /// Applies one command and gives its reply. Reads and writes through `tx`, which shows what earlier commands of
    /// the same entry wrote.
    fn apply(&self, tx: &mut Transaction<'_>, context: ApplyContext, command: &[u8]) -> Bytes;

    /// What was applied since the last call is in the store: whoever is told of it now finds it there.
    fn written(&self) {}

    /// The state was replaced by a snapshot: whatever was cached outside of it is void.
    fn restored(&self) {}
}

/// What a command may know besides the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ApplyContext {
    /// Index of the log entry the command is in. Several commands may share it.
    pub index: u64,
    /// The leader's clock when it took the command, in nanoseconds since 1970. Never goes back along the log.
    pub time_nanos: u64,
    /// The session the command came under.
    pub session: Option<SessionId>,
}

impl ApplyContext {
    #[must_use]
    pub fn time(&self) -> std::time::SystemTime {
        std::time::UNIX_EPOCH + std::time::Duration::from_nanos(self.time_nanos)
    }
}
