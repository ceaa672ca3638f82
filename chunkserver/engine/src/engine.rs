//! The engine's public face: opens disks, starts their tasks, hands operations to [`Core`].

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use coord_kv_rocks::{LogUse, RocksKv, RocksOptions, create_dir_durably};
use coord_types::{ChunkKey, DataId, Fence, GroupId, Stamp, Version};
use tokio::time::Instant;

use crate::aside;
use crate::buffer::{BufferPool, PoolBuf};
use crate::core::Core;
use crate::error::{EngineError, Failure, HexKey, OpenError};
use crate::io::files::{self, DiskFiles};
use crate::io::sync::SyncIo;
use crate::io::uring::Uring;
use crate::io::{FileId, Io};
use crate::records::FAMILIES;
use crate::recovery::{self, Parts};
use crate::superblock::{COPY_BYTES, COPY_OFFSETS, DecodeError, FORMAT, Geometry};
use crate::types::{
    ChunkContents, ChunkMeta, EngineConfig, FormatOptions, IoKind, PunchOp, ReadOut, Stats, Usage, WriteOp,
    Written,
};
use crate::verify::{Problem, VerifyProgress, VerifyReport, check};

/// A process that was just killed holds its disks until its last write in flight landed.
const LOCK_WAIT: Duration = Duration::from_secs(3);
const LOCK_RETRY: Duration = Duration::from_millis(10);
/// The store's own memory for writes: what half a journal holds fits, so that flushes are ours.
const KV_WRITE_BUFFER_BYTES: usize = 32 << 20;

/// One disk. Cheap to clone; all clones are the same disk, which is let go when the last one is dropped.
#[derive(Clone, Debug)]
pub struct Engine {
    core: Arc<Core>,
    _owner: Arc<Owner>,
}

/// Tells the engine's tasks to end when the last handle goes.
#[derive(Debug)]
struct Owner {
    core: Arc<Core>,
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.core.state.lock().stopping = true;
        self.core.commit.notify_one();
        self.core.keeper.notify_one();
    }
}

