//! What services and background jobs share: the Raft member, what it tells of its state, and how failures become statuses.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use coord_kv::KvError;
use coord_raft::{Leadership, Proposal, ProposalStamp, ProposeError, RaftNode, View};
use kuafu::Status;
use nuwa_api::proto::{self, Command, command, reply};
use nuwa_model::Refusal;
use prost::Message as _;
use zhongkui_access::Holder;

use crate::config::Config;
use crate::exports::Exports;
use crate::hub::Hub;
use crate::leases::Leases;

/// A majority answers in less, or it is not there.
const HEAR_TIMEOUT: Duration = Duration::from_millis(500);

/// One running member.
pub(crate) struct App {
    pub(crate) config: Config,
    pub(crate) raft: RaftNode,
    pub(crate) hub: Arc<Hub>,
    pub(crate) leases: Arc<Leases>,
    pub(crate) exports: Exports,
}

impl App {
    /// Has a command applied.
    pub(crate) async fn propose(
        &self,
        stamp: Option<ProposalStamp>,
        command: Bytes,
        deadline: Instant,
    ) -> Result<proto::Reply, Status> {
        let session = stamp.map_or(0, |stamp| stamp.session.0);
        match self.raft.propose(Proposal { stamp, command }, deadline).await {
            Ok(reply) => proto::Reply::decode(reply)
                .map_err(|error| Status::internal(format!("the reply of a command cannot be read: {error}"))),
            Err(ProposeError::SessionExpired) => {
                let refusal = Refusal::SessionOver(session);
                let what = Some(reply::What::Refused((&refusal).into()));
                Ok(proto::Reply { revision: self.revision()?, what })
            }
            Err(error) => Err(raft_status(error)),
        }
    }

    /// Ends a session, in as many commands as what it owns needs.
    pub(crate) async fn end_session(&self, session: u64, deadline: Instant) -> Result<(), Status> {
        let what = Some(command::What::EndSession(proto::EndSession { session }));
        let command = Bytes::from(Command { what }.encode_to_vec());
        loop {
            match self.propose(None, command.clone(), deadline).await?.what {
                Some(reply::What::More(true)) => {}
                Some(reply::What::More(false)) => return Ok(()),
                other => return Err(Status::internal(format!("a session was not ended: {other:?}"))),
            }
        }
    }

    /// Whether there is such a session, or what is left of one, so that its owner may name it. False for certain: it is over, or was
    /// never opened.
    ///
    /// # Errors
    /// PERMISSION_DENIED: it is another's.
    pub(crate) async fn is_there(
        &self,
        session: u64,
        holder: &Holder,
        deadline: Instant,
    ) -> Result<bool, Status> {
        let find = || nuwa_core::query::session(&self.view(), session).map_err(|error| store_status(&error));
        let found = match find()? {
            // A number has one owner for ever, so what this member has is right, however old it is.
            Some(found) => found,
            None => {
                // Somebody else's command may be on its way that opens it.
                self.barrier(deadline).await?;
                let Some(found) = find()? else { return Ok(false) };
                found
            }
        };
        let owner = &*found.owner;
        // Before sessions had owners it was opened by somebody.
        if owner.is_empty() || owner == holder.name() {
            return Ok(true);
        }
        let why = format!("session {session} is {owner}'s: open another");
        Err(holder.refused(&format!("a request in session {session}"), &why))
    }

    /// From here on the view has everything that was answered before the call.
    pub(crate) async fn barrier(&self, deadline: Instant) -> Result<(), Status> {
        self.raft.read_barrier(deadline).await.map_err(raft_status)
    }

    /// Waits until the view has a revision.
    pub(crate) async fn reach(&self, revision: u64, deadline: Instant) -> Result<(), Status> {
        if self.revision()? >= revision {
            return Ok(());
        }
        self.raft.follow_closely();
        let mut published = self.hub.watch_revision();
        // Asked each time, not read from what is published: after a snapshot was installed nothing is, until the store is asked.
        while self.revision()? < revision {
            let changed = tokio::time::timeout_at(deadline.into(), published.changed()).await;
            if !matches!(changed, Ok(Ok(()))) {
                return Err(Status::unavailable(format!("this member has not reached revision {revision}")));
            }
        }
        Ok(())
    }

