//! The master's client: finds the leader, keeps a session, and asks until there is an answer.
//!
//! Called by `fs/client`, the command line and tests. What it keeps:
//! - a mutation is applied exactly once while its session lives, over any number of retries and failovers;
//! - a call ends with the master's answer, with a refusal that trying again cannot change, or at the caller's deadline,
//!   never because a master is away;
//! - calls run on the caller's task: nothing is handed to another one on the way to the socket.
//!
//! A session dies only if its client was silent towards a living leader for a whole lease (a stopped process, a cut
//! network). A mutation under way at that moment is asked again under the next session; it may then meet its own
//! first effect (EEXIST after a create that did happen). `master/docs/consistency.md` says so to users.

mod background;
mod events;
mod followed;
mod session;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use coord_types::{DataId, InodeId, ServerId, SessionId};
use kuafu::{CallError, CallOptions, Client, Code, Replicated, ReplicatedConfig, Status};
use master_model::{Lineage, NotFollowed};
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};
use zhongkui_access::Access;

use self::followed::Followed;
use self::session::Sessions;
use crate::convert::{self, Invalid};
use crate::errno::Errno;
use crate::masters::Masters;
use crate::model::{Answer, Attr, Mutated, Mutation, Name, Query, ReadDir, StatFs, Table};
use crate::proto::{self, AdminClient, ClusterClient, NamespaceClient};

/// How a client is set up.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// Where to begin; more are learned from the masters' hints.
    pub masters: Masters,
    /// For people: host, process, mount point.
    pub description: String,
    /// How long one master may take over one attempt before the next is asked. Default 4 s: longer than an election.
    pub attempt_timeout: Duration,
    /// The connections, and who this client is. Default: somebody whom only servers of this process know.
    pub transport: kuafu::ClientConfig,
    /// Where the newest state of the masters is remembered, one file a cluster. None: only while the client lives.
    pub memory: Option<PathBuf>,
}

impl ClientConfig {
    #[must_use]
    pub fn new(masters: impl Into<Masters>, description: impl Into<String>) -> Self {
        Self {
            masters: masters.into(),
            description: description.into(),
            attempt_timeout: Duration::from_secs(4),
            transport: Access::process().transport(),
            memory: None,
        }
    }
}

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The file system's own answer.
    #[error(transparent)]
    Errno(#[from] Errno),
    #[error("no master answered in time; the last one said: {last}")]
    Deadline { last: String },
    #[error("the master at {address} refused: {status}")]
    Refused { address: String, status: Status },
    #[error("a master's reply means nothing")]
    Reply(#[from] Invalid),
    #[error("no master is configured")]
    NoMasters,
    #[error("the masters belong to cluster {found}, this client to {expected}")]
    OtherCluster { expected: String, found: String },
    /// Their state is older than one that was seen.
    #[error(transparent)]
    NotFollowed(#[from] NotFollowed),
    #[error("the client was closed")]
    Closed,
}

impl From<CallError> for ClientError {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Deadline { last } => Self::Deadline { last },
            CallError::Refused { address, status } => Self::Refused { address: address.to_string(), status },
            CallError::NoMembers => Self::NoMasters,
        }
    }
}

impl ClientError {
    /// What the caller of a system call gets.
    #[must_use]
    pub fn errno(&self) -> Errno {
        match self {
            Self::Errno(errno) => *errno,
            Self::Deadline { .. } => Errno::ETIMEDOUT,
            Self::Refused { status, .. } if status.code == Code::PermissionDenied => Errno::EACCES,
            Self::Refused { .. }
            | Self::Reply(_)
            | Self::NoMasters
            | Self::OtherCluster { .. }
            | Self::NotFollowed(_)
            | Self::Closed => Errno::EIO,
        }
    }

    /// Whether the same call may succeed later.
    #[must_use]
    pub const fn retryable(&self) -> bool {
        match self {
            Self::Deadline { .. } => true,
            Self::Errno(_)
            | Self::Refused { .. }
            | Self::Reply(_)
            | Self::NoMasters
            | Self::OtherCluster { .. }
            | Self::NotFollowed(_)
            | Self::Closed => false,
        }
    }
}

/// Called with the session before and the new one.
type Reopened = Box<dyn Fn(Option<SessionId>, SessionId) + Send + Sync>;

