//! Operations that change a chunk: write, punch, install, remove, and settings.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use coord_types::{BLOCK_SIZE, ChunkKey, DataId, GroupId, Version, WRITE_SIZE_MAX, WriterWindow};
use futures::future::{join_all, try_join_all};
use futures::stream::{self, StreamExt as _};
use tokio::sync::oneshot;

use crate::alloc::{Run, SMALL_BLOCKS};
use crate::core::line::{Admission, InLine};
use crate::core::space::Claim;
use crate::core::{BLOCK, Core, Queued};
use crate::error::EngineError;
use crate::index::Change;
use crate::io::{Op, WriteMode};
use crate::types::{ChunkContents, PunchOp, WriteOp, Written};
use crate::update::{BlockRange, Extent, Update};

/// Settings are small records; larger things belong into files.
pub(crate) const SETTING_BYTES_MAX: usize = 64 << 10;
/// Chunks of a deleted file removed at a time: bounds the time other work waits.
const DELETE_STEP: usize = 16;

/// Writes of one installed chunk at a time: all of it at once would make a client's read wait for several milliseconds.
const INSTALL_WRITES: usize = 2;
/// Space for it is taken in such runs, however small the pieces are that it came in.
const INSTALL_RUN_BLOCKS: u32 = (WRITE_SIZE_MAX / BLOCK_SIZE) as u32;

/// Whole blocks to be written, with their checksums.
struct Blocks {
    first_block: u32,
    data: Bytes,
    crcs: Vec<u32>,
}

/// An operation that has its place in line.
pub(crate) struct Begun {
    line: InLine,
    _task: Task,
}

/// How the data of an update goes to the disk.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pace {
    /// Together with the record that names it.
    Early,
    /// Before it, all of it at the same time.
    AtOnce,
    /// Before it, a little at a time.
    Gentle,
}

type Done = oneshot::Receiver<Result<Change, EngineError>>;

impl Core {
    /// Checks a write and gives it its place in line, at once: calls are ordered as they come.
    pub(crate) fn begin_write(self: &Arc<Self>, op: &WriteOp) -> Result<Begun, EngineError> {
        check_range(op.key, op.offset_bytes, op.data.len(), op.chunk_size_bytes)?;
        check_payload(op)?;
        self.begin(Admission {
            key: op.key,
            expect: Some(op.expect),
            version: op.version,
            chunk_size_bytes: Some(op.chunk_size_bytes),
        })
    }

    pub(crate) fn begin_punch(self: &Arc<Self>, op: &PunchOp) -> Result<Begun, EngineError> {
        check_range(op.key, op.offset_bytes, op.len_bytes as usize, op.chunk_size_bytes)?;
        self.begin(Admission {
            key: op.key,
            expect: Some(op.expect),
            version: op.version,
            chunk_size_bytes: Some(op.chunk_size_bytes),
        })
    }

    pub(crate) fn begin_install(
        self: &Arc<Self>,
        key: ChunkKey,
        contents: &ChunkContents,
    ) -> Result<Begun, EngineError> {
        check_contents(key, contents)?;
        let chunk_size_bytes = Some(contents.chunk_size_bytes);
        self.begin(Admission { key, expect: None, version: contents.version, chunk_size_bytes })
    }

    pub(crate) fn begin_remove(self: &Arc<Self>, key: ChunkKey) -> Result<Begun, EngineError> {
        self.begin(Admission { key, expect: None, version: Version::NONE, chunk_size_bytes: None })
    }

    fn begin(self: &Arc<Self>, admission: Admission) -> Result<Begun, EngineError> {
        let task = Task::new(self);
        Ok(Begun { line: self.admit(admission)?, _task: task })
    }

