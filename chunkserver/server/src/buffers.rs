//! The engine's aligned, registered buffers, lent to Kuafu: what a client sends is read from the socket into the very
//! memory the disk writes from.

use std::sync::Arc;

use bytes::Bytes;
use chunkserver_engine::{BufferPool, PoolBuf};
use kuafu::{PayloadAllocator, PayloadBuf, PayloadBuffer};

pub(crate) struct Buffers(pub(crate) Arc<BufferPool>);

impl PayloadAllocator for Buffers {
    fn allocate(&self, len: usize) -> PayloadBuf {
        PayloadBuf::custom(Box::new(Buffer(self.0.allocate(len))))
    }
}

struct Buffer(PoolBuf);

impl PayloadBuffer for Buffer {
    fn as_mut_slice(&mut self) -> &mut [u8] {
        &mut self.0
    }

    fn freeze(self: Box<Self>) -> Bytes {
        self.0.freeze()
    }
}
