//! Fences at the primary: what may still be written, and when a raise is done.
//!
//! Invariant: when a raise to N is answered, every write of the group's data under a lower fence is either committed or will never
//! be. It holds because from the moment a raise is ordered nothing lower is ordered, and the raise commits after all that was. The record
//! is a chunk like any other, so who leads next has it.

use coord_types::{ChunkKey, Fence};

use crate::event::{Fault, Io, Store};
use crate::replica::Replica;

impl<C: Clone> Replica<C> {
    /// What a write of this chunk must be under: the fence on record, or one that is being raised.
    pub(crate) fn fence_of(&self, key: ChunkKey, io: &Io<'_, impl Store, C>) -> Result<Fence, Fault> {
        let record = key.fence_record();
        let raising = self.chunks.get(&record).and_then(|chunk| chunk.ops.back());
        Ok(io.store.fence(record)?.max(raising.map_or(Fence::NONE, |op| op.fence)))
    }

    /// What raises of this record have to wait for: the lowest fence of a write in flight. `None`: for nothing, or it is
    /// not a record.
    pub(crate) fn raise_barrier(&self, key: ChunkKey) -> Option<Fence> {
        if !key.is_fence_record() {
            return None;
        }
        let first = ChunkKey::new(key.group, key.chunk.data, 0);
        self.chunks.range(first..key).flat_map(|(_, chunk)| &chunk.ops).map(|op| op.fence).min()
    }

    /// Writes of this chunk were committed: a raise may have waited for them.
    pub(crate) fn raise_after(&mut self, key: ChunkKey, io: &mut Io<'_, impl Store, C>) {
        let record = key.fence_record();
        if !key.is_fence_record() && self.chunks.contains_key(&record) {
            self.commit_ready(record, io);
        }
    }
}