    pub(crate) async fn write(self: Arc<Self>, begun: Begun, op: WriteOp) -> Result<Written, EngineError> {
        let Begun { line, _task } = begun;
        let blocks = self.whole_blocks(&line, &op).await?;
        let count = u32::try_from(blocks.crcs.len()).expect("a chunk has at most 16384 blocks");
        let runs = match self.allocate(count, Claim::Ordinary).await {
            Err(EngineError::Full { .. }) if self.is_overwrite(op.key, blocks.first_block, count)? => {
                self.allocate(count, Claim::Reserve).await?
            }
            other => other?,
        };
        let early = self.is_early(count);
        let update = |extents| Update::Write {
            key: op.key,
            expect: op.expect,
            version: op.version,
            chunk_size_bytes: op.chunk_size_bytes,
            stamp: op.stamp,
            hole: None,
            extents,
            early,
        };
        let pace = if early { Pace::Early } else { Pace::AtOnce };
        let change = self.put(line, vec![blocks], runs, pace, update).await?;
        Ok(written(&change))
    }

    pub(crate) async fn punch(self: Arc<Self>, begun: Begun, op: PunchOp) -> Result<Written, EngineError> {
        let Begun { line, _task } = begun;
        let (hole, edges) = self.punched_edges(&line, &op).await?;
        let mut runs = Vec::new();
        for _ in &edges {
            match self.allocate(1, Claim::Reserve).await {
                Ok(mut run) => runs.append(&mut run),
                Err(error) => {
                    self.give_back(runs);
                    return Err(error);
                }
            }
        }
        let update = |extents| Update::Write {
            key: op.key,
            expect: op.expect,
            version: op.version,
            chunk_size_bytes: op.chunk_size_bytes,
            stamp: op.stamp,
            hole,
            extents,
            early: true,
        };
        let change = self.put(line, edges, runs, Pace::Early, update).await?;
        Ok(written(&change))
    }

    pub(crate) async fn install(
        self: Arc<Self>,
        begun: Begun,
        key: ChunkKey,
        contents: ChunkContents,
    ) -> Result<(), EngineError> {
        let Begun { line, _task } = begun;
        let ChunkContents { version, windows, chunk_size_bytes, pieces } = contents;
        line.first().await?;
        let mut blocks = Vec::new();
        for piece in pieces {
            let (offset_bytes, data, crcs) = piece.into_parts();
            let first_block = offset_bytes / BLOCK_SIZE as u32;
            blocks.push(Blocks { first_block, data: self.aligned(data), crcs });
        }
        let count = blocks.iter().map(|part| part.crcs.len()).sum::<usize>();
        let mut missing = u32::try_from(count).expect("a chunk has at most 16384 blocks");
        let mut runs = Vec::new();
        while missing > 0 {
            let count = missing.min(INSTALL_RUN_BLOCKS);
            match self.allocate(count, Claim::Ordinary).await {
                Ok(mut taken) => runs.append(&mut taken),
                Err(error) => {
                    self.give_back(runs);
                    return Err(error);
                }
            }
            missing -= count;
        }
        let update = |extents| Update::Install { key, version, chunk_size_bytes, windows, extents };
        self.put(line, blocks, runs, Pace::Gentle, update).await?;
        Ok(())
    }

    /// Takes its place behind all writes that came before; of a chunk at another version it is refused.
    pub(crate) fn begin_heal(
        self: &Arc<Self>,
        key: ChunkKey,
        version: Version,
        offset_bytes: u32,
        data: &[u8],
    ) -> Result<Begun, EngineError> {
        if !is_block(offset_bytes as usize) || !is_block(data.len()) || version == Version::NONE {
            return Err(EngineError::Invalid { key, reason: "only whole blocks of a chunk can be healed" });
        }
        let record = self.state.lock().index.chunk(key).map_err(|error| self.index_error(error))?;
        let Some(record) = record else {
            return Err(EngineError::VersionMismatch { key, expected: version, current: Version::NONE });
        };
        check_range(key, offset_bytes, data.len(), record.chunk_size_bytes)?;
        let chunk_size_bytes = Some(record.chunk_size_bytes);
        self.begin(Admission { key, expect: Some(version), version, chunk_size_bytes })
    }

