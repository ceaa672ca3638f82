//! The first start of all members: one of them forms the cluster.

use std::collections::BTreeMap;
use std::time::Duration;

use super::RaftNode;
use crate::error::MembershipError;
use crate::network::client::last_log_index;

/// Between questions to the other members whether they have data.
const PERIOD: Duration = Duration::from_millis(200);

/// What a member without data came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Formed {
    /// It formed the cluster.
    Yes,
    /// There are data already: it waits for the leader.
    HasData,
    /// Another member of the list forms the cluster.
    NotFirst,
    /// It is not in the list: it waits until it is added.
    Joins,
}

impl RaftNode {
    /// Forms the cluster, if this member is the one to do so: the lowest of `members`, and no other has ever had data. A
    /// member whose disk was replaced finds that the others have, and waits for the leader. Returns once that is known:
    /// for the lowest, not before all others answer.
    ///
    /// # Errors
    /// See [`MembershipError`].
    pub async fn form(&self, members: BTreeMap<u64, String>) -> Result<Formed, MembershipError> {
        let id = self.inner.node_id;
        if self.is_initialized().await? {
            return Ok(Formed::HasData);
        }
        if !members.contains_key(&id) {
            return Ok(Formed::Joins);
        }
        if members.keys().next() != Some(&id) {
            return Ok(Formed::NotFirst);
        }
        let mut said = false;
        loop {
            let others = members.iter().filter(|(other, _)| **other != id);
            let asked = others.map(|(other, address)| last_log_index(*other, address, &self.inner.transport));
            let answers: Vec<u64> = futures::future::join_all(asked).await.into_iter().flatten().collect();
            if answers.iter().any(|last| *last > 0) {
                return Ok(Formed::HasData);
            }
            if answers.len() + 1 == members.len() {
                break;
            }
            if !std::mem::replace(&mut said, true) {
                let (answered, of) = (answers.len(), members.len() - 1);
                tracing::info!(answered, of, "waiting for the other members to form the cluster");
            }
            tokio::time::sleep(PERIOD).await;
        }
        match self.initialize(members).await {
            Ok(()) => Ok(Formed::Yes),
            Err(MembershipError::AlreadyInitialized) => Ok(Formed::HasData),
            Err(error) => Err(error),
        }
    }
}
