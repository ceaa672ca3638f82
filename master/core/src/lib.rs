//! Pangu master: the namespace as pure functions over a key-value store.