impl Engine {
    /// Lays out a new disk in the empty (or absent) directory `dir`. Blocks.
    ///
    /// The superblock comes last: a directory without one is no disk, and may be formatted again.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn format(dir: &Path, options: &FormatOptions) -> Result<(), OpenError> {
        let geometry = Geometry::plan(options)?;
        let failed = |operation, path: &Path| {
            let path = path.to_owned();
            move |source| OpenError::Io { operation, path, source }
        };
        create_dir_durably(dir).map_err(failed("create", dir))?;
        check_empty(dir)?;
        let _lock = files::lock(dir)?;
        let meta = dir.join(files::META);
        if meta.exists() {
            std::fs::remove_dir_all(&meta).map_err(failed("remove", &meta))?;
        }
        let kv = open_kv(dir, RocksOptions::default().cache_bytes)?;
        Parts::format_kv(&kv)?;
        drop(kv);
        // Written, not only allocated: a synced write to a block never written costs twice as much.
        let zeros = PoolBuf::from_heap(1 << 20);
        files::write_whole(dir, files::JOURNAL, |file| {
            let mut left = geometry.journal_bytes;
            while left > 0 {
                let len = usize::try_from(left).unwrap_or(usize::MAX).min(zeros.len());
                file.write_all(&zeros[..len])?;
                left -= len as u64;
            }
            Ok(())
        })
        .map_err(failed("write", &dir.join(files::JOURNAL)))?;
        let copy = geometry.encode();
        files::write_whole(dir, files::SUPERBLOCK, |file| {
            COPY_OFFSETS.iter().try_for_each(|offset| file.write_all_at(&copy, *offset))
        })
        .map_err(failed("write", &dir.join(files::SUPERBLOCK)))
    }

    /// Opens the disk in `dir`: repairs what a crash left and finds the free space. Must run in a tokio runtime
    /// with IO and time enabled; that runtime then drives the disk.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn open(dir: &Path, config: EngineConfig) -> Result<Self, OpenError> {
        let (parts, superblock) = open_parts(dir, &config).await?;
        if let Some((copy, reason)) = superblock.bad_copy {
            tracing::warn!(dir = %dir.display(), copy, reason, "a superblock copy is damaged; writing it anew");
            superblock.repair(dir, copy)?;
        }
        Self::on(parts).await
    }

    /// Opens a disk made of parts.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn on(parts: Parts) -> Result<Self, OpenError> {
        let core = Arc::new(recovery::open(parts).await?);
        tokio::spawn(core.clone().run_committer());
        tokio::spawn(core.clone().keep_space());
        Ok(Self { core: core.clone(), _owner: Arc::new(Owner { core }) })
    }

    /// Durable on return. Copies nothing if the data is aligned (see [`WriteOp::data`]). Takes its place among the
    /// chunk's operations when first polled: several may be handed in one after another without waiting, each
    /// expecting the version of the one before. Goes on if the caller gives up.
    ///
    /// # Errors
    /// See [`EngineError`].
    pub async fn write(&self, op: WriteOp) -> Result<Written, EngineError> {
        let begun = self.core.begin_write(&op)?;
        self.run(self.core.clone().write(begun, op)).await
    }

    /// Durable on return.
    ///
    /// # Errors
    /// See [`EngineError`].
    pub async fn punch(&self, op: PunchOp) -> Result<Written, EngineError> {
        let begun = self.core.begin_punch(&op)?;
        self.run(self.core.clone().punch(begun, op)).await
    }

    /// Reads whole blocks around a range and verifies them. Sees all answered writes and no others.
    ///
    /// # Errors
    /// See [`EngineError`].
    pub async fn read(
        &self,
        key: ChunkKey,
        offset_bytes: u32,
        len_bytes: u32,
    ) -> Result<ReadOut, EngineError> {
        self.core.read(key, offset_bytes, len_bytes).await
    }

    /// `None` if there is no such chunk.
    ///
    /// # Errors
    /// See [`EngineError`].
    pub fn stat(&self, key: ChunkKey) -> Result<Option<ChunkMeta>, EngineError> {
        self.core.check()?;
        let record = self.core.state.lock().index.chunk(key);
        Ok(record.map_err(|error| self.core.index_error(error))?.map(|record| record.meta()))
    }

    /// Whether the chunk holds a write already: a retry of it must not be applied again (I5).
    ///
    /// # Errors
    /// See [`EngineError`].
    pub fn seen(&self, key: ChunkKey, stamp: Stamp) -> Result<bool, EngineError> {
        let meta = self.stat(key)?;
        let window =
            meta.and_then(|meta| meta.windows.into_iter().find(|window| window.session == stamp.session));
        Ok(window.is_some_and(|window| window.has_seen(stamp.seq)))
    }

    /// The fence a record holds. Asked before every write of a client: a look into a cache.
    ///
    /// # Errors
    /// See [`EngineError`].
    pub fn fence(&self, record: ChunkKey) -> Result<Fence, EngineError> {
        self.core.check()?;
        let found = self.core.state.lock().index.chunk(record);
        let found = found.map_err(|error| self.core.index_error(error))?;
        Ok(found.map_or(Fence::NONE, |record| Fence::recorded(&record.windows)))
    }

    /// Which parts of a chunk hold data: (offset, length) in bytes, ascending, not touching one another.
    ///
    /// # Errors
    /// See [`EngineError`].
    pub fn map(&self, key: ChunkKey) -> Result<Vec<(u32, u32)>, EngineError> {
        const BLOCK: u32 = coord_types::BLOCK_SIZE as u32;
        self.core.check()?;
        let pages = self.core.state.lock().index.pages_of(key);
        let mut ranges: Vec<(u32, u32)> = Vec::new();
        for (page_key, page) in pages.map_err(|error| self.core.index_error(error))? {
            for (at, _, _) in page.blocks() {
                let offset = (page_key.first_block() + at) * BLOCK;
                match ranges.last_mut() {
                    Some((start, len)) if *start + *len == offset => *len += BLOCK,
                    _ => ranges.push((offset, BLOCK)),
                }
            }
        }
        Ok(ranges)
    }

    /// Segments that were missing or short when the disk was opened, and were made anew: what was in them is damaged.
    #[must_use]
    pub fn lost_segments(&self) -> &BTreeSet<u32> {
        &self.core.lost
    }

    /// Whether a chunk has data in one of these segments.
    ///
    /// # Errors
    /// See [`EngineError`].
    pub fn is_in_segments(&self, key: ChunkKey, segments: &BTreeSet<u32>) -> Result<bool, EngineError> {
        self.core.check()?;
        let pages = self.core.state.lock().index.pages_of(key);
        let pages = pages.map_err(|error| self.core.index_error(error))?;
        let lies = |disk_block| matches!(self.core.place(disk_block).0, FileId::Segment(at) if segments.contains(&at));
        Ok(pages.iter().any(|(_, page)| page.blocks().any(|(_, disk_block, _)| lies(disk_block))))
    }

    /// Chunks of a group in key order, from the first after `after`.
    ///
    /// # Errors
    /// See [`EngineError`].
    pub fn list(
        &self,
        group: GroupId,
        after: Option<ChunkKey>,
        limit: usize,
    ) -> Result<Vec<(ChunkKey, Version)>, EngineError> {
        self.core.check()?;
        let listed = self.core.state.lock().index.list(group, after, limit);
        listed.map_err(|error| self.core.index_error(error))
    }

    /// Puts a whole chunk in place of whatever is there, atomically. Durable on return.
    ///
    /// # Errors
    /// See [`EngineError`].
    pub async fn install(&self, key: ChunkKey, contents: ChunkContents) -> Result<(), EngineError> {
        let begun = self.core.begin_install(key, &contents)?;
        self.run(self.core.clone().install(begun, key, contents)).await
    }

    /// Writes whole blocks of a chunk anew, elsewhere on the disk, because what the disk has of them is damaged. Data
    /// whose checksums are not those on record is refused ([`EngineError::PayloadChecksum`]), so healing never
    /// changes what a chunk holds. Durable on return.
    ///
    /// # Errors
    /// See [`EngineError`]; [`EngineError::VersionMismatch`] if the chunk is not at `version` any more: look again.
    pub async fn heal(
        &self,
        key: ChunkKey,
        version: Version,
        offset_bytes: u32,
        data: Bytes,
    ) -> Result<(), EngineError> {
        let begun = self.core.begin_heal(key, version, offset_bytes, &data)?;
        self.run(self.core.clone().heal(begun, offset_bytes, data)).await
    }

    /// Removes a chunk, if it is there. Durable on return.
    ///
    /// # Errors
    /// See [`EngineError`].
    pub async fn remove(&self, key: ChunkKey) -> Result<(), EngineError> {
        let begun = self.core.begin_remove(key)?;
        self.run(self.core.clone().remove(begun, key)).await
    }

    /// Removes every chunk of these generations of data. Durable on return; after a crash some may be left, so the
    /// caller asks again.
    ///
    /// # Errors
    /// See [`EngineError`].
    pub async fn delete_data(&self, items: &[(GroupId, DataId)]) -> Result<(), EngineError> {
        for (group, data) in items {
            self.run(self.core.clone().delete_data(*group, *data)).await?;
        }
        Ok(())
    }

    #[must_use]
    pub fn usage(&self) -> Usage {
        self.core.usage()
    }

    #[must_use]
    pub fn disk_uuid(&self) -> [u8; 16] {
        self.core.geometry.uuid
    }

    /// Chunks on the disk.
    #[must_use]
    pub fn chunk_count(&self) -> u64 {
        self.core.state.lock().index.chunk_count()
    }

    #[must_use]
    pub fn stats(&self) -> Stats {
        self.core.state.lock().stats
    }

    /// What a durable write takes: the mean of the last seconds, or the age of one under way if that is more. `None`: nothing was
    /// written lately.
    #[must_use]
    pub fn write_latency(&self) -> Option<Duration> {
        self.core.state.lock().latency.estimate(Instant::now())
    }

    /// How long nothing was written durably; `None`: something is being written.
    #[must_use]
    pub fn write_idle(&self) -> Option<Duration> {
        self.core.state.lock().latency.idle(Instant::now())
    }

    /// Why the disk is out, if it is.
    #[must_use]
    pub fn failure(&self) -> Option<Arc<Failure>> {
        self.core.failure()
    }

    /// Keeps a small named record (name and value together at most 64 KiB). Durable on return.
    ///
    /// # Errors
    /// See [`EngineError`].
    pub async fn put_setting(&self, name: &str, value: &[u8]) -> Result<(), EngineError> {
        self.run(self.core.clone().put_setting(name.to_owned(), value.to_owned())).await
    }

    /// # Errors
    /// See [`EngineError`].
    pub fn get_setting(&self, name: &str) -> Result<Option<Vec<u8>>, EngineError> {
        self.core.check()?;
        let value = self.core.state.lock().index.setting(name);
        value.map_err(|error| self.core.index_error(error))
    }

    /// Waits for what is in flight, makes metadata durable and lets go of the directory. Later calls are refused.
    pub async fn close(&self) {
        loop {
            let mut quiet = std::pin::pin!(self.core.quiet.notified());
            quiet.as_mut().enable();
            if self.core.state.lock().tasks == 0 || self.core.failure().is_some() {
                break;
            }
            quiet.await;
        }
        if self.core.failure().is_none() {
            let kv = self.core.state.lock().index.kv().clone();
            if let Err(error) = kv.flush() {
                self.core.fail(Failure::Kv(error));
            }
        }
        self.core.fail(Failure::Closed);
        // A checkpoint in progress holds the store, too.
        while self.core.state.lock().checkpointing {
            tokio::task::yield_now().await;
        }
        drop(self.core.state.lock().index.close());
        self.core.io.shutdown().await;
    }

    /// A change runs as a task of its own: a caller that gives up must not leave it half done.
    async fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, EngineError>> + Send + 'static,
    ) -> Result<T, EngineError> {
        match tokio::spawn(work).await {
            Ok(result) => result,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => Err(self.core.fail(Failure::Closed)),
            },
        }
    }
}

