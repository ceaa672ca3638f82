//! What a request on the namespace needs, asked of its caller before it is answered or proposed.
//!
//! Two questions, one after the other: does the capability cover the inodes ([`Holder::check`]; subtrees by where the inode is now), and, unless
//! the caller may act on others' behalf, what would Linux say to its user ([`master_core::access`]). A mount that many people use acts for
//! them: its kernel has asked.
//!
//! What covers everything on others' behalf is answered without a look at the state: that is every mount of an administrator, and the hot path.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Instant;

use coord_raft::View;
use coord_types::{InodeId, SessionId};
use kuafu::{Request, Status};
use master_api::model::{Errno, Mutation, Query};
use master_core::access::{Access, Identity, NOBODY, Op, Root, act_for, permit, touches};
use master_core::{OpError, session, within};
use zhongkui::resource::Place;
use zhongkui::{Rights, Target};
use zhongkui_access::Holder;

use crate::app::{App, store_status};

/// Who asks, for one request.
pub(crate) struct Caller {
    app: Arc<App>,
    holder: Arc<Holder>,
    session: SessionId,
}

/// An answer to the caller without the operation: an errno, or a status if it is not for the file system to say.
pub(crate) enum Denied {
    Errno(Errno),
    Status(Status),
}

impl From<Status> for Denied {
    fn from(status: Status) -> Self {
        Self::Status(status)
    }
}

impl From<OpError> for Denied {
    fn from(error: OpError) -> Self {
        match error {
            OpError::Errno(errno) => Self::Errno(errno),
            error @ OpError::Store(_) => Self::Status(store_status(&error)),
        }
    }
}

/// Only a grant on everything covers it.
struct Anywhere;

impl Place for Anywhere {
    fn inode(&self) -> InodeId {
        InodeId(0)
    }

    fn within(&self, _directory: InodeId) -> bool {
        false
    }
}

/// Where an inode is in a state.
struct At<'a> {
    view: &'a View,
    ino: InodeId,
    session: SessionId,
    /// The state could not say.
    failed: Cell<Option<OpError>>,
}

impl Place for At<'_> {
    fn inode(&self) -> InodeId {
        self.ino
    }

    fn within(&self, directory: InodeId) -> bool {
        within(self.view, self.ino, directory, Some(self.session)).unwrap_or_else(|error| {
            self.failed.set(Some(error));
            false
        })
    }
}

/// What is needed to touch an inode so.
fn needs(access: Access) -> Rights {
    match access {
        Access::Read => Rights::READ,
        Access::Write => Rights::WRITE,
    }
}

impl Caller {
    /// Who made a request under a session (0: none).
    ///
    /// # Errors
    /// Nobody said who he is, or the session is another's.
    pub(crate) async fn of<T>(app: &Arc<App>, request: &Request<T>, session: u64) -> Result<Self, Status> {
        let (holder, deadline) = (Holder::of(request)?, request.deadline);
        let caller = Self { app: Arc::clone(app), holder, session: SessionId(session) };
        if session != 0 {
            let owner = match app.soft.session_owner(caller.session) {
                Some(owner) => owner,
                None => caller.session_owner(deadline).await?,
            };
            caller.must_be(&owner)?;
        }
        Ok(caller)
    }

    pub(crate) fn holder(&self) -> &Holder {
        &self.holder
    }

    /// Whose the session is, after everything that was acknowledged. One that is not there yet belongs to nobody, and nothing is proposed under
    /// it: numbers count up, and whoever asked ahead would act under the next one to be opened.
    async fn session_owner(&self, deadline: Instant) -> Result<Arc<str>, Status> {
        let view = self.app.current(deadline).await?;
        let owner = session::owner(&view, self.session).map_err(|error| store_status(&error))?;
        let owner = owner.ok_or_else(|| Status::not_found(format!("session {} is over", self.session)))?;
        Ok(self.app.soft.note_session_owner(self.session, owner))
    }

    /// Under another's session stored answers to his changes could be had, and what he holds open.
    fn must_be(&self, owner: &str) -> Result<(), Status> {
        // Opened in a release that asked nobody.
        if owner.is_empty() || owner == self.holder.name() {
            return Ok(());
        }
        let why = format!("session {} belongs to {owner}", self.session);
        Err(self.holder.refused("another's session", &why))
    }

    /// Whether these rights are held on everything, on others' behalf.
    pub(crate) fn covers_everything(&self, needs: Rights) -> bool {
        self.holder.may(needs | Rights::ACT_AS, &Target::Inode(&Anywhere))
    }

    /// The same, with uid 0 for the superuser.
    fn is_unbounded(&self, needs: Rights) -> bool {
        self.covers_everything(needs | Rights::SUPERUSER)
    }

