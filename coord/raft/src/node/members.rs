//! Adding and removing members, as people ask for it: what is refused and why. Only the leader does it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::{Leadership, MemberStatus, RaftNode};
use crate::error::{Leader, MembershipError};

/// More would only make each commit slower: of seven, three may be lost.
const VOTERS_MAX: usize = 7;
/// A member that was not heard for this long is not counted on. A few heartbeats, and more than a slow disk takes.
const AWAY: Duration = Duration::from_secs(2);
/// For another leader, before the one that leads is removed.
const HAND_OVER_TIMEOUT: Duration = Duration::from_secs(1);

/// A running process that is to be made a member, by its own word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Newcomer {
    /// What members are called by people: "master".
    pub kind: &'static str,
    pub id: u64,
    pub address: String,
    pub last_log_index: u64,
}

/// What removing came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Removal {
    Done,
    /// This member led and was to be removed: that one leads now, and is to be asked.
    AskLeader(Leader),
}

impl RaftNode {
    /// Makes a running process a voter. Gives whether it was one already.
    ///
    /// # Errors
    /// [`MembershipError::Refused`] says what to do; after [`MembershipError::Timeout`] it goes on catching up, and the same call again makes it a
    /// voter.
    pub async fn admit(&self, newcomer: Newcomer, deadline: Instant) -> Result<bool, MembershipError> {
        self.must_lead()?;
        let Newcomer { kind, id, address, last_log_index } = newcomer;
        let members = self.status().members;
        let known = members.get(&id);
        if known.is_some_and(|member| member.voter && member.address == address) {
            return Ok(true);
        }
        if let Some((other, _)) =
            members.iter().find(|(other, member)| **other != id && member.address == address)
        {
            return Err(refused(format!(
                "{address} is the address of {kind} {other} and {kind} {id} answers there: remove {kind} {other} first"
            )));
        }
        if let Some(member) = known.filter(|member| member.address != address) {
            return Err(refused(format!(
                "{kind} {id} is a member already, at {}: give the new one a number that no {kind} has had",
                member.address
            )));
        }
        if known.is_none() && last_log_index > 0 {
            return Err(refused(format!(
                "the {kind} at {address} has data of an earlier membership: start it with --join on an empty directory"
            )));
        }
        let (voters, heard) = voters(&members, None);
        let (count, heard) = (voters + 1, heard + 1);
        if count > VOTERS_MAX {
            return Err(refused(format!(
                "there are {VOTERS_MAX} {kind}s already, and more only make it slower"
            )));
        }
        if heard <= count / 2 {
            return Err(refused(format!(
                "of then {count} {kind}s only {heard} would answer, which is no majority: bring one back or remove one first"
            )));
        }
        self.add_member(id, address.clone(), deadline).await?;
        tracing::info!(id, address, "{kind} added");
        Ok(false)
    }

    /// Takes a member out of the cluster. If it leads, another one does from then on, and is to be asked.
    ///
    /// # Errors
    /// As [`admit`](Self::admit).
    pub async fn expel(
        &self,
        kind: &'static str,
        id: u64,
        deadline: Instant,
    ) -> Result<Removal, MembershipError> {
        self.must_lead()?;
        let members = self.status().members;
        let Some(member) = members.get(&id) else {
            let known: Vec<_> = members.keys().map(ToString::to_string).collect();
            return Err(refused(format!("there is no {kind} {id}: there are {}", known.join(", "))));
        };
        if member.voter {
            let (count, heard) = voters(&members, Some(id));
            if count == 0 {
                return Err(refused(format!("{kind} {id} is the only one: add another first")));
            }
            if heard <= count / 2 {
                return Err(refused(format!(
                    "of the {count} {kind}s that are left without {kind} {id} only {heard} answer, which is no majority: \
                     bring one back or add one first"
                )));
            }
            if id == self.inner.node_id
                && let Some(leader) = self.hand_over(deadline.min(Instant::now() + HAND_OVER_TIMEOUT)).await
            {
                tracing::info!(leader = leader.id, "leadership handed over");
                return Ok(Removal::AskLeader(leader));
            }
        }
        self.remove_member(id, deadline).await?;
        tracing::info!(id, "{kind} removed");
        Ok(Removal::Done)
    }

    /// # Errors
    /// [`MembershipError::NotLeader`], [`MembershipError::Stopped`].
    pub fn must_lead(&self) -> Result<(), MembershipError> {
        match self.leadership() {
            Leadership::Leader { .. } => Ok(()),
            Leadership::Follower { leader } => Err(MembershipError::NotLeader { leader }),
            Leadership::Stopped => Err(MembershipError::Stopped),
        }
    }
}

/// Voters, but this one, and how many of them are heard: this leader itself, and whoever spoke lately.
fn voters(members: &BTreeMap<u64, MemberStatus>, without: Option<u64>) -> (usize, usize) {
    let voters = members.iter().filter(|(id, member)| member.voter && Some(**id) != without);
    let heard = voters.clone().filter(|(_, member)| member.silence.is_some_and(|silence| silence < AWAY));
    (voters.count(), heard.count())
}

fn refused(reason: String) -> MembershipError {
    MembershipError::Refused { reason }
}
