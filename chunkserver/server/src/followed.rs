//! Which masters are followed: what this server saw of how far their state has come is kept on its disks, and no master that
//! shows an older one is obeyed. `master/docs/restore.md` says why.
//!
//! Invariant: a newer cluster epoch is on a disk before anything is done that a master of that epoch said.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use kuafu::{Code, Status};
use master_api::model::Lineage;
use master_api::proto;
use parking_lot::Mutex;

use crate::disks::{self, Disk};

/// A longer log of the same epoch is written down at most this often: it guards against copies that are older than that.
const KEEP_PERIOD: Duration = Duration::from_secs(10);

/// What is known of the masters.
#[derive(Debug)]
pub(crate) struct Followed {
    known: Mutex<Lineage>,
    /// Held while it is written.
    kept: tokio::sync::Mutex<Kept>,
    /// The last answer was refused: said once, not for each.
    refusing: AtomicBool,
}

#[derive(Debug)]
struct Kept {
    lineage: Lineage,
    at: Option<Instant>,
}

impl Followed {
    /// What the disks know.
    pub(crate) fn load(disks: &[Arc<Disk>]) -> Self {
        let lineage = disks::lineage(disks);
        let kept = Kept { lineage: lineage.clone(), at: None };
        Self {
            known: Mutex::new(lineage),
            kept: tokio::sync::Mutex::new(kept),
            refusing: AtomicBool::new(false),
        }
    }

    /// What is known now: to be taken before a master is asked.
    pub(crate) fn known(&self) -> Lineage {
        self.known.lock().clone()
    }

    /// Whether the answer to a call is to be obeyed. `asked` was known when the call was made.
    pub(crate) async fn follow(
        &self,
        disks: &[Arc<Disk>],
        asked: &Lineage,
        shown: Option<&proto::Lineage>,
    ) -> Result<(), Status> {
        // Masters of earlier versions show nothing.
        let Some(shown) = shown.cloned().map(Lineage::from) else { return Ok(()) };
        if let Err(error) = asked.check(&shown) {
            if !self.refusing.swap(true, Ordering::Relaxed) {
                tracing::error!(%error, "a master is not followed");
            }
            return Err(Status::new(Code::Stale, error.to_string()));
        }
        self.refusing.store(false, Ordering::Relaxed);
        self.keep(disks, &shown).await?;
        self.known.lock().learn(&shown);
        Ok(())
    }

    async fn keep(&self, disks: &[Arc<Disk>], shown: &Lineage) -> Result<(), Status> {
        let mut kept = self.kept.lock().await;
        let due = kept.at.is_none_or(|at| at.elapsed() >= KEEP_PERIOD);
        let urgent = kept.lineage.cluster_id.is_empty() || shown.epoch > kept.lineage.epoch;
        let mut newer = kept.lineage.clone();
        if (due || urgent) && newer.learn(shown) {
            disks::keep_lineage(disks, &newer).await?;
            *kept = Kept { lineage: newer, at: Some(Instant::now()) };
        }
        Ok(())
    }
}
