//! Opening a disk: what the journal holds beyond the metadata store is applied, then the free space is found.
//!
//! Why it is right: docs/disk-format.md. Whatever step it is stopped at, running it again from the start is right:
//! applying a frame moves the journal position in the same batch, and nothing in the journal is overwritten before
//! the store was flushed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use coord_kv::{Batch, Durability, Kv};
use coord_types::BLOCK_SIZE;

use crate::alloc::{Allocator, MarkError};
use crate::buffer::BufferPool;
use crate::core::{BLOCK, Core, Start};
use crate::error::{Damage, Failure, HexKey, OpenError};
use crate::index::{Index, Outcome, Overlay, counts};
use crate::io::{FileId, Io, Op, ReadBuffer};
use crate::journal::{FRAME_BYTES_MAX, HEADER_BYTES, Header, Ring};
use crate::records::{APPLIED, Applied, STATE};
use crate::superblock::Geometry;
use crate::update::{Extent, Update};

/// The journal is read this much at a time.
const WINDOW_BYTES: u64 = 1 << 20;
const _: () = assert!(FRAME_BYTES_MAX as u64 <= WINDOW_BYTES);

/// What an engine is made of: a disk, a metadata store with the engine's families, and their sizes.
#[derive(Clone)]
pub struct Parts {
    pub io: Arc<dyn Io>,
    pub kv: Arc<dyn Kv>,
    pub geometry: Geometry,
    pub pool: Arc<BufferPool>,
    /// Bound on cached records, in bytes.
    pub cache_bytes: usize,
    /// Flush the metadata store on the calling task: for simulations, whose steps must come in one order.
    pub inline_flush: bool,
}

impl std::fmt::Debug for Parts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parts")
            .field("io", &self.io)
            .field("geometry", &self.geometry)
            .finish_non_exhaustive()
    }
}

impl Parts {
    /// Marks an empty metadata store as that of a new disk. Opening insists on the mark: a store that was lost and
    /// made anew must not look like an empty disk.
    ///
    /// # Errors
    /// [`Failure::Kv`].
    pub fn format_kv(kv: &dyn Kv) -> Result<(), Failure> {
        let mut batch = Batch::new();
        batch.put(STATE, APPLIED, Applied { sequence: 0, end_bytes: 0, salt: 0 }.encode());
        kv.write(batch, Durability::Unlogged)?;
        kv.flush()?;
        Ok(())
    }
}

/// A disk whose journal is applied.
pub(crate) struct Recovered {
    pub(crate) index: Index,
    pub(crate) applied: Applied,
    pub(crate) replayed: u64,
    pub(crate) dropped: u64,
}

/// Applies the journal and makes the store durable.
pub(crate) async fn recover(parts: &Parts) -> Result<Recovered, OpenError> {
    let index = Index::new(parts.kv.clone(), parts.cache_bytes);
    let applied = index.applied().map_err(Failure::from)?.ok_or_else(|| Damage::Record {
        what: "journal position",
        key: HexKey(APPLIED.into()),
        reason: "it is missing: this is not the metadata store the disk was formatted with",
    })?;
    let found = parts.io.journal_len_bytes()?;
    if found < parts.geometry.journal_bytes {
        let needed_bytes = parts.geometry.journal_bytes;
        return Err(Damage::Truncated { file: FileId::Journal, found_bytes: found, needed_bytes }.into());
    }
    let mut reader = Reader::new(parts, applied);
    // Twice: how far data is known to be durable stands in the last frame.
    let mut settled = applied.sequence;
    while let Some((header, _)) = reader.next().await? {
        settled = settled.max(header.settled);
    }
    reader.check_end().await?;
    let mut recovered = Recovered { index, applied, replayed: 0, dropped: 0 };
    let mut reader = Reader::new(parts, applied);
    while let Some((header, body)) = reader.next().await? {
        let sequence = header.sequence;
        let updates = header.decode_body(&body).expect("the reader checked it");
        let updates = updates.map_err(|reason| Damage::JournalRecord { sequence, reason })?;
        let end = Applied { sequence, end_bytes: reader.at_bytes, salt: applied.salt };
        replay(parts, &mut recovered, updates, end, sequence <= settled).await?;
    }
    if recovered.replayed > 0 || recovered.dropped > 0 {
        let (replayed, dropped) = (recovered.replayed, recovered.dropped);
        tracing::info!(replayed, dropped, "applied updates found in the journal");
    }
    // From here on frames carry another number: one that a crash left behind a missing one must not be taken for the
    // one that gets its place and sequence now.
    recovered.applied.salt = rand::random();
    recovered.index.commit(Overlay::default(), recovered.applied).map_err(Failure::from)?;
    parts.kv.flush()?;
    Ok(recovered)
}

