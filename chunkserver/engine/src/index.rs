//! The metadata: looking records up and applying updates to them. The same code applies live updates and those
//! found in the journal.
//!
//! Invariants:
//! - the metadata store always holds all applied updates and no others; the caches only copy it;
//! - records and pages of one frame of updates change in one batch, together with the mark how far the journal is
//!   applied;
//! - a chunk's `allocated_blocks` is the number of blocks its pages name; a page with no block has no record.

use std::collections::HashMap;
use std::sync::Arc;

use coord_kv::{Batch, Durability, Family, Kv, KvError, Pair, Range, Read};
use coord_types::{ChunkKey, DataId, GroupId, Version, note_stamp};

use crate::alloc::{Run, push_block};
use crate::cache::Cache;
use crate::error::{Damage, Failure, HexKey};
use crate::records::{APPLIED, Applied, CHUNKS, ChunkRecord, EXTENTS, Page, PageKey, SETTINGS, STATE};
use crate::update::{BlockRange, Extent, Update};

/// Records fetched at a time by scans.
const SCAN_STEP: usize = 256;

#[derive(Debug, thiserror::Error)]
pub(crate) enum IndexError {
    #[error(transparent)]
    Kv(#[from] KvError),
    #[error(transparent)]
    Damage(#[from] Damage),
}

impl From<IndexError> for Failure {
    fn from(error: IndexError) -> Self {
        match error {
            IndexError::Kv(error) => Self::Kv(error),
            IndexError::Damage(damage) => Self::Damage(damage),
        }
    }
}

type Result<T> = std::result::Result<T, IndexError>;

/// Is shown a record's key, and the record if it decodes.
type Visit<'a, T> = dyn FnMut(&[u8], std::result::Result<T, Damage>) -> Result<()> + 'a;

pub(crate) struct Index {
    kv: Arc<dyn Kv>,
    chunks: Cache<ChunkKey, Option<Arc<ChunkRecord>>>,
    pages: Cache<PageKey, Option<Arc<Page>>>,
    chunk_count: u64,
}

impl std::fmt::Debug for Index {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Index").field("chunk_count", &self.chunk_count).finish_non_exhaustive()
    }
}

/// What an applied update did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Change {
    /// Disk blocks no record names any more.
    pub(crate) freed: Vec<Run>,
    pub(crate) allocated_delta_blocks: i64,
}

/// What an update came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Applied(Change),
    /// The chunk is not at the version the update expects.
    Mismatch {
        current: Version,
    },
}

/// Changes of one frame, not yet in the store.
#[derive(Debug, Default)]
pub(crate) struct Overlay {
    chunks: HashMap<ChunkKey, Option<ChunkRecord>>,
    pages: HashMap<PageKey, Page>,
    settings: HashMap<String, Vec<u8>>,
    chunks_delta: i64,
}

impl Index {
    pub(crate) fn new(kv: Arc<dyn Kv>, cache_bytes: usize) -> Self {
        Self {
            kv,
            chunks: Cache::new(cache_bytes / 4, 150),
            pages: Cache::new(cache_bytes / 4 * 3, size_of::<Page>() + 16),
            chunk_count: 0,
        }
    }

    pub(crate) fn kv(&self) -> &Arc<dyn Kv> {
        &self.kv
    }

    /// Lets go of the store; everything after this fails.
    pub(crate) fn close(&mut self) -> Arc<dyn Kv> {
        std::mem::replace(&mut self.kv, Arc::new(ClosedKv))
    }

    pub(crate) fn chunk_count(&self) -> u64 {
        self.chunk_count
    }

    pub(crate) fn set_chunk_count(&mut self, count: u64) {
        self.chunk_count = count;
    }

    pub(crate) fn chunk(&mut self, key: ChunkKey) -> Result<Option<Arc<ChunkRecord>>> {
        if let Some(record) = self.chunks.get(&key) {
            return Ok(record);
        }
        let record = match self.kv.get(CHUNKS, &key.encode())? {
            Some(value) => Some(Arc::new(decode_chunk(key, &value)?)),
            None => None,
        };
        self.chunks.insert(key, record.clone());
        Ok(record)
    }

    pub(crate) fn page(&mut self, key: PageKey) -> Result<Option<Arc<Page>>> {
        if let Some(page) = self.pages.get(&key) {
            return Ok(page);
        }
        let page = match self.kv.get(EXTENTS, &key.encode())? {
            Some(value) => Some(Arc::new(decode_page(key, &value)?)),
            None => None,
        };
        self.pages.insert(key, page.clone());
        Ok(page)
    }