    /// # Errors
    /// The caller may not ask this.
    pub(crate) fn admit_query(&self, view: &View, query: &Query) -> Result<(), Denied> {
        if self.covers_everything(Rights::READ) {
            return Ok(());
        }
        self.admit(view, query.into()).map(drop)
    }

    /// The mutation as the caller may ask for it; `None`: as it is.
    ///
    /// # Errors
    /// The caller may not ask for it.
    pub(crate) async fn admit_mutation(
        &self,
        mutation: impl FnOnce() -> Result<Mutation, Errno>,
        deadline: Instant,
    ) -> Result<Option<Mutation>, Denied> {
        if self.is_unbounded(Rights::WRITE) {
            return Ok(None);
        }
        let mut mutation = mutation().map_err(Denied::Errno)?;
        let view = self.app.current(deadline).await?;
        let inos: Vec<InodeId> = touches(&mutation).into_iter().map(|(ino, _)| ino).collect();
        match self.admit(&view, (&mutation).into())? {
            Some(identity) => act_for(&view, &identity, &mut mutation)?,
            // Whom the mount speaks for is its own affair, but for the superuser.
            None if !self.has(Rights::SUPERUSER, &view, &inos) => squash(&mut mutation),
            None => return Ok(None),
        }
        Ok(Some(mutation))
    }

    /// Rights on one inode. Gives on whose behalf: `None` is whoever the request says.
    ///
    /// # Errors
    /// The caller has them not.
    pub(crate) fn admit_inode(
        &self,
        view: &View,
        ino: InodeId,
        access: Access,
    ) -> Result<Option<Identity>, Denied> {
        self.check(view, ino, needs(access))?;
        Ok(self.identity(view, &[ino]))
    }

    fn admit(&self, view: &View, op: Op<'_>) -> Result<Option<Identity>, Denied> {
        for (ino, access) in touches(op) {
            self.check(view, ino, needs(access))?;
        }
        let inos: Vec<InodeId> = touches(op).into_iter().map(|(ino, _)| ino).collect();
        let identity = self.identity(view, &inos);
        if let Some(identity) = &identity {
            permit(view, identity, op)?;
        }
        Ok(identity)
    }

    fn check(&self, view: &View, ino: InodeId, needs: Rights) -> Result<(), Denied> {
        let place = At { view, ino, session: self.session, failed: Cell::default() };
        let refused = match self.holder.may(needs, &Target::Inode(&place)) {
            true => return Ok(()),
            false => place.failed.take(),
        };
        match refused {
            // It is nowhere; or the store failed.
            Some(error) => Err(error.into()),
            None => self.holder.check(needs, &Target::Inode(&place)).map_err(Denied::Status),
        }
    }

    fn has(&self, right: Rights, view: &View, inos: &[InodeId]) -> bool {
        inos.iter().all(|ino| {
            let place = At { view, ino: *ino, session: self.session, failed: Cell::default() };
            self.holder.may(right, &Target::Inode(&place))
        })
    }

    /// Whose rights count, if those are not the business of whoever asks.
    fn identity(&self, view: &View, inos: &[InodeId]) -> Option<Identity> {
        if self.has(Rights::ACT_AS, view, inos) {
            return None;
        }
        let user = self.holder.user();
        let root = if self.has(Rights::SUPERUSER, view, inos) { Root::Superuser } else { Root::Nobody };
        Some(Identity::new(user.uid, user.gids().to_vec(), root))
    }
}

/// What uid 0 makes is nobody's, and nothing is given to uid 0 ("root squash").
fn squash(mutation: &mut Mutation) {
    let (uid, gid) = match mutation {
        Mutation::Create(op) => (Some(&mut op.uid), Some(&mut op.gid)),
        Mutation::Mkdir(op) => (Some(&mut op.uid), Some(&mut op.gid)),
        Mutation::Mknod(op) => (Some(&mut op.uid), Some(&mut op.gid)),
        Mutation::Symlink(op) => (Some(&mut op.uid), Some(&mut op.gid)),
        Mutation::SetAttr(op) => (op.changes.uid.as_mut(), op.changes.gid.as_mut()),
        Mutation::CommitWrite(op) => match &mut op.attributes {
            Some(changes) => (changes.uid.as_mut(), changes.gid.as_mut()),
            None => (None, None),
        },
        Mutation::Link(_)
        | Mutation::Unlink(_)
        | Mutation::Rmdir(_)
        | Mutation::Rename(_)
        | Mutation::SetXattr(_)
        | Mutation::RemoveXattr(_)
        | Mutation::RaiseFence(_)
        | Mutation::Forget(_) => (None, None),
    };
    for id in [uid, gid].into_iter().flatten().filter(|id| **id == 0) {
        *id = NOBODY;
    }
}