/// Applies one frame.
async fn replay(
    parts: &Parts,
    recovered: &mut Recovered,
    updates: Vec<Update>,
    end: Applied,
    settled: bool,
) -> Result<(), OpenError> {
    let mut overlay = Overlay::default();
    for update in updates {
        if !settled && !data_is_there(parts, &update).await? {
            recovered.dropped += 1;
            continue;
        }
        match recovered.index.apply(&mut overlay, &update).map_err(Failure::from)? {
            Outcome::Applied(_) => recovered.replayed += 1,
            // Of a chunk whose update before this one was dropped just now: nobody was answered about either.
            Outcome::Mismatch { .. } if !settled => recovered.dropped += 1,
            Outcome::Mismatch { .. } => {
                let reason = "an update does not follow the chunk's version";
                return Err(Damage::JournalRecord { sequence: end.sequence, reason }.into());
            }
        }
    }
    recovered.index.commit(overlay, end).map_err(Failure::from)?;
    recovered.applied = end;
    Ok(())
}

/// Whether the data of an update that was written at the same time is on the medium; if so, it is durable when this
/// returns: the process may have died without a power cut, with the data in the device's cache.
async fn data_is_there(parts: &Parts, update: &Update) -> Result<bool, OpenError> {
    let Update::Write { extents, early: true, .. } = update else { return Ok(true) };
    for extent in extents {
        check_segment(parts, extent.start)?;
        if !extent_is_there(parts, extent).await? {
            return Ok(false);
        }
    }
    for extent in extents {
        let (file, _) = place(&parts.geometry, extent.start);
        parts.io.submit(file, 0, Op::Sync).await?;
    }
    Ok(true)
}

async fn extent_is_there(parts: &Parts, extent: &Extent) -> Result<bool, OpenError> {
    let (file, offset_bytes) = place(&parts.geometry, extent.start);
    let data = read(parts, file, offset_bytes, extent.crcs.len() * BLOCK_SIZE).await?;
    Ok(data.chunks_exact(BLOCK_SIZE).zip(&extent.crcs).all(|(block, crc)| crc32c::crc32c(block) == *crc))
}

pub(crate) fn place(geometry: &Geometry, block: u64) -> (FileId, u64) {
    let per_segment = u64::from(geometry.segment_blocks);
    let segment = u32::try_from(block / per_segment).unwrap_or(u32::MAX);
    (FileId::Segment(segment), block % per_segment * BLOCK)
}

pub(crate) async fn read(
    parts: &Parts,
    file: FileId,
    offset_bytes: u64,
    len: usize,
) -> Result<crate::buffer::PoolBuf, Failure> {
    let buffer = parts.pool.allocate(len);
    #[allow(clippy::single_range_in_vec_init)] // One part: the whole buffer.
    let (buffer, mut targets) = ReadBuffer::new(buffer, &[0..len]);
    parts.io.submit(file, offset_bytes, Op::Read(targets.remove(0))).await?;
    Ok(buffer.finish().expect("the only read into the buffer is done"))
}

/// Segments that are missing below the last one there is, or shorter than they must be.
pub(crate) fn bad_segments(parts: &Parts) -> Vec<Damage> {
    let found: BTreeMap<u32, u64> = parts.io.segments().into_iter().collect();
    let count = found.last_key_value().map_or(0, |(last, _)| last + 1);
    (0..count).filter_map(|index| bad_segment(parts, &found, index)).collect()
}