    /// Disk block and crc32c of a block of a chunk.
    pub(crate) fn block(&mut self, key: ChunkKey, block: u32) -> Result<Option<(u64, u32)>> {
        let (page, at) = PageKey::of(key, block);
        Ok(self.page(page)?.and_then(|page| page.get(at)))
    }

    pub(crate) fn setting(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let Some(value) = self.kv.get(SETTINGS, name.as_bytes())? else { return Ok(None) };
        let damaged =
            || Damage::Record { what: "setting", key: HexKey(name.into()), reason: "the checksum is wrong" };
        let (body, crc) = value.split_last_chunk::<4>().ok_or_else(damaged)?;
        if crc32c::crc32c_append(crc32c::crc32c(name.as_bytes()), body) != u32::from_le_bytes(*crc) {
            return Err(damaged().into());
        }
        Ok(Some(body.to_vec()))
    }

    pub(crate) fn applied(&self) -> Result<Option<Applied>> {
        let Some(value) = self.kv.get(STATE, APPLIED)? else { return Ok(None) };
        let record = Applied::decode(&value);
        let named = |reason| Damage::Record { what: "journal position", key: HexKey(APPLIED.into()), reason };
        Ok(Some(record.map_err(named)?))
    }

    /// Chunks of a group in key order, after `after`.
    pub(crate) fn list(
        &self,
        group: GroupId,
        after: Option<ChunkKey>,
        limit: usize,
    ) -> Result<Vec<(ChunkKey, Version)>> {
        let mut range = Range::prefix(&group.0.to_be_bytes());
        if let Some(after) = after {
            range = range.after(&after.encode());
        }
        let mut out = Vec::new();
        for (key, value) in self.kv.scan(CHUNKS, &range, limit)? {
            let key = chunk_key(&key)?;
            out.push((key, decode_chunk(key, &value)?.version));
        }
        Ok(out)
    }

    /// Chunks of one generation of a file's data.
    pub(crate) fn chunks_of(&self, group: GroupId, data: DataId, limit: usize) -> Result<Vec<ChunkKey>> {
        let first = ChunkKey::new(group, data, 0).encode();
        let range = Range::prefix(&first[..12]);
        self.kv.scan(CHUNKS, &range, limit)?.iter().map(|(key, _)| chunk_key(key)).collect()
    }

    /// All pages of a chunk, ascending.
    pub(crate) fn pages_of(&self, key: ChunkKey) -> Result<Vec<(PageKey, Page)>> {
        let range = Range::prefix(&key.encode());
        let mut out = Vec::new();
        for (key, value) in self.kv.scan(EXTENTS, &range, usize::from(u16::MAX))? {
            let key = page_key(&key)?;
            out.push((key, decode_page(key, &value)?));
        }
        Ok(out)
    }

    /// Calls `each` with every page of the disk.
    pub(crate) fn for_each_page(&self, each: &mut Visit<'_, (PageKey, Page)>) -> Result<()> {
        let mut range = Range::prefix(&[]);
        loop {
            let step = self.kv.scan(EXTENTS, &range, SCAN_STEP)?;
            for (raw, value) in &step {
                let decoded = page_key(raw).and_then(|key| Ok((key, decode_page(key, value)?)));
                match decoded {
                    Ok(page) => each(raw, Ok(page))?,
                    Err(IndexError::Damage(damage)) => each(raw, Err(damage))?,
                    Err(error) => return Err(error),
                }
            }
            match step.last() {
                Some((last, _)) if step.len() == SCAN_STEP => range = range.after(last),
                _ => return Ok(()),
            }
        }
    }

    /// Calls `each` with every chunk record of the disk.
    pub(crate) fn for_each_chunk(&self, each: &mut Visit<'_, (ChunkKey, ChunkRecord)>) -> Result<()> {
        let mut range = Range::prefix(&[]);
        loop {
            let step = self.kv.scan(CHUNKS, &range, SCAN_STEP)?;
            for (raw, value) in &step {
                let decoded = chunk_key(raw).and_then(|key| Ok((key, decode_chunk(key, value)?)));
                match decoded {
                    Ok(chunk) => each(raw, Ok(chunk))?,
                    Err(IndexError::Damage(damage)) => each(raw, Err(damage))?,
                    Err(error) => return Err(error),
                }
            }
            match step.last() {
                Some((last, _)) if step.len() == SCAN_STEP => range = range.after(last),
                _ => return Ok(()),
            }
        }
    }