struct Shared {
    config: ClientConfig,
    /// The runtime that keeps time, for callers outside of it.
    runtime: Handle,
    masters: Replicated,
    sessions: Arc<Sessions>,
    /// Wakes the background task: the session is lost, or the table is wanted.
    wanted: Notify,
    session_seen: watch::Sender<Option<SessionId>>,
    table: watch::Sender<Arc<Table>>,
    cluster_id: Mutex<Option<String>>,
    reopened: Mutex<Vec<Reopened>>,
    closed: watch::Sender<bool>,
    /// The first session was not allowed, by whom and why.
    denied: Mutex<Option<(String, Status)>>,
    /// For all data, from the last renewal; `None` if the masters gave none.
    token: Mutex<Option<Arc<DataToken>>>,
    followed: Followed,
    /// The masters showed an older state; nothing is asked of them until a session is open again.
    refused: AtomicBool,
    /// Why, the last time.
    refusal: Mutex<Option<NotFollowed>>,
}

/// A session with the masters. Cheap to clone; the session ends when [`close`](Self::close) is called, or with its
/// lease after the last clone is dropped.
#[derive(Clone)]
pub struct MasterClient {
    shared: Arc<Shared>,
    _stop: Arc<StopOnDrop>,
}

struct StopOnDrop(watch::Sender<bool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.send_replace(true);
    }
}

impl std::fmt::Debug for MasterClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MasterClient")
            .field("masters", &self.shared.config.masters)
            .field("session", &self.session())
            .finish_non_exhaustive()
    }
}

/// How long a token is waited for; whoever wants it asks again.
const TOKEN_PATIENCE: Duration = Duration::from_secs(5);

/// What a master signed, for chunkservers (`coord/zhongkui/docs/token.md`).
#[derive(Clone, Debug)]
pub struct DataToken {
    pub token: Bytes,
    /// The master's capability.
    pub signer: Bytes,
    /// It is good for at least a session's lease from then on.
    pub asked_at: Instant,
    /// Of the credentials when it was asked for.
    generation: u64,
}

/// Which token is wanted.
#[derive(Clone, Debug)]
pub struct FileToken {
    pub data: DataId,
    pub write: bool,
    /// One for the same that is still good, or empty.
    pub renewed: Bytes,
}

/// Between two tries of a mutation that has to wait for the first group of disks.
const GROUPS_WAIT: Duration = Duration::from_millis(100);

impl MasterClient {
    /// Starts to find the masters and to open a session; calls wait for both. Must be called inside a tokio runtime,
    /// which then keeps the session; the calls themselves may be polled anywhere.
    ///
    /// # Errors
    /// [`ClientError::NoMasters`].
    pub fn new(config: ClientConfig) -> Result<Self, ClientError> {
        if config.masters.is_none() {
            return Err(ClientError::NoMasters);
        }
        let closed = watch::Sender::new(false);
        let shared = Arc::new(Shared {
            masters: Replicated::new(
                ReplicatedConfig {
                    members: config.masters.listed.clone(),
                    attempt_timeout: config.attempt_timeout,
                    transport: config.transport.clone(),
                },
                |master, options| Box::pin(background::ask_for_anything(master, options)),
            ),
            followed: Followed::new(config.memory.clone()),
            refused: AtomicBool::new(false),
            refusal: Mutex::default(),
            config,
            runtime: Handle::current(),
            sessions: Arc::default(),
            wanted: Notify::new(),
            session_seen: watch::Sender::new(None),
            table: watch::Sender::new(Arc::default()),
            cluster_id: Mutex::new(None),
            reopened: Mutex::default(),
            closed: closed.clone(),
            denied: Mutex::default(),
            token: Mutex::default(),
        });
        if let Some(registered) = shared.config.masters.registered.clone() {
            shared.masters.follow(registered);
        }
        shared.runtime.spawn(background::run(Arc::clone(&shared)));
        Ok(Self { shared, _stop: Arc::new(StopOnDrop(closed)) })
    }

    /// The session, once there is one.
    #[must_use]
    pub fn session(&self) -> Option<SessionId> {
        self.shared.sessions.current()
    }

    /// The cluster's identity, once a master told it.
    #[must_use]
    pub fn cluster_id(&self) -> Option<String> {
        self.shared.cluster_id.lock().clone()
    }

    /// Why the masters are not followed now, if they are not.
    #[must_use]
    pub fn refusal(&self) -> Option<NotFollowed> {
        self.shared.refusal.lock().clone()
    }

