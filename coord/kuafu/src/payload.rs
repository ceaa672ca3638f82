//! Where payloads land: a frame's payload is read from the socket straight into the buffer it is used from.

use std::fmt;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;

use crate::frame::PAYLOAD_LEN_MAX;

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

/// Payloads on the heap, freshly allocated.
#[derive(Clone, Copy, Debug, Default)]
pub struct HeapAllocator;

impl PayloadAllocator for HeapAllocator {
    fn allocate(&self, len: usize) -> PayloadBuf {
        PayloadBuf::heap(len)
    }
}

/// Shorter payloads come from the heap: malloc is good at those.
const POOLED_MIN: usize = 32 << 10;

/// Long payloads in buffers that are used again: the default. A fresh megabyte costs 40 µs of page faults, a fifth of
/// what it takes to receive it.
#[derive(Clone, Debug)]
pub struct PoolAllocator {
    pool: Arc<Pool>,
}

#[derive(Debug)]
struct Pool {
    /// Free buffers of 2^n bytes at index n; the longest is a frame's longest payload.
    free: Mutex<Free>,
    keep_bytes_max: usize,
}

#[derive(Debug, Default)]
struct Free {
    by_class: [Vec<Vec<u8>>; CLASSES],
    bytes: usize,
}

const CLASSES: usize = PAYLOAD_LEN_MAX.ilog2() as usize + 1;

impl PoolAllocator {
    /// Keeps at most so many bytes of buffers nobody uses.
    #[must_use]
    pub fn new(keep_bytes_max: usize) -> Self {
        Self { pool: Arc::new(Pool { free: Mutex::default(), keep_bytes_max }) }
    }
}

impl PayloadAllocator for PoolAllocator {
    fn allocate(&self, len: usize) -> PayloadBuf {
        if !(POOLED_MIN..=PAYLOAD_LEN_MAX).contains(&len) {
            return PayloadBuf::heap(len);
        }
        let class = len.next_power_of_two().ilog2() as usize;
        let kept = {
            let mut free = self.pool.free.lock();
            let kept = free.by_class[class].pop();
            free.bytes -= kept.as_ref().map_or(0, Vec::len);
            kept
        };
        let bytes = kept.unwrap_or_else(|| vec![0; 1 << class]);
        PayloadBuf::custom(Box::new(Pooled { bytes, len, pool: Arc::clone(&self.pool) }))
    }
}

struct Pooled {
    /// Of the class's length.
    bytes: Vec<u8>,
    len: usize,
    pool: Arc<Pool>,
}

impl AsRef<[u8]> for Pooled {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl PayloadBuffer for Pooled {
    fn as_mut_slice(&mut self) -> &mut [u8] {
        &mut self.bytes[..self.len]
    }

    fn freeze(self: Box<Self>) -> Bytes {
        Bytes::from_owner(*self)
    }
}

impl Drop for Pooled {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        let mut free = self.pool.free.lock();
        if free.bytes + bytes.len() <= self.pool.keep_bytes_max {
            free.bytes += bytes.len();
            free.by_class[bytes.len().ilog2() as usize].push(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(pool: &PoolAllocator, len: usize, with: u8) -> Bytes {
        match pool.allocate(len).0 {
            Kind::Heap(mut heap) => {
                heap.resize(len, with);
                heap.freeze()
            }
            Kind::Custom(mut custom) => {
                custom.as_mut_slice().fill(with);
                custom.freeze()
            }
        }
    }

    #[test]
    fn buffers_are_used_again_when_the_last_reader_is_gone() {
        let pool = PoolAllocator::new(4 << 20);
        let first = fill(&pool, 1 << 20, 1);
        let at = first.as_ptr();
        let part = first.slice(5..10);
        drop(first);
        let second = fill(&pool, 1 << 20, 2);
        assert_ne!(second.as_ptr(), at, "somebody still reads the first");
        assert_eq!(&part[..], [1; 5]);
        drop(part);
        let third = fill(&pool, 700_000, 3);
        assert_eq!((third.as_ptr(), third.len()), (at, 700_000));
    }

    #[test]
    fn keeps_no_more_than_it_may() {
        let pool = PoolAllocator::new(1 << 20);
        let buffers: Vec<_> = (0..5).map(|with| fill(&pool, 400_000, with)).collect();
        drop(buffers);
        assert_eq!(pool.pool.free.lock().bytes, 1 << 20);
        for len in [1, POOLED_MIN - 1, POOLED_MIN, PAYLOAD_LEN_MAX] {
            assert_eq!(fill(&pool, len, 9).len(), len);
        }
        assert_eq!(pool.pool.free.lock().bytes, 1 << 20);
    }
}
