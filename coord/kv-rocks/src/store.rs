//! The open store.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use coord_kv::{Batch, Change, Durability, Family, FamilySpec, Kv, KvError, Pair, Range, Read, Result};
use rocksdb::checkpoint::Checkpoint;
use rocksdb::{BoundColumnFamily, Cache, DBPinnableSlice, DBWithThreadMode, FlushOptions, MultiThreaded};
use rocksdb::{ReadOptions, WriteBatch, WriteOptions};

use crate::dirs::create_dir_durably;
use crate::open::{LogUse, OpenError, RocksOptions, descriptors, store_options};

type Db = DBWithThreadMode<MultiThreaded>;

/// A RocksDB store. Dropping it closes it; what was not durable may be lost, as in a crash.
pub struct RocksKv {
    db: Db,
    path: PathBuf,
    families: Vec<FamilySpec>,
    cache: Cache,
    log: LogUse,
    /// Something was written around the log since the last flush. A write through the log must then not overtake
    /// it, see [`Kv::write`] below.
    unlogged: AtomicBool,
}

impl fmt::Debug for RocksKv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RocksKv").field("path", &self.path).finish_non_exhaustive()
    }
}

impl RocksKv {
    /// Opens the store in the directory `path`, making it if it is missing. `families` in list order are
    /// `Family(0)..`; families may be added to the end later, never removed or reordered under another name.
    ///
    /// # Errors
    /// [`OpenError`], which tells a store locked by another process from a damaged one.
    pub fn open(
        path: impl AsRef<Path>,
        families: &[FamilySpec],
        options: &RocksOptions,
    ) -> std::result::Result<Self, OpenError> {
        let path = path.as_ref();
        if families.len() > usize::from(u8::MAX) {
            return Err(OpenError::TooManyFamilies { count: families.len() });
        }
        for (i, spec) in families.iter().enumerate() {
            if families[..i].iter().any(|earlier| earlier.name == spec.name) {
                return Err(OpenError::DuplicateFamily { path: path.to_path_buf(), name: spec.name });
            }
        }
        create_dir_durably(path)
            .map_err(|source| OpenError::CreateDirectory { path: path.to_path_buf(), source })?;
        let cache = Cache::new_lru_cache(options.cache_bytes.max(1 << 20));
        let db =
            Db::open_cf_descriptors(&store_options(options), path, descriptors(families, options, &cache))
                .map_err(|error| OpenError::from_rocks(path, &error))?;
        Ok(Self {
            db,
            path: path.to_path_buf(),
            families: families.to_vec(),
            cache,
            log: options.log,
            unlogged: AtomicBool::new(false),
        })
    }

    /// Makes a consistent copy of the store, unlogged writes included, in the directory `dir`, which must not exist
    /// yet (its parent must). Table files are hard links where the file system allows: a millisecond, whatever the
    /// size.
    ///
    /// # Errors
    /// [`KvError`] if the store failed or `dir` is in the way.
    pub fn checkpoint(&self, dir: impl AsRef<Path>) -> Result<()> {
        // A checkpoint by itself flushes only if the log is long, and it knows nothing of writes around the log.
        self.flush()?;
        let checkpoint =
            Checkpoint::new(&self.db).map_err(|error| self.error("prepare a checkpoint", &error))?;
        checkpoint.create_checkpoint(dir).map_err(|error| self.error("make a checkpoint", &error))
    }

    /// The directory the store lives in.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes of the block cache in use.
    #[must_use]
    pub fn cache_used_bytes(&self) -> usize {
        self.cache.get_usage()
    }

    /// Bytes of all table files.
    #[must_use]
    pub fn table_bytes(&self) -> u64 {
        let sum = |spec: &FamilySpec| {
            let family = self.db.cf_handle(spec.name)?;
            self.db.property_int_value_cf(&family, rocksdb::properties::TOTAL_SST_FILES_SIZE).ok().flatten()
        };
        self.families.iter().filter_map(sum).sum()
    }

