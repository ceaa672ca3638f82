//! Written data on its way to the chunkservers.
//!
//! A write is copied into [`dirty`] segments and answered; a full piece, an old one, or one somebody waits for becomes one
//! of the [`flights`] ([`writeback`]); [`flush`] tells the master about what is durable.

pub(crate) mod dirty;
pub(crate) mod flights;
pub(crate) mod flush;
pub(crate) mod memory;
pub(crate) mod writeback;
