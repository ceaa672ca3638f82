//! What a mount is asked to be.

use std::path::PathBuf;

/// Whose system calls are let in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Access {
    /// Everybody; the kernel checks permissions. Needs root, or `user_allow_other` in /etc/fuse.conf.
    #[default]
    Everybody,
    /// Only the user who mounts: what an ordinary user may do without asking.
    Owner,
}

/// Settings of a mount. Every one has a default but the mount point.
#[derive(Clone, Debug)]
pub struct MountOptions {
    pub mountpoint: PathBuf,
    /// What `df` and `mount` show as the device.
    pub fs_name: String,
    pub access: Access,
    pub read_only: bool,
    /// Honour set-user-id and set-group-id programs. Default: no, as on any file system from elsewhere.
    pub set_id: bool,
    /// Let device nodes be opened. Default: no, for the same reason.
    pub devices: bool,
    pub no_exec: bool,
    /// Threads that read requests. Two: four were slower than two on 2 cores, one is slower by far.
    pub threads: usize,
    /// How far the kernel reads ahead. 4 MiB: three times the throughput of the kernel's 128 KiB.
    pub read_ahead_kb: u32,
    /// How many requests nobody waits for (readahead, asynchronous writes) may be open at once.
    pub max_background: u16,
    /// The handler gives attributes along with the names of a directory when asked to.
    pub lists_attributes: bool,
    /// What `mount` shows as the type, after `fuse.`.
    pub fs_type: &'static str,
    /// The handler answers `flock(2)`. Otherwise the kernel does, for this mount alone.
    pub locks: bool,
    /// The handler answers `poll(2)`. Otherwise every file is ready always.
    pub polls: bool,
}

impl MountOptions {
    #[must_use]
    pub fn new(mountpoint: impl Into<PathBuf>) -> Self {
        Self {
            mountpoint: mountpoint.into(),
            fs_name: "pangu".to_owned(),
            access: Access::default(),
            read_only: false,
            set_id: false,
            devices: false,
            no_exec: false,
            threads: 2,
            read_ahead_kb: 4096,
            max_background: 128,
            lists_attributes: true,
            fs_type: "pangu",
            locks: false,
            polls: false,
        }
    }
}
