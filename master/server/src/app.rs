//! What services and background jobs share: the Raft member, the leader's soft state, and how failures become statuses.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use coord_raft::{Leader, Leadership, Proposal, ProposalStamp, RaftNode, View};
use kuafu::Status;
use master_api::proto;
use master_core::{Command, CommandReply, OpError};
use tokio::sync::{Notify, watch};

use crate::background::groups::Looked;

use crate::config::Config;
use crate::hub::Hub;
use crate::soft::Soft;
use crate::tokens::Signer;

/// How long the master's own commands may take before they are tried again.
pub(crate) const COMMAND_TIMEOUT: Duration = Duration::from_secs(5);

const SUPERSEDED: &str =
    "these masters were restored from an older copy: nothing is changed before `pangu master new-epoch`";

/// One running master.
pub(crate) struct App {
    pub(crate) config: Config,
    pub(crate) raft: RaftNode,
    pub(crate) soft: Soft,
    /// Events for who watches directories. The state machine fills it.
    pub(crate) hub: Arc<Hub>,
    pub(crate) signer: Signer,
    /// A chunkserver registered: groups may be missing.
    pub(crate) registered: Notify,
    /// What the last look at the groups found; held while one looks.
    pub(crate) looked: tokio::sync::Mutex<Looked>,
    /// The table's version, for calls that wait for the next.
    pub(crate) table_version: watch::Sender<u64>,
    /// The cluster's beginning was seen in the state. It never goes away again.
    pub(crate) begun: AtomicBool,
    /// Somebody saw a newer state than this one: nothing is changed until there is a new cluster epoch. Were it, the log would grow
    /// until it looked like the one that was lost.
    pub(crate) superseded: AtomicBool,
}

impl App {
    /// A client's command, under its session and number.
    pub(crate) async fn propose(
        &self,
        stamp: Option<ProposalStamp>,
        command: Bytes,
        deadline: Instant,
    ) -> Result<Bytes, Status> {
        // Relaxed: what gets past it is what came before.
        if self.superseded.load(Ordering::Relaxed) {
            return Err(Status::unavailable(SUPERSEDED));
        }
        Ok(self.raft.propose(Proposal { stamp, command }, deadline).await?)
    }

    /// A caller says what it knows, after a read barrier.
    pub(crate) fn compare(&self, known: Option<proto::Lineage>) -> Result<(), Status> {
        let (Some(known), Some(ours)) = (known, self.lineage()?) else { return Ok(()) };
        let behind = known.cluster_id == ours.cluster_id
            && (known.epoch, known.log_index) > (ours.epoch, ours.log_index);
        if behind && !self.superseded.swap(true, Ordering::Relaxed) {
            tracing::error!(
                shown = ours.log_index,
                epoch = ours.epoch,
                known = known.log_index,
                known_epoch = known.epoch,
                "{SUPERSEDED}"
            );
        }
        Ok(())
    }

    /// UNAVAILABLE until the cluster's first command is applied here: before it there is not even a root directory.
    pub(crate) fn must_have_begun(&self) -> Result<(), Status> {
        // Relaxed: only ever set, and a stale `false` costs one look at the store.
        if self.begun.load(Ordering::Relaxed) {
            return Ok(());
        }
        match master_core::table::cluster(&self.raft.view()).map_err(|error| store_status(&error))? {
            Some(_) => {
                self.begun.store(true, Ordering::Relaxed);
                Ok(())
            }
            None => Err(being_made()),
        }
    }

    /// One of the master's own commands.
    pub(crate) async fn command(&self, command: &Command, deadline: Instant) -> Result<CommandReply, Status> {
        if !matches!(command, Command::Initialize(_)) && self.leads() {
            self.must_have_begun()?;
        }
        let reply = self.propose(None, command.encode(), deadline).await?;
        self.note_table_version();
        match CommandReply::decode(&reply) {
            Ok(CommandReply::Refused(reason)) => Err(Status::invalid_argument(reason)),
            Ok(CommandReply::TooEarly) => Err(being_made()),
            Ok(reply) => Ok(reply),
            Err(error) => Err(Status::internal(format!("the reply of a command cannot be read: {error}"))),
        }
    }

    /// Wakes who waits for the next table. All changes of the table are commands of the leader.
    fn note_table_version(&self) {
        if let Ok(Some(counters)) = master_core::counters(&self.raft.view()) {
            self.table_version.send_if_modified(|known| {
                let newer = counters.table_version > *known;
                *known = (*known).max(counters.table_version);
                newer
            });
        }
    }

    /// The state with everything in it that was acknowledged before the call.
    pub(crate) async fn current(&self, deadline: Instant) -> Result<View, Status> {
        self.raft.read_barrier(deadline).await?;
        self.must_have_begun()?;
        Ok(self.raft.view())
    }

    /// If this master leads and there is another: that one leads from now on. Gives who.
    pub(crate) async fn hand_over(&self, deadline: Instant) -> Option<Leader> {
        let leader = self.raft.hand_over(deadline).await;
        if let Some(leader) = &leader {
            tracing::info!(leader = leader.id, "leadership handed over");
        }
        leader
    }

    /// The answer to whoever waits for the next table.
    pub(crate) fn table_reply(
        &self,
        table: Option<proto::Table>,
        lineage: Option<proto::Lineage>,
    ) -> proto::GetTableReply {
        // The version first: if they change in between the next call is answered at once.
        let masters_version = self.masters_version();
        proto::GetTableReply { table, masters: self.master_addresses(), masters_version, lineage }
    }

    /// How far this state has come: whoever saw a newer one does not follow. To be asked for after what was read for the
    /// answer, which is then not newer.
    pub(crate) fn lineage(&self) -> Result<Option<proto::Lineage>, Status> {
        let cluster = master_core::table::cluster(&self.raft.view()).map_err(|error| store_status(&error))?;
        let log_index = self.raft.status().applied_index;
        Ok(cluster.map(|cluster| proto::Lineage {
            cluster_id: cluster.cluster_id,
            epoch: cluster.epoch,
            log_index,
        }))
    }

    pub(crate) fn masters_version(&self) -> u64 {
        *self.raft.watch_members().borrow()
    }

    /// Where all voting masters are.
    fn master_addresses(&self) -> Vec<String> {
        let voters = self.raft.status().members.into_values().filter(|member| member.voter);
        voters.map(|member| member.address).collect()
    }

    /// Whether this master leads, as far as it knows.
    pub(crate) fn leads(&self) -> bool {
        matches!(self.raft.leadership(), Leadership::Leader { .. })
    }
}

/// What came before the cluster's first command.
pub(crate) fn being_made() -> Status {
    Status::unavailable("the cluster is being made")
}

/// The store failed, or says what cannot be.
pub(crate) fn store_status(error: &OpError) -> Status {
    tracing::error!(%error, "read the state");
    Status::internal(error.to_string())
}
