//! A session: renewed in the background, and what is changed under it is changed exactly once.
//!
//! States and events are in `coord/nuwa/docs/service.md`, "Sessions".

use std::sync::Arc;
use std::time::{Duration, Instant};

use kuafu::CallError;
use kuafu::replicated::Sequences;
use tokio::sync::watch;

use crate::client::{ClientError, NuwaClient};
use crate::proto::command::What as CommandKind;
use crate::proto::reply::What as Answer;
use crate::proto::{
    self, Command, Compare, Entry, NuwaClient as Wire, Operation, OperationResult, RefusalCode, Txn,
};

/// Renewals within a time to live: two may get lost.
const RENEWALS_PER_TTL: u32 = 3;

/// Between renewals that are refused: below the shortest time to live, so that keys that are exchanged are in time.
const DENIED_PAUSE: Duration = Duration::from_millis(500);

/// What a session is to its client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionState {
    /// What it owns is there, and what it locks is locked.
    Open,
    /// Nobody was heard for its whole time: it may be over.
    InDoubt,
    /// It is over.
    Lost,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) client: NuwaClient,
    id: u64,
    ttl: Duration,
    sequences: Arc<Sequences>,
    state: watch::Sender<SessionState>,
}

/// See the module. Renewed as long as it is not dropped; then it ends with its time, or at once with [`Session::end`].
#[derive(Debug)]
pub struct Session {
    pub(crate) inner: Arc<Inner>,
    renewing: tokio::task::JoinHandle<()>,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.renewing.abort();
    }
}

/// What a transaction came to.
#[derive(Clone, Debug, PartialEq)]
pub struct TxnDone {
    /// Whether all compares held.
    pub succeeded: bool,
    /// One for each operation that was done.
    pub results: Vec<OperationResult>,
    /// The newest revision after it.
    pub revision: u64,
}

impl Session {
    pub(crate) async fn open(
        client: NuwaClient,
        ttl: Duration,
        description: String,
        deadline: Option<Instant>,
    ) -> Result<Self, ClientError> {
        let ttl_ms = u32::try_from(ttl.as_millis()).unwrap_or(u32::MAX);
        let what = CommandKind::OpenSession(proto::OpenSession { ttl_ms, description, owner: String::new() });
        // Asked for again it may be opened twice; the one nobody knows ends with its time.
        let request = proto::ChangeRequest { stamp: None, command: Some(Command { what: Some(what) }) };
        let sent = Instant::now();
        let reply = change(&client, &request, deadline).await?;
        let Some(Answer::Session(id)) = reply.what else {
            return Err(ClientError::Reply("no session was opened"));
        };
        let state = watch::Sender::new(SessionState::Open);
        let inner = Arc::new(Inner { client, id, ttl, sequences: Arc::default(), state });
        let renewing = tokio::spawn(Arc::clone(&inner).keep(sent));
        Ok(Self { inner, renewing })
    }

    #[must_use]
    pub fn id(&self) -> u64 {
        self.inner.id
    }

    /// How long it lives without being renewed.
    #[must_use]
    pub fn ttl(&self) -> Duration {
        self.inner.ttl
    }

    #[must_use]
    pub fn state(&self) -> SessionState {
        *self.inner.state.borrow()
    }

    /// Tells of each change of its state.
    #[must_use]
    pub fn watch_state(&self) -> watch::Receiver<SessionState> {
        self.inner.state.subscribe()
    }

    #[must_use]
    pub fn client(&self) -> &NuwaClient {
        &self.inner.client
    }

    /// Changes the tree, all of it or nothing: `then` if all compares hold, else `otherwise`.
    ///
    /// # Errors
    /// See [`ClientError`]. After a deadline it is not known whether it was done.
    pub async fn txn(
        &self,
        compares: Vec<Compare>,
        then: Vec<Operation>,
        otherwise: Vec<Operation>,
        deadline: Option<Instant>,
    ) -> Result<TxnDone, ClientError> {
        let txn = Txn { session: self.inner.id, compares, then, otherwise };
        let reply = self.change(CommandKind::Txn(txn), deadline).await?;
        match reply.what {
            Some(Answer::Txn(done)) => {
                Ok(TxnDone { succeeded: done.succeeded, results: done.results, revision: reply.revision })
            }
            _ => Err(ClientError::Reply("no transaction was done")),
        }
    }

    /// One operation.
    ///
    /// # Errors
    /// As [`txn`](Self::txn).
    pub async fn change_one(
        &self,
        operation: impl Into<Operation>,
        deadline: Option<Instant>,
    ) -> Result<OperationResult, ClientError> {
        let done = self.txn(Vec::new(), vec![operation.into()], Vec::new(), deadline).await?;
        done.results.into_iter().next().ok_or(ClientError::Reply("an operation without a result"))
    }

    /// A file gets a value; it is made if it is not there. Gives the entry, without the value.
    ///
    /// # Errors
    /// As [`txn`](Self::txn).
    pub async fn put(
        &self,
        path: &str,
        value: impl Into<bytes::Bytes>,
        deadline: Option<Instant>,
    ) -> Result<Entry, ClientError> {
        let result = self.change_one(crate::ops::put(path, value), deadline).await?;
        result.entry.ok_or(ClientError::Reply("a put without an entry"))
    }

