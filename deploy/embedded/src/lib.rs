//! The whole platform in one process, for the first mount.