    /// Applies one update to `overlay`.
    pub(crate) fn apply(&mut self, overlay: &mut Overlay, update: &Update) -> Result<Outcome> {
        match update {
            Update::Write { key, expect, version, chunk_size_bytes, stamp, hole, extents, early: _ } => {
                let found = self.overlaid_chunk(overlay, *key)?;
                let current = found.as_ref().map_or(Version::NONE, |record| record.version);
                if current != *expect {
                    return Ok(Outcome::Mismatch { current });
                }
                let is_new = found.is_none();
                let mut record = found.unwrap_or_else(|| ChunkRecord {
                    version: *version,
                    chunk_size_bytes: *chunk_size_bytes,
                    allocated_blocks: 0,
                    windows: Vec::new(),
                });
                let mut change = Change::default();
                if let Some(hole) = hole {
                    self.punch(overlay, *key, *hole, &mut change)?;
                }
                self.put_extents(overlay, *key, extents, &mut change)?;
                record.version = *version;
                if let Some(stamp) = stamp {
                    note_stamp(&mut record.windows, *stamp);
                }
                record.allocated_blocks =
                    u32::try_from(i64::from(record.allocated_blocks) + change.allocated_delta_blocks)
                        .unwrap_or(0);
                overlay.chunks.insert(*key, Some(record));
                overlay.chunks_delta += if is_new { counts(*key) } else { 0 };
                Ok(Outcome::Applied(change))
            }
            Update::Install { key, version, chunk_size_bytes, windows, extents } => {
                let mut change = self.remove(overlay, *key)?;
                self.put_extents(overlay, *key, extents, &mut change)?;
                let blocks: u32 = extents.iter().map(|extent| extent.run().len).sum();
                let record = ChunkRecord {
                    version: *version,
                    chunk_size_bytes: *chunk_size_bytes,
                    allocated_blocks: blocks,
                    windows: windows.clone(),
                };
                overlay.chunks.insert(*key, Some(record));
                overlay.chunks_delta += counts(*key);
                Ok(Outcome::Applied(change))
            }
            Update::Remove { key } => Ok(Outcome::Applied(self.remove(overlay, *key)?)),
            Update::Setting { name, value } => {
                overlay.settings.insert(name.clone(), value.clone());
                Ok(Outcome::Applied(Change::default()))
            }
        }
    }

    /// Puts the overlay and the journal position into the store, in one batch.
    pub(crate) fn commit(&mut self, overlay: Overlay, applied: Applied) -> Result<()> {
        let mut batch = Batch::new();
        for (key, record) in &overlay.chunks {
            match record {
                Some(record) => batch.put(CHUNKS, key.encode(), record.encode(*key)),
                None => batch.delete(CHUNKS, key.encode()),
            }
        }
        for (key, page) in &overlay.pages {
            if page.is_empty() {
                batch.delete(EXTENTS, key.encode());
            } else {
                batch.put(EXTENTS, key.encode(), page.encode(*key));
            }
        }
        for (name, value) in &overlay.settings {
            let mut record = value.clone();
            crate::records::seal(&mut record, name.as_bytes());
            batch.put(SETTINGS, name.as_bytes(), record);
        }
        batch.put(STATE, APPLIED, applied.encode());
        // The journal holds all of this already: the store's own log would only say it twice.
        self.kv.write(batch, Durability::Unlogged)?;
        for (key, record) in overlay.chunks {
            self.chunks.insert(key, record.map(Arc::new));
        }
        for (key, page) in overlay.pages {
            self.pages.insert(key, (!page.is_empty()).then(|| Arc::new(page)));
        }
        self.chunk_count = self.chunk_count.saturating_add_signed(overlay.chunks_delta);
        Ok(())
    }

    fn overlaid_chunk(&mut self, overlay: &Overlay, key: ChunkKey) -> Result<Option<ChunkRecord>> {
        match overlay.chunks.get(&key) {
            Some(record) => Ok(record.clone()),
            None => Ok(self.chunk(key)?.map(|record| (*record).clone())),
        }
    }

