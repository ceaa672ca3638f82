//! Proposals are gathered into entries: all that wait go into the next one, at most [`IN_FLIGHT_MAX`] are under way.
//!
//! There is no task for it: whoever proposes while there is room sends, and whoever answers an entry (the state
//! machine, as soon as it has applied it) sends the next one. A command is answered by the state machine directly,
//! without another turn through the Raft core; only failures come back through the core.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures::FutureExt;
use openraft::error::ClientWriteError;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::batch;
use crate::error::{Leader, ProposeError};
use crate::node::Proposal;
use crate::types::{EntryData, Raft, Refusal};

/// Entries under way: one that is being replicated while another is being applied. More only cuts the batches
/// smaller (measured: 48,000 commands/s with two, 36,000 with four).
const IN_FLIGHT_MAX: usize = 2;
/// Commands of one entry, so that applying one stays short.
const COMMANDS_MAX: usize = 4096;

type Answer = oneshot::Sender<Result<Bytes, ProposeError>>;

#[derive(Clone, Copy, Debug)]
pub(crate) struct ProposerLimits {
    pub(crate) waiting_max: usize,
    pub(crate) entry_bytes_max: usize,
    pub(crate) command_bytes_max: usize,
}

/// Gathers proposals into entries.
#[derive(Debug)]
pub(crate) struct Proposer {
    limits: ProposerLimits,
    raft: OnceLock<Raft>,
    queue: Mutex<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<(Proposal, Answer)>,
    /// Entries that are counted: at most [`IN_FLIGHT_MAX`].
    in_flight: usize,
    /// The same entries, and some that were answered since.
    sent: Vec<Weak<EntryWaiters>>,
    closed: bool,
    /// Nothing new is sent: this leader is handing over.
    paused: bool,
    time_nanos: u64,
}

impl Proposer {
    pub(crate) fn new(limits: ProposerLimits) -> Arc<Self> {
        Arc::new(Self { limits, raft: OnceLock::new(), queue: Mutex::default() })
    }

    #[cfg(test)]
    pub(crate) fn unbounded() -> Arc<Self> {
        let (waiting_max, entry_bytes_max, command_bytes_max) = (usize::MAX, usize::MAX, usize::MAX);
        Self::new(ProposerLimits { waiting_max, entry_bytes_max, command_bytes_max })
    }

    /// The core exists: proposals may be sent to it.
    pub(crate) fn start(&self, raft: Raft) {
        let _ = self.raft.set(raft);
    }