    /// Waits until a session is open.
    ///
    /// # Errors
    /// [`ClientError::Closed`], [`ClientError::OtherCluster`], [`ClientError::NotFollowed`].
    pub async fn ready(&self) -> Result<SessionId, ClientError> {
        self.shared.session(None).await
    }

    /// `callback` runs whenever a session was opened, the first time with `None` before it. After a change of
    /// session all that was held by the old one (orphans) is gone. It must not block.
    pub fn on_session(&self, callback: impl Fn(Option<SessionId>, SessionId) + Send + Sync + 'static) {
        self.shared.reopened.lock().push(Box::new(callback));
    }

    /// Changes the namespace; waits as long as it takes.
    ///
    /// # Errors
    /// See [`ClientError`]; the file system's own answers are [`ClientError::Errno`].
    pub async fn mutate(&self, mutation: Mutation) -> Result<Mutated, ClientError> {
        self.mutate_by(mutation, None).await
    }

    /// Changes the namespace; gives up at `deadline`, not knowing then whether it happened.
    ///
    /// # Errors
    /// As [`mutate`](Self::mutate).
    pub async fn mutate_by(
        &self,
        mutation: Mutation,
        deadline: Option<Instant>,
    ) -> Result<Mutated, ClientError> {
        let mut request =
            proto::MutateRequest { op: Some(mutation.into()), ..proto::MutateRequest::default() };
        loop {
            let Some(ticket) = self.shared.sessions.ticket().await else {
                self.shared.session(deadline).await?;
                continue;
            };
            request.session = ticket.session.0;
            request.sequence = ticket.number.sequence;
            request.acknowledged_below = ticket.number.acknowledged_below;
            let message = &request;
            let reply = self
                .shared
                .call(deadline, |master, options| async move {
                    NamespaceClient::new(master).mutate(message, &options).await
                })
                .await?;
            let Some(reply) = reply else {
                self.shared.session_lost(ticket.session);
                continue;
            };
            match convert::mutated(reply)? {
                // No group of disks exists yet. The answer is remembered under this number, so ask with the next.
                Err(Errno::EAGAIN) => {
                    drop(ticket);
                    self.shared
                        .masters
                        .sleep(GROUPS_WAIT, deadline, "no chunkservers have joined yet")
                        .await?;
                }
                Err(errno) => return Err(errno.into()),
                Ok(done) => return Ok(done),
            }
        }
    }

