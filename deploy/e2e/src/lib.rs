//! End-to-end tests on real mounts and real processes. The tests are in `tests/`; here is what they share.
//!
//! Holds: a test that loses or changes a byte fails; every step has a deadline; content is made from a seed, so that
//! a check needs nothing but the seed and no check can compare a thing with itself.

mod command;
mod content;
mod load;
mod tree_writer;
mod watch;
mod writer;

pub use command::{run, run_ok, shell, spawn_logged};
pub use content::{Content, first_difference};
pub use load::{Ended, Load, Met};
pub use tree_writer::{TreeOwed, TreeWriter};
pub use watch::Watch;
pub use writer::{Owed, Writer, verify};
