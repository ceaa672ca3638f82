//! Noticing at once that the leader's process has ended: each follower keeps a call open at it. docs/dead-leader.md has the argument.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use kuafu::{Address, Client};
use openraft::metrics::RaftServerMetrics;

use super::Inner;
use crate::error::Leader;
use crate::network::client;
use crate::pb::RaftPeerClient;
use crate::types::Vote;

/// Of one call; it is answered after half of it.
const CALL_TIMEOUT: Duration = Duration::from_secs(20);
/// Before a call that ended is made again.
const AGAIN: Duration = Duration::from_millis(100);
/// The followers notice at the same time. The second in line stands after this if the first did not, the third after twice of it.
const TURN: Duration = Duration::from_millis(50);

impl Inner {
    /// Attends whoever leads, and stands for election when its process has ended.
    pub(super) async fn attend_leaders(self: Arc<Self>) {
        let mut server = self.raft.server_metrics();
        loop {
            let followed = self.followed(&server.borrow_and_update());
            let gone = match followed {
                Some((vote, leader)) => tokio::select! {
                    never = self.attend(vote, &leader) => match never {},
                    changed = server.changed() => changed.is_err(),
                },
                None => server.changed().await.is_err(),
            };
            if gone {
                return;
            }
        }
    }

    /// Under which vote this member follows whom.
    fn followed(&self, server: &RaftServerMetrics<u64, openraft::BasicNode>) -> Option<(Vote, Leader)> {
        let leader = super::leader(server.current_leader, server.membership_config.membership())?;
        (leader.id != self.node_id && server.vote.committed).then_some((server.vote, leader))
    }

    /// Until it is dropped.
    async fn attend(&self, vote: Vote, leader: &Leader) -> Infallible {
        let Ok(address) = leader.address.parse::<Address>() else { return std::future::pending().await };
        let peer = RaftPeerClient::new(Client::new(address.clone(), self.transport.clone()));
        loop {
            if client::attend(&peer, leader.id, vote, CALL_TIMEOUT).await.is_err()
                && address.has_ended(|| true).await
            {
                self.stand(vote, leader).await;
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// Stands for election in the place of a leader that has ended, when it is this member's turn.
    async fn stand(&self, vote: Vote, leader: &Leader) {
        let members = self.members();
        let mut heirs = members.iter().filter(|(id, member)| **id != leader.id && member.voter);
        let Some(turn) = heirs.position(|(id, _)| *id == self.node_id) else { return };
        tokio::time::sleep(TURN * u32::try_from(turn).unwrap_or(u32::MAX)).await;
        if self.log.vote_and_last().0 != Some(vote) || self.joining.is_on() {
            return;
        }
        tracing::info!(
            leader = leader.id,
            address = leader.address,
            "the leader's process has ended: its address refuses connections; this member stands for election"
        );
        self.given_up.note(vote);
        // A core that has stopped has told already.
        let _ = self.raft.trigger().elect().await;
    }
}