fn bad_segment(parts: &Parts, found: &BTreeMap<u32, u64>, index: u32) -> Option<Damage> {
    let needed_bytes = u64::from(parts.geometry.blocks_of(index)) * BLOCK;
    let found_bytes = found.get(&index).copied().unwrap_or(0);
    let damage = Damage::Truncated { file: FileId::Segment(index), found_bytes, needed_bytes };
    (found_bytes < needed_bytes).then_some(damage)
}

/// A segment is there, and long enough, before anything is written to it: otherwise it was lost.
fn check_segment(parts: &Parts, block: u64) -> Result<(), Damage> {
    let (FileId::Segment(index), _) = place(&parts.geometry, block) else { return Ok(()) };
    bad_segment(parts, &parts.io.segments().into_iter().collect(), index).map_or(Ok(()), Err)
}

/// Makes segments up to `last` that are missing or short, and notes them. What was in them is gone: every block has its
/// checksum on record, so that nothing else is ever taken for it.
async fn restore_segments(
    parts: &Parts,
    last: Option<u32>,
    lost: &mut BTreeSet<u32>,
) -> Result<(), OpenError> {
    let found: BTreeMap<u32, u64> = parts.io.segments().into_iter().collect();
    let last = last.max(found.last_key_value().map(|(last, _)| *last));
    for index in last.map_or(0..0, |last| 0..last + 1) {
        let Some(damage) = bad_segment(parts, &found, index) else { continue };
        tracing::error!(%damage, "a segment is lost; making it anew for other members to fill");
        parts.io.create_segment(index, u64::from(parts.geometry.blocks_of(index)) * BLOCK).await?;
        lost.insert(index);
    }
    Ok(())
}

/// The segment, of those that can be, whose loss an error tells of.
fn lost_segment(parts: &Parts, error: &OpenError) -> Option<u32> {
    match error {
        OpenError::Failed(Failure::Damage(Damage::Truncated { file: FileId::Segment(index), .. })) => {
            Some(*index)
        }
        OpenError::Failed(Failure::Damage(Damage::OutOfDisk { disk_block, .. }))
            if *disk_block < parts.geometry.capacity_blocks =>
        {
            let segment = disk_block / u64::from(parts.geometry.segment_blocks);
            u32::try_from(segment).ok()
        }
        _ => None,
    }
}

/// Walks the frames behind the applied one.
struct Reader<'a> {
    parts: &'a Parts,
    salt: u64,
    /// The last frame seen, and where it ends.
    sequence: u64,
    at_bytes: u64,
    window: Vec<u8>,
    window_start: u64,
}

impl<'a> Reader<'a> {
    fn new(parts: &'a Parts, applied: Applied) -> Self {
        let Applied { sequence, end_bytes: at_bytes, salt } = applied;
        Self { parts, salt, sequence, at_bytes, window: Vec::new(), window_start: 0 }
    }

    /// The next frame: it begins where the last one ended, or at the journal's start if it did not fit there.
    async fn next(&mut self) -> Result<Option<(Header, Vec<u8>)>, OpenError> {
        for start in [self.at_bytes, 0] {
            if let Some((header, body)) = self.frame_at(start).await? {
                self.sequence = header.sequence;
                self.at_bytes = start + header.frame_bytes() as u64;
                return Ok(Some((header, body)));
            }
        }
        Ok(None)
    }

    async fn frame_at(&mut self, start: u64) -> Result<Option<(Header, Vec<u8>)>, OpenError> {
        let journal_bytes = self.parts.geometry.journal_bytes;
        if start + BLOCK > journal_bytes {
            return Ok(None);
        }
        let salt = self.salt;
        let Some(header) = Header::decode(self.bytes(start, HEADER_BYTES).await?, salt) else {
            return Ok(None);
        };
        if header.sequence != self.sequence + 1 || start + header.frame_bytes() as u64 > journal_bytes {
            return Ok(None);
        }
        let body = self.bytes(start + HEADER_BYTES as u64, header.body_bytes).await?.to_vec();
        Ok(header.decode_body(&body).is_some().then_some((header, body)))
    }

