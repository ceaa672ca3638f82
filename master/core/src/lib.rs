//! Pangu master: the namespace as pure functions over a key-value store.
//!
//! Reads come from a [`coord_kv::Read`], changes go out as a [`coord_kv::Batch`]; no IO, no clock, no randomness, so that every
//! replica that applies the same commands holds the same bytes.
//!
//! Read in this order: [`keys`] (what is stored where), [`inode`] and [`records`] (the records, byte by byte in
//! `master/docs/keys.md`), [`names`] (where an inode has its names), [`events`] (what watchers of directories are told), [`state`] (one command's view of the store), [`command`] (what can be applied), [`ops`]
//! (one operation a file), [`access`] (who may ask for them), [`table`] (chunkservers and groups), [`health`] (which of them the leader believes alive), [`session`], [`deletion`], [`check`] (the invariants).

pub mod access;
pub mod check;
mod codec;
pub mod command;
pub mod deletion;
pub mod error;
pub mod events;
pub mod failing;
pub mod health;
pub mod inode;
pub mod keys;
pub mod load;
pub mod names;
pub mod ops;
pub mod records;
pub mod session;
pub mod slow;
pub mod state;
pub mod table;

#[cfg(test)]
mod testing;

pub use command::{Applied, Command, CommandReply, Context, SessionEffect, apply, counters};
pub use error::{OpError, OpResult};
pub use keys::families;
pub use names::{fill_parents_pending, within};
pub use ops::query;
