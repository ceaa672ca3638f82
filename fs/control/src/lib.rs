//! A cluster as text: what `pangu` prints, and the control files of a mount.
//!
//! Read in this order: [`show`] (a state in, text out; pure), `view` (what is known, asked or remembered), `node` (which
//! files there are), [`ControlFiles`] (the files themselves, in front of a file system). What each file says and promises is in
//! `fs/docs/control-files.md`.

mod files;
mod node;
pub mod show;
pub mod text;
mod view;

pub use files::{ControlFiles, Local, Mount};
pub use view::{Cluster, Freshness};