    /// A crash may have cut off the frame that is missing here. But not if a later one says that it was durable.
    async fn check_end(&mut self) -> Result<(), OpenError> {
        let salt = self.salt;
        let mut at = 0;
        while at < self.parts.geometry.journal_bytes {
            if let Some(header) = Header::decode(self.bytes(at, HEADER_BYTES).await?, salt)
                && header.durable > self.sequence
            {
                return Err(Damage::Journal { sequence: self.sequence + 1, later: header.sequence }.into());
            }
            at += BLOCK;
        }
        Ok(())
    }

    async fn bytes(&mut self, start: u64, len: usize) -> Result<&[u8], OpenError> {
        let end = start + len as u64;
        if start < self.window_start || end > self.window_start + self.window.len() as u64 {
            let from = start - start % BLOCK;
            let upto = (from + WINDOW_BYTES).min(self.parts.geometry.journal_bytes);
            let window =
                read(self.parts, FileId::Journal, from, usize::try_from(upto - from).expect("a window"));
            self.window = window.await?.to_vec();
            self.window_start = from;
        }
        let within = usize::try_from(start - self.window_start).expect("inside the window");
        Ok(&self.window[within..within + len])
    }
}

/// Opens the disk: recovers it and finds the free space. Segments that are lost are made anew.
pub(crate) async fn open(parts: Parts) -> Result<Core, OpenError> {
    let mut lost = BTreeSet::new();
    restore_segments(&parts, None, &mut lost).await?;
    // The last segments are missed only when something should be in them. Each time round one more is there.
    let (mut recovered, alloc) = loop {
        let opened = match recover(&parts).await {
            Ok(mut recovered) => free_space(&parts, &mut recovered.index).map(|alloc| (recovered, alloc)),
            Err(error) => Err(error),
        };
        match opened {
            Ok(opened) => break opened,
            Err(error) => match lost_segment(&parts, &error).filter(|index| !lost.contains(index)) {
                Some(index) => restore_segments(&parts, Some(index), &mut lost).await?,
                None => return Err(error),
            },
        }
    };
    let mut chunks = 0;
    let counted = recovered.index.for_each_chunk(&mut |_, chunk| {
        let (key, _) = chunk?;
        chunks += counts(key).unsigned_abs();
        Ok(())
    });
    counted.map_err(Failure::from)?;
    recovered.index.set_chunk_count(chunks);
    let Applied { sequence, end_bytes, salt } = recovered.applied;
    Ok(Core::new(Start {
        io: parts.io,
        geometry: parts.geometry,
        pool: parts.pool,
        inline_flush: parts.inline_flush,
        index: recovered.index,
        alloc,
        journal: Ring::new(parts.geometry.journal_bytes, sequence, end_bytes),
        salt,
        lost,
    }))
}

/// What no chunk uses.
fn free_space(parts: &Parts, index: &mut Index) -> Result<Allocator, OpenError> {
    let mut alloc = Allocator::new(parts.geometry.segment_blocks);
    for (index, _) in parts.io.segments() {
        alloc.add_segment(parts.geometry.blocks_of(index));
    }
    let marked = index.for_each_page(&mut |_, page| {
        let (key, page) = page?;
        for (at, disk_block, _) in page.blocks() {
            let block = key.first_block() + at;
            alloc.mark_used(disk_block).map_err(|error| match error {
                MarkError::Used => Damage::DoubleUse { disk_block, key: key.chunk, block },
                MarkError::OutOfDisk => Damage::OutOfDisk { disk_block, key: key.chunk, block },
            })?;
        }
        Ok(())
    });
    marked.map_err(Failure::from)?;
    Ok(alloc)
}

#[cfg(test)]
mod tests {
    use coord_kv::MemKv;
    use coord_types::{ChunkKey, DataId, Epoch, GroupId, Version};

