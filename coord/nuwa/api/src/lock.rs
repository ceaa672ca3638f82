//! Locks: asked for, waited for, given back.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::client::ClientError;
use crate::proto::command::What as CommandKind;
use crate::proto::reply::What as Answer;
use crate::proto::{self, EventKind, LockHolder};
use crate::session::{Inner, Session, SessionState};
use crate::watch::{Place, Watched};

/// Until a claim that nobody wants is taken back again, if that failed for a reason that asking on does not end.
const TAKE_BACK_PAUSE: Duration = Duration::from_secs(10);

/// Which lock, and for whom.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LockRequest {
    /// A file.
    pub path: String,
    /// Tells the programs of one session apart.
    pub owner: u64,
    /// Others may have it at the same time, if they ask for it shared, too.
    pub shared: bool,
    /// What the file is to say once the lock is held.
    pub value: Option<Bytes>,
    /// The file, and its parents, are made if they are missing.
    pub with_file: bool,
}

/// A lock that is held, until [`unlock`](Session::unlock), or until the session is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Locked {
    /// Greater than that of whoever held the lock exclusively before.
    pub fence: u64,
}

impl Session {
    /// The lock, or `None` if it cannot be had now. Dropping the future gives back whatever this owner has of the lock.
    ///
    /// # Errors
    /// See [`ClientError`]. After a deadline it is not known whether it is held: give it back.
    pub async fn try_lock(
        &self,
        request: &LockRequest,
        deadline: Option<Instant>,
    ) -> Result<Option<Locked>, ClientError> {
        // It may be granted to somebody who does not hear of it any more.
        let claim = Claim { session: &self.inner, request, is_settled: false };
        claim.ask_once(deadline).await
    }

    /// The lock, once it is this one's turn. Dropping the future gives up the place in the line.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn lock(
        &self,
        request: &LockRequest,
        deadline: Option<Instant>,
    ) -> Result<Locked, ClientError> {
        // From here on there may be a claim, whatever becomes of the call.
        let mut claim = Claim { session: &self.inner, request, is_settled: false };
        let first = claim.session.ask_for(request, true, deadline).await;
        // Whoever may not ask has no claim, and nothing to take back.
        claim.is_settled = matches!(&first, Err(error) if error.is_denied());
        claim.wait(first?, deadline).await
    }

    /// Gives a lock back, or a place in its line.
    ///
    /// # Errors
    /// See [`ClientError`]; refused if this owner neither holds it nor waits for it.
    pub async fn unlock(&self, path: &str, owner: u64, deadline: Option<Instant>) -> Result<(), ClientError> {
        self.inner.unlock(path.to_owned(), owner, deadline).await
    }
}

impl Inner {
    /// What came of it, and the newest revision then.
    async fn ask_for(
        &self,
        request: &LockRequest,
        wait: bool,
        deadline: Option<Instant>,
    ) -> Result<(proto::LockReply, u64), ClientError> {
        let LockRequest { path, owner, shared, value, with_file } = request.clone();
        let session = self.id();
        let lock = proto::Lock { session, path, owner, shared, wait, value, with_file };
        let reply = self.change(CommandKind::Lock(lock), deadline).await?;
        match reply.what {
            Some(Answer::Lock(lock)) => Ok((lock, reply.revision)),
            _ => Err(ClientError::Reply("no lock for a lock")),
        }
    }

    async fn unlock(&self, path: String, owner: u64, deadline: Option<Instant>) -> Result<(), ClientError> {
        let unlock = proto::Unlock { session: self.id(), path, owner };
        self.change(CommandKind::Unlock(unlock), deadline).await.map(drop)
    }

    /// Takes back a claim that nobody wants any more, however long that takes. It would be granted in the end, to nobody, and nobody
    /// else would have the lock as long as the session lives.
    async fn take_back(self: Arc<Self>, path: String, owner: u64) {
        let mut state = self.watch_state();
        let done = async {
            loop {
                match self.unlock(path.clone(), owner, None).await {
                    Err(error) if error.refusal().is_none() => {
                        tracing::warn!(%error, %path, "take back a claim to a lock; trying again");
                    }
                    Ok(()) | Err(_) => return,
                }
                tokio::time::sleep(TAKE_BACK_PAUSE).await;
            }
        };
        tokio::select! {
            () = done => {}
            // Its claims went with it.
            _ = state.wait_for(|state| *state == SessionState::Lost) => {}
        }
    }
}

/// A claim that may be in the tree; taken back if it is dropped before it is known what became of it.
struct Claim<'a> {
    session: &'a Arc<Inner>,
    request: &'a LockRequest,
    /// It is held, or nothing is claimed.
    is_settled: bool,
}

impl Claim<'_> {
    async fn ask_once(mut self, deadline: Option<Instant>) -> Result<Option<Locked>, ClientError> {
        let asked = self.session.ask_for(self.request, false, deadline).await;
        // Whoever hears of an error knows as much as we do.
        self.is_settled = true;
        match asked {
            Ok((reply, _)) => Ok(reply.held.then_some(Locked { fence: reply.fence })),
            Err(error) if error.refusal() == Some(proto::RefusalCode::Locked) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// From the first answer on.
    async fn wait(
        mut self,
        first: (proto::LockReply, u64),
        deadline: Option<Instant>,
    ) -> Result<Locked, ClientError> {
        let session = Arc::clone(self.session);
        let waiting = async {
            let mut answer = first;
            loop {
                let (reply, revision) = answer;
                if reply.held {
                    return Ok::<_, ClientError>(Locked { fence: reply.fence });
                }
                if let Some(locked) = self.granted(revision).await? {
                    return Ok(locked);
                }
                answer = session.ask_for(self.request, true, deadline).await?;
            }
        };
        let end = deadline.unwrap_or_else(|| Instant::now() + Duration::from_secs(365 * 24 * 3600));
        let locked = match tokio::time::timeout_at(end.into(), waiting).await {
            Ok(locked) => locked?,
            Err(_) => {
                return Err(kuafu::CallError::Deadline { last: "others hold the lock".to_owned() }.into());
            }
        };
        self.is_settled = true;
        Ok(locked)
    }

    /// The grant, by an event after `revision`. `None`: ask again.
    async fn granted(&self, revision: u64) -> Result<Option<Locked>, ClientError> {
        let mut watcher = self.session.client.watch(self.request.path.clone(), Place::after(revision));
        let mut state = self.session.watch_state();
        loop {
            let watched = tokio::select! {
                watched = watcher.next() => watched?,
                // Asking again says what is the matter.
                _ = state.wait_for(|state| *state == SessionState::Lost) => return Ok(None),
            };
            let Watched::Event(event) = watched else { return Ok(None) };
            match (event.kind(), event.holder) {
                (EventKind::Locked, Some(holder)) if self.is(&holder) => {
                    return Ok(Some(Locked { fence: holder.fence }));
                }
                // With its file the claim went, too.
                (EventKind::Deleted, _) => return Ok(None),
                _ => {}
            }
        }
    }

    fn is(&self, holder: &LockHolder) -> bool {
        (holder.session, holder.owner) == (self.session.id(), self.request.owner)
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        if !self.is_settled {
            let session = Arc::clone(self.session);
            tokio::spawn(session.take_back(self.request.path.clone(), self.request.owner));
        }
    }
}
