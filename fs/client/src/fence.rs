//! A file's fence: `user.pangu.fence` (`fs/docs/fences.md`).

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use coord_types::{ChunkKey, Fence, InodeId};
use master_api::model::{Mutation, RaiseFence};

use crate::client::Client;
use crate::inode::Source;
use crate::inode_table::Pin;
use crate::write::flush::{Depth, flush};
use crate::{Errno, OpReply, OpResult};

/// The attribute it is shown and raised by. No list has it: copies of a file are not fenced.
pub(crate) const XATTR: &[u8] = b"user.pangu.fence";

impl Client {
    pub(crate) async fn get_fence(&self, ino: InodeId) -> OpResult {
        match self.ask(ino).await?.fence {
            Fence::NONE => Err(Errno::ENODATA),
            fence => Ok(OpReply::Bytes(Bytes::from(fence.to_string()))),
        }
    }

    /// When this returns, nothing opened under a lower fence will ever change the file again, wherever it was opened.
    pub(crate) async fn set_fence(self: &Arc<Self>, ino: InodeId, value: &[u8], flags: i32) -> OpResult {
        let fence = Fence::parse(value).filter(|_| flags == 0).ok_or(Errno::EINVAL)?;
        let client = Arc::clone(self);
        // A raise that stops half-way is no harm, but what it refuses already is better refused everywhere.
        self.to_the_end(async move {
            client.raise(ino, fence).await?;
            Ok(OpReply::Ok)
        })
        .await
    }

    /// In this order: new handles write under the new fence from the moment the master has it, so when the last group has refused the
    /// old one there is nobody left who could write under it. Done again after any failure.
    async fn raise(self: &Arc<Self>, ino: InodeId, fence: Fence) -> Result<(), Errno> {
        if let Some(pin) = self.inodes.find(ino) {
            // What programs here wrote before they raise was written before.
            flush(Arc::clone(self), pin, Depth::All).await;
        }
        let mutated = self.mutate(Mutation::RaiseFence(RaiseFence { ino, fence })).await?;
        let attr = mutated.attr.ok_or(Errno::EIO)?;
        if let Some(pin) = self.inodes.find(ino) {
            pin.lock().refresh(attr.clone(), Source::OurChange);
            pin.notify();
        }
        let Some(layout) = attr.layout.filter(|_| fence > Fence::NONE) else { return Ok(()) };
        // The groups of the generation that was the file's when the master took the raise: a later one is known to nobody without
        // the new fence.
        let groups: BTreeSet<_> = layout.groups().iter().copied().collect();
        let records = groups.into_iter().map(|group| ChunkKey::new(group, attr.data, ChunkKey::FENCE_INDEX));
        let raises = records.map(|record| self.chunks.raise_fence(record, fence));
        futures::future::try_join_all(raises).await?;
        Ok(())
    }

    /// Somebody refused for a fence this client has not heard of.
    pub(crate) async fn learn_fence(&self, pin: &Pin) {
        match self.ask(pin.ino).await {
            Ok(attr) => pin.lock().refresh(attr, Source::Question),
            Err(errno) => tracing::debug!(ino = %pin.ino, %errno, "ask for the fence of a file"),
        }
        pin.notify();
    }
}