    /// Writes blocks anew, each of which must have the checksum recorded for it: the chunk stays what it is.
    pub(crate) async fn heal(
        self: Arc<Self>,
        begun: Begun,
        offset_bytes: u32,
        data: Bytes,
    ) -> Result<(), EngineError> {
        let Begun { line, _task } = begun;
        line.first().await?;
        let (key, version) = (line.ticket().key, line.before());
        let first_block = offset_bytes / BLOCK_SIZE as u32;
        let crcs: Vec<u32> = data.chunks_exact(BLOCK_SIZE).map(crc32c::crc32c).collect();
        let prepared = match self.check_recorded(key, first_block, &crcs) {
            Ok(chunk_size_bytes) => {
                let count = u32::try_from(crcs.len()).expect("a chunk has at most 16384 blocks");
                self.allocate(count, Claim::Reserve).await.map(|runs| (chunk_size_bytes, runs))
            }
            Err(error) => Err(error),
        };
        let (chunk_size_bytes, runs) = match prepared {
            Ok(prepared) => prepared,
            Err(error) => {
                // What stands behind in line goes on: nothing was changed.
                line.leave();
                return Err(error);
            }
        };
        let update = |extents| Update::Write {
            key,
            expect: version,
            version,
            chunk_size_bytes,
            stamp: None,
            hole: None,
            extents,
            early: false,
        };
        let data = self.aligned(data);
        self.put(line, vec![Blocks { first_block, data, crcs }], runs, Pace::AtOnce, update).await?;
        Ok(())
    }

    /// Whether these are the checksums on record; gives the chunk's size.
    fn check_recorded(&self, key: ChunkKey, first_block: u32, crcs: &[u32]) -> Result<u32, EngineError> {
        let mut state = self.state.lock();
        let mut look = || {
            let record = state.index.chunk(key)?;
            for (piece, (block, crc)) in (first_block..).zip(crcs).enumerate() {
                if state.index.block(key, block)?.is_none_or(|(_, recorded)| recorded != *crc) {
                    return Ok(Err(EngineError::PayloadChecksum { key, piece }));
                }
            }
            Ok(Ok(record.map_or(0, |record| record.chunk_size_bytes)))
        };
        let found = look();
        drop(state);
        found.map_err(|error| self.index_error(error))?
    }

    pub(crate) async fn remove(self: Arc<Self>, begun: Begun, key: ChunkKey) -> Result<(), EngineError> {
        let Begun { line, _task } = begun;
        line.first().await?;
        if line.before() == Version::NONE {
            line.leave();
            return Ok(());
        }
        let done = self.hand_in(line, Update::Remove { key }, None);
        self.answer(done).await?;
        Ok(())
    }

    /// Removes chunk by chunk. Each goes whole or stays whole over a crash; the caller asks again after one.
    pub(crate) async fn delete_data(
        self: Arc<Self>,
        group: GroupId,
        data: DataId,
    ) -> Result<(), EngineError> {
        loop {
            self.check()?;
            let chunks = self.state.lock().index.chunks_of(group, data, DELETE_STEP);
            let chunks = chunks.map_err(|error| self.index_error(error))?;
            if chunks.is_empty() {
                return Ok(());
            }
            let mut removing = Vec::with_capacity(chunks.len());
            for key in chunks {
                removing.push(self.clone().remove(self.begin_remove(key)?, key));
            }
            join_all(removing).await.into_iter().collect::<Result<(), _>>()?;
        }
    }

