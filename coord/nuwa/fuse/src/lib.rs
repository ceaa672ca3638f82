//! Nuwa's tree as a file system. What its calls mean is in `coord/nuwa/docs/mount.md`.
//!
//! Read in this order: [`tree`] (who answers the kernel), `inodes` (paths behind numbers), `file` (an open file: one value,
//! written back as one), `claims` (what it has of its lock), `descriptors` (who closes it for good), `feed` (`.events`), `xattr`, `keeper`
//! (the mount's session), `errno` (refusals as system calls know them), `mounted` (a mount's life).

mod claims;
mod descriptors;
mod errno;
mod feed;
mod file;
mod inodes;
mod keeper;
mod mounted;
pub mod tree;
mod xattr;

pub use mounted::{NuwaMount, NuwaMountConfig};
pub use tree::Tree;
