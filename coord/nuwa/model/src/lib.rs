//! Nuwa: the messages of its tree, the paths in it, and why something is refused. A crate of its own, without services
//! and runtime, so that the state machine depends on neither.
//!
//! What all of it means is in `coord/nuwa/docs/tree.md`.

pub mod ops;
pub mod path;
pub mod refusal;
pub mod snapshot;

/// The messages of `proto/nuwa/v1`.
#[allow(missing_docs, clippy::pedantic, unreachable_pub)]
pub mod proto {
    include!(concat!(env!("OUT_DIR"), "/feitian.nuwa.v1.rs"));
}

pub use path::{Path, PathError};
pub use refusal::Refusal;

/// The largest value, in bytes.
pub const VALUE_MAX_BYTES: usize = 1 << 20;
