//! The raft kit: a replicated state machine on openraft and RocksDB.
