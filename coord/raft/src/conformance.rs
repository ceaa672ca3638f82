//! openraft's own tests of a store, run on ours.

use std::sync::Arc;
use std::time::Duration;

use openraft::testing::{StoreBuilder, Suite};

use crate::lease::Lease;
use crate::log::{LogOptions, LogStore};
use crate::machine::{Machine, State};
use crate::propose::Proposer;
use crate::snapshot::SnapshotStore;
use crate::testing::Ledger;
use crate::types::{StorageError, TypeConfig};
use crate::{RaftConfig, StateMachine};

struct Builder;

impl StoreBuilder<TypeConfig, LogStore, Machine, tempfile::TempDir> for Builder {
    async fn build(&self) -> Result<(tempfile::TempDir, LogStore, Machine), StorageError> {
        let dir = tempfile::tempdir().unwrap();
        // The suite's own votes are of member 0, which must not be this one: see `LogStore::read_vote`.
        let config = RaftConfig::new(77, "unix:///nowhere", dir.path());
        let lease = Arc::new(Lease::new(config.node_id, Duration::from_secs(1)));
        let options = LogOptions {
            node_id: config.node_id,
            segment_bytes: 64 << 10,
            spare_segments: 1,
            tail_bytes: 200,
        };
        let log = LogStore::open(&dir.path().join("log"), options, lease).unwrap();
        let ledger = Ledger;
        let state = State::open(dir.path().join("state"), ledger.families(), &config.store).unwrap();
        let snapshots = SnapshotStore::open(&dir.path().join("snapshots")).unwrap();
        let machine = Machine::new(
            Arc::new(ledger),
            Arc::new(state),
            log.clone(),
            Arc::new(snapshots),
            Proposer::unbounded(),
        )
        .unwrap();
        Ok((dir, log, machine))
    }
}

#[test]
fn the_store_passes_the_suite() {
    Suite::test_all(Builder).unwrap();
}