    pub(crate) async fn put_setting(
        self: Arc<Self>,
        name: String,
        value: Vec<u8>,
    ) -> Result<(), EngineError> {
        let len_bytes = name.len() + value.len();
        if len_bytes > SETTING_BYTES_MAX {
            return Err(EngineError::SettingTooLong { name, len_bytes, max_bytes: SETTING_BYTES_MAX });
        }
        let _task = Task::new(&self);
        let (sender, done) = oneshot::channel();
        {
            let mut state = self.state.lock();
            self.check()?;
            let update = Update::Setting { name, value };
            state.queue.push_back(Queued { update, data: None, ticket: None, done: sender });
        }
        self.commit.notify_one();
        self.answer(done).await?;
        Ok(())
    }

    /// Writes `parts` to `runs` and makes `update` of them durable. Gives the runs back if that fails.
    async fn put(
        &self,
        line: InLine,
        parts: Vec<Blocks>,
        runs: Vec<Run>,
        pace: Pace,
        update: impl FnOnce(Vec<Extent>) -> Update,
    ) -> Result<Change, EngineError> {
        let mut writes = Vec::with_capacity(runs.len());
        let mut extents = Vec::with_capacity(runs.len());
        cut(parts, &runs, |extent, data| {
            writes.push((self.place(extent.start), data));
            extents.push(extent);
        });
        let begin = |((file, offset), data)| {
            self.io.submit(file, offset, Op::Write { data, mode: WriteMode::Durable })
        };
        let early = pace == Pace::Early && !writes.is_empty();
        let flag = early.then(|| Arc::new(AtomicBool::new(false)));
        let update = update(extents);
        let done;
        if let Some(flag) = flag {
            // The frame may name data that is not there yet, so from here on the data must arrive or the disk is
            // out: the frame cannot be taken back.
            let pending: Vec<_> = writes.into_iter().map(begin).collect();
            done = self.hand_in(line, update, Some(flag.clone()));
            match try_join_all(pending).await {
                Ok(_) => flag.store(true, Ordering::Release),
                Err(error) => return Err(self.fail_io(error)),
            }
            self.commit.notify_one();
        } else {
            let at_once = if pace == Pace::Gentle { INSTALL_WRITES } else { writes.len().max(1) };
            // All of them, so that none still writes to blocks given back.
            let results: Vec<_> = stream::iter(writes).map(begin).buffered(at_once).collect().await;
            if let Some(error) = results.into_iter().find_map(Result::err) {
                return Err(self.data_error(error, runs));
            }
            done = self.hand_in(line, update, None);
        }
        let answer = self.answer(done).await;
        if answer.is_err() && self.failure().is_none() {
            self.give_back(runs);
        }
        answer
    }

    fn data_error(&self, error: crate::error::IoError, runs: Vec<Run>) -> EngineError {
        if !error.is_full() {
            return self.fail_io(error);
        }
        let blocks: u64 = runs.iter().map(|run| u64::from(run.len)).sum();
        self.give_back(runs);
        tracing::warn!(%error, "the file system below ran out of space under a segment");
        EngineError::Full { needed_bytes: blocks * BLOCK, available_bytes: 0 }
    }

    fn hand_in(&self, line: InLine, update: Update, data: Option<Arc<AtomicBool>>) -> Done {
        let (sender, done) = oneshot::channel();
        let ticket = Some(line.ticket());
        line.hand_in(Queued { update, data, ticket, done: sender });
        done
    }

    async fn answer(&self, done: Done) -> Result<Change, EngineError> {
        match done.await {
            Ok(answer) => answer,
            // The committer went away: only a failed disk does that with updates queued.
            Err(_) => Err(self.check().err().unwrap_or_else(|| self.fail(crate::error::Failure::Closed))),
        }
    }

    /// Whether a write's data and its journal record are written at the same time. Frames are applied in order, so
    /// that a large write would hold up the answers to small ones in its frame and behind: large ones go so only if
    /// nothing else is in flight.
    fn is_early(&self, blocks: u32) -> bool {
        let mut state = self.state.lock();
        let early = blocks <= SMALL_BLOCKS || state.tasks == 1;
        state.stats.early += u64::from(early);
        early
    }

