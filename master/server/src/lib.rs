//! Pangu master: the replicated process.
