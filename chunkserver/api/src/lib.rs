//! What chunkservers say: the wire definitions, the domain types behind them, and the client.
//!
//! Read in this order: [`model`] (what a write, a read, a status is), [`convert`] (wire to model, validated by the
//! receiver, and back), [`checksum`] (the crc32c of each block), [`error`] (how a call can fail, and whether to try
//! again), [`token`] (what is shown before data are given), [`client`] (calls of a file system client). The protocol between members is described in
//! `chunkserver/docs/replication.md`; its messages are used as generated, in [`pb`].

pub mod checksum;
pub mod client;
pub mod convert;
pub mod error;
pub mod model;
pub mod token;

/// As generated from `chunk.proto`.
#[allow(missing_debug_implementations, unreachable_pub, clippy::all)]
pub mod pb {
    kuafu::include_proto!("feitian.chunk.v1");
}

pub use client::ChunkClient;
pub use convert::{Invalid, STALE_DETAIL_BYTES};
pub use error::ChunkError;
pub use model::{Map, Punch, RaiseFence, Read, ReadData, Write, Written};
pub use token::{Token, Tokens};
