//! The raft kit: a replicated state machine on openraft and RocksDB.
//!
//! A service implements [`StateMachine`]; a member of its cluster is a [`RaftNode`], which is opened on a directory,
//! serves its peers through [`RaftNode::service`], takes commands by [`RaftNode::propose`] and makes reads of
//! [`RaftNode::view`] current by [`RaftNode::read_barrier`].
//!
//! Read in this order: [`node`] (the whole), [`propose`] (commands into entries), [`log`] (the log on disk; its format
//! and the parallel flush are described in docs/), [`machine`] (the state; [`sessions`], [`snapshot`]), [`network`]
//! (the members' talk), [`lease`] and [`read`] (linearizable reads).

mod batch;
mod config;
#[cfg(test)]
mod conformance;
mod error;
mod joining;
mod keys;
mod lease;
mod log;
mod machine;
mod network;
mod node;
mod propose;
mod read;
mod sessions;
mod snapshot;
mod state_machine;
mod status;
pub mod testing;
mod transaction;
mod types;

/// As generated from `raft.proto`.
#[allow(dead_code, missing_debug_implementations, unreachable_pub, clippy::all)]
mod pb {
    kuafu::include_proto!("feitian.raft.v1");
}

pub use config::{ConfigError, RaftConfig};
pub use error::{Leader, MembershipError, OpenError, ProposeError, ReadError};
pub use log::LogError;
pub use machine::View;
pub use network::service::PeerService;
pub use node::checkpoint::Checkpoint;
pub use node::{
    Formed, Leadership, MemberStatus, Newcomer, Proposal, ProposalStamp, RaftNode, RaftStatus, Removal, Role,
};
pub use pb::RaftPeerServer;
pub use snapshot::SnapshotError;
pub use state_machine::{ApplyContext, StateMachine};
pub use transaction::Transaction;
