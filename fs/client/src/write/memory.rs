//! The client's one memory budget, and the buffers it is spent on.
//!
//! Invariants: the capacities of all buffers alive never exceed the budget; a buffer's share comes back when its last
//! reference goes, which for data on its way is when the connection has let go of it.
//!
//! Buffers of a whole piece begin at a page and are kept for reuse: a fresh one costs 256 page faults, more than the
//! copy into it.

use std::sync::Arc;

use coord_types::{BLOCK_SIZE, WRITE_SIZE_MAX};
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Buffers of a whole piece kept for reuse: what one streaming writer has on its way.
const SPARE_MAX: usize = 32;
/// And at most this share of the budget, which does not count them.
const SPARE_SHARE: usize = 8;

/// The budget, counted in blocks.
#[derive(Debug)]
pub(crate) struct Memory {
    blocks: Arc<Semaphore>,
    blocks_total: u32,
    spare: Mutex<Vec<Vec<u8>>>,
}

/// A share of the budget for buffers about to be made. What is not used comes back when it is dropped.
#[derive(Debug)]
pub(crate) struct Reservation {
    permit: OwnedSemaphorePermit,
}

/// Bytes of the budget.
#[derive(Debug)]
pub(crate) struct Buffer {
    bytes: Vec<u8>,
    start: usize,
    capacity_bytes: usize,
    memory: Arc<Memory>,
    _permit: OwnedSemaphorePermit,
}

impl Memory {
    pub(crate) fn new(budget_bytes: u64) -> Arc<Self> {
        let blocks = u32::try_from(budget_bytes / BLOCK_SIZE as u64).unwrap_or(u32::MAX).min(1 << 28);
        Arc::new(Self {
            blocks: Arc::new(Semaphore::new(blocks as usize)),
            blocks_total: blocks,
            spare: Mutex::default(),
        })
    }

    fn blocks(&self, bytes: usize) -> u32 {
        u32::try_from(bytes.div_ceil(BLOCK_SIZE)).map_or(self.blocks_total, |n| n.min(self.blocks_total))
    }

    pub(crate) fn try_reserve(&self, bytes: usize) -> Option<Reservation> {
        let permit = Arc::clone(&self.blocks).try_acquire_many_owned(self.blocks(bytes)).ok()?;
        Some(Reservation { permit })
    }

    /// Waits, first come first served.
    pub(crate) async fn reserve(&self, bytes: usize) -> Reservation {
        let permit = Arc::clone(&self.blocks).acquire_many_owned(self.blocks(bytes)).await;
        Reservation { permit: permit.expect("the semaphore is never closed") }
    }

    pub(crate) fn budget_bytes(&self) -> u64 {
        u64::from(self.blocks_total) * BLOCK_SIZE as u64
    }

    /// Bytes nobody has reserved.
    pub(crate) fn free_bytes(&self) -> u64 {
        (self.blocks.available_permits() * BLOCK_SIZE) as u64
    }
}

impl Reservation {
    pub(crate) fn bytes(&self) -> usize {
        self.permit.num_permits() * BLOCK_SIZE
    }

    /// Takes `capacity_bytes` (whole blocks, at most a piece) out of the reservation.
    pub(crate) fn allocate(&mut self, memory: &Arc<Memory>, capacity_bytes: usize) -> Buffer {
        debug_assert!(capacity_bytes.is_multiple_of(BLOCK_SIZE) && capacity_bytes <= WRITE_SIZE_MAX);
        let blocks = capacity_bytes / BLOCK_SIZE;
        let permit = self.permit.split(blocks).expect("the reservation covers what it was made for");
        let spare = if capacity_bytes == WRITE_SIZE_MAX { memory.spare.lock().pop() } else { None };
        // Only whole pieces begin at a page: for a few blocks the room lost to that would be as much again.
        let slack = if capacity_bytes == WRITE_SIZE_MAX { BLOCK_SIZE } else { 0 };
        let bytes = spare.unwrap_or_else(|| vec![0; capacity_bytes + slack]);
        let start = if slack == 0 { 0 } else { bytes.as_ptr().align_offset(BLOCK_SIZE).min(slack) };
        Buffer { bytes, start, capacity_bytes, memory: Arc::clone(memory), _permit: permit }
    }
}

impl Buffer {
    pub(crate) const fn capacity_bytes(&self) -> usize {
        self.capacity_bytes
    }

    pub(crate) fn as_mut_slice(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.start + self.capacity_bytes]
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[self.start..self.start + self.capacity_bytes]
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if self.capacity_bytes == WRITE_SIZE_MAX {
            let mut spare = self.memory.spare.lock();
            let most = self.memory.blocks_total as usize / (WRITE_SIZE_MAX / BLOCK_SIZE) / SPARE_SHARE;
            if spare.len() < most.min(SPARE_MAX) {
                spare.push(std::mem::take(&mut self.bytes));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[test]
    fn shares_come_back_with_the_last_reference() {
        let memory = Memory::new(10 << 20);
        let mut reservation = memory.try_reserve(WRITE_SIZE_MAX + 1).unwrap();
        assert_eq!(reservation.bytes(), WRITE_SIZE_MAX + BLOCK_SIZE);
        let buffer = reservation.allocate(&memory, WRITE_SIZE_MAX);
        assert_eq!(buffer.as_ref().as_ptr().align_offset(BLOCK_SIZE), 0);
        drop(reservation);
        assert_eq!(memory.free_bytes(), 9 << 20);
        let sent = bytes::Bytes::from_owner(buffer).slice(10..20);
        let waiting = memory.reserve(WRITE_SIZE_MAX * 10);
        tokio::pin!(waiting);
        assert!(waiting.as_mut().now_or_never().is_none());
        drop(sent);
        assert!(waiting.now_or_never().is_some());
        assert_eq!(memory.spare.lock().len(), 1);
    }
}
