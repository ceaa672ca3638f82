//! Nuwa: the tree, sessions, locks and history as pure functions over a key-value store.
//!
//! Reads come from a [`coord_kv::Read`], changes go out as a [`coord_kv::Batch`]; no IO, no clock, no randomness, so that
//! every replica that applies the same commands holds the same bytes. What it all means is in `coord/nuwa/docs/tree.md`.
//!
//! Read in this order: [`keys`] (what is stored where), `state` (one command's view of the store), `entries` (the operations
//! on the tree), `sequence` (names that are numbered), `locks`, `sessions`, `quotas`, `history` (what is recorded of each change), `restore` (a tree put back), [`command`] (what is applied),
//! [`query`] (what can be asked), [`export`] (all of it, in pages), [`check`] (the invariants).

pub mod check;
pub mod command;
mod entries;
mod error;
pub mod export;
mod history;
pub mod keys;
mod locks;
pub mod query;
mod quotas;
mod restore;
mod sequence;
mod sessions;
mod state;

/// The records of `proto/nuwa/state/v1/state.proto`.
#[allow(missing_docs, clippy::pedantic, unreachable_pub)]
pub mod records {
    include!(concat!(env!("OUT_DIR"), "/feitian.nuwa.state.v1.rs"));
}

pub use command::{Applied, SessionEffect, apply};
pub use keys::families;
