//! Where payloads land: a frame's payload is read from the socket straight into the buffer it is used from.

use std::fmt;

use bytes::{Bytes, BytesMut};

/// Gives the buffers payloads are read into. Called by the connection for each frame with a payload.
pub trait PayloadAllocator: Send + Sync + 'static {
    /// A buffer of exactly `len` bytes. Never blocks; if a pool is exhausted, answer [`PayloadBuf::heap`].
    fn allocate(&self, len: usize) -> PayloadBuf;
}

/// A buffer of somebody's pool, e.g. aligned for direct IO.
pub trait PayloadBuffer: Send {
    /// The whole buffer, of the length that was asked for.
    fn as_mut_slice(&mut self) -> &mut [u8];
    /// Shares the filled buffer without a copy.
    fn freeze(self: Box<Self>) -> Bytes;
}

/// A buffer a payload is read into.
pub struct PayloadBuf(pub(crate) Kind);

pub(crate) enum Kind {
    /// Filled by appending, up to its capacity asked for; never zeroed first.
    Heap(BytesMut),
    Custom(Box<dyn PayloadBuffer>),
}

impl PayloadBuf {
    /// From the heap.
    #[must_use]
    pub fn heap(len: usize) -> Self {
        Self(Kind::Heap(BytesMut::with_capacity(len)))
    }

    /// From somebody's pool.
    #[must_use]
    pub fn custom(buffer: Box<dyn PayloadBuffer>) -> Self {
        Self(Kind::Custom(buffer))
    }
}

impl fmt::Debug for PayloadBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.0 {
            Kind::Heap(_) => "heap",
            Kind::Custom(_) => "custom",
        };
        f.debug_tuple("PayloadBuf").field(&kind).finish()
    }
}

/// Payloads on the heap: the default.
#[derive(Clone, Copy, Debug, Default)]
pub struct HeapAllocator;

impl PayloadAllocator for HeapAllocator {
    fn allocate(&self, len: usize) -> PayloadBuf {
        PayloadBuf::heap(len)
    }
}
