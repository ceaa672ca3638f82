//! Between messages and [`crate::model`]. Whatever comes from the network is checked here and only here: the
//! receiver of a message calls `try_from` before it does anything else with it.

use bytes::Bytes;
use coord_types::{
    BLOCK_SIZE, ChunkKey, DataId, Epoch, Fence, GroupId, SessionId, Stamp, Version, WRITE_SIZE_MAX,
};

use crate::checksum;
use crate::model::{Map, Punch, RaiseFence, Read, ReadData, Write, Written};
use crate::pb;

/// Why a message was refused. All of these are mistakes of the sender's program; none is retryable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    #[error("the message has no {0}")]
    Missing(&'static str),
    #[error("chunk size {0} is not a power of two between 64 KiB and 64 MiB")]
    ChunkSize(u32),
    #[error("{len_bytes} bytes at {offset_bytes} do not lie within a chunk of {chunk_size_bytes} bytes")]
    Range { offset_bytes: u32, len_bytes: usize, chunk_size_bytes: u32 },
    #[error("one call carries 1 to {max} bytes, not {0}", max = WRITE_SIZE_MAX)]
    Len(usize),
    #[error("no data is at the index of fences")]
    FenceIndex,
    #[error("a fence is above 0")]
    NoFence,
    #[error("{found} checksums for {expected} blocks")]
    Checksums { found: usize, expected: usize },
    #[error("{0} bytes of checksums are not a multiple of 4")]
    ChecksumBytes(usize),
    #[error(
        "the payload of {payload_bytes} bytes does not cover the {len_bytes} bytes asked for at {offset_bytes}"
    )]
    Payload { payload_bytes: usize, offset_bytes: u32, len_bytes: u32 },
}

/// Bytes of a `STALE` status' detail between members: the epoch and the activation the refusing member is at,
/// 8 bytes little-endian each.
pub const STALE_DETAIL_BYTES: usize = 16;

/// The detail of a `STALE` status.
#[must_use]
pub fn stale_detail(epoch: Epoch, activation: u64) -> Bytes {
    let mut detail = [0; STALE_DETAIL_BYTES];
    detail[..8].copy_from_slice(&epoch.0.to_le_bytes());
    detail[8..].copy_from_slice(&activation.to_le_bytes());
    Bytes::copy_from_slice(&detail)
}

/// Reads the detail of a `STALE` status; `None` if it is not one. Clients get the epoch alone (activation 0).
#[must_use]
pub fn parse_stale_detail(detail: &[u8]) -> Option<(Epoch, u64)> {
    let (epoch, rest) = detail.split_first_chunk::<8>()?;
    let activation = match rest.split_first_chunk::<8>() {
        Some((activation, [])) => u64::from_le_bytes(*activation),
        None if rest.is_empty() => 0,
        _ => return None,
    };
    Some((Epoch(u64::from_le_bytes(*epoch)), activation))
}

/// The detail of the status that refuses a write under an old fence: the fence that is in force.
#[must_use]
pub fn fenced_detail(fence: Fence) -> Bytes {
    Bytes::copy_from_slice(&fence.0.to_le_bytes())
}

/// Reads the detail of a `PERMISSION_DENIED` status; `None`: it was not a fence that refused.
#[must_use]
pub fn parse_fenced_detail(detail: &[u8]) -> Option<Fence> {
    Some(Fence(u64::from_le_bytes(detail.try_into().ok()?)))
}

/// Checksums as the wire carries them: 4 bytes little-endian each.
#[must_use]
pub fn crcs_to_bytes(crcs: &[u32]) -> Bytes {
    let mut out = Vec::with_capacity(crcs.len() * 4);
    for crc in crcs {
        out.extend_from_slice(&crc.to_le_bytes());
    }
    out.into()
}

/// The inverse of [`crcs_to_bytes`].
///
/// # Errors
/// [`Invalid::ChecksumBytes`] if the length is no multiple of 4.
pub fn crcs_from_bytes(bytes: &[u8]) -> Result<Vec<u32>, Invalid> {
    let (words, rest) = bytes.as_chunks::<4>();
    if !rest.is_empty() {
        return Err(Invalid::ChecksumBytes(bytes.len()));
    }
    Ok(words.iter().map(|word| u32::from_le_bytes(*word)).collect())
}

/// # Errors
/// [`Invalid::Missing`].
pub fn key_from(chunk: Option<&pb::ChunkRef>) -> Result<ChunkKey, Invalid> {
    let chunk = chunk.ok_or(Invalid::Missing("chunk"))?;
    Ok(ChunkKey::new(GroupId(chunk.group), DataId(chunk.data), chunk.index))
}

/// The key of a chunk with data.
fn data_key_from(chunk: Option<&pb::ChunkRef>) -> Result<ChunkKey, Invalid> {
    let key = key_from(chunk)?;
    if key.is_fence_record() { Err(Invalid::FenceIndex) } else { Ok(key) }
}