    /// Reads the namespace, linearizably; waits as long as it takes.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn query(&self, query: Query) -> Result<Answer, ClientError> {
        self.query_by(query, None).await
    }

    /// Reads the namespace, linearizably; gives up at `deadline`.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn query_by(&self, query: Query, deadline: Option<Instant>) -> Result<Answer, ClientError> {
        // Relaxed: a query that misses it is one that came before.
        if self.shared.refused.load(Ordering::Relaxed) {
            self.shared.session(deadline).await?;
        }
        let session = self.session().map_or(0, |session| session.0);
        let request = proto::QueryRequest { session, op: Some(query.into()) };
        let message = &request;
        let reply = self
            .shared
            .call_sessionless(deadline, |master, options| async move {
                NamespaceClient::new(master).query(message, &options).await
            })
            .await?;
        Ok(convert::answer(reply)??)
    }

    /// The name's inode, and its parent's attributes.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn lookup(&self, parent: InodeId, name: Name) -> Result<(Attr, Option<Attr>), ClientError> {
        let answer = self.query(Query::Lookup { parent, name }).await?;
        Ok((attr_of(answer.attr, "lookup")?, answer.parent))
    }

    /// An inode's attributes.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn get_attr(&self, ino: InodeId) -> Result<Attr, ClientError> {
        attr_of(self.query(Query::GetAttr(ino)).await?.attr, "get-attr")
    }

    /// One page of a directory.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn read_dir(&self, page: ReadDir) -> Result<Answer, ClientError> {
        self.query(Query::ReadDir(page)).await
    }

    /// # Errors
    /// See [`ClientError`].
    pub async fn stat_fs(&self, deadline: Option<Instant>) -> Result<StatFs, ClientError> {
        let answer = self.query_by(Query::StatFs, deadline).await?;
        answer.stat_fs.ok_or_else(|| Invalid::Missing { message: "stat-fs answer", field: "value" }.into())
    }

    /// A token for all data, if the masters gave one.
    #[must_use]
    pub fn whole_token(&self) -> Option<Arc<DataToken>> {
        let token = self.shared.token.lock().clone()?;
        if token.generation != self.shared.key_generation() {
            // It is for a key that is shown no more.
            self.shared.wanted.notify_one();
            return None;
        }
        Some(token)
    }

    /// A token for the data of one file.
    ///
    /// # Errors
    /// See [`ClientError`]; [`Errno::EACCES`] and [`Errno::ESTALE`] (the file has other data now) among them.
    pub async fn file_token(&self, file: InodeId, wanted: &FileToken) -> Result<DataToken, ClientError> {
        let deadline = Some(Instant::now() + TOKEN_PATIENCE);
        loop {
            let session = self.shared.session(deadline).await?;
            let wanted = proto::TokenWanted {
                ino: file.0,
                data: wanted.data.0,
                write: wanted.write,
                renewed: wanted.renewed.clone(),
            };
            let request = proto::TokensRequest { session: session.0, wanted: vec![wanted] };
            let message = &request;
            let asked_at = Instant::now();
            let generation = self.shared.key_generation();
            let reply = self
                .shared
                .call(deadline, |master, options| async move {
                    NamespaceClient::new(master).tokens(message, &options).await
                })
                .await?;
            let Some(reply) = reply else {
                self.shared.session_lost(session);
                continue;
            };
            let given = reply.given.into_iter().next().unwrap_or_default();
            if let Some(errno) = Errno::from_number(given.errno) {
                return Err(errno.into());
            }
            return Ok(DataToken { token: given.token, signer: reply.signer, asked_at, generation });
        }
    }

    /// The newest table this client has; version 0 before the first came.
    #[must_use]
    pub fn table(&self) -> Arc<Table> {
        Arc::clone(&self.shared.table.borrow())
    }

    /// Shows every new table.
    #[must_use]
    pub fn table_watch(&self) -> watch::Receiver<Arc<Table>> {
        self.shared.table.subscribe()
    }

    /// Asks the master for a table newer than `known_version`; gives what there is then, which may be the known one.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn refresh_table(
        &self,
        known_version: u64,
        deadline: Option<Instant>,
    ) -> Result<Arc<Table>, ClientError> {
        let table = self.table();
        if table.version > known_version { Ok(table) } else { self.shared.fetch_table(deadline).await }
    }

    /// Tells the master that a chunkserver could not be reached: it looks at once whether that is dead.
    ///
    /// # Errors
    /// See [`ClientError`]. Nothing depends on the report.
    pub async fn report_server(&self, server: ServerId, deadline: Instant) -> Result<(), ClientError> {
        let request = proto::ReportRequest { server: server.0 };
        let message = &request;
        self.shared
            .call_sessionless(Some(deadline), |master, options| async move {
                ClusterClient::new(master).report(message, &options).await
            })
            .await
            .map(drop)
    }

    /// The administration calls of whichever master is the leader.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn status(&self, deadline: Option<Instant>) -> Result<proto::StatusReply, ClientError> {
        let request = proto::StatusRequest {};
        let message = &request;
        self.shared
            .call_sessionless(deadline, |master, options| async move {
                AdminClient::new(master).status(message, &options).await
            })
            .await
    }

    /// Makes the master that listens at an address one of the cluster; it was started with `--join`. Gives its number, and
    /// whether it was one already.
    ///
    /// # Errors
    /// See [`ClientError`]. After [`ClientError::Deadline`] it goes on catching up; the same call again makes it a voter.
    pub async fn add_master(
        &self,
        address: &str,
        deadline: Option<Instant>,
    ) -> Result<proto::AddMasterReply, ClientError> {
        let request = proto::AddMasterRequest { id: 0, address: address.to_owned() };
        let message = &request;
        self.shared
            .call_sessionless(deadline, |master, options| async move {
                AdminClient::new(master).add_master(message, &options).await
            })
            .await
    }

    /// Takes a master out of the cluster.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn remove_master(&self, id: u64, deadline: Option<Instant>) -> Result<(), ClientError> {
        let request = proto::RemoveMasterRequest { id };
        let message = &request;
        self.shared
            .call_sessionless(deadline, |master, options| async move {
                AdminClient::new(master).remove_master(message, &options).await
            })
            .await
            .map(drop)
    }

    /// Says that the masters' state, though older than one that was seen, is to be followed. Gives the new cluster epoch.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn new_epoch(&self, deadline: Option<Instant>) -> Result<u64, ClientError> {
        let request = proto::NewEpochRequest {};
        let message = &request;
        let reply = self
            .shared
            .call_sessionless(deadline, |master, options| async move {
                AdminClient::new(master).new_epoch(message, &options).await
            })
            .await?;
        Ok(reply.epoch)
    }

    /// Sets how many copies there are to be, and how many a write must reach.
    ///
    /// # Errors
    /// See [`ClientError`]; refused if the numbers cannot be.
    pub async fn set_replicas(
        &self,
        replicas: u32,
        min_replicas: u32,
        deadline: Option<Instant>,
    ) -> Result<(), ClientError> {
        let request = proto::SetReplicasRequest { replicas, min_replicas };
        let message = &request;
        self.shared
            .call_sessionless(deadline, |master, options| async move {
                AdminClient::new(master).set_replicas(message, &options).await
            })
            .await
            .map(drop)
    }

    /// The only master listens at another address from its next start on.
    ///
    /// # Errors
    /// See [`ClientError`]; refused if there are more masters.
    pub async fn move_master(&self, address: &str, deadline: Option<Instant>) -> Result<(), ClientError> {
        let request = proto::MoveMasterRequest { address: address.to_owned() };
        let message = &request;
        self.shared
            .call_sessionless(deadline, |master, options| async move {
                AdminClient::new(master).move_master(message, &options).await
            })
            .await
            .map(drop)
    }

    /// Marks disks to be emptied, or takes that back.
    ///
    /// # Errors
    /// See [`ClientError`]; refused if one of the disks is unknown, and then none is marked.
    pub async fn drain(
        &self,
        disks: Vec<u32>,
        draining: bool,
        deadline: Option<Instant>,
    ) -> Result<(), ClientError> {
        let request = proto::DrainRequest { disks, draining };
        let message = &request;
        self.shared
            .call_sessionless(deadline, |master, options| async move {
                AdminClient::new(master).drain(message, &options).await
            })
            .await?;
        Ok(())
    }

    /// Where a file's replicas are.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn where_is(
        &self,
        file: proto::where_request::File,
        deadline: Option<Instant>,
    ) -> Result<proto::WhereReply, ClientError> {
        let request = proto::WhereRequest { file: Some(file) };
        let message = &request;
        let reply = self
            .shared
            .call_sessionless(deadline, |master, options| async move {
                AdminClient::new(master).r#where(message, &options).await
            })
            .await?;
        match Errno::from_number(reply.errno) {
            Some(errno) => Err(errno.into()),
            None => Ok(reply),
        }
    }

    /// Ends the session: what it holds is freed now, not with its lease.
    pub async fn close(&self, deadline: Instant) {
        if let Some(session) = self.session() {
            self.shared.sessions.lost(session);
            let request = proto::CloseSessionRequest { session: session.0 };
            let message = &request;
            let closing = self.shared.call(Some(deadline), |master, options| async move {
                NamespaceClient::new(master).close_session(message, &options).await
            });
            if let Err(error) = closing.await {
                tracing::warn!(%session, %error, "close the session; it ends with its lease");
            }
        }
        self.shared.closed.send_replace(true);
    }
}

