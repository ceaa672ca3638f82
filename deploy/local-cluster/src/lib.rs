//! Clusters of real processes on one machine, for end-to-end tests and for people (`pangu-local`).
//!
//! ```no_run
//! # fn main() -> Result<(), deploy_local_cluster::Error> {
//! use deploy_local_cluster::{Cluster, Role};
//! let mut cluster = Cluster::start(3, 3)?; // three masters, three chunkservers in three racks, three replicas
//! let files = cluster.mount()?; // a directory; write to it
//! cluster.kill(Role::Chunkserver(2))?; // kill -9
//! cluster.restart(Role::Chunkserver(2))?;
//! cluster.finish()?; // unmount, stop, and fail on every WARN or ERROR nobody announced
//! # Ok(()) }
//! ```
//!
//! Holds: every wait has a deadline and waits for a condition; every process is ended by its own id; what was mounted
//! is unmounted when the cluster goes, however it goes; ports lie below the range from which the kernel takes its own,
//! so that nobody else sits on a server's port while that server is down.

mod cluster;
mod error;
mod launcher;
mod logs;
mod mount;
mod network;
mod ports;
mod process;
mod throttle;
mod wait;

pub use cluster::{Cluster, Options, Role, binaries};
pub use error::Error;
pub use launcher::Launcher;
pub use logs::Offence;
pub use mount::{is_mounted, sweep_stale, unmount};
pub use network::{Site, Way};
pub use ports::free_port;
pub use process::{Program, end_process, start_time};
pub use throttle::Throttle;
pub use wait::{Deadline, wait_until};
