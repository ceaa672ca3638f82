//! Pangu master: wire definitions, domain types and client.
//!
//! Read in this order: [`model`] (what a file is, what can be asked), [`proto`] (the wire), [`convert`] (between the two),
//! [`client`] (finding the leader, asking exactly once).

pub mod client;
pub mod masters;

/// The messages and services of `proto/master/v1/master.proto`.
#[allow(missing_docs, clippy::pedantic, unreachable_pub)]
pub mod proto {
    pub use master_model::proto::*;

    kuafu::include_proto!("feitian.master.v1");
}

pub use client::{ClientConfig, ClientError, DataToken, FileToken, MasterClient};
pub use coord_cluster::{self as cluster, ClusterConfig};
pub use coord_types::LayoutError;
pub use master_model::{self as model, Errno, convert, errno};
pub use masters::Masters;
