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
    kept: Arc<tokio::sync::Mutex<Kept>>,
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
            kept: Arc::new(tokio::sync::Mutex::new(kept)),
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

    /// A newer epoch is on a disk on return. A longer log is written meanwhile: heartbeats must not wait for a disk that hangs.
    async fn keep(&self, disks: &[Arc<Disk>], shown: &Lineage) -> Result<(), Status> {
        let known = self.known();
        if known.cluster_id.is_empty() || shown.epoch > known.epoch {
            return self.kept.lock().await.write(disks, shown).await;
        }
        // Who has it is writing.
        let Ok(mut kept) = self.kept.clone().try_lock_owned() else { return Ok(()) };
        if kept.at.is_none_or(|at| at.elapsed() >= KEEP_PERIOD) {
            let (disks, shown) = (disks.to_vec(), shown.clone());
            // What fails is said for each disk, and comes again with the next answer.
            tokio::spawn(async move { kept.write(&disks, &shown).await });
        }
        Ok(())
    }
}

impl Kept {
    async fn write(&mut self, disks: &[Arc<Disk>], shown: &Lineage) -> Result<(), Status> {
        let mut newer = self.lineage.clone();
        if newer.learn(shown) {
            disks::keep_lineage(disks, &newer).await?;
            *self = Self { lineage: newer, at: Some(Instant::now()) };
        }
        Ok(())
    }
}
