//! Nuwa: services, and the client.
//!
//! Read in this order: `coord/nuwa/docs/service.md` (what a client may rely on), [`client`] (reads, and where sessions and
//! watches come from), [`session`] (changes, each made exactly once), [`lock`], [`watch`], [`ops`] (the operations of a
//! transaction in short), [`snapshot`] (the whole tree in a file), and [`history`] (how much of it is kept).

pub mod client;
pub mod history;
pub mod json;
pub mod lock;
pub mod session;
pub mod snapshot;
pub mod watch;

/// The messages and services of `nuwa/v1/nuwa.proto`.
#[allow(missing_docs, clippy::pedantic, unreachable_pub)]
pub mod proto {
    pub use nuwa_model::proto::*;

    kuafu::include_proto!("feitian.nuwa.v1");
}

pub use client::{ClientConfig, ClientError, NuwaClient};
pub use history::History;
pub use kuafu::{Address, CallError, Status};
pub use lock::{LockRequest, Locked};
pub use nuwa_model::{self as model, Path, PathError, ops};
pub use session::{Session, SessionState};
pub use watch::{Place, Watched, Watcher};
