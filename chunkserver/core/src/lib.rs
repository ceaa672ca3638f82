//! The replication protocol of one member of one group: events go in, effects come out; no IO, no clock, no task.
//!
//! `chunkserver/docs/replication.md` is the description, with the tables of states and events and the argument for
//! I1-I5; this crate is that page in code, `chunkserver-server` does what the effects say. Read in this order:
//! [`event`] (the vocabulary), [`replica`] (the state of a member and its roles), `write` (ordering and committing, at
//! the primary), `fence` (which writes are refused for ever), `prepare` (how a primary makes all members equal), `member` (the secondary), `sync` (how a member that
//! comes back is filled beside all this), `read` (what may be shown), [`Lease`] (until when), `chunk` (what is in flight of one chunk).
//!
//! Invariants of the state, asserted where they are used:
//! - a primary orders writes only when active, and every serving member is active with the same activation;
//! - ops of a chunk have consecutive versions, oldest first; a chunk without ops and without an uncommitted version
//!   is not in the map, so an idle group holds no memory for its chunks.

mod chunk;
pub mod event;
mod fence;
mod lease;
mod member;
mod prepare;
mod read;
pub mod replica;
mod sync;
mod write;

pub use event::{
    Done, Effect, Fault, Io, Limits, Listed, MemberInfo, Page, PeerError, Refusal, Replicate, Store, Token,
    View, Write,
};
pub use lease::Lease;
pub use read::{ReadPermit, ReadVerdict};
pub use replica::{Replica, Stage, Start};
