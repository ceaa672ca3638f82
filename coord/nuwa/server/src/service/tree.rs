//! The tree and its sessions, for clients. The hot path: a change goes straight into the log.

use std::sync::Arc;

use bytes::Bytes;
use coord_raft::ProposalStamp;
use coord_types::SessionId;
use kuafu::{Request, Response, Status};
use nuwa_api::proto::{self, command, reply};
use nuwa_model::Refusal;
use prost::Message as _;
use zhongkui_access::Holder;

use crate::access;
use crate::app::App;
use crate::service::{read, watch};

/// Of one leader.
const SESSIONS_MAX: usize = 100_000;
/// A few of them end meanwhile.
const SESSIONS_DELAY: std::time::Duration = std::time::Duration::from_secs(1);

/// Serves `Nuwa`.
pub(crate) struct Tree(pub(crate) Arc<App>);

impl proto::Nuwa for Tree {
    async fn change(&self, request: Request<proto::ChangeRequest>) -> Result<Response<proto::Reply>, Status> {
        let holder = Holder::of(&request)?;
        let proto::ChangeRequest { stamp, command } = request.message;
        let mut what = command
            .and_then(|command| command.what)
            .ok_or_else(|| Status::invalid_argument("the change has no command"))?;
        access::check(&holder, access::change(&what))?;
        for session in access::sessions(stamp.as_ref(), &what) {
            if !self.0.is_there(session, &holder, request.deadline).await? {
                return self.over(session, &what).map(Response::new);
            }
        }
        if let command::What::OpenSession(open) = &mut what {
            if self.0.leases.len() >= SESSIONS_MAX {
                return Err(Status::busy(format!("{SESSIONS_MAX} sessions are open"), SESSIONS_DELAY));
            }
            holder.name().clone_into(&mut open.owner);
        }
        let stamp = stamp.map(|stamp| {
            self.0.leases.heard(stamp.session);
            ProposalStamp {
                session: SessionId(stamp.session),
                seq: stamp.sequence,
                acknowledged_below: stamp.acknowledged_below,
            }
        });
        let command = Bytes::from(proto::Command { what: Some(what) }.encode_to_vec());
        Ok(Response::new(self.0.propose(stamp, command, request.deadline).await?))
    }

    async fn read(&self, request: Request<proto::ReadRequest>) -> Result<Response<proto::ReadReply>, Status> {
        let holder = Holder::of(&request)?;
        access::check(&holder, request.message.what.as_ref().and_then(access::read))?;
        Ok(Response::new(read::read(&self.0, request.message, request.deadline).await?))
    }

    async fn watch(
        &self,
        request: Request<proto::WatchRequest>,
    ) -> Result<Response<proto::WatchReply>, Status> {
        let holder = Holder::of(&request)?;
        access::check(&holder, [access::watch(&request.message)])?;
        Ok(Response::new(watch::watch(&self.0, request.message, request.deadline).await?))
    }

    async fn renew(
        &self,
        request: Request<proto::RenewRequest>,
    ) -> Result<Response<proto::RenewReply>, Status> {
        let (holder, session) = (Holder::of(&request)?, request.message.session);
        if !self.0.is_there(session, &holder, request.deadline).await? {
            return Ok(Response::new(proto::RenewReply::default()));
        }
        // First its time, then whether this member leads: nobody else began to before the time was given. It may have
        // ended while that was found out.
        let ttl = self.0.leases.heard(session);
        self.0.barrier(request.deadline).await?;
        if let Some(ttl) = ttl.filter(|_| self.0.leases.lives(session)) {
            let ttl_ms = u32::try_from(ttl.as_millis()).unwrap_or(u32::MAX);
            return Ok(Response::new(proto::RenewReply { open: true, ttl_ms }));
        }
        let known = nuwa_core::query::session(&self.0.view(), session);
        match known.map_err(|error| crate::app::store_status(&error))? {
            // It was silent for too long, and is about to end; or this leader has only just begun.
            Some(record) if !record.ending => {
                Err(Status::unavailable("whether the session stays open is not known yet"))
            }
            Some(_) | None => Ok(Response::new(proto::RenewReply::default())),
        }
    }
}