    use super::*;
    use crate::buffer::PoolBuf;
    use crate::io::WriteMode;
    use crate::io::sim::{Medium, Power, SimDisk};
    use crate::journal::{Numbers, encode_frame};

    const JOURNAL_BYTES: u64 = 64 << 10;

    /// A fresh disk whose journal holds these frames, all of the first life.
    async fn disk(frames: &[(u64, Vec<u8>)]) -> Parts {
        let medium = Medium::new(JOURNAL_BYTES);
        let io = SimDisk::start(&medium, &Power::new(None), 1);
        for (offset_bytes, frame) in frames {
            let mut data = PoolBuf::from_heap(frame.len());
            data.copy_from_slice(frame);
            let op = Op::Write { data: data.freeze(), mode: WriteMode::Durable };
            io.submit(FileId::Journal, *offset_bytes, op).await.unwrap();
        }
        let kv = MemKv::new();
        Parts::format_kv(&kv).unwrap();
        let geometry = Geometry {
            uuid: [1; 16],
            capacity_blocks: 1024,
            segment_blocks: 1024,
            journal_bytes: JOURNAL_BYTES,
        };
        let pool = BufferPool::new(1 << 20);
        Parts { io, kv: Arc::new(kv), geometry, pool, cache_bytes: 10_000, inline_flush: true }
    }

    /// Chunk 0 from one version to the next, without data.
    fn update(expect: u64, version: u64) -> Update {
        let version_of = |counter| match counter {
            0 => Version::NONE,
            counter => Version { epoch: Epoch(1), counter },
        };
        Update::Write {
            key: ChunkKey::new(GroupId(1), DataId(1), 0),
            expect: version_of(expect),
            version: version_of(version),
            chunk_size_bytes: 1 << 20,
            stamp: None,
            hole: None,
            extents: Vec::new(),
            early: false,
        }
    }

    fn frame(sequence: u64, settled: u64, updates: &[Update]) -> Vec<u8> {
        encode_frame(0, Numbers { sequence, settled, durable: 0 }, updates.iter())
    }

    #[tokio::test]
    async fn a_missing_frame_that_a_later_one_calls_durable_is_damage() {
        let journal = |durable| {
            let later = encode_frame(0, Numbers { sequence: 3, settled: 3, durable }, [].iter());
            vec![(0, frame(1, 1, &[])), (2 * BLOCK, later)]
        };
        assert_eq!(recover(&disk(&journal(1)).await).await.unwrap().applied.sequence, 1, "it was cut off");
        let error = recover(&disk(&journal(2)).await).await.map(drop).unwrap_err();
        let missing = Damage::Journal { sequence: 2, later: 3 };
        assert!(
            matches!(&error, OpenError::Failed(Failure::Damage(damage)) if *damage == missing),
            "{error}"
        );
    }

    #[tokio::test]
    async fn an_early_update_counts_only_with_all_of_its_data() {
        let zeros = crc32c::crc32c(&[0; BLOCK_SIZE]);
        for (crcs, applied) in [([zeros; 2], 1), ([1, zeros], 0), ([zeros, 1], 0)] {
            let mut early = update(0, 1);
            if let Update::Write { extents, early, .. } = &mut early {
                let extent =
                    |at: usize| Extent { first_block: at as u32, start: 9 - at as u64, crcs: vec![crcs[at]] };
                (*extents, *early) = (vec![extent(0), extent(1)], true);
            }
            let parts = disk(&[(0, frame(1, 0, &[early]))]).await;
            parts.io.create_segment(0, u64::from(parts.geometry.segment_blocks) * BLOCK).await.unwrap();
            let recovered = recover(&parts).await.unwrap();
            assert_eq!((recovered.replayed, recovered.dropped), (applied, 1 - applied), "{crcs:?}");
        }
    }

