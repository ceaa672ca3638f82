//! RocksDB behind the key-value trait; the only crate that links RocksDB.
