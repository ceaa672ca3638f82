//! Nuwa's member of a store that is adopted: opened without serving, so that it can be told where the others reach it from now on.
//!
//! It is the member as its server would open it, log and state, and what of the log was not applied yet is applied here as it would be
//! there. What its server keeps in memory (watchers, leases) begins anew with each of its starts anyway, so it is left out.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use bytes::Bytes;
use coord_kv::FamilySpec;
use coord_raft::{
    ApplyContext, Leadership, MembershipError, OpenError, RaftConfig, RaftNode, StateMachine, Transaction,
};
use coord_types::SessionId;
use kuafu::Address;
use nuwa_core::SessionEffect;

/// An embedded store has one member.
pub(crate) const ID: u64 = 1;

/// Why a member was not told.
#[derive(Debug, thiserror::Error)]
pub enum MemberError {
    #[error("open the data of Nuwa's member in {path}", path = path.display())]
    Open {
        path: PathBuf,
        #[source]
        source: OpenError,
    },
    #[error(
        "Nuwa's member in {path} has others beside it, who would not find it elsewhere: mount the store with --nuwa once more and \
         take them out with `nuwa member remove`",
        path = .0.display()
    )]
    Others(PathBuf),
    #[error("Nuwa's member did not {step}")]
    Step {
        step: &'static str,
        #[source]
        source: MembershipError,
    },
}

/// The member, while nobody can call it.
pub(crate) struct Member(RaftNode);

impl Member {
    /// Opens the member in `dir`. Refused if it has others: that is to be said before anything is changed.
    pub(crate) async fn open(dir: &Path, now: &Address) -> Result<Self, MemberError> {
        let config = RaftConfig::new(ID, now.to_string(), dir);
        let opened = RaftNode::open(config, Tree).await;
        let member = Self(opened.map_err(|source| MemberError::Open { path: dir.to_owned(), source })?);
        if member.0.status().members.keys().any(|id| *id != ID) {
            member.close().await;
            return Err(MemberError::Others(dir.to_owned()));
        }
        Ok(member)
    }

    /// Others reach it at `address` from its next start on.
    pub(crate) async fn move_to(&self, address: &Address, deadline: Instant) -> Result<(), MemberError> {
        let failed = |step| move |source| MemberError::Step { step, source };
        let alone = BTreeMap::from([(ID, address.to_string())]);
        // A crash before its very first start has left it without data; there is nothing to be kept then.
        self.0.form(alone).await.map_err(failed("form its cluster"))?;
        self.lead(deadline).await.map_err(failed("lead"))?;
        self.0.set_address(address.to_string(), deadline).await.map_err(failed("take its new address"))
    }

    async fn lead(&self, deadline: Instant) -> Result<(), MembershipError> {
        let mut leadership = self.0.watch_leadership();
        let leads = leadership.wait_for(|now| matches!(now, Leadership::Leader { .. }));
        match tokio::time::timeout_at(deadline.into(), leads).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(MembershipError::Stopped),
            Err(_) => Err(MembershipError::Timeout),
        }
    }

    /// Writes out its state and closes its files.
    pub(crate) async fn close(self) {
        self.0.shutdown().await;
    }
}

/// Nuwa's state machine without those who are told of changes.
struct Tree;

impl StateMachine for Tree {
    fn families(&self) -> &'static [FamilySpec] {
        nuwa_core::families()
    }

    fn apply(&self, tx: &mut Transaction<'_>, context: ApplyContext, command: &[u8]) -> Bytes {
        let applied = match nuwa_core::apply(&*tx, context.time_nanos, command) {
            Ok(applied) => applied,
            Err(error) => {
                // As the server does: a command that were skipped would be missing in the tree for good.
                tracing::error!(%error, index = ?context, "cannot read the state: stopping");
                std::process::abort();
            }
        };
        tx.apply(applied.batch);
        match applied.session {
            SessionEffect::None => {}
            SessionEffect::Opened { session, .. } => tx.register_session(SessionId(session)),
            SessionEffect::Ending(session) | SessionEffect::Ended(session) => {
                tx.forget_session(SessionId(session));
            }
        }
        applied.reply
    }
}
