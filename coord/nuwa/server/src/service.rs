//! What can be called, one service a file.

pub(crate) mod admin;
pub(crate) mod export;
pub(crate) mod read;
pub(crate) mod tree;
pub(crate) mod watch;
