//! openraft's log storage on the log.

use std::fmt::Debug;
use std::ops::{Bound, RangeBounds};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use openraft::storage::{LogFlushed, RaftLogStorage};
use openraft::{LogState, OptionalSend, RaftLogReader, StorageIOError};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::lease::Lease;
use crate::log::LogError;
use crate::log::files::SegmentFiles;
use crate::log::record::Record;
use crate::log::recovery::recover;
use crate::log::state::Position;
use crate::log::vote::VoteFile;
use crate::log::writer::{Shared, Writer};
use crate::types::{Entry, LogId, Membership, StorageError, TypeConfig, Vote};

/// Entries one append request carries at most, in bytes: it must arrive, be written and be answered within a
/// heartbeat.
const REPLICATE_BYTES_MAX: usize = 4 << 20;

#[derive(Clone, Copy, Debug)]
pub(crate) struct LogOptions {
    pub(crate) node_id: u64,
    pub(crate) segment_bytes: u64,
    pub(crate) spare_segments: usize,
    pub(crate) tail_bytes: usize,
}

/// The log of one member. Clones share it; the files are closed with the last.
#[derive(Clone, Debug)]
pub(crate) struct LogStore {
    shared: Arc<Shared>,
    vote: Arc<Mutex<VoteFile>>,
    /// Told of every vote before anybody is answered: a lease must not outlive its vote.
    lease: Arc<Lease>,
    writer: Arc<Writer>,
    snapshots: Arc<watch::Sender<Snapshots>>,
}

/// What snapshots hold of the log, by the index of their last entry.
#[derive(Clone, Copy, Debug, Default)]
struct Snapshots {
    durable: Option<u64>,
    /// Received, and on its way into the state.
    under_way: Option<u64>,
    /// It could not be installed, and this member stops.
    failed: bool,
}

impl Snapshots {
    fn may_purge(&self, upto: u64) -> bool {
        self.durable >= Some(upto) || self.under_way.is_none_or(|under_way| under_way < upto)
    }
}

impl LogStore {
    pub(crate) fn open(dir: &Path, options: LogOptions, lease: Arc<Lease>) -> Result<Self, LogError> {
        let files = SegmentFiles::open(dir, options.segment_bytes, options.spare_segments)?;
        let vote = VoteFile::open(dir, options.node_id)?;
        let (state, active) = recover(&files, options.node_id, options.segment_bytes, options.tail_bytes)?;
        let writer = Writer::start(Arc::new(files), state, active)?;
        Ok(Self::on(writer, vote, lease))
    }

    pub(crate) fn on(writer: Writer, vote: VoteFile, lease: Arc<Lease>) -> Self {
        Self {
            shared: Arc::clone(&writer.shared),
            vote: Arc::new(Mutex::new(vote)),
            lease,
            writer: Arc::new(writer),
            snapshots: Arc::default(),
        }
    }

    /// A snapshot up to this entry was received. Until it is installed the log keeps what it holds: openraft purges the log as
    /// soon as it has *asked* for the installation, and a crash in between would leave neither.
    pub(crate) fn snapshot_under_way(&self, upto: u64) {
        self.snapshots.send_modify(|seen| seen.under_way = Some(upto));
    }

    /// Openraft is done with it, whether it took it or not.
    pub(crate) fn snapshot_ended(&self) {
        self.snapshots.send_modify(|seen| seen.under_way = None);
    }

    /// There is a snapshot up to this entry, and a crash does not take it away.
    pub(crate) fn snapshot_durable(&self, upto: Option<u64>) {
        self.snapshots.send_modify(|seen| seen.durable = seen.durable.max(upto));
    }

    /// The snapshot could not be installed.
    pub(crate) fn snapshot_failed(&self) {
        self.snapshots.send_modify(|seen| seen.failed = true);
    }

    /// Number of the newest submission: see [`durable`](Self::durable).
    pub(crate) fn submitted(&self) -> u64 {
        self.shared.state.lock().submitted()
    }

    /// Waits until everything up to a submission is durable.
    pub(crate) async fn durable(&self, submission: u64) -> Result<(), LogError> {
        self.shared.durability.wait(submission).await
    }

