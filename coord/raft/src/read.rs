//! Linearizable reads: by the lease where it holds, else all that wait share one read index.

use std::sync::Arc;
use std::time::Instant;

use openraft::error::{CheckIsLeaderError, RaftError};
use parking_lot::Mutex;
use tokio::sync::{oneshot, watch};

use crate::error::ReadError;
use crate::lease::Lease;
use crate::log::LogStore;
use crate::propose::leader_of;
use crate::types::{LogId, Raft};

/// Reads that wait for one round; more are told to come back.
const WAITING_MAX: usize = 65_536;

type Answer = oneshot::Sender<Result<(), ReadError>>;

#[derive(Debug)]
pub(crate) struct Reads {
    raft: Raft,
    lease: Arc<Lease>,
    log: LogStore,
    applied: watch::Receiver<Option<LogId>>,
    rounds: Mutex<Rounds>,
}

#[derive(Debug, Default)]
struct Rounds {
    running: bool,
    closed: bool,
    waiting: Vec<Answer>,
}

impl Reads {
    pub(crate) fn new(
        raft: Raft,
        lease: Arc<Lease>,
        log: LogStore,
        applied: watch::Receiver<Option<LogId>>,
    ) -> Arc<Self> {
        Arc::new(Self { raft, lease, log, applied, rounds: Mutex::default() })
    }

    /// From now on nobody is told that what this member has is current.
    pub(crate) fn close(&self) {
        let waiting = {
            let mut rounds = self.rounds.lock();
            rounds.closed = true;
            std::mem::take(&mut rounds.waiting)
        };
        for answer in waiting {
            // Whoever does not listen any more needs no answer.
            let _ = answer.send(Err(ReadError::Stopped));
        }
        self.lease.end();
    }

    pub(crate) async fn barrier(self: &Arc<Self>, deadline: Instant) -> Result<(), ReadError> {
        if self.current_by_lease() {
            return Ok(());
        }
        let (answer, reply) = oneshot::channel();
        let start = {
            let mut rounds = self.rounds.lock();
            if rounds.closed {
                return Err(ReadError::Stopped);
            }
            if rounds.waiting.len() >= WAITING_MAX {
                rounds.waiting.retain(|answer| !answer.is_closed());
            }
            if rounds.waiting.len() >= WAITING_MAX {
                return Err(ReadError::Timeout);
            }
            rounds.waiting.push(answer);
            !std::mem::replace(&mut rounds.running, true)
        };
        if start {
            tokio::spawn(Arc::clone(self).run_rounds());
        }
        match tokio::time::timeout_at(deadline.into(), reply).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(ReadError::Stopped),
            Err(_) => Err(ReadError::Timeout),
        }
    }

    /// Nobody else can lead now, and everything that earlier leaders committed is applied: an entry of this
    /// leader's own term is. What this leader answered was applied before it was answered.
    pub(crate) fn current_by_lease(&self) -> bool {
        let Some(membership) = self.log.effective_membership() else { return false };
        let Some(leader) = self.lease.holder(Instant::now(), &membership) else { return false };
        self.applied.borrow().is_some_and(|applied| applied.leader_id == leader)
    }

    /// One round after another while somebody waits. A read joins the round that starts after it came.
    async fn run_rounds(self: Arc<Self>) {
        loop {
            let round = {
                let mut rounds = self.rounds.lock();
                rounds.waiting.retain(|answer| !answer.is_closed());
                if rounds.waiting.is_empty() {
                    rounds.running = false;
                    return;
                }
                std::mem::take(&mut rounds.waiting)
            };
            match self.one_round().await {
                Some(result) => {
                    for answer in round {
                        // Whoever does not listen any more needs no answer.
                        let _ = answer.send(result.clone());
                    }
                }
                // No majority answered; whoever still has time waits for the next round.
                None => self.rounds.lock().waiting.extend(round),
            }
        }
    }

    /// `None`: no majority answered in time.
    async fn one_round(&self) -> Option<Result<(), ReadError>> {
        match self.raft.get_read_log_id().await {
            Ok((read, _)) => {
                let mut applied = self.applied.clone();
                let wanted = read.map(|id| id.index);
                let waited = applied.wait_for(|applied| applied.map(|id| id.index) >= wanted).await;
                Some(waited.map(|_| ()).map_err(|_| ReadError::Stopped))
            }
            Err(RaftError::Fatal(_)) => Some(Err(ReadError::Stopped)),
            Err(RaftError::APIError(CheckIsLeaderError::ForwardToLeader(forward))) => {
                Some(Err(ReadError::NotLeader { leader: leader_of(&forward) }))
            }
            Err(RaftError::APIError(CheckIsLeaderError::QuorumNotEnough(_))) => {
                // The calls may have failed at once; do not spin.
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
                None
            }
        }
    }
}
