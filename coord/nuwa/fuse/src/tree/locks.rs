//! `flock(2)`: the file's lock in the whole cluster, for an open file; and its fence.

use std::sync::atomic::Ordering;

use coord_types::InodeId;
use fs_client::{Errno, Flock, OpReply, OpResult};
use nuwa_api::{ClientError, LockRequest, Path};

use super::Tree;
use crate::claims::{Claim, Fence};
use crate::errno::errno;
use crate::file::OpenFile;

impl Tree {
    pub(super) async fn flock(&self, file: &OpenFile, lock: Flock, wait: bool) -> OpResult {
        // Nobody gives back, or takes again, what is gone, and then goes on as if it had been theirs all the time.
        file.claims.check()?;
        if lock == Flock::Unlock {
            return self.give_back(file).await;
        }
        let shared = lock == Flock::Shared;
        if file.claims.held().is_some_and(|held| held.shared == shared) {
            return Ok(OpReply::Ok);
        }
        self.make(file).await?;
        // The other kind, as flock(2) has it; and what an interrupted call may have left, which would be in its own way.
        self.give_back(file).await?;
        self.take(file, shared, wait).await
    }

    /// A lock needs its file. Others of this mount who opened it before it was there go on from what is made now.
    async fn make(&self, file: &OpenFile) -> Result<(), Errno> {
        for other in self.files().into_iter().filter(|other| other.ino == file.ino) {
            if other.is_only_opened().await {
                self.put_all(&other).await?;
            }
        }
        file.is_needed().await;
        self.put_all(file).await
    }

    async fn take(&self, file: &OpenFile, shared: bool, wait: bool) -> OpResult {
        let path = self.inodes.path(file.ino)?.to_string();
        let session = self.keeper.session().await.map_err(|error| errno(&error))?;
        let owner = self.next_claim.fetch_add(1, Ordering::Relaxed);
        let request = LockRequest { path, owner, shared, ..LockRequest::default() };
        let asking = file.claims.ask(session.clone(), owner, shared);
        let locked = if wait {
            session.lock(&request, None).await.map(Some)
        } else {
            session.try_lock(&request, None).await
        };
        match locked {
            Ok(Some(locked)) => {
                asking.granted(locked.fence);
                Ok(OpReply::Ok)
            }
            Ok(None) => {
                asking.refused();
                Err(Errno::EAGAIN)
            }
            Err(error) => Err(errno(&error)),
        }
    }

    /// Gives back what the file has of its lock. Interrupted, what is left is given back by the next call, or by the last `close`.
    pub(super) async fn give_back(&self, file: &OpenFile) -> OpResult {
        for claim in file.claims.leave() {
            self.unlock(file, &claim).await?;
            file.claims.forget(claim.owner);
        }
        Ok(OpReply::Ok)
    }

    async fn unlock(&self, file: &OpenFile, claim: &Claim) -> Result<(), Errno> {
        let path = self.inodes.path(file.ino)?;
        match claim.session.unlock(path.as_str(), claim.owner, None).await {
            // Gone with its session, or with its file.
            Ok(()) | Err(ClientError::Refused { .. }) => Ok(()),
            Err(error) => Err(errno(&error)),
        }
    }

    /// The fence that a name's attribute shows. That of this mount's own lock, if there is one, and not whatever the cluster says: a holder
    /// who was paused would take its successor's for its own. Who asks is not known, so a file that lost its lock is in the way of all.
    pub(super) async fn fence(&self, ino: InodeId, path: &Path) -> Result<Option<u64>, Errno> {
        if path.is_directory() {
            return Ok(None);
        }
        let fences =
            || self.files().into_iter().filter(|file| file.ino == ino).map(|file| file.claims.fence());
        if fences().any(|fence| fence == Fence::Lost) {
            return Err(Errno::EIO);
        }
        if let Some(Fence::Held(fence)) = fences().find(|fence| matches!(fence, Fence::Held(_))) {
            return Ok(fence);
        }
        let state = self.keeper.client().lock_state(path.as_str(), None).await;
        let holders = state.map_err(|error| errno(&error))?.holders;
        Ok(holders.iter().find(|holder| !holder.shared).map(|holder| holder.fence))
    }
}