    /// Waits until an entry is durable; at once if there is no such entry (it was purged, so applied).
    pub(crate) async fn entry_durable(&self, index: u64) -> Result<(), LogError> {
        let submission = {
            let state = self.shared.state.lock();
            if state.is_durable(index) {
                return Ok(());
            }
            state.submitted()
        };
        self.durable(submission).await
    }

    /// Waits until the log fails; for who has to stop the member then.
    pub(crate) async fn failed(&self) -> Arc<str> {
        self.shared.durability.failed().await
    }

    /// The membership of the state machine: what counts as long as no entry of the log says otherwise.
    pub(crate) fn set_base_membership(&self, index: Option<u64>, membership: Membership) {
        self.shared.state.lock().set_base_membership(index, membership);
    }

    /// The newest membership, committed or not; `None` if it is not known.
    pub(crate) fn effective_membership(&self) -> Option<Arc<Membership>> {
        self.shared.state.lock().effective_membership().cloned()
    }

    /// The vote as it was saved, and the last log id.
    pub(crate) fn vote_and_last(&self) -> (Option<Vote>, Option<LogId>) {
        let vote = self.vote.lock().vote();
        (vote, self.shared.state.lock().last())
    }

    /// Whether this member ever voted or held an entry.
    pub(crate) fn is_fresh(&self) -> bool {
        self.vote.lock().vote().is_none() && self.shared.state.lock().last().is_none()
    }

    /// Writes what was submitted and ends the threads.
    pub(crate) fn close(&self) {
        self.writer.close();
    }

    /// Entries that are waited for elsewhere.
    #[cfg(test)]
    pub(crate) fn submit(&self, entries: Vec<Entry>) -> u64 {
        let submission = self.shared.state.lock().append(entries);
        self.shared.kick();
        submission
    }

    /// Whether this member is the leader of its newest vote.
    fn leads(&self) -> bool {
        let file = self.vote.lock();
        file.vote().is_some_and(|vote| vote.committed && vote.leader_id.node_id == file.node_id())
    }

    /// Entries go out to the followers first: the thread that is woken often takes this one's processor, and the
    /// followers, who have the longer way, would wait for the leader's disk. The tasks that send are woken after this
    /// one; yielding puts it behind them.
    fn kick_after_replication(&self) {
        let shared = Arc::clone(&self.shared);
        tokio::spawn(async move {
            tokio::task::yield_now().await;
            shared.kick();
        });
    }

    fn check(&self) -> Result<(), LogError> {
        match self.shared.durability.failure() {
            Some(reason) => Err(LogError::Failed { reason }),
            None => Ok(()),
        }
    }

    fn read(&self, start: u64, end_exclusive: u64, bytes_max: usize) -> Result<Vec<Entry>, LogError> {
        let mut entries = Vec::new();
        let mut bytes = 0;
        for index in start..end_exclusive {
            let found = {
                let state = self.shared.state.lock();
                match (state.cached(index), state.position(index)) {
                    (Some(entry), Some(position)) => (position, Some(entry.clone())),
                    (_, Some(position)) => (position, None),
                    (_, None) => continue,
                }
            };
            bytes += found.0.len as usize;
            if bytes > bytes_max && !entries.is_empty() {
                break;
            }
            match found {
                (_, Some(entry)) => entries.push(entry),
                (position, None) => match self.read_back(position)? {
                    Some(entry) => entries.push(entry),
                    // Purged between the two looks: what was read before it is no longer contiguous with what
                    // follows.
                    None => entries.clear(),
                },
            }
        }
        Ok(entries)
    }