    /// Whether this member can know what is new: it hears a leader, or is one that a majority follows.
    pub(crate) async fn must_hear(&self, deadline: Instant) -> Result<(), Status> {
        match self.raft.leadership() {
            Leadership::Leader { .. } => {
                match self.barrier(deadline.min(Instant::now() + HEAR_TIMEOUT)).await {
                    Ok(()) => Ok(()),
                    Err(status) => Err(Status::unavailable(format!("this member may be cut off: {status}"))),
                }
            }
            Leadership::Follower { leader: Some(_) } => Ok(()),
            Leadership::Follower { leader: None } => {
                Err(Status::unavailable("this member hears no leader, and may be cut off"))
            }
            Leadership::Stopped => Err(Status::unavailable("this member has stopped")),
        }
    }

    /// The newest revision in the store.
    pub(crate) fn revision(&self) -> Result<u64, Status> {
        match self.hub.revision() {
            Some(revision) => Ok(revision),
            None => self.prime(),
        }
    }

    /// Tells the hub where the store is.
    pub(crate) fn prime(&self) -> Result<u64, Status> {
        let revision = nuwa_core::query::meta(&self.view()).map_err(|error| store_status(&error))?.revision;
        self.hub.prime(revision);
        Ok(self.hub.revision().unwrap_or(revision))
    }

    /// Whether the tree is a snapshot's, and not whole yet.
    pub(crate) fn is_restoring(&self) -> Result<bool, Status> {
        let meta = nuwa_core::query::meta(&self.view()).map_err(|error| store_status(&error))?;
        Ok(meta.restoring.is_some())
    }

    pub(crate) fn view(&self) -> View {
        self.raft.view()
    }

    /// Whether this member leads, as far as it knows.
    pub(crate) fn leads(&self) -> bool {
        matches!(self.raft.leadership(), Leadership::Leader { .. })
    }
}

/// A failure of the raft kit, for callers of both kinds. A leader is known by its address for frames, at which nobody answers
/// gRPC; where its gRPC is, only its own configuration says.
pub(crate) fn raft_status(error: impl Into<Status>) -> Status {
    let mut status = error.into();
    if let Some(leader) = status.leader() {
        let message = format!(
            "this member does not lead; the leader's address for frames is {leader}: whoever speaks gRPC asks that member's port for gRPC"
        );
        status.message = message;
    }
    status
}

/// The store failed, or says what cannot be.
pub(crate) fn store_status(error: &KvError) -> Status {
    tracing::error!(%error, "read the state");
    Status::internal(error.to_string())
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures::FutureExt as _;
    use kuafu::Code;

    use super::*;
    use crate::testing::{PATIENCE, Single, soon};

    /// The store had the revision once the leader's snapshot was installed, but whoever waited for it already was told of it with
    /// the next event only, or never.
    #[tokio::test]
    async fn a_snapshot_wakes_who_waits_for_what_it_has() {
        let single = Single::start().await;
        let first = single.put("/a").await;
        let app = single.server.app();
        // Its hub is told of nothing but what this test tells it.
        let behind = App {
            config: app.config.clone(),
            raft: app.raft.clone(),
            hub: Arc::default(),
            leases: Arc::default(),
            exports: Exports::default(),
        };
        assert_eq!(behind.prime(), Ok(first));
        let mut reached = pin!(behind.reach(first + 1, soon()));
        assert_eq!(reached.as_mut().now_or_never(), None);
        assert_eq!(single.put("/b").await, first + 1);
        assert_eq!(reached.as_mut().now_or_never(), None, "it does not know yet");
        behind.hub.forget();
        let reached = tokio::time::timeout(PATIENCE / 4, reached).await;
        assert_eq!(reached, Ok(Ok(())));
        single.server.shutdown().await;
    }

    /// The leader's address for frames was all that a client by gRPC was told, which connected there.
    #[test]
    fn not_leader_says_which_address_it_names() {
        let leader = coord_raft::Leader { id: 2, address: "tcp://b:1".to_owned() };
        let status = raft_status(ProposeError::NotLeader { leader: Some(leader) });
        assert_eq!((status.code, status.leader()), (Code::NotLeader, Some("tcp://b:1")));
        let message = &status.message;
        assert!(message.contains("for frames is tcp://b:1") && message.contains("gRPC"), "{message}");
        let status = raft_status(ProposeError::NotLeader { leader: None });
        assert_eq!((&*status.message, status.leader()), ("no leader is known", None));
    }
}
