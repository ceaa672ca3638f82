//! Buffers for data on its way between socket and disk: aligned to 4 KiB for O_DIRECT, recycled, registered with
//! the rings of the engines that use the pool.
//!
//! The pool is one mapping cut into 1 MiB slots; a slot serves one large buffer, or is split into small ones of
//! one class. What does not fit (the pool is used up, or the buffer is larger than 1 MiB) comes from the heap,
//! aligned but not registered: a caller never waits here, and memory beyond the pool lives only as long as the
//! requests that hold it, whose number the server bounds.
//!
//! Invariant: a slot's memory is in exactly one [`PoolBuf`] or on one free list.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::Arc;

use bytes::Bytes;
use coord_types::BLOCK_SIZE;
use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap_anonymous, munmap};
use parking_lot::Mutex;

/// The largest buffer the pool itself holds, and its unit.
const SLOT_BYTES: usize = 1 << 20;
/// Buffer sizes. A 4 KiB write and a journal frame take the first, a read-ahead piece the middle ones.
const CLASSES: [usize; 4] = [BLOCK_SIZE, 16 << 10, 128 << 10, SLOT_BYTES];

/// A bounded set of aligned buffers.
pub struct BufferPool {
    base: NonNull<u8>,
    len_bytes: usize,
    free: Mutex<Free>,
}

#[derive(Default)]
struct Free {
    /// Offsets of free buffers, by class. The last one freed goes out first: it is warm in the cache.
    classes: [Vec<u32>; CLASSES.len()],
    overflows: u64,
}

// SAFETY: `base` is a private mapping owned by the pool; which part of it belongs to whom is kept under `free`.
unsafe impl Send for BufferPool {}
// SAFETY: as above; shared access goes through the mutex.
unsafe impl Sync for BufferPool {}

impl fmt::Debug for BufferPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BufferPool").field("len_bytes", &self.len_bytes).finish_non_exhaustive()
    }
}

impl BufferPool {
    /// A pool of `bytes` bytes, rounded up to 1 MiB, at most 1 GiB (what one registration may span). Without memory
    /// for it the pool is empty and every buffer comes from the heap.
    #[must_use]
    pub fn new(bytes: usize) -> Arc<Self> {
        let len_bytes = bytes.clamp(SLOT_BYTES, 1 << 30).next_multiple_of(SLOT_BYTES);
        // A slot more than needed, so that the base can be aligned to a slot.
        let (base, len_bytes) = match map(len_bytes) {
            Ok(base) => (base, len_bytes),
            Err(errno) => {
                tracing::warn!(%errno, len_bytes, "no memory for the buffer pool; buffers come from the heap");
                (NonNull::dangling(), 0)
            }
        };
        let mut free = Free::default();
        let slots = u32::try_from(len_bytes / SLOT_BYTES).expect("a pool is at most 1 GiB");
        free.classes[CLASSES.len() - 1] = (0..slots).rev().map(|slot| slot * SLOT_BYTES as u32).collect();
        Arc::new(Self { base, len_bytes, free: Mutex::new(free) })
    }

    /// A buffer of `len` bytes with undefined (but initialised) contents.
    #[must_use]
    pub fn allocate(self: &Arc<Self>, len: usize) -> PoolBuf {
        self.try_allocate(len).unwrap_or_else(|| {
            self.free.lock().overflows += 1;
            PoolBuf::from_heap(len)
        })
    }

    /// A buffer of the pool proper, if there is one.
    #[must_use]
    pub fn try_allocate(self: &Arc<Self>, len: usize) -> Option<PoolBuf> {
        let class = CLASSES.iter().position(|size| len <= *size)?;
        let offset = self.free.lock().take(class)?;
        // SAFETY: `offset + CLASSES[class]` is within the mapping, by construction of the free lists.
        let start = unsafe { self.base.add(offset as usize) };
        Some(PoolBuf { start, len, home: Home::Pool { pool: self.clone(), class, offset } })
    }

    /// The whole mapping, for registration with a ring; `None` if the pool is empty.
    pub(crate) fn region(&self) -> Option<(*mut u8, usize)> {
        (self.len_bytes > 0).then_some((self.base.as_ptr(), self.len_bytes))
    }

    /// Whether `bytes` lies in the pool's own memory.
    #[must_use]
    pub fn contains(&self, bytes: &[u8]) -> bool {
        let start = (bytes.as_ptr() as usize).wrapping_sub(self.base.as_ptr() as usize);
        start < self.len_bytes && bytes.len() <= self.len_bytes - start
    }

    /// How often the heap had to help out.
    #[must_use]
    pub fn overflows(&self) -> u64 {
        self.free.lock().overflows
    }

    /// Bytes of the pool no buffer holds.
    #[must_use]
    pub fn free_bytes(&self) -> usize {
        let free = self.free.lock();
        CLASSES.iter().zip(&free.classes).map(|(size, offsets)| size * offsets.len()).sum()
    }

    fn give_back(&self, class: usize, offset: u32) {
        self.free.lock().classes[class].push(offset);
    }
}

impl Free {
    fn take(&mut self, class: usize) -> Option<u32> {
        if let Some(offset) = self.classes[class].pop() {
            return Some(offset);
        }
        // Split a slot into this class. A quarter of them stays whole, or small buffers would starve large ones:
        // a class once split stays split, since loads change less often than they would fragment.
        let slots = &mut self.classes[CLASSES.len() - 1];
        if class == CLASSES.len() - 1 || slots.len() < 2 {
            return None;
        }
        let slot = slots.pop()?;
        let size = CLASSES[class] as u32;
        self.classes[class].extend((1..SLOT_BYTES as u32 / size).rev().map(|part| slot + part * size));
        Some(slot)
    }
}

