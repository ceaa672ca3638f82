//! The applied state of one moment, to be read at leisure.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use coord_kv::{Family, Pair, Range, Read};
use coord_kv_rocks::RocksKv;

use super::RaftNode;
use crate::snapshot::SnapshotError;

/// The state after some entry, whatever is applied meanwhile. Holds on to files the store would delete; deleted with its last
/// handle, or by the member's next start.
#[derive(Debug)]
pub struct Checkpoint {
    /// `None` while it is dropped.
    store: Option<RocksKv>,
    path: PathBuf,
}

impl RaftNode {
    /// The state as it is now; takes a flush of the store, which nobody waits for.
    ///
    /// # Errors
    /// [`SnapshotError`]; the member goes on.
    pub async fn checkpoint(&self) -> Result<Checkpoint, SnapshotError> {
        let (state, snapshots) = (Arc::clone(&self.inner.state), Arc::clone(&self.inner.snapshots));
        let made = tokio::task::spawn_blocking(move || {
            // Not the name of one that was made before a restart: whoever still has that one deletes it under its name.
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
            let path = snapshots.temporary(&format!("tmp-checkpoint-{now}"))?;
            // From here on what there is of it goes if something fails.
            let mut checkpoint = Checkpoint { store: None, path };
            state.store()?.checkpoint(&checkpoint.path)?;
            checkpoint.store = Some(state.open_copy(&checkpoint.path)?);
            Ok(checkpoint)
        });
        made.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
    }
}

impl Checkpoint {
    fn store(&self) -> &RocksKv {
        self.store.as_ref().expect("it is there from the time a checkpoint was made until it is dropped")
    }
}

impl Read for Checkpoint {
    fn get(&self, family: Family, key: &[u8]) -> coord_kv::Result<Option<Vec<u8>>> {
        self.store().get(family, key)
    }

    fn scan(&self, family: Family, range: &Range, limit: usize) -> coord_kv::Result<Vec<Pair>> {
        self.store().scan(family, range, limit)
    }
}

impl Drop for Checkpoint {
    fn drop(&mut self) {
        drop(self.store.take());
        match std::fs::remove_dir_all(&self.path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                tracing::warn!(%error, path = %self.path.display(), "an old checkpoint stays until the next start");
            }
            _ => {}
        }
    }
}
