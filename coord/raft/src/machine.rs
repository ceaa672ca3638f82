//! The replicated state: the service's families and the kit's in one RocksDB store, and openraft's view of them.
//!
//! Invariants:
//! - all entries of one apply reach the store as batches that hold the applied log id with what was applied: the
//!   state is always that of exactly its applied log id;
//! - the store's own log is not used; what it flushes is a prefix (atomic flush), and an entry enters the store only
//!   when it is durable in this member's Raft log. So the flushed applied index never exceeds the synced log, and a
//!   restart finds everything behind the flushed state in the log;
//! - the directory of the store is chosen by one small file that is replaced durably: a snapshot is installed by
//!   that replacement and by nothing before it ([`install`]).

pub(crate) mod install;
pub(crate) mod recent;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use coord_kv::{Durability, Family, FamilySpec, Kv, KvError, Pair, Range, Read};
use coord_kv_rocks::{LogUse, RocksKv, RocksOptions};
use openraft::storage::{RaftStateMachine, Snapshot};
use openraft::{EntryPayload, OptionalSend, RaftSnapshotBuilder, StorageIOError};
use parking_lot::RwLock;
use tokio::sync::watch;

use crate::batch;
use crate::error::OpenError;
use crate::keys::{self, KIT_FAMILIES, KitFamilies};
use crate::log::LogStore;
use crate::machine::install::StateDirs;
use crate::machine::recent::{ForApply, Store};
use crate::propose::Proposer;
use crate::sessions::{self, Admission};
use crate::snapshot::{SnapshotError, SnapshotHandle, SnapshotStore};
use crate::state_machine::{ApplyContext, StateMachine};
use crate::transaction::Transaction;
use crate::types::{Entry, EntryReplies, LogId, SnapshotMeta, StorageError, StoredMembership, TypeConfig};

/// Payload bytes applied in one batch: a restart may have to apply a long stretch of the log at once.
const BATCH_BYTES_MAX: usize = 4 << 20;

/// Closing waits so long for whoever still uses the state.
const CLOSE_PATIENCE: Duration = Duration::from_secs(10);

/// The state and who shares it.
pub(crate) struct Machine {
    pub(crate) service: Arc<dyn StateMachine>,
    pub(crate) state: Arc<State>,
    pub(crate) log: LogStore,
    pub(crate) snapshots: Arc<SnapshotStore>,
    /// Told when a snapshot takes the place of what it sent.
    proposer: Arc<Proposer>,
    applied: watch::Sender<Option<LogId>>,
}

/// The store that is current now.
#[derive(Debug)]
pub(crate) struct State {
    /// `None` once the member was closed.
    store: RwLock<Option<Arc<Store>>>,
    pub(crate) specs: Vec<FamilySpec>,
    pub(crate) kit: KitFamilies,
    pub(crate) options: RocksOptions,
    pub(crate) dirs: StateDirs,
}

impl std::fmt::Debug for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Machine").field("state", &self.state).finish_non_exhaustive()
    }
}

impl State {
    pub(crate) fn open(
        dir: PathBuf,
        service: &'static [FamilySpec],
        options: &RocksOptions,
    ) -> Result<Self, OpenError> {
        if let Some(reserved) = service.iter().find(|spec| spec.name.starts_with("raft_")) {
            return Err(OpenError::ReservedFamily { name: reserved.name });
        }
        let specs: Vec<FamilySpec> = service.iter().chain(&KIT_FAMILIES).copied().collect();
        let options = RocksOptions { log: LogUse::Elsewhere, ..options.clone() };
        let dirs = StateDirs::open(dir)?;
        let store = RocksKv::open(dirs.current(), &specs, &options)?;
        dirs.opened()?;
        let kit = KitFamilies::behind(service.len());
        Ok(Self {
            store: RwLock::new(Some(Arc::new(Store::new(store, kit.replies)))),
            specs,
            kit,
            options,
            dirs,
        })
    }

    pub(crate) fn store(&self) -> Result<Arc<Store>, KvError> {
        let closed = || KvError::Io {
            operation: "use the state",
            path: self.dirs.current().display().to_string(),
            reason: "the member has stopped".to_owned(),
        };
        self.store.read().clone().ok_or_else(closed)
    }

    /// The new store is current from now on; gives the old one.
    pub(crate) fn replace(&self, store: RocksKv) -> Option<Arc<Store>> {
        self.store.write().replace(Arc::new(Store::new(store, self.kit.replies)))
    }