/// Checks the disk in `dir`, which must not be open. The journal is applied, as opening would; nothing else is
/// changed.
///
/// # Errors
/// If there is no disk to check, it is in use, or its format is too new. What is wrong with a disk is in the report.
pub async fn verify(
    dir: &Path,
    progress: &mut (dyn FnMut(VerifyProgress) + Send),
) -> Result<VerifyReport, OpenError> {
    let config = EngineConfig::new(BufferPool::new(8 << 20));
    let mut report = VerifyReport::default();
    match open_parts(dir, &config).await {
        Ok((parts, superblock)) => {
            if let Some((copy, reason)) = superblock.bad_copy {
                report.add(Problem::Superblock { copy, reason });
            }
            check(&parts, progress, &mut report).await;
            parts.io.shutdown().await;
        }
        Err(error @ (OpenError::Superblock { .. } | OpenError::Failed(_) | OpenError::Meta(_))) => {
            report.add(Problem::Unreadable(error))
        }
        Err(error) => return Err(error),
    }
    Ok(report)
}

fn check_empty(dir: &Path) -> Result<(), OpenError> {
    if dir.join(files::SUPERBLOCK).exists() {
        let uuid = match read_superblock(dir) {
            Ok(superblock) => superblock.geometry.uuid.to_vec(),
            Err(_) => Vec::new(),
        };
        return Err(OpenError::AlreadyFormatted { path: dir.to_owned(), uuid: HexKey(uuid) });
    }
    let failed = |source| OpenError::Io { operation: "list", path: dir.to_owned(), source };
    for entry in std::fs::read_dir(dir).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        let name = name.to_string_lossy();
        // What an earlier attempt left may be overwritten.
        let ours = [files::LOCK, files::META, files::JOURNAL, aside::SET_ASIDE, "lost+found"]
            .contains(&&*name)
            || name.starts_with("new-");
        if !ours {
            return Err(OpenError::NotEmpty { path: dir.to_owned() });
        }
    }
    Ok(())
}

