//! Pangu mount: FUSE transports under the client's operations.
//!
//! Read in this order: [`Handler`] (who answers), `fuse` (what the kernel says, as an operation), `reply` (an answer,
//! as the kernel wants it), `inline` (how an operation runs), `watch` (what happens to one that waits too long),
//! [`mountpoint`] (what must be true before mounting), [`Mounted`] (a mount's life).
//!
//! Only this crate knows fuser. Nothing here knows how a file system works: an operation is translated, handed to the
//! [`Handler`], and its answer translated back.

mod errno;
mod fuse;
mod handler;
mod inline;
mod last_known;
pub mod mountpoint;
mod options;
mod owned;
mod reply;
mod session;
mod signals;
mod watch;

pub use handler::Handler;
pub use options::{Access, MountOptions};
pub use session::{MountError, Mounted, UnmountReport, mount};