/// # Errors
/// See [`Invalid`].
pub fn check_chunk_size(chunk_size_bytes: u32) -> Result<(), Invalid> {
    if chunk_size_bytes.is_power_of_two() && (64 << 10..=64 << 20).contains(&chunk_size_bytes) {
        Ok(())
    } else {
        Err(Invalid::ChunkSize(chunk_size_bytes))
    }
}

/// Checks that the range is not empty and lies within the chunk.
///
/// # Errors
/// See [`Invalid`].
pub fn check_range(offset_bytes: u32, len_bytes: usize, chunk_size_bytes: u32) -> Result<(), Invalid> {
    check_chunk_size(chunk_size_bytes)?;
    let end = u64::from(offset_bytes) + len_bytes as u64;
    if len_bytes == 0 || end > u64::from(chunk_size_bytes) {
        return Err(Invalid::Range { offset_bytes, len_bytes, chunk_size_bytes });
    }
    Ok(())
}

/// Checks a payload of a write: its size, its place in the chunk, and that there is a checksum for each piece.
/// The checksums themselves are verified by the disk engine, once.
///
/// # Errors
/// See [`Invalid`].
pub fn check_payload(
    offset_bytes: u32,
    payload_bytes: usize,
    crcs_bytes: &[u8],
    chunk_size_bytes: u32,
) -> Result<Vec<u32>, Invalid> {
    if payload_bytes == 0 || payload_bytes > WRITE_SIZE_MAX {
        return Err(Invalid::Len(payload_bytes));
    }
    check_range(offset_bytes, payload_bytes, chunk_size_bytes)?;
    let crcs = crcs_from_bytes(crcs_bytes)?;
    let expected = checksum::piece_count(offset_bytes, payload_bytes);
    if crcs.len() != expected {
        return Err(Invalid::Checksums { found: crcs.len(), expected });
    }
    Ok(crcs)
}

impl From<ChunkKey> for pb::ChunkRef {
    fn from(key: ChunkKey) -> Self {
        Self { group: key.group.0, data: key.chunk.data.0, index: key.chunk.index }
    }
}

impl From<Version> for pb::Version {
    fn from(version: Version) -> Self {
        Self { epoch: version.epoch.0, counter: version.counter }
    }
}

impl From<pb::Version> for Version {
    fn from(version: pb::Version) -> Self {
        Self { epoch: Epoch(version.epoch), counter: version.counter }
    }
}

impl From<Stamp> for pb::Stamp {
    fn from(stamp: Stamp) -> Self {
        Self { session: stamp.session.0, seq: stamp.seq }
    }
}

impl From<pb::Stamp> for Stamp {
    fn from(stamp: pb::Stamp) -> Self {
        Self { session: SessionId(stamp.session), seq: stamp.seq }
    }
}

impl From<&Write> for pb::WriteRequest {
    fn from(write: &Write) -> Self {
        Self {
            chunk: Some(write.key.into()),
            epoch: write.epoch.0,
            offset_bytes: write.offset_bytes,
            block_crcs: crcs_to_bytes(&write.block_crcs),
            stamp: write.stamp.map(Into::into),
            chunk_size_bytes: write.chunk_size_bytes,
            fence: write.fence.0,
        }
    }
}

impl Write {
    /// Validates a request together with the length of its payload.
    ///
    /// # Errors
    /// See [`Invalid`].
    pub fn from_request(request: &pb::WriteRequest, payload_bytes: usize) -> Result<Self, Invalid> {
        Ok(Self {
            key: data_key_from(request.chunk.as_ref())?,
            epoch: Epoch(request.epoch),
            offset_bytes: request.offset_bytes,
            block_crcs: check_payload(
                request.offset_bytes,
                payload_bytes,
                &request.block_crcs,
                request.chunk_size_bytes,
            )?,
            stamp: request.stamp.map(Into::into),
            chunk_size_bytes: request.chunk_size_bytes,
            fence: Fence(request.fence),
        })
    }
}

impl From<Punch> for pb::PunchRequest {
    fn from(punch: Punch) -> Self {
        Self {
            chunk: Some(punch.key.into()),
            epoch: punch.epoch.0,
            offset_bytes: punch.offset_bytes,
            len_bytes: punch.len_bytes,
            stamp: punch.stamp.map(Into::into),
            chunk_size_bytes: punch.chunk_size_bytes,
            fence: punch.fence.0,
        }
    }
}

impl TryFrom<&pb::PunchRequest> for Punch {
    type Error = Invalid;

    fn try_from(request: &pb::PunchRequest) -> Result<Self, Invalid> {
        check_range(request.offset_bytes, request.len_bytes as usize, request.chunk_size_bytes)?;
        Ok(Self {
            key: data_key_from(request.chunk.as_ref())?,
            epoch: Epoch(request.epoch),
            offset_bytes: request.offset_bytes,
            len_bytes: request.len_bytes,
            stamp: request.stamp.map(Into::into),
            chunk_size_bytes: request.chunk_size_bytes,
            fence: Fence(request.fence),
        })
    }
}

