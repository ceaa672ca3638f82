//! A snapshot becomes the state.
//!
//! ```text
//! state/current     the name of the directory that counts: "db-<n>"
//! state/db-<n>/     a store
//! ```
//!
//! | step | a crash after it leaves |
//! | --- | --- |
//! | 1 copy the snapshot's store to `db-<n+1>`, synced | the old state counts; the copy is deleted at the next start |
//! | 2 open the copy and check that its applied log id is the snapshot's | the same |
//! | 3 publish the snapshot in this member's own directory | the same; the snapshot is newer than the state, which openraft allows |
//! | 4 replace `current` (write-new, fsync, rename, fsync) | the new state counts. The log still ends before it: openraft purges up to the applied log id at the next start |
//! | 5 the log is purged up to the snapshot: openraft asks for it right after it asks for the installation, and `LogStore::purge` waits | nothing is missing |
//! | 6 the process uses the new store, the old one is deleted | the old directory is deleted at the next start |

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use coord_kv_rocks::{RocksKv, create_dir_durably};

use crate::error::OpenError;
use crate::log::files::create_durably;
use crate::machine::recent::Store;
use crate::machine::{Machine, read_applied};
use crate::snapshot::{SnapshotError, SnapshotHandle, copy_store, sync};
use crate::types::{LogId, SnapshotMeta};

/// The directories a store may be in.
#[derive(Debug)]
pub(crate) struct StateDirs {
    dir: PathBuf,
    number: AtomicU64,
}

impl StateDirs {
    pub(crate) fn open(dir: PathBuf) -> Result<Self, OpenError> {
        let io = |operation, path: &Path| {
            let path = path.to_path_buf();
            move |source| OpenError::Io { operation, path, source }
        };
        create_dir_durably(&dir).map_err(io("create", &dir))?;
        let current = dir.join("current");
        let number = match std::fs::read_to_string(&current) {
            Ok(text) => {
                let number = text.trim().strip_prefix("db-").and_then(|number| number.parse().ok());
                let reason = "it names no directory of a store".to_owned();
                number.ok_or(OpenError::Corrupt { path: current, reason })?
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => 1,
            Err(error) => return Err(io("read", &current)(error)),
        };
        let dirs = Self { dir, number: AtomicU64::new(number) };
        dirs.delete_others().map_err(io("clean up", &dirs.dir))?;
        Ok(dirs)
    }

    /// The store in the current directory exists: from now on it counts.
    pub(crate) fn opened(&self) -> Result<(), OpenError> {
        if !self.dir.join("current").exists() {
            self.choose(self.number.load(Ordering::SeqCst))?;
        }
        Ok(())
    }

    pub(crate) fn current(&self) -> PathBuf {
        self.path(self.number.load(Ordering::SeqCst))
    }

    fn path(&self, number: u64) -> PathBuf {
        self.dir.join(format!("db-{number}"))
    }

    fn choose(&self, number: u64) -> Result<(), crate::log::LogError> {
        create_durably(&self.dir.join("current"), format!("db-{number}\n").as_bytes())?;
        self.number.store(number, Ordering::SeqCst);
        Ok(())
    }

    fn delete_others(&self) -> std::io::Result<()> {
        let current = self.current();
        for entry in std::fs::read_dir(&self.dir)? {
            let path = entry?.path();
            let is_store = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("db-"));
            if is_store && path != current {
                std::fs::remove_dir_all(&path)?;
            }
        }
        Ok(())
    }
}

/// Steps between which a test stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Copied,
    Checked,
    Published,
    Chosen,
}

