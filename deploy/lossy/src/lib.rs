//! A disk for tests that forgets on command what was not synced. What is durable when: README.md.
//!
//! Reading order: [`Loss`] (what a power cut leaves), `bytes` (one file), `tree` (names), `state` (the disk without
//! the kernel), `fuse` (the kernel's requests), [`LossyDisk`] (a mounted one).

mod bytes;
mod dice;
mod fuse;
mod mount;
mod state;
mod tree;

pub use dice::{Loss, Report};
pub use mount::{LossyDisk, Options};