impl Drop for BufferPool {
    fn drop(&mut self) {
        if self.len_bytes > 0 {
            // SAFETY: the mapping is ours, and every buffer in it held the pool alive, so there is none.
            if let Err(errno) = unsafe { munmap(self.base.cast(), self.len_bytes) } {
                tracing::warn!(%errno, "unmapping the buffer pool");
            }
        }
    }
}

fn map(len_bytes: usize) -> nix::Result<NonNull<u8>> {
    let len = std::num::NonZeroUsize::new(len_bytes).expect("a pool has at least one slot");
    // SAFETY: a new private anonymous mapping touches no memory of ours.
    let base = unsafe {
        mmap_anonymous(None, len, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, MapFlags::MAP_PRIVATE)?
    };
    // SAFETY: the range is the mapping just made. Huge pages mean fewer segments per IO; without them all works.
    let _ = unsafe { madvise(base, len_bytes, MmapAdvise::MADV_HUGEPAGE) };
    Ok(base.cast())
}

/// A buffer, aligned to 4 KiB. Dropping it, or the last [`Bytes`] made of it, gives it back.
pub struct PoolBuf {
    start: NonNull<u8>,
    len: usize,
    home: Home,
}

enum Home {
    Pool { pool: Arc<BufferPool>, class: usize, offset: u32 },
    Heap { layout: Layout },
}

// SAFETY: the buffer is the only owner of its memory.
unsafe impl Send for PoolBuf {}
// SAFETY: shared references only read.
unsafe impl Sync for PoolBuf {}

impl PoolBuf {
    pub(crate) fn from_heap(len: usize) -> Self {
        let layout = Layout::from_size_align(len.max(1), BLOCK_SIZE)
            .expect("a buffer's length is far below isize::MAX");
        // SAFETY: the layout's size is not zero.
        let start = unsafe { alloc(layout) };
        let Some(start) = NonNull::new(start) else { handle_alloc_error(layout) };
        // SAFETY: `start` is a fresh allocation of this size. Zeroed, so that it can be lent as `&mut [u8]`.
        unsafe { start.as_ptr().write_bytes(0, layout.size()) };
        Self { start, len, home: Home::Heap { layout } }
    }

    /// Hands the buffer on as shared, immutable bytes, without a copy.
    #[must_use]
    pub fn freeze(self) -> Bytes {
        Bytes::from_owner(self)
    }

    /// Forgets all but the first `len` bytes.
    ///
    /// # Panics
    /// If the buffer is shorter.
    pub fn truncate(&mut self, len: usize) {
        assert!(len <= self.len, "a buffer of {} bytes cannot be cut to {len}", self.len);
        self.len = len;
    }
}

impl fmt::Debug for PoolBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pooled = matches!(self.home, Home::Pool { .. });
        f.debug_struct("PoolBuf").field("len", &self.len).field("pooled", &pooled).finish()
    }
}

impl Deref for PoolBuf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `start..start + len` is initialised memory this buffer owns.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl DerefMut for PoolBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`, and `&mut self` makes it the only access.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

impl AsRef<[u8]> for PoolBuf {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl AsMut<[u8]> for PoolBuf {
    fn as_mut(&mut self) -> &mut [u8] {
        self
    }
}

impl Drop for PoolBuf {
    fn drop(&mut self) {
        match &self.home {
            Home::Pool { pool, class, offset } => pool.give_back(*class, *offset),
            // SAFETY: allocated with this very layout in `from_heap`, and dropped once.
            Home::Heap { layout } => unsafe { dealloc(self.start.as_ptr(), *layout) },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_aligned_disjoint_and_come_back() {
        let pool = BufferPool::new(4 << 20);
        let mut held: Vec<_> = [1, 4096, 4097, 16384, 100_000, 1 << 20].map(|len| pool.allocate(len)).into();
        for (at, buf) in held.iter_mut().enumerate() {
            assert_eq!(buf.as_ptr() as usize % BLOCK_SIZE, 0);
            buf.fill(at as u8);
        }
        for (at, buf) in held.iter().enumerate() {
            assert!(buf.iter().all(|byte| *byte == at as u8));
        }
        let frozen: Vec<_> = held.into_iter().map(PoolBuf::freeze).collect();
        assert!(pool.free_bytes() < 4 << 20);
        let part = frozen[5].slice(10..20);
        drop(frozen);
        assert!(pool.free_bytes() < 4 << 20, "a slice keeps its buffer");
        drop(part);
        assert_eq!(pool.free_bytes(), 4 << 20);
    }

    #[test]
    fn freezing_does_not_copy() {
        let pool = BufferPool::new(1 << 20);
        let buf = pool.allocate(5000);
        let at = buf.as_ptr();
        let bytes = buf.freeze();
        assert_eq!(bytes.as_ptr(), at);
        assert_eq!(bytes.len(), 5000);
    }

    #[test]
    fn the_pool_is_bounded_and_the_heap_helps_out() {
        let pool = BufferPool::new(2 << 20);
        let held: Vec<_> = (0..2).map(|_| pool.try_allocate(1 << 20).expect("two slots")).collect();
        assert!(pool.try_allocate(4096).is_none());
        let extra = pool.allocate(1 << 20);
        assert_eq!(extra.as_ptr() as usize % BLOCK_SIZE, 0);
        assert!(!pool.contains(&extra) && pool.contains(&held[0]));
        assert_eq!(pool.overflows(), 1);
        assert!(!pool.contains(&pool.allocate((1 << 20) + 1)));
        drop(held);
        assert!(pool.try_allocate(1 << 20).is_some());
    }
}