/// The superblock, and which copy of it is bad.
struct Superblock {
    geometry: Geometry,
    bad_copy: Option<(usize, &'static str)>,
}

impl Superblock {
    fn repair(&self, dir: &Path, copy: usize) -> Result<(), OpenError> {
        let path = dir.join(files::SUPERBLOCK);
        let file = std::fs::OpenOptions::new().write(true).open(&path);
        file.and_then(|file| {
            file.write_all_at(&self.geometry.encode(), COPY_OFFSETS[copy])?;
            file.sync_all()
        })
        .map_err(|source| OpenError::Io { operation: "repair", path, source })
    }
}

fn read_superblock(dir: &Path) -> Result<Superblock, OpenError> {
    let path = dir.join(files::SUPERBLOCK);
    let mut bytes = Vec::new();
    let limit = COPY_OFFSETS[1] + COPY_BYTES as u64;
    match std::fs::File::open(&path).and_then(|file| file.take(limit).read_to_end(&mut bytes)) {
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(OpenError::NotFormatted { path: dir.to_owned() });
        }
        Err(source) => return Err(OpenError::Io { operation: "read", path, source }),
    }
    let copies = COPY_OFFSETS.map(|offset| {
        let start = usize::try_from(offset).expect("a small constant");
        Geometry::decode(bytes.get(start..).unwrap_or_default())
    });
    match copies {
        [Ok(geometry), Ok(_)] => Ok(Superblock { geometry, bad_copy: None }),
        [Err(DecodeError::Format(found)), _] | [_, Err(DecodeError::Format(found))] => {
            Err(OpenError::Format { path: dir.to_owned(), found, supported: FORMAT })
        }
        [Ok(geometry), Err(DecodeError::Damaged(reason))] => {
            Ok(Superblock { geometry, bad_copy: Some((1, reason)) })
        }
        [Err(DecodeError::Damaged(reason)), Ok(geometry)] => {
            Ok(Superblock { geometry, bad_copy: Some((0, reason)) })
        }
        [Err(DecodeError::Damaged(reason)), _] => Err(OpenError::Superblock { path: dir.to_owned(), reason }),
    }
}