/// Installs a snapshot; gives the applied log id. `after` is called after each step: tests stop there.
pub(crate) fn install(
    machine: &Machine,
    meta: &SnapshotMeta,
    snapshot: &SnapshotHandle,
    after: &mut dyn FnMut(Step) -> Result<(), SnapshotError>,
) -> Result<Option<LogId>, SnapshotError> {
    let dirs = &machine.state.dirs;
    let empty = || SnapshotError::Invalid { path: dirs.dir.clone(), reason: "nothing was received" };
    let from = snapshot.0.as_ref().ok_or_else(empty)?;
    let number = dirs.number.load(Ordering::SeqCst) + 1;
    let target = dirs.path(number);
    if target.exists() {
        std::fs::remove_dir_all(&target).map_err(SnapshotError::io("delete", &target))?;
    }

    copy_store(from, &target)?;
    sync(&dirs.dir)?;
    after(Step::Copied)?;

    let store = RocksKv::open(&target, &machine.state.specs, &machine.state.options)
        .map_err(|source| SnapshotError::Open { path: target.clone(), source })?;
    let (applied, membership) = read_applied(&store, machine.state.kit)?;
    if applied != meta.last_log_id {
        return Err(SnapshotError::Invalid {
            path: from.path.clone(),
            reason: "its state is of another log id",
        });
    }
    after(Step::Checked)?;

    let own = machine.snapshots.temporary("tmp")?;
    copy_store(from, &own)?;
    machine.snapshots.publish(&own, meta.clone())?;
    after(Step::Published)?;

    dirs.choose(number)?;
    after(Step::Chosen)?;

    machine.log.set_base_membership(membership.log_id().map(|id| id.index), membership.membership().clone());
    if let Some(old) = machine.state.replace(store) {
        delete_when_unused(old);
    }
    Ok(applied)
}

