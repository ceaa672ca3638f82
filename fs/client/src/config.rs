//! What a client is told when it starts.

use std::time::Duration;

/// Where a master listens.
pub type Address = String;

/// Settings of a client. Every one has a default but the masters.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// The masters, in any order.
    pub masters: Vec<Address>,
    /// For people: host, process, mount point.
    pub description: String,
    /// The one budget: bytes of written data that wait for the chunkservers. Default 512 MiB, at least 8 MiB.
    pub memory_bytes: u64,
    /// How old written data may become before it is sent. Default 1 s.
    pub flush_age: Duration,
    /// How long the kernel may believe names and attributes. Default 1 s.
    pub ttl: Duration,
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self {
            masters: Vec::new(),
            description: String::new(),
            memory_bytes: 512 << 20,
            flush_age: Duration::from_secs(1),
            ttl: Duration::from_secs(1),
        }
    }
}
