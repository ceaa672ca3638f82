//! Keeps the session alive and the table fresh, on a task of its own.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use coord_types::SessionId;

use kuafu::replicated::DOUBT;
use kuafu::{CallOptions, Client, Code, Status};

use super::{ClientError, DataToken, Shared};
use crate::model::Query;
use crate::proto::{self, NamespaceClient};

/// Renewals per lease: two may get lost.
const RENEWALS_PER_LEASE: u32 = 3;
/// After a refusal that a human must look at.
const REFUSED_WAIT: Duration = Duration::from_secs(1);
/// A held call is answered before anybody doubts that it will be.
pub(super) const HOLD: Duration = DOUBT.saturating_sub(Duration::from_millis(100));
/// The lease until a master told it.
const LEASE_GUESS: Duration = Duration::from_secs(30);

/// Runs until the client is closed or its last clone is dropped.
pub(super) async fn run(shared: Arc<Shared>) {
    let mut closed = shared.closed.subscribe();
    tokio::select! {
        _ = closed.wait_for(|closed| *closed) => {}
        () = keep(&shared) => {}
        () = follow_table(&shared) => {}
    }
}

async fn keep(shared: &Shared) {
    let mut lease = LEASE_GUESS;
    let mut previous = None;
    let mut refusals = 0;
    loop {
        let session = match shared.sessions.current() {
            Some(session) => session,
            None => match open(shared).await {
                Ok((session, granted)) => {
                    lease = granted;
                    refusals = 0;
                    shared.sessions.opened(session);
                    announce(shared, previous.replace(session), session);
                    session
                }
                Err(error @ ClientError::OtherCluster { .. }) => {
                    tracing::error!(%error, "open a session; giving up");
                    shared.closed.send_replace(true);
                    return;
                }
                // A client that never had a session has nothing to wait for, once all masters were asked.
                Err(ClientError::NotFollowed(_))
                    if previous.is_none() && refusals >= shared.masters.members() =>
                {
                    shared.closed.send_replace(true);
                    return;
                }
                Err(ClientError::NotFollowed(_)) => {
                    refusals += 1;
                    tokio::time::sleep(REFUSED_WAIT).await;
                    continue;
                }
                // Whoever starts with wrong keys is to be told. Later they may be being exchanged.
                Err(ClientError::Refused { address, status })
                    if previous.is_none() && status.code == Code::PermissionDenied =>
                {
                    *shared.denied.lock() = Some((address, status));
                    shared.closed.send_replace(true);
                    return;
                }
                Err(error) => {
                    tracing::error!(%error, "open a session; trying again");
                    tokio::time::sleep(REFUSED_WAIT).await;
                    continue;
                }
            },
        };
        if shared.table.borrow().version == 0 {
            refresh(shared, lease).await;
        }
        tokio::select! {
            () = tokio::time::sleep(lease / RENEWALS_PER_LEASE) => {}
            () = shared.wanted.notified() => {}
        }
        if shared.sessions.current() == Some(session) {
            renew(shared, session, &mut lease).await;
        }
    }
}

/// Holds a call for the next table at the leader, so that news of failures come at once.
async fn follow_table(shared: &Shared) {
    // Before the first session there is nobody who needs a table, and maybe no cluster.
    let mut seen = shared.session_seen.subscribe();
    if seen.wait_for(Option::is_some).await.is_err() {
        return;
    }
    // Half of an attempt: an answer that says "nothing new" comes before the attempt is over.
    let wait = HOLD.min(shared.config.attempt_timeout / 2);
    loop {
        if let Err(error) = shared.next_table(wait, None).await {
            tracing::warn!(%error, "wait for the next table of groups; trying again");
            tokio::time::sleep(REFUSED_WAIT).await;
        }
    }
}

/// What only a leader answers.
pub(super) async fn ask_for_anything(master: Client, options: CallOptions) -> Result<(), Status> {
    let query = proto::QueryRequest { session: 0, op: Some(Query::StatFs.into()) };
    NamespaceClient::new(master).query(&query, &options).await.map(drop)
}

fn announce(shared: &Shared, previous: Option<SessionId>, session: SessionId) {
    shared.session_seen.send_replace(Some(session));
    tracing::info!(%session, ?previous, "session open");
    for callback in shared.reopened.lock().iter() {
        callback(previous, session);
    }
}

async fn open(shared: &Shared) -> Result<(SessionId, Duration), ClientError> {
    // A session is a change: it is only asked of masters that are followed.
    shared.fetch_table(None).await?;
    let request = proto::OpenSessionRequest { description: shared.config.description.clone() };
    let message = &request;
    let asked = shared.followed.known();
    let (asked_at, generation) = (Instant::now(), shared.key_generation());
    let reply = shared
        .call_sessionless(None, |master, options| async move {
            NamespaceClient::new(master).open_session(message, &options).await
        })
        .await?;
    {
        let mut known = shared.cluster_id.lock();
        match known.as_ref() {
            Some(expected) if *expected != reply.cluster_id => {
                return Err(ClientError::OtherCluster {
                    expected: expected.clone(),
                    found: reply.cluster_id,
                });
            }
            Some(_) => {}
            None => *known = Some(reply.cluster_id),
        }
    }
    shared.follow(&asked, reply.lineage)?;
    note_token(shared, reply.token, asked_at, generation);
    shared.refused.store(false, Ordering::Relaxed);
    *shared.refusal.lock() = None;
    Ok((SessionId(reply.session), Duration::from_millis(reply.lease_ms.max(1))))
}

async fn renew(shared: &Shared, session: SessionId, lease: &mut Duration) {
    let request = proto::RenewSessionRequest { session: session.0 };
    let message = &request;
    let deadline = Instant::now() + *lease / RENEWALS_PER_LEASE;
    let asked = shared.followed.known();
    let (asked_at, generation) = (Instant::now(), shared.key_generation());
    let renewed = shared
        .call(Some(deadline), |master, options| async move {
            NamespaceClient::new(master).renew_session(message, &options).await
        })
        .await;
    match renewed {
        Ok(Some(reply)) => {
            if shared.follow(&asked, reply.lineage).is_err() {
                return;
            }
            *lease = Duration::from_millis(reply.lease_ms.max(1));
            note_token(shared, reply.token, asked_at, generation);
            if reply.table_version > shared.table.borrow().version {
                refresh(shared, *lease).await;
            }
        }
        Ok(None) => shared.session_lost(session),
        Err(error) => tracing::warn!(%session, %error, "renew the session; trying again"),
    }
}

fn note_token(shared: &Shared, token: Option<proto::Token>, asked_at: Instant, generation: u64) {
    *shared.token.lock() = token
        .map(|proto::Token { token, signer }| Arc::new(DataToken { token, signer, asked_at, generation }));
}

async fn refresh(shared: &Shared, lease: Duration) {
    if let Err(error) = shared.fetch_table(Some(Instant::now() + lease / RENEWALS_PER_LEASE)).await {
        tracing::warn!(%error, "fetch the table of groups; trying again");
    }
}