    /// An old entry, from its segment. `None` if it was purged meanwhile, and the file perhaps reused.
    fn read_back(&self, position: Position) -> Result<Option<Entry>, LogError> {
        let gone = || self.shared.state.lock().position(position.log_id.index).is_none();
        let path = self.shared.files.path(position.sequence);
        let segment = match self.shared.files.open_segment(position.sequence) {
            Ok(segment) => segment,
            Err(_) if gone() => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut bytes = vec![0; position.len as usize];
        segment
            .file
            .read_exact_at(&mut bytes, u64::from(position.offset))
            .map_err(|source| LogError::io("read back an entry from", &path, source))?;
        let corrupt =
            |reason| LogError::Corrupt { path: path.clone(), offset: u64::from(position.offset), reason };
        let record = Record::decode(&bytes).filter(|record| record.log_id == position.log_id);
        match record {
            Some(record) => record.entry().map_err(corrupt),
            None if gone() => Ok(None),
            None => Err(corrupt("the record does not match its checksum")),
        }
    }
}

/// `range` clipped to what there is.
fn bounds(range: &impl RangeBounds<u64>, first: u64, next: u64) -> (u64, u64) {
    let start = match range.start_bound() {
        Bound::Included(start) => *start,
        Bound::Excluded(before) => before.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(last) => last.saturating_add(1),
        Bound::Excluded(end) => *end,
        Bound::Unbounded => u64::MAX,
    };
    (start.max(first), end.min(next))
}

fn read_error(error: LogError) -> StorageError {
    StorageIOError::read_logs(openraft::AnyError::new(&error)).into()
}

fn write_error(error: LogError) -> StorageError {
    StorageIOError::write_logs(openraft::AnyError::new(&error)).into()
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, StorageError> {
        let (first, next) = {
            let state = self.shared.state.lock();
            (state.first_index(), state.last().map_or(0, |last| last.index + 1))
        };
        let (start, end) = bounds(&range, first, next);
        self.read(start, end, usize::MAX).map_err(read_error)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, StorageError> {
        self.read(start, end, REPLICATE_BYTES_MAX).map_err(read_error)
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, StorageError> {
        let state = self.shared.state.lock();
        Ok(LogState { last_purged_log_id: state.purged, last_log_id: state.last() })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), StorageError> {
        // Before the vote is durable, so before anybody is told of it: the lease that an older vote gave is over.
        self.lease.vote_changed(*vote);
        self.vote.lock().save(*vote).map_err(|error| {
            tracing::error!(%error, "the vote could not be saved; this member stops");
            StorageIOError::write_vote(openraft::AnyError::new(&error)).into()
        })
    }

    /// A member's own committed vote is read back as not committed: it must not lead the same term again, because
    /// it may have lost entries of that term that followers hold. See the decision on the parallel flush.
    async fn read_vote(&mut self) -> Result<Option<Vote>, StorageError> {
        let file = self.vote.lock();
        Ok(file.vote().map(|mut vote| {
            if vote.leader_id.node_id == file.node_id() {
                vote.committed = false;
            }
            vote
        }))
    }

    async fn append<I>(&mut self, entries: I, callback: LogFlushed<TypeConfig>) -> Result<(), StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        self.check().map_err(write_error)?;
        let (submission, sole_voter) = {
            let mut state = self.shared.state.lock();
            let submission = state.append(entries);
            // After the entries: a membership among them counts already.
            let voters = state.effective_membership().map(|membership| membership.voter_ids().count());
            (submission, voters.is_none_or(|voters| voters <= 1))
        };
        if sole_voter || !self.leads() {
            self.shared.kick();
        } else {
            self.kick_after_replication();
        }
        if sole_voter {
            self.durable(submission).await.map_err(write_error)?;
        }
        callback.log_io_completed(Ok(()));
        Ok(())
    }

    async fn truncate(&mut self, log_id: LogId) -> Result<(), StorageError> {
        self.check().map_err(write_error)?;
        self.shared.state.lock().truncate(log_id);
        self.shared.kick();
        Ok(())
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), StorageError> {
        self.check().map_err(write_error)?;
        let mut seen = self.snapshots.subscribe();
        let waited = seen.wait_for(|seen| seen.failed || seen.may_purge(log_id.index)).await;
        if waited.is_ok_and(|seen| seen.failed) {
            let reason = "the snapshot that holds what is to be purged could not be installed";
            return Err(StorageIOError::write_logs(openraft::AnyError::error(reason)).into());
        }
        self.shared.state.lock().purge(log_id);
        self.shared.kick();
        Ok(())
    }
}
