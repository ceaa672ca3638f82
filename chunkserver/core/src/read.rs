//! What may be shown to a reader (I4): the server reads the disk first, then asks here about the version it got.

use coord_types::{ChunkKey, Epoch, Version};

use crate::event::{Refusal, Token};
use crate::replica::{Replica, Role};

/// Leave to read the disk, given before it is read. It ends when a secondary is activated: what was read before
/// may have been rolled back since, and then counts for nothing, whatever its version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ReadPermit {
    generation: u64,
    epoch: Epoch,
}

/// What to do with data that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadVerdict {
    /// Show it.
    Show,
    /// An [`Effect::Answer`](crate::Effect::Answer) for the token will come: show it then.
    Wait,
}

impl<C: Clone> Replica<C> {
    /// Whether this member still follows the epoch: a member without a lease asks all others before it answers a read.
    ///
    /// # Errors
    /// [`Refusal::Stale`] if it follows another.
    pub fn confirm(&self, epoch: Epoch) -> Result<(), Refusal> {
        if epoch == self.promised.0 { Ok(()) } else { Err(self.stale()) }
    }

    /// Whether to read at all.
    ///
    /// # Errors
    /// [`Refusal::Stale`] if the reader is at another epoch, [`Refusal::NotServing`] before the first activation.
    pub fn may_read(&self, epoch: Epoch) -> Result<ReadPermit, Refusal> {
        if epoch != self.promised.0 {
            return Err(self.stale());
        }
        if self.serving {
            Ok(ReadPermit { generation: self.generation, epoch })
        } else {
            Err(Refusal::NotServing)
        }
    }

    /// Whether data of this version, read under the permit, may be shown.
    ///
    /// # Errors
    /// As [`may_read`](Self::may_read), and [`Refusal::NotCommitted`] at a secondary that does not know.
    pub fn read(
        &mut self,
        token: Token,
        permit: ReadPermit,
        at: (ChunkKey, Version),
    ) -> Result<ReadVerdict, Refusal> {
        if self.may_read(permit.epoch)? != permit {
            return Err(Refusal::NotCommitted);
        }
        let (key, version) = at;
        let Some(chunk) = self.chunks.get_mut(&key) else { return Ok(ReadVerdict::Show) };
        if version <= chunk.committed {
            return Ok(ReadVerdict::Show);
        }
        match self.role {
            Role::Primary(_) => {
                chunk.readers.push((token, version));
                Ok(ReadVerdict::Wait)
            }
            Role::Secondary(_) | Role::Out => Err(Refusal::NotCommitted),
        }
    }
}
