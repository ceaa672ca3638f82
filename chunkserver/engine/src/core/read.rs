//! Reading: look the blocks up, pin them, read, verify.

use bytes::Bytes;
use coord_types::{BLOCK_SIZE, ChunkKey, Version};
use futures::future::join_all;

use crate::alloc::Run;
use crate::core::Core;
use crate::error::{Damage, EngineError, IoError};
use crate::io::{Op, ReadBuffer};
use crate::types::ReadOut;

/// Reads that may fail before the disk is out. A handful of bad sectors is how disks age; more is how they die.
pub(crate) const UNREADABLE_MAX: u64 = 64;

/// crc32c of a block of zeros: what a hole reads as.
pub(crate) fn zero_block_crc() -> u32 {
    static CRC: std::sync::OnceLock<u32> = std::sync::OnceLock::new();
    *CRC.get_or_init(|| crc32c::crc32c(&[0; BLOCK_SIZE]))
}

/// Keeps what a reader looked up from being handed out again.
struct Pin<'a> {
    core: &'a Core,
    epoch: u64,
}

impl Drop for Pin<'_> {
    fn drop(&mut self) {
        let mut state = self.core.state.lock();
        state.readers.leave(self.epoch);
        self.core.release(&mut state);
    }
}

/// Blocks of a chunk at one moment.
struct Found<'a> {
    version: Version,
    /// Disk block and crc32c of each block, unless it is a hole.
    blocks: Vec<Option<(u64, u32)>>,
    _pin: Pin<'a>,
}

impl Core {
    pub(crate) async fn read(
        &self,
        key: ChunkKey,
        offset_bytes: u32,
        len_bytes: u32,
    ) -> Result<ReadOut, EngineError> {
        self.check()?;
        let end = u64::from(offset_bytes) + u64::from(len_bytes);
        if len_bytes == 0 || end > 64 << 20 {
            return Err(EngineError::Invalid { key, reason: "the range is empty or leaves the chunk" });
        }
        let first = offset_bytes / BLOCK_SIZE as u32;
        let count = u32::try_from(end.div_ceil(BLOCK_SIZE as u64)).expect("under 64 MiB") - first;
        let found = self.look_up(key, first, count)?;
        let payload_offset_bytes = first * BLOCK_SIZE as u32;
        if found.blocks.iter().all(Option::is_none) {
            return Ok(ReadOut {
                version: found.version,
                payload_offset_bytes,
                data: Bytes::new(),
                block_crcs: Vec::new(),
                hole: true,
            });
        }
        let data = self.fetch(key, first, &found.blocks).await?;
        let block_crcs =
            found.blocks.iter().map(|block| block.map_or_else(zero_block_crc, |(_, crc)| crc)).collect();
        Ok(ReadOut { version: found.version, payload_offset_bytes, data, block_crcs, hole: false })
    }

    /// Fills `into` with a block, zeros if it is a hole. Whether it is not. For the first in the chunk's line only:
    /// nobody else frees its blocks.
    pub(crate) async fn read_block(
        &self,
        key: ChunkKey,
        block: u32,
        into: &mut [u8],
    ) -> Result<bool, EngineError> {
        let found = self.look_up(key, block, 1)?;
        if found.blocks[0].is_none() {
            into.fill(0);
            return Ok(false);
        }
        into.copy_from_slice(&self.fetch(key, block, &found.blocks).await?);
        Ok(true)
    }

    fn look_up(&self, key: ChunkKey, first: u32, count: u32) -> Result<Found<'_>, EngineError> {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let found = state.index.chunk(key).and_then(|record| {
            let mut blocks = Vec::with_capacity(count as usize);
            let Some(record) = record else {
                blocks.resize(count as usize, None);
                return Ok((Version::NONE, blocks));
            };
            for block in first..first + count {
                blocks.push(state.index.block(key, block)?);
            }
            Ok((record.version, blocks))
        });
        match found {
            Ok((version, blocks)) => {
                let epoch = state.readers.enter();
                Ok(Found { version, blocks, _pin: Pin { core: self, epoch } })
            }
            Err(error) => {
                drop(guard);
                Err(self.index_error(error))
            }
        }
    }

    /// Reads and verifies blocks; holes are zeros.
    async fn fetch(
        &self,
        key: ChunkKey,
        first: u32,
        blocks: &[Option<(u64, u32)>],
    ) -> Result<Bytes, EngineError> {
        let mut buffer = self.pool.allocate(blocks.len() * BLOCK_SIZE);
        let mut runs: Vec<(usize, Run)> = Vec::new();
        let per_segment = u64::from(self.geometry.segment_blocks);
        for (at, block) in blocks.iter().enumerate() {
            match (block, runs.last_mut()) {
                (None, _) => buffer[at * BLOCK_SIZE..(at + 1) * BLOCK_SIZE].fill(0),
                (Some((disk, _)), Some((from, run)))
                    if run.end() == *disk && *from + run.len as usize == at && disk % per_segment != 0 =>
                {
                    run.len += 1;
                }
                (Some((disk, _)), _) => runs.push((at, Run { start: *disk, len: 1 })),
            }
        }
        let parts: Vec<_> =
            runs.iter().map(|(at, run)| at * BLOCK_SIZE..(at + run.len as usize) * BLOCK_SIZE).collect();
        let (buffer, targets) = ReadBuffer::new(buffer, &parts);
        let reads: Vec<_> = runs
            .iter()
            .zip(targets)
            .map(|((_, run), target)| {
                let (file, offset) = self.place(run.start);
                self.io.submit(file, offset, Op::Read(target))
            })
            .collect();
        for result in join_all(reads).await {
            result.map_err(|error| self.read_error(key, error))?;
        }
        let data = buffer.finish().expect("all reads into the buffer are done").freeze();
        for (at, block) in blocks.iter().enumerate() {
            let Some((disk_block, recorded)) = *block else { continue };
            let found = crc32c::crc32c(&data[at * BLOCK_SIZE..(at + 1) * BLOCK_SIZE]);
            if found != recorded {
                let block = first + at as u32;
                return Err(Damage::Block { key, block, disk_block, recorded, found }.into());
            }
        }
        Ok(data)
    }

    /// Data that cannot be read is damage: other members have it, and it is written anew elsewhere. A disk on which that
    /// happens again and again is out.
    fn read_error(&self, key: ChunkKey, error: IoError) -> EngineError {
        let IoError { file, offset_bytes, len_bytes, .. } = error;
        if error.is_truncated() {
            return Damage::CutOff { key, file, offset_bytes, len_bytes }.into();
        }
        if error.is_medium() && self.count_unreadable() {
            tracing::warn!(%error, "data cannot be read");
            return Damage::Unreadable { key, file, offset_bytes, len_bytes }.into();
        }
        self.fail_io(error)
    }

    /// Whether the disk may go on for all that.
    fn count_unreadable(&self) -> bool {
        let stats = &mut self.state.lock().stats;
        stats.unreadable += 1;
        stats.unreadable <= UNREADABLE_MAX
    }
}