    /// Any command.
    ///
    /// # Errors
    /// As [`txn`](Self::txn).
    pub async fn change(
        &self,
        what: CommandKind,
        deadline: Option<Instant>,
    ) -> Result<proto::Reply, ClientError> {
        self.inner.change(what, deadline).await
    }

    /// Ends it now: its files go, its locks are free.
    ///
    /// # Errors
    /// See [`ClientError`]; then it ends with its time.
    pub async fn end(self, deadline: Option<Instant>) -> Result<(), ClientError> {
        self.end_shared(deadline).await
    }

    /// The same, where others have it too: they are refused from then on.
    ///
    /// # Errors
    /// As [`end`](Self::end).
    pub async fn end_shared(&self, deadline: Option<Instant>) -> Result<(), ClientError> {
        self.renewing.abort();
        loop {
            let end = CommandKind::EndSession(proto::EndSession { session: self.inner.id });
            let request = proto::ChangeRequest { stamp: None, command: Some(Command { what: Some(end) }) };
            let reply = change(&self.inner.client, &request, deadline).await?;
            match reply.what {
                Some(Answer::More(true)) => {}
                Some(Answer::More(false)) => {
                    self.inner.state.send_replace(SessionState::Lost);
                    return Ok(());
                }
                _ => return Err(ClientError::Reply("a session was not ended")),
            }
        }
    }
}

impl Inner {
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    pub(crate) fn watch_state(&self) -> watch::Receiver<SessionState> {
        self.state.subscribe()
    }

    pub(crate) async fn change(
        &self,
        what: CommandKind,
        deadline: Option<Instant>,
    ) -> Result<proto::Reply, ClientError> {
        let ticket = match deadline {
            None => self.sequences.next().await,
            Some(deadline) => {
                let ticket = tokio::time::timeout_at(deadline.into(), self.sequences.next()).await;
                ticket.map_err(|_| CallError::Deadline {
                    last: "earlier changes of the session are not answered yet".to_owned(),
                })?
            }
        };
        let stamp = proto::Stamp {
            session: self.id,
            sequence: ticket.sequence,
            acknowledged_below: ticket.acknowledged_below,
        };
        let request =
            proto::ChangeRequest { stamp: Some(stamp), command: Some(Command { what: Some(what) }) };
        let result = change(&self.client, &request, deadline).await;
        if let Err(error) = &result
            && error.refusal() == Some(RefusalCode::SessionOver)
        {
            self.lost();
        }
        result
    }

    fn lost(&self) {
        let was_known = self.state.send_replace(SessionState::Lost) == SessionState::Lost;
        if !was_known {
            tracing::warn!(session = self.id, "the session is over");
        }
    }

    /// It may be over, unless it is known to be: then it stays so.
    fn doubt(&self) {
        self.state.send_if_modified(|state| {
            let was_open = *state == SessionState::Open;
            if was_open {
                *state = SessionState::InDoubt;
            }
            was_open
        });
    }

    /// Renews until it is over.
    async fn keep(self: Arc<Self>, opened: Instant) {
        let period = self.ttl / RENEWALS_PER_TTL;
        let mut renewed = opened;
        let mut is_denied = false;
        loop {
            let next = tokio::time::Instant::from_std(renewed + period);
            tokio::time::sleep_until(next.max(tokio::time::Instant::now())).await;
            if *self.state.borrow() == SessionState::Lost {
                return; // A change was told so.
            }
            let sent = Instant::now();
            match self.renew(sent, renewed + self.ttl).await {
                Ok(true) => {
                    (renewed, is_denied) = (sent, false);
                    self.state.send_if_modified(|state| {
                        let back = *state == SessionState::InDoubt;
                        if back {
                            *state = SessionState::Open;
                        }
                        back
                    });
                }
                Ok(false) => return self.lost(),
                // Asked again all the same: keys may be exchanged, and it is not known when the session is over.
                Err(error) if error.is_denied() => {
                    if Instant::now() >= renewed + self.ttl {
                        self.doubt();
                    }
                    if !std::mem::replace(&mut is_denied, true) {
                        tracing::warn!(session = self.id, %error, "the session may not be renewed");
                    }
                    tokio::time::sleep(DENIED_PAUSE).await;
                }
                Err(error) => {
                    tracing::warn!(session = self.id, %error, "renew the session; trying again");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    /// Whether it is open. `ends`: when it may be over.
    async fn renew(&self, sent: Instant, ends: Instant) -> Result<bool, ClientError> {
        let request = proto::RenewRequest { session: self.id };
        let message = &request;
        let mut renew = std::pin::pin!(
            self.client.inner.leader.call(Some(sent + self.ttl), |member, options| async move {
                Wire::new(member).renew(message, &options).await
            })
        );
        let answer = tokio::select! {
            answer = renew.as_mut() => answer,
            () = tokio::time::sleep_until(ends.into()) => {
                self.doubt();
                renew.await
            }
        };
        Ok(answer?.open)
    }
}

/// Asks until there is an answer.
pub(crate) async fn change(
    client: &NuwaClient,
    request: &proto::ChangeRequest,
    deadline: Option<Instant>,
) -> Result<proto::Reply, ClientError> {
    let call = client
        .inner
        .leader
        .call(deadline, |member, options| async move { Wire::new(member).change(request, &options).await });
    let reply = call.await?;
    client.saw(reply.revision);
    match reply.what {
        Some(Answer::Refused(refusal)) => Err(refusal.into()),
        _ => Ok(reply),
    }
}