    /// Closes the store. Waits for calls that are in the middle of using it (a snapshot being made takes longest),
    /// so that it can be opened again; gives up after [`CLOSE_PATIENCE`]. Blocks.
    pub(crate) fn close(&self) {
        let Some(mut store) = self.store.write().take() else { return };
        let deadline = Instant::now() + CLOSE_PATIENCE;
        while let Err(shared) = Arc::try_unwrap(store) {
            if Instant::now() >= deadline {
                tracing::warn!(path = %shared.path().display(), "the state is still in use while it is closed");
                return;
            }
            store = shared;
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    pub(crate) fn applied(&self) -> Result<(Option<LogId>, StoredMembership), KvError> {
        read_applied(&*self.store()?, self.kit)
    }

    /// Opens a checkpoint of the store, to look at it.
    pub(crate) fn open_copy(&self, path: &Path) -> Result<RocksKv, SnapshotError> {
        let small =
            RocksOptions { cache_bytes: 1 << 20, write_buffer_bytes: 1 << 20, ..self.options.clone() };
        RocksKv::open(path, &self.specs, &small)
            .map_err(|source| SnapshotError::Open { path: path.to_path_buf(), source })
    }
}

/// The applied log id and membership of a store.
pub(crate) fn read_applied(
    store: &dyn Read,
    kit: KitFamilies,
) -> Result<(Option<LogId>, StoredMembership), KvError> {
    let applied = store.get(kit.meta, keys::APPLIED)?.map(|value| keys::parse_log_id(&value)).transpose()?;
    let membership = match store.get(kit.meta, keys::MEMBERSHIP)? {
        None => StoredMembership::default(),
        Some(json) => {
            serde_json::from_slice(&json).map_err(|_| keys::corrupt("the membership does not parse"))?
        }
    };
    Ok((applied, membership))
}

impl Clone for Machine {
    fn clone(&self) -> Self {
        Self {
            service: Arc::clone(&self.service),
            state: Arc::clone(&self.state),
            log: self.log.clone(),
            snapshots: Arc::clone(&self.snapshots),
            proposer: Arc::clone(&self.proposer),
            applied: self.applied.clone(),
        }
    }
}

impl Machine {
    pub(crate) fn new(
        service: Arc<dyn StateMachine>,
        state: Arc<State>,
        log: LogStore,
        snapshots: Arc<SnapshotStore>,
        proposer: Arc<Proposer>,
    ) -> Result<Self, KvError> {
        let (applied, membership) = state.applied()?;
        log.set_base_membership(membership.log_id().map(|id| id.index), membership.membership().clone());
        log.snapshot_durable(
            snapshots.current().and_then(|current| current.manifest.meta.last_log_id).map(|last| last.index),
        );
        Ok(Self { service, state, log, snapshots, proposer, applied: watch::Sender::new(applied) })
    }

    /// Makes a snapshot the state, durably; gives the applied log id.
    async fn take_over(
        &self,
        meta: &SnapshotMeta,
        snapshot: Box<SnapshotHandle>,
    ) -> Result<Option<LogId>, StorageError> {
        let error = |error: SnapshotError| {
            StorageError::from(StorageIOError::write_snapshot(
                Some(meta.signature()),
                openraft::AnyError::new(&error),
            ))
        };
        // What was truncated before it must be gone for good: a restart must not find old entries behind the
        // snapshot.
        let submitted = self.log.submitted();
        self.log.durable(submitted).await.map_err(|source| error(source.into()))?;
        let (machine, meta) = (self.clone(), meta.clone());
        tokio::task::spawn_blocking(move || install::install(&machine, &meta, &snapshot, &mut |_| Ok(())))
            .await
            .map_err(|panic| StorageIOError::write_snapshot(None, openraft::AnyError::new(&panic)))?
            .map_err(error)
    }

    /// Tells of every apply.
    pub(crate) fn watch_applied(&self) -> watch::Receiver<Option<LogId>> {
        self.applied.subscribe()
    }

    /// Applies entries that go into one batch, and writes it.
    fn apply_batch(&self, entries: &[Entry]) -> Result<Vec<EntryReplies>, ApplyError> {
        let store = self.state.store()?;
        let base = ForApply(&store);
        let mut tx = Transaction::new(&base);
        let mut time = match tx.get(self.state.kit.meta, keys::TIME)? {
            Some(value) => keys::parse_number(&value)?,
            None => 0,
        };
        let mut replies = Vec::with_capacity(entries.len());
        for entry in entries {
            replies.push(self.apply_entry(&mut tx, &mut time, entry)?);
        }
        let last = entries.last().ok_or(ApplyError::Empty)?.log_id;
        tx.put(self.state.kit.meta, keys::APPLIED, keys::log_id_value(last));
        tx.put(self.state.kit.meta, keys::TIME, time.to_le_bytes());
        let batch = tx.into_batch();
        store.write(batch, Durability::Unlogged)?;
        self.service.written();
        self.applied.send_replace(Some(last));
        Ok(replies)
    }

    fn apply_entry(
        &self,
        tx: &mut Transaction<'_>,
        time: &mut u64,
        entry: &Entry,
    ) -> Result<EntryReplies, ApplyError> {
        match &entry.payload {
            EntryPayload::Blank => Ok(EntryReplies::default()),
            EntryPayload::Membership(membership) => {
                let stored = StoredMembership::new(Some(entry.log_id), membership.clone());
                let json =
                    serde_json::to_vec(&stored).expect("a membership has string keys and no failing parts");
                tx.put(self.state.kit.meta, keys::MEMBERSHIP, json);
                Ok(EntryReplies::default())
            }
            EntryPayload::Normal(data) => {
                let batch = batch::decode(entry.log_id.index, data.bytes.clone())?;
                // A new leader's clock may be behind the old one's.
                *time = (*time).max(batch.time_nanos);
                let index = entry.log_id.index;
                let replies =
                    batch.commands.iter().map(|command| self.apply_command(tx, index, *time, command));
                Ok(EntryReplies(replies.collect::<Result<_, KvError>>()?))
            }
        }
    }

    fn apply_command(
        &self,
        tx: &mut Transaction<'_>,
        index: u64,
        time_nanos: u64,
        command: &batch::Command,
    ) -> Result<Result<bytes::Bytes, crate::types::Refusal>, KvError> {
        let kit = self.state.kit;
        if let Some(stamp) = command.stamp {
            match sessions::admit(tx, kit, stamp)? {
                Admission::Apply => {}
                Admission::Answer(reply) => return Ok(Ok(reply)),
                Admission::Refuse(refusal) => return Ok(Err(refusal)),
            }
        }
        let context = ApplyContext { index, time_nanos, session: command.stamp.map(|stamp| stamp.session) };
        let reply = self.service.apply(tx, context, &command.bytes);
        for change in tx.take_session_changes() {
            sessions::change(tx, kit, change)?;
        }
        if let Some(stamp) = command.stamp {
            sessions::record(tx, kit, stamp, &reply)?;
        }
        Ok(Ok(reply))
    }

    fn make_snapshot(&self) -> Result<Snapshot<TypeConfig>, SnapshotError> {
        let temporary = self.snapshots.temporary("tmp")?;
        // The checkpoint is one point of the order of applies, whichever: its own applied log id says which. So
        // nothing waits for it.
        self.state.store()?.checkpoint(&temporary)?;
        let (applied, membership) = read_applied(&self.state.open_copy(&temporary)?, self.state.kit)?;
        let snapshot_id = match applied {
            None => "empty".to_owned(),
            Some(id) => format!("{:020}-{}-{}", id.index, id.leader_id.term, id.leader_id.node_id),
        };
        let meta = SnapshotMeta { last_log_id: applied, last_membership: membership, snapshot_id };
        let published = self.snapshots.publish(&temporary, meta.clone())?;
        self.log.snapshot_durable(meta.last_log_id.map(|last| last.index));
        Ok(Snapshot { meta, snapshot: Box::new(SnapshotHandle(Some(published))) })
    }
}

#[derive(Debug, thiserror::Error)]
enum ApplyError {
    #[error("the state's store failed")]
    Kv(#[from] KvError),
    #[error(transparent)]
    Batch(#[from] batch::BatchError),
    #[error("nothing to apply")]
    Empty,
}

fn write_error(error: &(impl std::error::Error + 'static)) -> StorageError {
    tracing::error!(%error, "the state could not be changed; this member stops");
    StorageIOError::write_state_machine(openraft::AnyError::new(error)).into()
}

/// Stretches of `entries` that go into one batch each.
fn batches(entries: &[Entry]) -> Vec<&[Entry]> {
    let mut out = Vec::new();
    let (mut from, mut bytes) = (0, 0);
    for (i, entry) in entries.iter().enumerate() {
        if let EntryPayload::Normal(data) = &entry.payload {
            bytes += data.bytes.len();
        }
        if bytes >= BATCH_BYTES_MAX {
            out.push(&entries[from..=i]);
            (from, bytes) = (i + 1, 0);
        }
    }
    if from < entries.len() {
        out.push(&entries[from..]);
    }
    out
}

impl RaftStateMachine<TypeConfig> for Machine {
    type SnapshotBuilder = Self;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), StorageError> {
        self.state
            .applied()
            .map_err(|error| StorageIOError::read_state_machine(openraft::AnyError::new(&error)).into())
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<EntryReplies>, StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<Entry> = entries.into_iter().collect();
        if let Some(last) = entries.last() {
            // The invariant of this file. On a leader this never waits; a follower may learn that an entry is
            // committed before its own copy is durable.
            self.log.entry_durable(last.log_id.index).await.map_err(|error| write_error(&error))?;
        }
        let mut replies = Vec::with_capacity(entries.len());
        for batch in batches(&entries) {
            let of_batch = self.apply_batch(batch).map_err(|error| write_error(&error))?;
            for (entry, replies) in batch.iter().zip(&of_batch) {
                if let EntryPayload::Normal(data) = &entry.payload
                    && let Some(waiters) = &data.waiters
                {
                    waiters.answer(replies.0.clone());
                }
            }
            replies.extend(of_batch);
        }
        Ok(replies)
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<SnapshotHandle>, StorageError> {
        Ok(Box::default())
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: Box<SnapshotHandle>,
    ) -> Result<(), StorageError> {
        match self.take_over(meta, snapshot).await {
            Ok(applied) => {
                self.log.snapshot_durable(applied.map(|last| last.index));
                tracing::info!(
                    applied = applied.map_or(0, |id| id.index),
                    "this member got a snapshot from the leader: its own log ended too early"
                );
                self.applied.send_replace(applied);
                self.service.restored();
                self.proposer.fail_sent();
                Ok(())
            }
            Err(error) => {
                tracing::error!(%error, "a snapshot could not be installed; this member stops");
                self.log.snapshot_failed();
                Err(error)
            }
        }
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<TypeConfig>>, StorageError> {
        Ok(self.snapshots.current().map(|current| Snapshot {
            meta: current.manifest.meta.clone(),
            snapshot: Box::new(SnapshotHandle(Some(current))),
        }))
    }
}

impl RaftSnapshotBuilder<TypeConfig> for Machine {
    async fn build_snapshot(&mut self) -> Result<Snapshot<TypeConfig>, StorageError> {
        let machine = self.clone();
        let made = tokio::task::spawn_blocking(move || machine.make_snapshot())
            .await
            .map_err(|panic| StorageIOError::write_snapshot(None, openraft::AnyError::new(&panic)))?;
        made.map_err(|error| {
            tracing::error!(%error, "a snapshot could not be made; this member stops");
            StorageIOError::write_snapshot(None, openraft::AnyError::new(&error)).into()
        })
    }
}

/// The applied state of a member. Each call sees the newest state, also after a snapshot replaced it.
#[derive(Clone, Debug)]
pub struct View {
    pub(crate) state: Arc<State>,
}

impl Read for View {
    fn get(&self, family: Family, key: &[u8]) -> coord_kv::Result<Option<Vec<u8>>> {
        self.state.store()?.get(family, key)
    }

    fn scan(&self, family: Family, range: &Range, limit: usize) -> coord_kv::Result<Vec<Pair>> {
        self.state.store()?.scan(family, range, limit)
    }
}

#[cfg(test)]
mod tests {
    use openraft::CommittedLeaderId;

    use super::*;
    use crate::types::EntryData;

    #[test]
    fn each_entry_is_in_one_batch_and_batches_are_bounded() {
        let entry = |index, len| {
            let log_id = LogId::new(CommittedLeaderId::new(1, 1), index);
            let bytes = vec![0; len].into();
            Entry { log_id, payload: EntryPayload::Normal(EntryData { bytes, waiters: None }) }
        };
        let entries: Vec<_> = (0..10).map(|index| entry(index, BATCH_BYTES_MAX / 3)).collect();
        let batches = batches(&entries);
        let indexes: Vec<_> = batches.concat().iter().map(|entry| entry.log_id.index).collect();
        assert_eq!(indexes, (0..10).collect::<Vec<_>>());
        assert!(batches.len() >= 3 && batches.iter().all(|batch| (1..=4).contains(&batch.len())));
    }
}
