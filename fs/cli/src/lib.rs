//! Pangu programs: pangu-fuse and pangu.