async fn open_parts(dir: &Path, config: &EngineConfig) -> Result<(Parts, Superblock), OpenError> {
    let superblock = read_superblock(dir)?;
    let lock = lock_patiently(dir).await?;
    let kv = open_kv(dir, config.kv_cache_bytes)?;
    let files = DiskFiles::open(dir, lock)?;
    let io = open_io(files, config, superblock.geometry.segments())?;
    let parts = Parts {
        io,
        kv: Arc::new(kv),
        geometry: superblock.geometry,
        pool: config.pool.clone(),
        cache_bytes: config.cache_bytes,
        inline_flush: false,
    };
    Ok((parts, superblock))
}

async fn lock_patiently(dir: &Path) -> Result<std::fs::File, OpenError> {
    let deadline = Instant::now() + LOCK_WAIT;
    loop {
        match files::lock(dir) {
            Err(OpenError::Locked { .. }) if Instant::now() < deadline => {
                tokio::time::sleep(LOCK_RETRY).await
            }
            other => return other,
        }
    }
}

fn open_kv(dir: &Path, cache_bytes: usize) -> Result<RocksKv, OpenError> {
    let path: PathBuf = dir.join(files::META);
    let options = RocksOptions {
        log: LogUse::Elsewhere,
        cache_bytes,
        write_buffer_bytes: KV_WRITE_BUFFER_BYTES,
        ..RocksOptions::default()
    };
    RocksKv::open(&path, &FAMILIES, &options).map_err(OpenError::Meta)
}

fn open_io(files: DiskFiles, config: &EngineConfig, segments_max: u32) -> Result<Arc<dyn Io>, OpenError> {
    if config.io == IoKind::Sync {
        return Ok(Arc::new(SyncIo::new(files)));
    }
    match Uring::new(files, &config.pool, segments_max) {
        Ok(uring) => Ok(Arc::new(uring)),
        Err((error, _)) if config.io == IoKind::Uring => Err(OpenError::Uring(error)),
        Err((error, files)) => {
            tracing::warn!(%error, "the kernel refuses io_uring; the disk is reached by plain system calls, which are slower");
            Ok(Arc::new(SyncIo::new(files)))
        }
    }
}
