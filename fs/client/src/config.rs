//! What a client is told when it starts.

use std::time::Duration;

use coord_types::InodeId;
use kuafu::Address;
use zhongkui_access::Access;

/// The least memory a client runs with: a few pieces on their way and a few being filled.
pub const MEMORY_MIN_BYTES: u64 = 8 << 20;

/// Settings of a client. Every one has a default but the masters.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// The masters, in any order.
    pub masters: Vec<Address>,
    /// For people: host, process, mount point.
    pub description: String,
    /// The one budget: bytes of written data that wait for the chunkservers. Default 512 MiB, at least
    /// [`MEMORY_MIN_BYTES`].
    pub memory_bytes: u64,
    /// How old written data and attributes held back may become before they are sent. Default 1 s.
    pub flush_age: Duration,
    /// How long the kernel may believe names and attributes, and this client its own copy. Default 1 s.
    pub ttl: Duration,
    /// First pause before a chunkserver is asked again. Default 10 ms, doubling up to [`Self::retry_pause_max`].
    pub retry_pause_min: Duration,
    /// Longest pause before a chunkserver is asked again. Default 500 ms: after a server is back, nobody waits longer.
    pub retry_pause_max: Duration,
    /// Who this client is. Default: somebody whom only servers of this process know.
    pub access: Access,
    /// The directory that is shown as the root, by its number in the cluster. Default: the root of the whole tree. A capability may be
    /// for one directory and what is below it; then it has to be this one, or one below.
    pub root: InodeId,
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self {
            masters: Vec::new(),
            description: String::new(),
            memory_bytes: 512 << 20,
            flush_age: Duration::from_secs(1),
            ttl: Duration::from_secs(1),
            retry_pause_min: Duration::from_millis(10),
            retry_pause_max: Duration::from_millis(500),
            access: Access::process(),
            root: InodeId::ROOT,
        }
    }
}

/// Why a client could not start.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("no master is named: give at least one address")]
    NoMasters,
    #[error("a memory budget of {0} bytes is too small: give at least {MEMORY_MIN_BYTES}")]
    Memory(u64),
    #[error("reach the masters")]
    Master(#[source] master_api::ClientError),
    #[error(
        "no directory has inode number {0}: it was removed, or the number is from another cluster. 'ls -di DIR' tells a directory's number, \
         on a mount of what is above it"
    )]
    RootGone(InodeId),
    #[error(
        "inode {0} cannot be the root of a mount, as it is no directory: name a directory's number ('ls -di DIR' tells it)"
    )]
    RootNotADirectory(InodeId),
    #[error(
        "inode {root} cannot be the root of a mount with this capability: mount a directory that it covers, or have one granted that covers this"
    )]
    RootDenied {
        root: InodeId,
        #[source]
        source: master_api::ClientError,
    },
}

impl ClientConfig {
    /// # Errors
    /// The first setting that cannot be used.
    pub fn validate(&self) -> Result<(), ConnectError> {
        if self.memory_bytes < MEMORY_MIN_BYTES {
            return Err(ConnectError::Memory(self.memory_bytes));
        }
        Ok(())
    }
}