    /// A frame whose body is longer than the journal has room for behind it.
    fn long_frame(sequence: u64) -> Vec<u8> {
        let value = vec![0; 2 * BLOCK_SIZE];
        let mut long = frame(sequence, sequence, &[Update::Setting { name: "n".to_owned(), value }]);
        long.truncate(BLOCK_SIZE);
        long
    }

    #[tokio::test]
    async fn frames_are_applied_as_long_as_each_follows_the_one_before() {
        for (what, frames, applied) in [
            (
                "two in a row",
                vec![(0, frame(1, 1, &[update(0, 1)])), (BLOCK, frame(2, 2, &[update(1, 2)]))],
                2,
            ),
            ("none", vec![], 0),
            ("one missing", vec![(0, frame(2, 2, &[update(0, 2)]))], 0),
            ("one missing between", vec![(0, frame(1, 1, &[])), (BLOCK, frame(3, 3, &[update(0, 3)]))], 1),
            (
                "the same again",
                vec![(0, frame(1, 1, &[update(0, 1)])), (BLOCK, frame(1, 1, &[update(0, 1)]))],
                1,
            ),
        ] {
            let recovered = recover(&disk(&frames).await).await.expect(what);
            assert_eq!(recovered.applied.sequence, applied, "{what}");
        }
        let mut filled = vec![(0, frame(2, 2, &[update(1, 2)]))];
        let value = vec![0; usize::try_from(JOURNAL_BYTES).unwrap() - BLOCK_SIZE - 200];
        let first = frame(1, 1, &[update(0, 1), Update::Setting { name: "n".to_owned(), value }]);
        let at = JOURNAL_BYTES - first.len() as u64;
        filled.push((at, first));
        let parts = disk(&filled).await;
        let mut batch = Batch::new();
        batch.put(STATE, APPLIED, Applied { sequence: 0, end_bytes: at, salt: 0 }.encode());
        parts.kv.write(batch, Durability::Synced).unwrap();
        assert_eq!(recover(&parts).await.unwrap().applied.sequence, 2, "round the ring's end");
    }

    #[tokio::test]
    async fn a_long_frame_at_the_journals_end_is_none() {
        let parts = disk(&[(JOURNAL_BYTES - BLOCK, long_frame(1))]).await;
        let mut batch = Batch::new();
        let end_bytes = JOURNAL_BYTES - BLOCK;
        batch.put(STATE, APPLIED, Applied { sequence: 0, end_bytes, salt: 0 }.encode());
        parts.kv.write(batch, Durability::Synced).unwrap();
        assert_eq!(recover(&parts).await.unwrap().applied.sequence, 0);
    }

    #[tokio::test]
    async fn a_settled_frame_that_cannot_be_applied_is_damage() {
        let stray = [(0, frame(1, 1, &[update(0, 1)])), (BLOCK, frame(2, 2, &[update(7, 8)]))];
        let error = recover(&disk(&stray).await).await.map(drop).unwrap_err();
        let record = |error: &OpenError| {
            matches!(error, OpenError::Failed(Failure::Damage(Damage::JournalRecord { sequence: 2, .. })))
        };
        assert!(record(&error), "{error}");
        // It was not answered if nothing says that it is settled.
        let unsettled = [(0, frame(1, 1, &[update(0, 1)])), (BLOCK, frame(2, 1, &[update(7, 8)]))];
        let recovered = recover(&disk(&unsettled).await).await.unwrap();
        assert_eq!((recovered.replayed, recovered.dropped), (1, 1));
        let beyond = Update::Write {
            key: ChunkKey::new(GroupId(1), DataId(1), 0),
            expect: Version::NONE,
            version: Version { epoch: Epoch(1), counter: 1 },
            chunk_size_bytes: 1 << 20,
            stamp: None,
            hole: None,
            extents: vec![Extent { first_block: 0, start: 1 << 50, crcs: vec![0] }],
            early: false,
        };
        let nonsense = [(0, frame(1, 1, &[])), (BLOCK, frame(2, 2, &[beyond]))];
        let error = recover(&disk(&nonsense).await).await.map(drop).unwrap_err();
        assert!(record(&error), "{error}");
    }
}
