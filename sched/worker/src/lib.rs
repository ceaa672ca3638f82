//! Fuxi's worker: runs one instance of a task after another.