    /// Whether a write changes only blocks that have data already.
    fn is_overwrite(&self, key: ChunkKey, first_block: u32, count: u32) -> Result<bool, EngineError> {
        for block in first_block..first_block + count {
            let found = self.state.lock().index.block(key, block);
            if found.map_err(|error| self.index_error(error))?.is_none() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The write's data as whole blocks at an aligned address: its own bytes if they are that already.
    async fn whole_blocks(&self, line: &InLine, op: &WriteOp) -> Result<Blocks, EngineError> {
        let start = op.offset_bytes as usize;
        let end = start + op.data.len();
        let (first, last) = (start / BLOCK_SIZE, (end - 1) / BLOCK_SIZE);
        let first_block = first as u32;
        if is_block(start) && is_block(end) {
            return Ok(Blocks {
                first_block,
                data: self.aligned(op.data.clone()),
                crcs: op.block_crcs.clone(),
            });
        }
        // What an edge block holds besides is known once all writes before this one are applied.
        line.first().await?;
        let mut buffer = self.pool.allocate((last - first + 1) * BLOCK_SIZE);
        if !is_block(start) {
            self.read_block(op.key, first_block, &mut buffer[..BLOCK_SIZE]).await?;
        }
        if !is_block(end) && (last != first || is_block(start)) {
            let at = (last - first) * BLOCK_SIZE;
            self.read_block(op.key, last as u32, &mut buffer[at..]).await?;
        }
        let within = start % BLOCK_SIZE;
        buffer[within..within + op.data.len()].copy_from_slice(&op.data);
        let mut crcs = op.block_crcs.clone();
        for edge in [0, last - first] {
            crcs[edge] = crc32c::crc32c(&buffer[edge * BLOCK_SIZE..(edge + 1) * BLOCK_SIZE]);
        }
        Ok(Blocks { first_block, data: buffer.freeze(), crcs })
    }

    /// The whole blocks of a punch, and its edge blocks with their part zeroed.
    async fn punched_edges(
        &self,
        line: &InLine,
        op: &PunchOp,
    ) -> Result<(Option<BlockRange>, Vec<Blocks>), EngineError> {
        let start = op.offset_bytes as usize;
        let end = start + op.len_bytes as usize;
        let (inner_start, inner_end) = (start.div_ceil(BLOCK_SIZE), end / BLOCK_SIZE);
        let hole = (inner_start < inner_end)
            .then(|| BlockRange { first_block: inner_start as u32, count: (inner_end - inner_start) as u32 });
        let mut partial: Vec<(usize, std::ops::Range<usize>)> = Vec::new();
        if !is_block(start) {
            let block = start / BLOCK_SIZE;
            partial.push((block, start % BLOCK_SIZE..(end - block * BLOCK_SIZE).min(BLOCK_SIZE)));
        }
        if !is_block(end) && (is_block(start) || end / BLOCK_SIZE != start / BLOCK_SIZE) {
            let block = end / BLOCK_SIZE;
            partial.push((block, start.saturating_sub(block * BLOCK_SIZE)..end % BLOCK_SIZE));
        }
        let mut edges = Vec::new();
        if !partial.is_empty() {
            line.first().await?;
        }
        for (block, zeroed) in partial {
            let mut buffer = self.pool.allocate(BLOCK_SIZE);
            if self.read_block(op.key, block as u32, &mut buffer).await? {
                buffer[zeroed].fill(0);
                let crcs = vec![crc32c::crc32c(&buffer)];
                edges.push(Blocks { first_block: block as u32, data: buffer.freeze(), crcs });
            }
        }
        Ok((hole, edges))
    }

    fn aligned(&self, data: Bytes) -> Bytes {
        if is_block(data.as_ptr() as usize) {
            return data;
        }
        let mut buffer = self.pool.allocate(data.len());
        buffer.copy_from_slice(&data);
        buffer.freeze()
    }
}

/// Whether a block begins here.
const fn is_block(offset: usize) -> bool {
    offset.is_multiple_of(BLOCK_SIZE)
}

fn written(change: &Change) -> Written {
    Written { allocated_delta_bytes: change.allocated_delta_blocks * BLOCK_SIZE as i64 }
}

/// Lays parts out over runs: `put` gets each piece that lies in one part and one run.
fn cut(parts: Vec<Blocks>, runs: &[Run], mut put: impl FnMut(Extent, Bytes)) {
    let mut runs = runs.iter().copied();
    let mut run = Run { start: 0, len: 0 };
    for part in parts {
        let mut done = 0;
        while done < part.crcs.len() {
            if run.len == 0 {
                run = runs.next().expect("as many blocks were allocated as are written");
            }
            let count = (run.len as usize).min(part.crcs.len() - done);
            let extent = Extent {
                first_block: part.first_block + done as u32,
                start: run.start,
                crcs: part.crcs[done..done + count].to_vec(),
            };
            put(extent, part.data.slice(done * BLOCK_SIZE..(done + count) * BLOCK_SIZE));
            run = Run { start: run.start + count as u64, len: run.len - count as u32 };
            done += count;
        }
    }
}

fn check_range(
    key: ChunkKey,
    offset_bytes: u32,
    len: usize,
    chunk_size_bytes: u32,
) -> Result<(), EngineError> {
    let invalid = |reason| Err(EngineError::Invalid { key, reason });
    if len == 0 {
        return invalid("the range is empty");
    }
    if !chunk_size_bytes.is_power_of_two() || !(64 << 10..=64 << 20).contains(&chunk_size_bytes) {
        return invalid("the chunk size is not a power of two between 64 KiB and 64 MiB");
    }
    if offset_bytes as usize + len > chunk_size_bytes as usize {
        return invalid("the range leaves the chunk");
    }
    Ok(())
}

fn check_payload(op: &WriteOp) -> Result<(), EngineError> {
    let mut at = 0;
    let mut crcs = op.block_crcs.iter();
    let mut piece = 0;
    while at < op.data.len() {
        let within = (op.offset_bytes as usize + at) % BLOCK_SIZE;
        let len = (BLOCK_SIZE - within).min(op.data.len() - at);
        let Some(crc) = crcs.next() else {
            return Err(EngineError::Invalid {
                key: op.key,
                reason: "there are fewer checksums than pieces",
            });
        };
        if crc32c::crc32c(&op.data[at..at + len]) != *crc {
            return Err(EngineError::PayloadChecksum { key: op.key, piece });
        }
        at += len;
        piece += 1;
    }
    match crcs.next() {
        None => Ok(()),
        Some(_) => Err(EngineError::Invalid { key: op.key, reason: "there are more checksums than pieces" }),
    }
}

fn check_contents(key: ChunkKey, contents: &ChunkContents) -> Result<(), EngineError> {
    let invalid = |reason| Err(EngineError::Invalid { key, reason });
    if contents.version == Version::NONE || contents.windows.len() > WriterWindow::PER_CHUNK {
        return invalid("the contents have no version or too many windows");
    }
    let mut from = 0;
    for piece in &contents.pieces {
        check_range(key, piece.offset_bytes(), piece.data().len(), contents.chunk_size_bytes)?;
        if (piece.offset_bytes() as usize) < from {
            return invalid("pieces overlap or are not in order");
        }
        from = piece.end_bytes();
    }
    Ok(())
}

/// Counts a write task among those that live, so that `close` and the committer wait for it.
struct Task {
    core: Arc<Core>,
}

impl Task {
    fn new(core: &Arc<Core>) -> Self {
        core.state.lock().tasks += 1;
        Self { core: core.clone() }
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        let mut state = self.core.state.lock();
        state.tasks -= 1;
        let last = state.tasks == 0;
        drop(state);
        if last {
            self.core.quiet.notify_waiters();
            self.core.commit.notify_one();
        }
    }
}