/// Readers may be in the middle of a call on the old store.
fn delete_when_unused(old: Arc<Store>) {
    let path = old.path().to_path_buf();
    // A call holds the store for microseconds; whoever is last closes it. Its files may go before: they are open.
    drop(old);
    if let Err(error) = std::fs::remove_dir_all(&path) {
        tracing::warn!(%error, path = %path.display(), "the state before the snapshot stays until the next start");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use bytes::Bytes;
    use openraft::storage::{RaftLogStorage as _, RaftStateMachine};
    use openraft::{CommittedLeaderId, EntryPayload, RaftSnapshotBuilder};

    use super::*;
    use crate::lease::Lease;
    use crate::log::{LogOptions, LogStore};
    use crate::machine::State;
    use crate::node::Proposal;
    use crate::propose::Proposer;
    use crate::snapshot::SnapshotStore;
    use crate::testing::Ledger;
    use crate::types::{Entry, EntryData};
    use crate::{RaftConfig, StateMachine};

    fn open(dir: &Path) -> Machine {
        let config = RaftConfig::new(5, "unix:///nowhere", dir);
        let options =
            LogOptions { node_id: 5, segment_bytes: 64 << 10, spare_segments: 1, tail_bytes: 1 << 20 };
        let log = LogStore::open(&dir.join("log"), options, Arc::new(Lease::new(5, Duration::from_secs(1))))
            .unwrap();
        let state = State::open(dir.join("state"), Ledger.families(), &config.store).unwrap();
        let snapshots = SnapshotStore::open(&dir.join("snapshots")).unwrap();
        Machine::new(Arc::new(Ledger), Arc::new(state), log, Arc::new(snapshots), Proposer::unbounded())
            .unwrap()
    }

    fn close(machine: Machine) {
        machine.log.close();
        machine.state.close();
    }

    fn add(index: u64, amount: u64) -> Entry {
        let proposal = Proposal { stamp: None, command: Ledger::add("x", amount) };
        let bytes: Bytes = crate::batch::encode(index, std::iter::once(&proposal));
        let data = EntryData { bytes, waiters: None };
        let log_id = LogId::new(CommittedLeaderId::new(1, 5), index);
        Entry { log_id, payload: EntryPayload::Normal(data) }
    }

    fn counter(machine: &Machine) -> u64 {
        Ledger::counter(&*machine.state.store().unwrap(), "x").unwrap()
    }

    fn directories(dir: &Path) -> Vec<String> {
        let found = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name());
        let mut names: Vec<String> = found.map(|name| name.to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    #[tokio::test]
    async fn a_crash_at_any_step_leaves_the_old_state_or_the_new_one_whole() {
        let leader_dir = tempfile::tempdir().unwrap();
        let mut leader = open(leader_dir.path());
        leader.apply((1..=10).map(|index| add(index, 7))).await.unwrap();
        let snapshot = leader.get_snapshot_builder().await.build_snapshot().await.unwrap();
        // What came later is not in it.
        leader.apply([add(11, 1000)]).await.unwrap();
        for stop in [Some(Step::Copied), Some(Step::Checked), Some(Step::Published), Some(Step::Chosen), None]
        {
            let dir = tempfile::tempdir().unwrap();
            let mut follower = open(dir.path());
            follower.apply([add(1, 3)]).await.unwrap();
            coord_kv::Kv::flush(&*follower.state.store().unwrap()).unwrap();
            let mut crash = |step| match stop {
                Some(stop) if stop == step => {
                    Err(SnapshotError::Invalid { path: PathBuf::new(), reason: "the test stops here" })
                }
                _ => Ok(()),
            };
            let installed = install(&follower, &snapshot.meta, &snapshot.snapshot, &mut crash);
            assert_eq!(installed.is_ok(), stop.is_none());
            close(follower);
            let mut follower = open(dir.path());
            let new = matches!(stop, Some(Step::Chosen) | None);
            assert_eq!(counter(&follower), if new { 70 } else { 3 }, "stopped after {stop:?}");
            let (applied, _) = follower.applied_state().await.unwrap();
            assert_eq!(applied.unwrap().index, if new { 10 } else { 1 });
            let state = directories(&dir.path().join("state"));
            assert_eq!(state.len(), 2, "after {stop:?} there are {state:?}");
            // And it can be done again.
            follower.install_snapshot(&snapshot.meta, snapshot.snapshot.clone()).await.unwrap();
            follower.apply([add(11, 1)]).await.unwrap();
            assert_eq!(counter(&follower), 71);
            assert_eq!(follower.get_current_snapshot().await.unwrap().unwrap().meta, snapshot.meta);
            assert_eq!(directories(&dir.path().join("snapshots")).len(), 1);
            close(follower);
        }
        close(leader);
    }

    /// Openraft asks for the installation, and at once for the purge of what the snapshot holds.
    #[tokio::test]
    async fn the_log_is_purged_after_the_snapshot_is_there() {
        let leader_dir = tempfile::tempdir().unwrap();
        let mut leader = open(leader_dir.path());
        leader.apply((1..=10).map(|index| add(index, 7))).await.unwrap();
        let snapshot = leader.get_snapshot_builder().await.build_snapshot().await.unwrap();
        let dir = tempfile::tempdir().unwrap();
        let mut follower = open(dir.path());
        let mut log = follower.log.clone();
        log.submit((1..=4).map(|index| add(index, 7)).collect());
        log.snapshot_under_way(10);
        let (older, upto) = (add(2, 0).log_id, snapshot.meta.last_log_id.unwrap());
        log.snapshot_durable(Some(older.index));
        log.purge(older).await.unwrap();
        let mut purge = std::pin::pin!(log.purge(upto));
        assert!(tokio::time::timeout(Duration::ZERO, &mut purge).await.is_err(), "it waits");
        assert_eq!(follower.log.clone().get_log_state().await.unwrap().last_purged_log_id, Some(older));
        follower.install_snapshot(&snapshot.meta, snapshot.snapshot.clone()).await.unwrap();
        purge.await.unwrap();
        assert_eq!(follower.log.clone().get_log_state().await.unwrap().last_purged_log_id, Some(upto));

        // One that cannot be installed lets nobody wait for ever.
        let mut log = follower.log.clone();
        log.snapshot_under_way(20);
        let mut other = snapshot.meta.clone();
        other.last_log_id = Some(add(20, 0).log_id);
        let mut purge = std::pin::pin!(log.purge(add(20, 0).log_id));
        assert!(tokio::time::timeout(Duration::ZERO, &mut purge).await.is_err(), "it waits");
        follower.install_snapshot(&other, snapshot.snapshot.clone()).await.unwrap_err();
        purge.await.unwrap_err();
        close(leader);
        close(follower);
    }

    #[tokio::test]
    async fn an_install_that_stopped_can_be_done_again_without_a_restart() {
        let leader_dir = tempfile::tempdir().unwrap();
        let mut leader = open(leader_dir.path());
        let members = std::collections::BTreeMap::from([(5, openraft::BasicNode::new("unix:///a"))]);
        let membership = crate::types::Membership::from(members);
        let log_id = LogId::new(CommittedLeaderId::new(1, 5), 10);
        let change = Entry { log_id, payload: EntryPayload::Membership(membership.clone()) };
        leader.apply((1..10).map(|index| add(index, 7)).chain([change])).await.unwrap();
        let snapshot = leader.get_snapshot_builder().await.build_snapshot().await.unwrap();
        let dir = tempfile::tempdir().unwrap();
        let follower = open(dir.path());
        let mut stop =
            |_| Err(SnapshotError::Invalid { path: PathBuf::new(), reason: "the test stops here" });
        assert!(install(&follower, &snapshot.meta, &snapshot.snapshot, &mut stop).is_err());
        install(&follower, &snapshot.meta, &snapshot.snapshot, &mut |_| Ok(())).unwrap();
        assert_eq!(counter(&follower), 63);
        let effective = follower.log.effective_membership().expect("the snapshot has one");
        assert_eq!(*effective, membership);
        close(follower);
        // The snapshot itself was not touched: the next one gets it whole.
        let dir = tempfile::tempdir().unwrap();
        let next = open(dir.path());
        install(&next, &snapshot.meta, &snapshot.snapshot, &mut |_| Ok(())).unwrap();
        assert_eq!(counter(&next), 63);
        close(next);
        close(leader);
    }

    #[test]
    fn a_file_that_names_no_store_is_damage() {
        for text in ["", "db-", "db-x", "other"] {
            let dir = tempfile::tempdir().unwrap();
            std::fs::write(dir.path().join("current"), text).unwrap();
            std::fs::create_dir(dir.path().join("db-3")).unwrap();
            let opened = StateDirs::open(dir.path().to_owned());
            assert!(matches!(opened, Err(OpenError::Corrupt { .. })), "{text:?}: {opened:?}");
            assert!(dir.path().join("db-3").exists(), "nothing is deleted on its word");
        }
    }

    #[tokio::test]
    async fn what_the_log_does_not_hold_durably_is_not_applied() {
        let (dir, source) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mut leader = open(source.path());
        leader.apply([add(1, 7)]).await.unwrap();
        let snapshot = leader.get_snapshot_builder().await.build_snapshot().await.unwrap();
        close(leader);
        let mut machine = open(dir.path());
        machine.log.close();
        machine.log = crate::log::tests::broken(&dir.path().join("broken"));
        machine.log.submit(vec![add(1, 3)]);
        assert!(machine.apply([add(1, 3)]).await.is_err());
        assert_eq!(counter(&machine), 0);
        let installed = machine.install_snapshot(&snapshot.meta, snapshot.snapshot.clone()).await;
        assert!(installed.is_err(), "what the log truncated before may come back");
        assert_eq!(counter(&machine), 0);
        close(machine);
    }

    #[tokio::test]
    async fn time_never_goes_back() {
        let dir = tempfile::tempdir().unwrap();
        let mut machine = open(dir.path());
        let at = |index, time| {
            let proposal = Proposal { stamp: None, command: Ledger::add("x", 1) };
            let bytes = crate::batch::encode(time, std::iter::once(&proposal));
            let log_id = LogId::new(CommittedLeaderId::new(1, 5), index);
            Entry { log_id, payload: EntryPayload::Normal(EntryData { bytes, waiters: None }) }
        };
        machine.apply([at(1, 100), at(2, 90)]).await.unwrap();
        machine.apply([at(3, 80), at(4, 110)]).await.unwrap();
        let history = Ledger::history(&*machine.state.store().unwrap()).unwrap();
        let times = history.iter().map(|(key, _)| u64::from_be_bytes(key[16..24].try_into().unwrap()));
        assert_eq!(times.collect::<Vec<_>>(), [100, 100, 100, 110]);
        close(machine);
    }

    #[tokio::test]
    async fn a_snapshot_that_is_not_what_it_says_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let mut machine = open(dir.path());
        machine.apply([add(1, 3)]).await.unwrap();
        let snapshot = machine.get_snapshot_builder().await.build_snapshot().await.unwrap();
        let mut meta = snapshot.meta.clone();
        meta.last_log_id = Some(LogId::new(CommittedLeaderId::new(1, 5), 9));
        let refused = install(&machine, &meta, &snapshot.snapshot, &mut |_| Ok(()));
        assert!(matches!(refused, Err(SnapshotError::Invalid { .. })), "{refused:?}");
        assert_eq!(counter(&machine), 3);
        close(machine);
    }
}