fn attr_of(attr: Option<Attr>, message: &'static str) -> Result<Attr, ClientError> {
    attr.ok_or_else(|| Invalid::Missing { message, field: "attributes" }.into())
}

impl Shared {
    /// Asks masters until one answers. `None`: it does not know the session.
    async fn call<T, F, A>(&self, deadline: Option<Instant>, attempt: F) -> Result<Option<T>, ClientError>
    where
        F: Fn(Client, CallOptions) -> A,
        A: Future<Output = Result<kuafu::Response<T>, Status>>,
    {
        let mut closed = self.closed.subscribe();
        // Of a closed client nobody waits for masters that are away.
        let last = closed.borrow_and_update().then(|| Instant::now() + self.masters.attempt_timeout());
        let deadline = deadline.into_iter().chain(last).min();
        tokio::select! {
            biased;
            answer = self.masters.call(deadline, attempt) => match answer {
                Ok(answer) => Ok(Some(answer)),
                Err(CallError::Refused { status, .. }) if status.code == kuafu::Code::NotFound => Ok(None),
                Err(error) => Err(error.into()),
            },
            _ = closed.changed() => Err(ClientError::Closed),
        }
    }

    /// As [`call`](Self::call), for what needs no session.
    async fn call_sessionless<T, F, A>(&self, deadline: Option<Instant>, attempt: F) -> Result<T, ClientError>
    where
        F: Fn(Client, CallOptions) -> A,
        A: Future<Output = Result<kuafu::Response<T>, Status>>,
    {
        self.call(deadline, attempt).await?.ok_or_else(|| ClientError::Refused {
            address: self.masters.current().map_or_else(String::new, |master| master.address().to_string()),
            status: Status::new(kuafu::Code::NotFound, "not found"),
        })
    }

