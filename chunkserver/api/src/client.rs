//! The calls a file system client makes. One [`ChunkClient`] talks to one chunkserver; which one to ask, and when to
//! ask again, is the caller's business ([`ChunkError`] says what helps).

use bytes::Bytes;
use kuafu::CallOptions;

use crate::convert::crcs_to_bytes;
use crate::error::ChunkError;
use crate::model::{Map, Punch, RaiseFence, Read, ReadData, Write, Written};
use crate::pb;

/// Typed calls over one connection. Cheap to clone.
#[derive(Clone, Debug)]
pub struct ChunkClient {
    chunk: pb::ChunkClient,
}

impl ChunkClient {
    #[must_use]
    pub fn new(client: kuafu::Client) -> Self {
        Self { chunk: pb::ChunkClient::new(client) }
    }

    /// Writes `data`; durable on every serving member when this returns.
    ///
    /// # Errors
    /// See [`ChunkError`]. Retry with the same stamp.
    pub async fn write(
        &self,
        write: &Write,
        data: Bytes,
        options: &CallOptions,
    ) -> Result<Written, ChunkError> {
        let options = options.payload_covered();
        let reply = self.chunk.write_with_payload(&pb::WriteRequest::from(write), data, &options).await?;
        Ok(Written::try_from(&reply.message)?)
    }

    /// Makes a range zero; durable on every serving member when this returns.
    ///
    /// # Errors
    /// See [`ChunkError`]. Retry with the same stamp.
    pub async fn punch(&self, punch: &Punch, options: &CallOptions) -> Result<Written, ChunkError> {
        let reply = self.chunk.punch(&pb::PunchRequest::from(*punch), options).await?;
        Ok(Written::try_from(&reply.message)?)
    }

    /// Raises the fence of a file's data in one group. When this returns, nothing lower will be applied there any more.
    ///
    /// # Errors
    /// See [`ChunkError`]; [`ChunkError::Fenced`] if it is higher already.
    pub async fn raise_fence(&self, raise: &RaiseFence, options: &CallOptions) -> Result<(), ChunkError> {
        self.chunk.raise_fence(&pb::RaiseFenceRequest::from(*raise), options).await?;
        Ok(())
    }

    /// Reads whole blocks that cover a range. The caller verifies the checksums
    /// ([`ReadData::verify`]).
    ///
    /// # Errors
    /// See [`ChunkError`].
    pub async fn read(&self, read: &Read, options: &CallOptions) -> Result<ReadData, ChunkError> {
        let reply = self.chunk.read(&pb::ReadRequest::from(*read), options).await?;
        Ok(ReadData::from_reply(&reply.message, reply.payload, read)?)
    }

    /// The parts of a chunk that hold data: (offset, length), ascending.
    ///
    /// # Errors
    /// See [`ChunkError`].
    pub async fn map(&self, map: &Map, options: &CallOptions) -> Result<Vec<(u32, u32)>, ChunkError> {
        let reply = self.chunk.map(&pb::MapRequest::from(*map), options).await?;
        Ok(reply.message.ranges.iter().map(|range| (range.offset_bytes, range.len_bytes)).collect())
    }
}

impl Write {
    /// A write of `data`, with its checksums computed here.
    #[must_use]
    pub fn checksummed(mut self, data: &[u8]) -> Self {
        self.block_crcs = crate::checksum::piece_crcs(self.offset_bytes, data);
        self
    }
}

impl ReadData {
    /// The chunk offset of the first block that does not have its checksum, if any.
    #[must_use]
    pub fn verify(&self) -> Option<u32> {
        crate::checksum::first_mismatch(self.data_offset_bytes, &self.data, &self.block_crcs)
    }

    /// Checksums as the wire carries them.
    #[must_use]
    pub fn crc_bytes(&self) -> Bytes {
        crcs_to_bytes(&self.block_crcs)
    }
}