    fn family(&self, family: Family) -> Arc<BoundColumnFamily<'_>> {
        let spec = self.families.get(usize::from(family.0)).unwrap_or_else(|| {
            panic!("family {} was asked for, the store has {}", family.0, self.families.len())
        });
        self.db.cf_handle(spec.name).expect("every family of the list was opened and none is ever dropped")
    }

    fn error(&self, operation: &'static str, error: &rocksdb::Error) -> KvError {
        let path = self.path.display().to_string();
        let reason = error.to_string();
        match error.kind() {
            rocksdb::ErrorKind::Corruption => KvError::Corrupt { path, reason },
            _ => KvError::Io { operation, path, reason },
        }
    }

    /// How scans of `range` read: within one prefix the filters are used, else the whole order.
    fn read_options(&self, family: Family, range: &Range) -> ReadOptions {
        let mut options = ReadOptions::default();
        if let Some(end) = &range.end_exclusive {
            options.set_iterate_upper_bound(end.as_slice());
        }
        let prefix_len = self.families[usize::from(family.0)].prefix_len_bytes;
        if prefix_len.is_some_and(|len| within_one_prefix(range, len)) {
            options.set_prefix_same_as_start(true);
        } else {
            options.set_total_order_seek(true);
        }
        options
    }

    fn rocks_batch(&self, batch: Batch) -> Result<WriteBatch> {
        let changes = batch.into_changes();
        let mut out = WriteBatch::default();
        // Looking a family up costs as much as adding a change; changes of one family mostly come together.
        let mut last = None;
        for (i, change) in changes.iter().enumerate() {
            let (Change::Put { family, .. }
            | Change::Delete { family, .. }
            | Change::DeleteRange { family, .. }) = change;
            let handle = match &last {
                Some((of, handle)) if of == family => handle,
                _ => &last.insert((*family, self.family(*family))).1,
            };
            match change {
                Change::Put { key, value, .. } => out.put_cf(handle, key, value),
                Change::Delete { key, .. } => out.delete_cf(handle, key),
                Change::DeleteRange { family, range } => {
                    let end = match &range.end_exclusive {
                        Some(end) => Some(end.clone()),
                        None => self.end_of_family(*family, &changes[..i])?,
                    };
                    if let Some(end) = end.filter(|end| *end > range.start) {
                        out.delete_range_cf(handle, range.start.as_slice(), end.as_slice());
                    }
                }
            }
        }
        Ok(out)
    }

    /// The first key after all keys of a family, those `earlier` in the same batch included: RocksDB knows no range
    /// without an end.
    fn end_of_family(&self, family: Family, earlier: &[Change]) -> Result<Option<Vec<u8>>> {
        let mut options = ReadOptions::default();
        options.set_total_order_seek(true);
        let mut iterator = self.db.raw_iterator_cf_opt(&self.family(family), options);
        iterator.seek_to_last();
        let stored = iterator.key().map(<[u8]>::to_vec);
        iterator.status().map_err(|error| self.error("find the last key", &error))?;
        let put = earlier.iter().filter_map(|change| match change {
            Change::Put { family: of, key, .. } if *of == family => Some(key.clone()),
            _ => None,
        });
        Ok(stored.into_iter().chain(put).max().map(|mut last| {
            last.push(0);
            last
        }))
    }

    fn write_batch(&self, batch: Batch, options: &WriteOptions) -> Result<()> {
        let batch = self.rocks_batch(batch)?;
        self.db.write_opt(batch, options).map_err(|error| self.error("write", &error))
    }
}

/// All keys of `range` share their first `len` bytes.
fn within_one_prefix(range: &Range, len: usize) -> bool {
    let Some(prefix) = range.start.get(..len) else { return false };
    let Some(end) = &range.end_exclusive else { return false };
    end.get(..len) == Some(prefix)
        || Range::prefix(prefix).end_exclusive.is_some_and(|successor| *end <= successor)
}

impl Read for RocksKv {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let found: Option<DBPinnableSlice<'_>> = self
            .db
            .get_pinned_cf(&self.family(family), key)
            .map_err(|error| self.error("get a key", &error))?;
        Ok(found.map(|value| value.to_vec()))
    }

    fn scan(&self, family: Family, range: &Range, limit: usize) -> Result<Vec<Pair>> {
        let mut pairs = Vec::new();
        if limit == 0 || range.end_exclusive.as_ref().is_some_and(|end| *end <= range.start) {
            return Ok(pairs);
        }
        let options = self.read_options(family, range);
        let mut iterator = self.db.raw_iterator_cf_opt(&self.family(family), options);
        iterator.seek(&range.start);
        while pairs.len() < limit
            && let Some((key, value)) = iterator.item()
        {
            pairs.push((key.to_vec(), value.to_vec()));
            iterator.next();
        }
        iterator.status().map_err(|error| self.error("scan", &error))?;
        Ok(pairs)
    }
}

impl Kv for RocksKv {
    /// Stores that use their log and stores that go around it do not mix the two on a hot path. Where they do, the
    /// promise that what survives is a prefix is kept like this: after an unlogged write and until the next flush, a
    /// logged write goes around the log too, and a synced one is preceded by a flush.
    fn write(&self, batch: Batch, durability: Durability) -> Result<()> {
        let mut options = WriteOptions::default();
        match durability {
            Durability::Unlogged if self.log == LogUse::Own => {}
            Durability::Unlogged => {
                self.unlogged.store(true, Ordering::SeqCst);
                options.disable_wal(true);
            }
            Durability::Logged => options.disable_wal(self.unlogged.load(Ordering::SeqCst)),
            Durability::Synced => {
                if self.unlogged.load(Ordering::SeqCst) {
                    self.flush()?;
                }
                options.set_sync(true);
            }
        }
        self.write_batch(batch, &options)
    }

    /// Cheap where only the log was used: the log is synced. Else all families are written to table files at one
    /// point of the order (atomic flush).
    fn flush(&self) -> Result<()> {
        if !self.unlogged.swap(false, Ordering::SeqCst) {
            return self.db.flush_wal(true).map_err(|error| self.error("sync the log", &error));
        }
        let handles: Vec<_> = (0..self.families.len())
            .map(|i| self.family(Family(u8::try_from(i).expect("open() refuses more families than fit"))))
            .collect();
        let mut options = FlushOptions::default();
        options.set_wait(true);
        self.db.flush_cfs_opt(&handles.iter().collect::<Vec<_>>(), &options).map_err(|error| {
            self.unlogged.store(true, Ordering::SeqCst);
            self.error("flush", &error)
        })
    }
}
