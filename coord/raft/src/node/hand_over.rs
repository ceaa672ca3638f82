//! Giving leadership to another member in good order. docs/hand-over.md has the argument.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::{Leadership, RaftNode};
use crate::error::Leader;
use crate::network::client;
use crate::types::LogId;

/// Between two looks whether a follower holds everything; a commit takes less.
const LOOK: Duration = Duration::from_millis(1);
/// Before all followers are asked again that could not stand.
const PAUSE: Duration = Duration::from_millis(20);

impl RaftNode {
    /// Gives leadership up in favour of the follower that is heard best, once it holds everything. Proposals that come
    /// meanwhile wait, and are told who leads then. Gives the new leader; `None` if this member does not lead, no follower
    /// caught up or was elected by `deadline`: then this member leads on, if it still does, without a lease.
    pub async fn hand_over(&self, deadline: Instant) -> Option<Leader> {
        if !matches!(self.leadership(), Leadership::Leader { .. }) {
            return None;
        }
        // Dropped last: who waits is answered by then, or sent.
        let _paused = self.inner.proposer.pause();
        let mut refused = BTreeSet::new();
        while let Err(heir) = self.ask_heir(&refused, deadline).await? {
            refused.insert(heir);
            if refused.len()
                >= self.inner.members().values().filter(|member| member.voter).count().saturating_sub(1)
            {
                // All of a cluster that was made just now, for example: they have not heard yet what is committed.
                refused.clear();
                tokio::time::sleep(PAUSE).await;
            }
        }
        let mut leadership = self.watch_leadership();
        let another = leadership.wait_for(|now| matches!(now, Leadership::Follower { leader: Some(_) }));
        match tokio::time::timeout_at(deadline.into(), another).await.ok()?.ok().as_deref() {
            Some(Leadership::Follower { leader }) => leader.clone(),
            _ => None,
        }
    }

    /// Asks the best follower to stand. `Err`: this one cannot, and nothing has changed.
    async fn ask_heir(&self, refused: &BTreeSet<u64>, deadline: Instant) -> Option<Result<(), u64>> {
        let (heir, last) = tokio::time::timeout_at(deadline.into(), self.heir(refused)).await.ok()??;
        // Before anybody is told: from here on this member shows nobody its state without asking a majority first.
        let vote = self.inner.lease.give_up()?;
        let left = deadline.saturating_duration_since(Instant::now());
        let transport = &self.inner.transport;
        match client::hand_over((heir.id, &heir.address), vote, last, left, transport).await {
            Ok(true) => Some(Ok(())),
            Ok(false) => {
                self.inner.lease.take_back(&vote);
                Some(Err(heir.id))
            }
            Err(error) => {
                // It may have heard all the same: what was given up stays so.
                tracing::warn!(member = heir.id, %error, "hand over");
                Some(Ok(()))
            }
        }
    }

    /// Waits until nothing is in flight and another voter, none of `refused`, holds the whole log. `None`: there is no other
    /// voter.
    async fn heir(&self, refused: &BTreeSet<u64>) -> Option<(Leader, Option<LogId>)> {
        let own = self.inner.node_id;
        loop {
            let last = self.inner.log.vote_and_last().1;
            let members = self.inner.members();
            let others = || members.iter().filter(|(id, member)| **id != own && member.voter);
            others().next()?;
            let level = others().filter(|(id, member)| {
                !refused.contains(id) && member.matched_index == last.map(|id| id.index)
            });
            let nearest = level.min_by_key(|(_, member)| member.silence.unwrap_or(Duration::MAX));
            if let Some((id, member)) = nearest.filter(|_| self.inner.proposer.is_idle()) {
                return Some((Leader { id: *id, address: member.address.clone() }, last));
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}