    fn overlaid_page<'a>(&mut self, overlay: &'a mut Overlay, key: PageKey) -> Result<&'a mut Page> {
        use std::collections::hash_map::Entry;
        match overlay.pages.entry(key) {
            Entry::Occupied(entry) => Ok(entry.into_mut()),
            Entry::Vacant(entry) => {
                let page = self.page(key)?.map_or(Page::EMPTY, |page| (*page).clone());
                Ok(entry.insert(page))
            }
        }
    }

    fn punch(
        &mut self,
        overlay: &mut Overlay,
        key: ChunkKey,
        hole: BlockRange,
        change: &mut Change,
    ) -> Result<()> {
        self.each_block(overlay, key, hole, change, |page, at, _| page.clear(at))
    }

    fn put_extents(
        &mut self,
        overlay: &mut Overlay,
        key: ChunkKey,
        extents: &[Extent],
        change: &mut Change,
    ) -> Result<()> {
        for extent in extents {
            let range = BlockRange { first_block: extent.first_block, count: extent.run().len };
            self.each_block(overlay, key, range, change, |page, at, nth| {
                page.set(at, extent.start + u64::from(nth), extent.crcs[nth as usize])
            })?;
            change.allocated_delta_blocks += i64::from(range.count);
        }
        Ok(())
    }

    /// Calls `set` for each block of a range; it returns the disk block that was there.
    fn each_block(
        &mut self,
        overlay: &mut Overlay,
        key: ChunkKey,
        range: BlockRange,
        change: &mut Change,
        mut set: impl FnMut(&mut Page, usize, u32) -> Option<u64>,
    ) -> Result<()> {
        let mut nth = 0;
        while nth < range.count {
            let (page_key, first) = PageKey::of(key, range.first_block + nth);
            let count = (crate::records::PAGE_BLOCKS - first as u32).min(range.count - nth);
            let page = self.overlaid_page(overlay, page_key)?;
            for step in 0..count {
                if let Some(old) = set(page, first + step as usize, nth + step) {
                    push_block(&mut change.freed, old);
                    change.allocated_delta_blocks -= 1;
                }
            }
            nth += count;
        }
        Ok(())
    }

    /// Removes a chunk. The caller sees to it that no earlier update of the chunk is in the same overlay.
    fn remove(&mut self, overlay: &mut Overlay, key: ChunkKey) -> Result<Change> {
        let mut change = Change::default();
        if self.overlaid_chunk(overlay, key)?.is_none() {
            return Ok(change);
        }
        for (page_key, page) in self.pages_of(key)? {
            for (_, disk_block, _) in page.blocks() {
                push_block(&mut change.freed, disk_block);
                change.allocated_delta_blocks -= 1;
            }
            overlay.pages.insert(page_key, Page::EMPTY);
        }
        overlay.chunks.insert(key, None);
        overlay.chunks_delta -= counts(key);
        Ok(change)
    }
}

/// What a record adds to the number of chunks: a fence record is no part of anybody's data.
pub(crate) const fn counts(key: ChunkKey) -> i64 {
    if key.is_fence_record() { 0 } else { 1 }
}

/// In the place of a store that was let go.
struct ClosedKv;

fn closed<T>() -> coord_kv::Result<T> {
    Err(KvError::Io { operation: "use", path: "metadata".into(), reason: "the disk is closed".into() })
}

impl Read for ClosedKv {
    fn get(&self, _: Family, _: &[u8]) -> coord_kv::Result<Option<Vec<u8>>> {
        closed()
    }

    fn scan(&self, _: Family, _: &Range, _: usize) -> coord_kv::Result<Vec<Pair>> {
        closed()
    }
}

impl Kv for ClosedKv {
    fn write(&self, _: Batch, _: Durability) -> coord_kv::Result<()> {
        closed()
    }

    fn flush(&self) -> coord_kv::Result<()> {
        closed()
    }
}

fn chunk_key(raw: &[u8]) -> Result<ChunkKey> {
    let damage =
        || Damage::Record { what: "chunk record", key: HexKey(raw.to_vec()), reason: "the key is malformed" };
    Ok(ChunkKey::decode(raw).ok_or_else(damage)?)
}

fn page_key(raw: &[u8]) -> Result<PageKey> {
    let damage =
        || Damage::Record { what: "extent page", key: HexKey(raw.to_vec()), reason: "the key is malformed" };
    Ok(PageKey::decode(raw).ok_or_else(damage)?)
}

fn decode_chunk(key: ChunkKey, value: &[u8]) -> Result<ChunkRecord> {
    let named = |reason| Damage::Record { what: "chunk record", key: HexKey(key.encode().into()), reason };
    Ok(ChunkRecord::decode(key, value).map_err(named)?)
}

fn decode_page(key: PageKey, value: &[u8]) -> Result<Page> {
    let named = |reason| Damage::Record { what: "extent page", key: HexKey(key.encode().into()), reason };
    Ok(Page::decode(key, value).map_err(named)?)
}