impl From<RaiseFence> for pb::RaiseFenceRequest {
    fn from(raise: RaiseFence) -> Self {
        let RaiseFence { record, epoch, fence } = raise;
        Self { group: record.group.0, epoch: epoch.0, data: record.chunk.data.0, fence: fence.0 }
    }
}

impl TryFrom<&pb::RaiseFenceRequest> for RaiseFence {
    type Error = Invalid;

    fn try_from(request: &pb::RaiseFenceRequest) -> Result<Self, Invalid> {
        let fence = Fence(request.fence);
        if fence == Fence::NONE {
            return Err(Invalid::NoFence);
        }
        let record = ChunkKey::new(GroupId(request.group), DataId(request.data), ChunkKey::FENCE_INDEX);
        Ok(Self { record, epoch: Epoch(request.epoch), fence })
    }
}

impl From<Read> for pb::ReadRequest {
    fn from(read: Read) -> Self {
        Self {
            chunk: Some(read.key.into()),
            epoch: read.epoch.0,
            offset_bytes: read.offset_bytes,
            len_bytes: read.len_bytes,
        }
    }
}

impl TryFrom<&pb::ReadRequest> for Read {
    type Error = Invalid;

    fn try_from(request: &pb::ReadRequest) -> Result<Self, Invalid> {
        let len_bytes = request.len_bytes as usize;
        if len_bytes == 0 || len_bytes > WRITE_SIZE_MAX {
            return Err(Invalid::Len(len_bytes));
        }
        // A read does not say how large its chunk is; no chunk is larger than this.
        check_range(request.offset_bytes, len_bytes, 64 << 20)?;
        Ok(Self {
            key: key_from(request.chunk.as_ref())?,
            epoch: Epoch(request.epoch),
            offset_bytes: request.offset_bytes,
            len_bytes: request.len_bytes,
        })
    }
}

impl From<Map> for pb::MapRequest {
    fn from(map: Map) -> Self {
        Self { chunk: Some(map.key.into()), epoch: map.epoch.0 }
    }
}

impl TryFrom<&pb::MapRequest> for Map {
    type Error = Invalid;

    fn try_from(request: &pb::MapRequest) -> Result<Self, Invalid> {
        Ok(Self { key: key_from(request.chunk.as_ref())?, epoch: Epoch(request.epoch) })
    }
}

impl TryFrom<&pb::WriteReply> for Written {
    type Error = Invalid;

    fn try_from(reply: &pb::WriteReply) -> Result<Self, Invalid> {
        Ok(Self {
            version: reply.version.ok_or(Invalid::Missing("version"))?.into(),
            allocated_delta_bytes: reply.allocated_delta_bytes,
        })
    }
}

impl TryFrom<&pb::PunchReply> for Written {
    type Error = Invalid;

    fn try_from(reply: &pb::PunchReply) -> Result<Self, Invalid> {
        Ok(Self {
            version: reply.version.ok_or(Invalid::Missing("version"))?.into(),
            allocated_delta_bytes: reply.allocated_delta_bytes,
        })
    }
}

impl ReadData {
    /// Validates an answer: it must cover what was asked for, in whole blocks, with a checksum for each.
    ///
    /// # Errors
    /// See [`Invalid`].
    pub fn from_reply(reply: &pb::ReadReply, data: Bytes, asked: &Read) -> Result<Self, Invalid> {
        let version = reply.version.ok_or(Invalid::Missing("version"))?.into();
        let data_offset_bytes = reply.payload_offset_bytes;
        if reply.hole {
            return Ok(Self {
                version,
                data_offset_bytes,
                data: Bytes::new(),
                block_crcs: vec![],
                hole: true,
            });
        }
        let start = data_offset_bytes as usize;
        let asked_start = asked.offset_bytes as usize;
        let asked_end = asked_start + asked.len_bytes as usize;
        if !start.is_multiple_of(BLOCK_SIZE)
            || !data.len().is_multiple_of(BLOCK_SIZE)
            || start > asked_start
            || start + data.len() < asked_end
        {
            return Err(Invalid::Payload {
                payload_bytes: data.len(),
                offset_bytes: asked.offset_bytes,
                len_bytes: asked.len_bytes,
            });
        }
        let block_crcs = crcs_from_bytes(&reply.block_crcs)?;
        let expected = data.len() / BLOCK_SIZE;
        if block_crcs.len() != expected {
            return Err(Invalid::Checksums { found: block_crcs.len(), expected });
        }
        Ok(Self { version, data_offset_bytes, data, block_crcs, hole: false })
    }
}

#[cfg(test)]
mod tests;