    /// The current session; waits for one.
    async fn session(&self, deadline: Option<Instant>) -> Result<SessionId, ClientError> {
        let mut seen = self.session_seen.subscribe();
        let mut closed = self.closed.subscribe();
        loop {
            if let Some(session) = self.sessions.current() {
                return Ok(session);
            }
            if *closed.borrow_and_update() {
                if let Some((address, status)) = self.denied.lock().clone() {
                    return Err(ClientError::Refused { address, status });
                }
                return Err(self
                    .refusal
                    .lock()
                    .clone()
                    .map_or(ClientError::Closed, ClientError::NotFollowed));
            }
            let timeout = deadline.map_or(Duration::from_secs(3600), |deadline| {
                deadline.saturating_duration_since(Instant::now())
            });
            if timeout.is_zero() {
                return Err(ClientError::Deadline { last: "no session could be opened".to_owned() });
            }
            let sleep = {
                let _runtime = self.runtime.enter();
                tokio::time::sleep(timeout)
            };
            tokio::select! {
                _ = seen.changed() => {}
                _ = closed.changed() => {}
                () = sleep => {}
            }
        }
    }

    /// Changes with the keys that are shown.
    fn key_generation(&self) -> u64 {
        self.config.transport.credentials.as_ref().map_or(0, |credentials| credentials.generation())
    }

    fn session_lost(&self, session: SessionId) {
        if self.sessions.lost(session) {
            tracing::warn!(%session, "the masters no longer know the session; opening another");
            self.wanted.notify_one();
        }
    }

    /// Whether the answer to a call is to be obeyed. `asked` was known when the call was made. If not, the session
    /// is over, and another master is asked for one.
    fn follow(&self, asked: &Lineage, shown: Option<proto::Lineage>) -> Result<(), ClientError> {
        let Err(error) = self.followed.follow(asked, shown) else { return Ok(()) };
        if !self.refused.swap(true, Ordering::Relaxed) {
            tracing::error!(%error, "a master is not followed");
        }
        *self.refusal.lock() = Some(error.clone());
        if let Some(master) = self.masters.current() {
            self.masters.leave(&master);
        }
        if let Some(session) = self.sessions.current()
            && self.sessions.lost(session)
        {
            self.wanted.notify_one();
        }
        Err(error.into())
    }

    async fn fetch_table(&self, deadline: Option<Instant>) -> Result<Arc<Table>, ClientError> {
        self.next_table(Duration::ZERO, deadline).await
    }

    /// Asks for a table newer than the newest here; the master answers when there is one, after `wait` at the latest.
    async fn next_table(&self, wait: Duration, deadline: Option<Instant>) -> Result<Arc<Table>, ClientError> {
        let asked = self.followed.known();
        let request = proto::GetTableRequest {
            known_version: self.table.borrow().version,
            wait_ms: u64::try_from(wait.as_millis()).unwrap_or(u64::MAX),
            masters_version: self.masters.version(),
            known: Some(asked.clone().into()),
            ..proto::GetTableRequest::default()
        };
        let message = &request;
        let reply = self
            .call_sessionless(deadline, |master, options| async move {
                ClusterClient::new(master).get_table(message, &options).await
            })
            .await?;
        self.follow(&asked, reply.lineage)?;
        self.masters.learn(&reply.masters, reply.masters_version);
        if let Some(table) = reply.table {
            let table = Arc::new(Table::try_from(table)?);
            self.table.send_if_modified(|known| {
                let newer = table.version > known.version;
                if newer {
                    *known = Arc::clone(&table);
                }
                newer
            });
        }
        Ok(Arc::clone(&self.table.borrow()))
    }
}