    pub(crate) async fn propose(
        self: &Arc<Self>,
        proposal: Proposal,
        deadline: Instant,
    ) -> Result<Bytes, ProposeError> {
        let bytes = proposal.command.len();
        if bytes > self.limits.command_bytes_max {
            return Err(ProposeError::TooLarge { bytes, limit: self.limits.command_bytes_max });
        }
        let (answer, reply) = oneshot::channel();
        self.enqueue(proposal, answer)?;
        self.send();
        match tokio::time::timeout_at(deadline.into(), reply).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(ProposeError::Stopped),
            Err(_) => Err(ProposeError::Timeout),
        }
    }

    fn enqueue(&self, proposal: Proposal, answer: Answer) -> Result<(), ProposeError> {
        let mut queue = self.queue.lock();
        if queue.closed {
            return Err(ProposeError::Stopped);
        }
        if queue.waiting.len() >= self.limits.waiting_max {
            queue.waiting.retain(|(_, answer)| !answer.is_closed());
        }
        if queue.waiting.len() >= self.limits.waiting_max {
            return Err(ProposeError::Busy { waiting: queue.waiting.len() });
        }
        queue.waiting.push_back((proposal, answer));
        Ok(())
    }

    /// Sends what waits, as far as there is room.
    fn send(self: &Arc<Self>) {
        let Some(raft) = self.raft.get() else { return };
        while let Some((bytes, answers)) = self.next_entry() {
            let waiters =
                Arc::new(EntryWaiters { proposer: Arc::downgrade(self), answers: Mutex::new(Some(answers)) });
            self.note_sent(&waiters);
            let data = EntryData { bytes, waiters: Some(Arc::clone(&waiters)) };
            // The send is on an unbounded channel (bounded by `IN_FLIGHT_MAX` here); it waits only when the core is gone.
            match raft.client_write_ff(data).now_or_never() {
                Some(Ok(outcome)) => {
                    tokio::spawn(async move {
                        match outcome.await {
                            Ok(Ok(applied)) => waiters.answer(applied.data.0),
                            Ok(Err(error)) => waiters.fail(&propose_error(&error)),
                            Err(_) => waiters.fail(&ProposeError::Stopped),
                        }
                    });
                }
                Some(Err(_)) | None => waiters.fail(&ProposeError::Stopped),
            }
        }
    }

    fn next_entry(&self) -> Option<(Bytes, Vec<Answer>)> {
        let mut queue = self.queue.lock();
        if queue.paused || queue.in_flight >= IN_FLIGHT_MAX {
            return None;
        }
        let mut proposals = Vec::new();
        let mut answers = Vec::new();
        let mut bytes = 0;
        while proposals.len() < COMMANDS_MAX
            && let Some((proposal, answer)) = queue.waiting.pop_front()
        {
            if answer.is_closed() {
                continue; // Whoever proposed it gave up, and it was not sent.
            }
            bytes += batch::encoded_len(&proposal);
            proposals.push(proposal);
            answers.push(answer);
            if bytes >= self.limits.entry_bytes_max {
                break;
            }
        }
        if proposals.is_empty() {
            return None;
        }
        queue.in_flight += 1;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        // Within this leader; the state machine sees to it across leaders.
        queue.time_nanos = queue.time_nanos.max(u64::try_from(now).unwrap_or(u64::MAX));
        Some((batch::encode(queue.time_nanos, proposals.iter()), answers))
    }

    fn note_sent(&self, waiters: &Arc<EntryWaiters>) {
        let mut queue = self.queue.lock();
        queue.sent.retain(|sent| sent.upgrade().is_some_and(|sent| sent.is_waiting()));
        queue.sent.push(Arc::downgrade(waiters));
    }

    fn entry_done(self: &Arc<Self>) {
        self.queue.lock().in_flight -= 1;
        self.send();
    }

    /// Another leader's snapshot took the place of the log: what was sent is neither applied here any more nor taken back, so the
    /// core will never say what became of it. Without this the places in flight would stay taken, and this member could
    /// propose nothing for as long as it lives.
    pub(crate) fn fail_sent(&self) {
        // Not under the lock: whoever is told may send the next entry at once.
        let sent = std::mem::take(&mut self.queue.lock().sent);
        sent.iter().filter_map(Weak::upgrade).for_each(|waiters| waiters.fail(&ProposeError::Superseded));
    }

    /// Proposals wait until the guard is dropped. What was sent goes on.
    pub(crate) fn pause(self: &Arc<Self>) -> Pause {
        self.queue.lock().paused = true;
        Pause(Arc::clone(self))
    }

    pub(crate) fn is_paused(&self) -> bool {
        self.queue.lock().paused
    }

    /// Whether every entry that was sent is answered.
    pub(crate) fn is_idle(&self) -> bool {
        self.queue.lock().in_flight == 0
    }

    /// Answers all that wait and were not sent.
    pub(crate) fn fail_waiting(&self, error: &ProposeError) {
        let waiting = std::mem::take(&mut self.queue.lock().waiting);
        for (_, answer) in waiting {
            // Whoever does not listen any more needs no answer.
            let _ = answer.send(Err(error.clone()));
        }
    }

    /// From now on proposals are refused.
    pub(crate) fn close(&self) {
        self.queue.lock().closed = true;
        self.fail_waiting(&ProposeError::Stopped);
    }
}

/// See [`Proposer::pause`].
#[derive(Debug)]
pub(crate) struct Pause(Arc<Proposer>);

impl Drop for Pause {
    fn drop(&mut self) {
        self.0.queue.lock().paused = false;
        self.0.send();
    }
}

fn propose_error(error: &ClientWriteError<u64, openraft::BasicNode>) -> ProposeError {
    match error {
        ClientWriteError::ForwardToLeader(forward) => ProposeError::NotLeader { leader: leader_of(forward) },
        // Only for changes of the members, which do not come this way.
        ClientWriteError::ChangeMembershipError(_) => ProposeError::NotLeader { leader: None },
    }
}

pub(crate) fn leader_of(
    forward: &openraft::error::ForwardToLeader<u64, openraft::BasicNode>,
) -> Option<Leader> {
    let address = forward.leader_node.as_ref()?.addr.clone();
    Some(Leader { id: forward.leader_id?, address })
}

/// Who waits for the replies of one entry. Answered once: by the state machine, by the core if the entry is lost, or by
/// [`Proposer::fail_sent`].
#[derive(Debug)]
pub(crate) struct EntryWaiters {
    proposer: Weak<Proposer>,
    answers: Mutex<Option<Vec<Answer>>>,
}

impl EntryWaiters {
    /// One reply for each command, in order.
    pub(crate) fn answer(&self, replies: Vec<Result<Bytes, Refusal>>) {
        self.finish(|answers| {
            for (answer, reply) in answers.into_iter().zip(replies) {
                let reply = reply.map_err(|refusal| match refusal {
                    Refusal::SessionExpired => ProposeError::SessionExpired,
                    Refusal::ReplyGone { seq } => ProposeError::ReplyGone { seq },
                });
                // Whoever does not listen any more needs no answer.
                let _ = answer.send(reply);
            }
        });
    }

    pub(crate) fn fail(&self, error: &ProposeError) {
        self.finish(|answers| {
            for answer in answers {
                let _ = answer.send(Err(error.clone()));
            }
        });
    }

    fn is_waiting(&self) -> bool {
        self.answers.lock().is_some()
    }

    fn finish(&self, tell: impl FnOnce(Vec<Answer>)) {
        let Some(answers) = self.answers.lock().take() else { return };
        tell(answers);
        if let Some(proposer) = self.proposer.upgrade() {
            proposer.entry_done();
        }
    }
}
