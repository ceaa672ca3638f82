//! Opening a store: options of the store and of each family, and what can go wrong.

use std::path::{Path, PathBuf};

use coord_kv::FamilySpec;
use rocksdb::{
    BlockBasedIndexType, BlockBasedOptions, Cache, ColumnFamilyDescriptor, DBCompressionType, DBRecoveryMode,
    LogLevel, Options, SliceTransform,
};

/// Which log makes the store's writes durable. RocksDB refuses to go around a log that it recycles, so a store is
/// opened for one of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogUse {
    /// The store's own, which is recycled: made for [`Durability::Synced`](coord_kv::Durability::Synced).
    /// [`Durability::Unlogged`](coord_kv::Durability::Unlogged) writes go through it too.
    Own,
    /// A log elsewhere (the Raft log): made for [`Durability::Unlogged`](coord_kv::Durability::Unlogged). All
    /// families are flushed together (atomic flush).
    Elsewhere,
}

/// How a store uses memory, files and its log.
#[derive(Clone, Debug)]
pub struct RocksOptions {
    /// Default [`LogUse::Own`].
    pub log: LogUse,
    /// Block cache of all families together, indexes and filters included. Default 64 MiB, minimum 1 MiB.
    pub cache_bytes: usize,
    /// Memory for writes that are not in table files yet, all families together. Default 64 MiB, minimum 1 MiB.
    pub write_buffer_bytes: usize,
    /// The log is cut, and its families flushed, when it reaches this size. Default 64 MiB.
    pub wal_max_bytes: u64,
    /// Logs kept for being overwritten. Default 2: one in use, one ready.
    pub wal_recycled_files: usize,
    /// Table files held open. Default 512; a process opens several stores under one limit of descriptors.
    pub open_files_max: i32,
    /// Threads that flush and compact. Default 2.
    pub background_jobs: i32,
}

impl Default for RocksOptions {
    fn default() -> Self {
        Self {
            log: LogUse::Own,
            cache_bytes: 64 << 20,
            write_buffer_bytes: 64 << 20,
            wal_max_bytes: 64 << 20,
            wal_recycled_files: 2,
            open_files_max: 512,
            background_jobs: 2,
        }
    }
}

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("create the directory of the key-value store at {}", path.display())]
    CreateDirectory {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error(
        "the key-value store at {} is locked by another process; stop that process, or give this one another data directory",
        path.display()
    )]
    Locked { path: PathBuf },
    #[error("the key-value store at {} is damaged: {reason}; run the offline verify on it", path.display())]
    Corrupt { path: PathBuf, reason: String },
    #[error("open the key-value store at {}: {reason}", path.display())]
    Io { path: PathBuf, reason: String },
    #[error("a key-value store has at most {} families, {count} were asked for", u8::MAX)]
    TooManyFamilies { count: usize },
    #[error("two families of the key-value store at {} are named {name}", path.display())]
    DuplicateFamily { path: PathBuf, name: &'static str },
}

impl OpenError {
    /// Whether opening again later can succeed without anybody repairing anything.
    #[must_use]
    pub fn retryable(&self) -> bool {
        match self {
            Self::Locked { .. } => true,
            Self::CreateDirectory { .. }
            | Self::Corrupt { .. }
            | Self::Io { .. }
            | Self::TooManyFamilies { .. }
            | Self::DuplicateFamily { .. } => false,
        }
    }

    pub(crate) fn from_rocks(path: &Path, error: &rocksdb::Error) -> Self {
        let path = path.to_path_buf();
        let reason = error.to_string();
        match error.kind() {
            // RocksDB has no code of its own for a held lock: the text is all there is.
            rocksdb::ErrorKind::IOError | rocksdb::ErrorKind::Busy
                if reason.contains("lock hold by current process") || reason.contains("While lock file") =>
            {
                Self::Locked { path }
            }
            rocksdb::ErrorKind::Corruption => Self::Corrupt { path, reason },
            _ => Self::Io { path, reason },
        }
    }
}

/// The store's own options.
pub(crate) fn store_options(options: &RocksOptions) -> Options {
    let mut out = Options::default();
    out.create_if_missing(true);
    out.create_missing_column_families(true);
    match options.log {
        LogUse::Own => out.set_recycle_log_file_num(options.wal_recycled_files),
        LogUse::Elsewhere => out.set_atomic_flush(true),
    }
    out.set_db_write_buffer_size(options.write_buffer_bytes.max(1 << 20));
    out.set_max_total_wal_size(options.wal_max_bytes);
    // Recycling is allowed with point-in-time recovery only (the default, set so that nobody changes it unaware):
    // replay stops at the first record that is not of this log, which is what a recycled file's tail looks like.
    out.set_wal_recovery_mode(DBRecoveryMode::PointInTime);
    out.set_max_open_files(options.open_files_max);
    out.set_max_background_jobs(options.background_jobs);
    out.set_bytes_per_sync(1 << 20);
    // RocksDB's own text log: little of it, and bounded.
    out.set_log_level(LogLevel::Warn);
    out.set_keep_log_file_num(2);
    out.set_max_log_file_size(4 << 20);
    out.set_stats_dump_period_sec(0);
    out.set_stats_persist_period_sec(0);
    out
}

/// One family's options.
pub(crate) fn family_options(spec: &FamilySpec, options: &RocksOptions, cache: &Cache) -> Options {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(cache);
    // Indexes and filters count against the cache, in partitions, so that memory stays bounded at 10^8 keys.
    table.set_cache_index_and_filter_blocks(true);
    table.set_pin_l0_filter_and_index_blocks_in_cache(true);
    table.set_pin_top_level_index_and_filter(true);
    table.set_index_type(BlockBasedIndexType::TwoLevelIndexSearch);
    table.set_metadata_block_size(4096);
    table.set_block_size(8192);
    table.set_format_version(5);
    if spec.bloom {
        table.set_bloom_filter(10.0, false);
        table.set_partition_filters(true);
        table.set_optimize_filters_for_memory(true);
    }
    let mut out = Options::default();
    out.set_block_based_table_factory(&table);
    out.set_compression_type(DBCompressionType::Lz4);
    out.set_level_compaction_dynamic_level_bytes(true);
    out.set_write_buffer_size(options.write_buffer_bytes.max(1 << 20));
    if let Some(len) = spec.prefix_len_bytes {
        out.set_prefix_extractor(SliceTransform::create_fixed_prefix(len));
        if spec.bloom {
            out.set_memtable_prefix_bloom_ratio(0.02);
        }
    }
    out
}

/// The descriptors of all families, RocksDB's obligatory `default` (never used by us) first.
pub(crate) fn descriptors(
    families: &[FamilySpec],
    options: &RocksOptions,
    cache: &Cache,
) -> Vec<ColumnFamilyDescriptor> {
    let default = ColumnFamilyDescriptor::new(rocksdb::DEFAULT_COLUMN_FAMILY_NAME, Options::default());
    let ours = families
        .iter()
        .map(|spec| ColumnFamilyDescriptor::new(spec.name, family_options(spec, options, cache)));
    std::iter::once(default).chain(ours).collect()
}