impl Tree {
    /// The answer to a command that names a session which is not there. It must not get into the log: whoever opens the session of
    /// that number before it is applied would find it done in his name.
    fn over(&self, session: u64, what: &command::What) -> Result<proto::Reply, Status> {
        let answer = match what {
            // As after a lost reply.
            command::What::EndSession(end) if end.session == session => reply::What::More(false),
            _ => reply::What::Refused((&Refusal::SessionOver(session)).into()),
        };
        Ok(proto::Reply { revision: self.0.revision()?, what: Some(answer) })
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::time::{Duration, Instant};

    use futures::FutureExt as _;
    use kuafu::{Authorizer as _, Binding, Code, Credentials as _, PeerInfo, Principal};
    use nuwa_api::proto::Nuwa as _;
    use zhongkui_access::Access;

    use super::*;
    use crate::testing::{PATIENCE, Single, soon};

    const TTL: Duration = Duration::from_secs(60);

    fn request<T>(message: T) -> Request<T> {
        Request {
            message,
            payload: Bytes::new(),
            payload_check: kuafu::PayloadCheck::Crc,
            deadline: soon(),
            peer: PeerInfo::local(),
            principal: Some(somebody()),
        }
    }

    /// Whom every server of this process lets in, as if it had come by a connection.
    fn somebody() -> Principal {
        let access = Access::process();
        let binding = Binding { client_nonce: [1; 32], server_nonce: [2; 32], channel: None };
        let guard = access.guard().build();
        let introduction = guard.introduce(&binding).unwrap().unwrap();
        let proof = access.keyring().present(&binding, &introduction);
        guard.identify(&PeerInfo::local(), &binding, &introduction, &proof).unwrap()
    }

    async fn renew(tree: &Tree, session: u64) -> Result<proto::RenewReply, Status> {
        tree.renew(request(proto::RenewRequest { session })).await.map(|response| response.message)
    }

    /// The leader listed sessions whose time was over, and ended them one after another, each of which may take seconds. One that
    /// was renewed meanwhile was told that it is open, for its full time; then it was ended, and others got its locks.
    #[tokio::test]
    async fn a_session_that_is_about_to_end_is_not_told_that_it_is_open() {
        let single = Single::start().await;
        let (app, session) = (single.server.app(), single.open_session(TTL).await);
        let tree = Tree(Arc::clone(app));
        assert_eq!(renew(&tree, session).await, Ok(proto::RenewReply { open: true, ttl_ms: 60_000 }));
        let due = app.leases.take_due(Instant::now() + TTL, 9);
        assert_eq!(due, [session]);
        assert_eq!(renew(&tree, session).await.map_err(|status| status.code), Err(Code::Unavailable));
        let stamp = Some(proto::Stamp { session, sequence: 1, acknowledged_below: 0 });
        let txn = command::What::Txn(proto::Txn { session, ..proto::Txn::default() });
        let command = Some(proto::Command { what: Some(txn) });
        tree.change(request(proto::ChangeRequest { stamp, command })).await.unwrap();
        assert_eq!(renew(&tree, session).await.map_err(|status| status.code), Err(Code::Unavailable));
        // Whether it was a timeout or another failure.
        app.leases.not_ended(session, Instant::now() + PATIENCE);
        assert_eq!(renew(&tree, session).await.map_err(|status| status.code), Err(Code::Unavailable));
        app.end_session(session, soon()).await.unwrap();
        assert_eq!(renew(&tree, session).await, Ok(proto::RenewReply::default()));
        single.server.shutdown().await;
    }

    /// What is asked while it is found out whether this member leads: the session may end in that time.
    #[tokio::test]
    async fn a_session_that_ended_while_it_was_renewed_is_not_told_that_it_is_open() {
        let single = Single::start().await;
        let (app, session) = (single.server.app(), single.open_session(TTL).await);
        let tree = Tree(Arc::clone(app));
        app.raft.give_lease_up();
        let mut renewing = pin!(renew(&tree, session));
        assert_eq!(renewing.as_mut().now_or_never(), None, "whether it leads is being found out");
        app.end_session(session, soon()).await.unwrap();
        assert_eq!(renewing.await, Ok(proto::RenewReply::default()));
        single.server.shutdown().await;
    }
}
