//! The client: one multiplexed connection to one server.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use prost::Message;

use crate::address::Address;
use crate::message::{CallOptions, Response};
use crate::method::Method;
use crate::payload::{HeapAllocator, PayloadAllocator};
use crate::status::Status;

/// How a client connects and watches its connection.
#[derive(Clone)]
pub struct ClientConfig {
    /// A connection must be open, hello exchanged, within this. Default 2 s.
    pub connect_timeout: Duration,
    /// After a silence of this length the peer is pinged. Default 5 s.
    pub ping_idle: Duration,
    /// The same while calls wait for answers. Default 1 s.
    pub ping_waiting: Duration,
    /// A pinged peer that is silent for this is dead. Default 3 s.
    pub ping_timeout: Duration,
    /// Longest pause before a failed connect is tried again. Default 250 ms.
    pub backoff_max: Duration,
    /// Calls in flight on the connection; more wait. The server may allow fewer. Default 1024.
    pub in_flight_max: u32,
    /// Calls that wait for a place; more are answered BUSY. Default 16384.
    pub waiting_max: u32,
    /// Shown to the server when connecting.
    pub credentials: Bytes,
    /// Where payloads of answers land. Default: the heap.
    pub payload_allocator: Arc<dyn PayloadAllocator>,
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(2),
            ping_idle: Duration::from_secs(5),
            ping_waiting: Duration::from_secs(1),
            ping_timeout: Duration::from_secs(3),
            backoff_max: Duration::from_millis(250),
            in_flight_max: 1024,
            waiting_max: 16384,
            credentials: Bytes::new(),
            payload_allocator: Arc::new(HeapAllocator),
        }
    }
}

impl std::fmt::Debug for ClientConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientConfig").finish_non_exhaustive()
    }
}

/// A connection to one server: multiplexed, opened by the first call, opened again after it broke. Cheap to clone;
/// the connection closes with the last clone.
#[derive(Clone, Debug)]
pub struct Client {
    address: Arc<Address>,
}

impl Client {
    /// Must be called inside a tokio runtime, which then drives the connection.
    #[must_use]
    pub fn new(address: Address, config: ClientConfig) -> Self {
        Self::with_runtime(address, config, tokio::runtime::Handle::current())
    }

    /// The connection is driven by `runtime`; calls may be made from any thread.
    #[must_use]
    pub fn with_runtime(address: Address, _config: ClientConfig, _runtime: tokio::runtime::Handle) -> Self {
        Self { address: Arc::new(address) }
    }

    /// The server's address.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Calls a method. Dropping the future cancels the call at the server.
    ///
    /// # Errors
    /// The server's status, or UNAVAILABLE if the connection broke or cannot be opened, DEADLINE_EXCEEDED,
    /// BUSY if too many calls wait.
    pub async fn call<Req, Rep>(
        &self,
        method: &'static Method,
        _message: &Req,
        _payload: Bytes,
        _options: &CallOptions,
    ) -> Result<Response<Rep>, Status>
    where
        Req: Message,
        Rep: Message + Default,
    {
        Err(Status::unimplemented(method.name))
    }
}
