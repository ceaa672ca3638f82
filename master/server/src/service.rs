//! What can be called, one service a file. Each translates, calls, translates back.

pub(crate) mod admin;
pub(crate) mod cluster;
mod masters;
pub(crate) mod namespace;
mod watch;
