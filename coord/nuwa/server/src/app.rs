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
            Err(error) => Err(error.into()),
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

    /// From here on the view has everything that was answered before the call.
    pub(crate) async fn barrier(&self, deadline: Instant) -> Result<(), Status> {
        Ok(self.raft.read_barrier(deadline).await?)
    }

    /// Waits until the view has a revision.
    pub(crate) async fn reach(&self, revision: u64, deadline: Instant) -> Result<(), Status> {
        if self.revision()? >= revision {
            return Ok(());
        }
        self.raft.follow_closely();
        let mut published = self.hub.watch_revision();
        let reached = published.wait_for(|published| *published >= revision);
        match tokio::time::timeout_at(deadline.into(), reached).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) | Err(_) => {
                Err(Status::unavailable(format!("this member has not reached revision {revision}")))
            }
        }
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

/// The store failed, or says what cannot be.
pub(crate) fn store_status(error: &KvError) -> Status {
    tracing::error!(%error, "read the state");
    Status::internal(error.to_string())
}
