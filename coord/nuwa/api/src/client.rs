//! The client: reads, and where sessions and watches come from.
//!
//! What it keeps: a read shows everything the client has seen before, a stale one at another member too; a call ends with
//! Nuwa's answer, with a refusal, or at the caller's deadline, never because a member is away.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use kuafu::{Address, CallError, CallOptions, Client, Code, Replicated, ReplicatedConfig, Status};
use parking_lot::Mutex;
use zhongkui_access::Access;

use crate::proto::read_reply::What as Answer;
use crate::proto::read_request::What as Question;
use crate::proto::{self, NuwaAdminClient, NuwaClient as Wire, RefusalCode};
use crate::session::Session;
use crate::watch::{Connection, Place, Watcher};

/// Watches that wait on one connection: well below what a server grants, since each is a call in flight.
const WATCHES_PER_CONNECTION: usize = 512;

/// How a client is set up.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// Nuwa's members, at least one.
    pub members: Vec<Address>,
    /// How long one member may take over one attempt before the next is asked. Default 4 s: longer than an election.
    pub attempt_timeout: Duration,
    /// The connections, and who this client is. Default: somebody whom only servers of this process know.
    pub transport: kuafu::ClientConfig,
}

impl ClientConfig {
    #[must_use]
    pub fn new(members: Vec<Address>) -> Self {
        Self::with(members, Access::process().transport())
    }

    /// With connections of its own.
    #[must_use]
    pub fn with(members: Vec<Address>, transport: kuafu::ClientConfig) -> Self {
        let ReplicatedConfig { members, attempt_timeout, transport: _ } = ReplicatedConfig::new(members);
        Self { members, attempt_timeout, transport }
    }

    fn replicated(&self, members: Vec<Address>) -> Replicated {
        let config = ReplicatedConfig {
            members,
            attempt_timeout: self.attempt_timeout,
            transport: self.transport.clone(),
        };
        Replicated::new(config, |member, options| Box::pin(ask_for_anything(member, options)))
    }
}

/// What only a leader answers.
async fn ask_for_anything(member: Client, options: CallOptions) -> Result<(), Status> {
    let what = Some(Question::Summary(proto::GetSummary {}));
    let request = proto::ReadRequest { what, ..proto::ReadRequest::default() };
    Wire::new(member).read(&request, &options).await.map(drop)
}

/// Why a call failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ClientError {
    /// Nuwa's own answer: nothing was changed.
    #[error("{message}")]
    Refused { code: RefusalCode, path: String, message: String },
    #[error(transparent)]
    Call(#[from] CallError),
    #[error("Nuwa's answer means nothing: {0}")]
    Reply(&'static str),
}

impl ClientError {
    /// Whether the same call may succeed later without anybody changing anything.
    #[must_use]
    pub const fn retryable(&self) -> bool {
        match self {
            Self::Call(CallError::Deadline { .. }) => true,
            Self::Refused { .. }
            | Self::Call(CallError::Refused { .. } | CallError::NoMembers)
            | Self::Reply(_) => false,
        }
    }

    /// Whether the caller's capability does not allow it, or is no good, or there is none. What its refusal says names what is missing.
    #[must_use]
    pub fn is_denied(&self) -> bool {
        matches!(self, Self::Call(CallError::Refused { status, .. }) if status.code == Code::PermissionDenied)
    }

    /// Why Nuwa refused, if it did.
    #[must_use]
    pub const fn refusal(&self) -> Option<RefusalCode> {
        match self {
            Self::Refused { code, .. } => Some(*code),
            Self::Call(_) | Self::Reply(_) => None,
        }
    }
}

impl From<proto::Refusal> for ClientError {
    fn from(refusal: proto::Refusal) -> Self {
        Self::Refused { code: refusal.code(), path: refusal.path, message: refusal.message }
    }
}

/// How current a read is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Freshness {
    /// It shows what every change left that was answered to anybody before.
    #[default]
    Linearizable,
    /// It shows at least what this client has seen, and may miss what others did since. Any member answers.
    Stale,
}

/// A page of a directory.
#[derive(Clone, Debug, PartialEq)]
pub struct Listed {
    /// By name.
    pub entries: Vec<proto::Entry>,
    /// There are more behind the last of these.
    pub more: bool,
    /// To watch from the next one on misses nothing.
    pub revision: u64,
}

pub(crate) struct Inner {
    config: ClientConfig,
    pub(crate) leader: Replicated,
    /// Whichever member answers.
    any: Replicated,
    /// Connections for watches; each watcher has one of them.
    watching: Mutex<Vec<Arc<Connection>>>,
    /// The newest revision seen.
    newest: AtomicU64,
}

/// Cheap to clone.
#[derive(Clone)]
pub struct NuwaClient {
    pub(crate) inner: Arc<Inner>,
}

impl std::fmt::Debug for NuwaClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NuwaClient").field("members", &self.inner.config.members).finish_non_exhaustive()
    }
}

impl NuwaClient {
    /// Connects when it is first asked for something. Must be called inside a tokio runtime, which drives the connections; calls may
    /// be polled anywhere.
    #[must_use]
    pub fn new(config: ClientConfig) -> Self {
        let leader = config.replicated(config.members.clone());
        let any = config.replicated(turned(&config.members));
        let (watching, newest) = (Mutex::default(), AtomicU64::new(0));
        Self { inner: Arc::new(Inner { config, leader, any, watching, newest }) }
    }

    /// The entry; `None` if there is none.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn get(
        &self,
        path: &str,
        freshness: Freshness,
        deadline: Option<Instant>,
    ) -> Result<Option<proto::Entry>, ClientError> {
        let question = Question::Get(proto::Get { path: path.to_owned() });
        match self.read(question, freshness, deadline).await?.1 {
            Answer::Entry(reply) => Ok(reply.entry),
            _ => Err(ClientError::Reply("no entry for a get")),
        }
    }

    /// A page of a directory.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn list(
        &self,
        list: proto::List,
        freshness: Freshness,
        deadline: Option<Instant>,
    ) -> Result<Listed, ClientError> {
        match self.read(Question::List(list), freshness, deadline).await? {
            (revision, Answer::List(reply)) => {
                Ok(Listed { entries: reply.entries, more: reply.more, revision })
            }
            _ => Err(ClientError::Reply("no list for a list")),
        }
    }

    /// Who holds the lock of a file.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn lock_state(
        &self,
        path: &str,
        deadline: Option<Instant>,
    ) -> Result<proto::LockState, ClientError> {
        let question = Question::Lock(proto::GetLock { path: path.to_owned() });
        match self.read(question, Freshness::Linearizable, deadline).await?.1 {
            Answer::Lock(state) => Ok(state),
            _ => Err(ClientError::Reply("no lock for a lock")),
        }
    }

    /// Anything that can be read, and a revision that was there before it was.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn read(
        &self,
        question: Question,
        freshness: Freshness,
        deadline: Option<Instant>,
    ) -> Result<(u64, Answer), ClientError> {
        let stale = freshness == Freshness::Stale;
        // What was read at the leader may not have reached the member that is asked.
        let at_least = if stale { self.newest() } else { 0 };
        let request = proto::ReadRequest { stale, at_least, what: Some(question) };
        let message = &request;
        let members = if stale { &self.inner.any } else { &self.inner.leader };
        let reply = members
            .call(deadline, |member, options| async move { Wire::new(member).read(message, &options).await })
            .await?;
        self.saw(reply.revision);
        match reply.what {
            Some(Answer::Refused(refusal)) => Err(refusal.into()),
            Some(answer) => Ok((reply.revision, answer)),
            None => Err(ClientError::Reply("an empty answer to a read")),
        }
    }

    /// Opens a session: who changes something has one.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn open_session(
        &self,
        ttl: Duration,
        description: impl Into<String>,
        deadline: Option<Instant>,
    ) -> Result<Session, ClientError> {
        Session::open(self.clone(), ttl, description.into(), deadline).await
    }

    /// Events of a file, or of a directory and everything below it, from a place on.
    #[must_use]
    pub fn watch(&self, path: impl Into<String>, from: Place) -> Watcher {
        let mut watching = self.inner.watching.lock();
        let room = watching.iter().find(|users| Arc::strong_count(users) <= WATCHES_PER_CONNECTION);
        let connection = room.cloned().unwrap_or_else(|| {
            let config = &self.inner.config;
            let new = Arc::new(Connection::new(config.replicated(turned(&config.members))));
            watching.push(Arc::clone(&new));
            new
        });
        Watcher::new(self.clone(), connection, path.into(), from)
    }

    /// What each member that answers says of itself.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn statuses(&self, timeout: Duration) -> Vec<(Address, Result<proto::StatusReply, Status>)> {
        let inner = &self.inner;
        let all = inner.leader.current().into_iter().chain(inner.leader.others());
        let mut statuses = Vec::new();
        for member in all {
            let address = member.address().clone();
            let options = CallOptions::within(timeout);
            let reply = NuwaAdminClient::new(member).status(&proto::StatusRequest {}, &options).await;
            statuses.push((address, reply.map(|reply| reply.message)));
        }
        statuses
    }

    /// Makes the member that listens at an address one of the cluster; it was started with `--join`.
    ///
    /// # Errors
    /// See [`ClientError`]. After a deadline it goes on catching up; the same call again makes it a voter.
    pub async fn add_member(
        &self,
        address: &str,
        deadline: Option<Instant>,
    ) -> Result<proto::AddMemberReply, ClientError> {
        let request = proto::AddMemberRequest { address: address.to_owned() };
        let message = &request;
        let call = self.inner.leader.call(deadline, |member, options| async move {
            NuwaAdminClient::new(member).add_member(message, &options).await
        });
        Ok(call.await?)
    }

    /// Takes a member out of the cluster.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn remove_member(&self, id: u64, deadline: Option<Instant>) -> Result<(), ClientError> {
        let request = proto::RemoveMemberRequest { id };
        let message = &request;
        let call = self.inner.leader.call(deadline, |member, options| async move {
            NuwaAdminClient::new(member).remove_member(message, &options).await
        });
        call.await?;
        Ok(())
    }

    /// The newest revision this client has seen.
    #[must_use]
    pub fn newest(&self) -> u64 {
        self.inner.newest.load(Ordering::Acquire)
    }

    pub(crate) fn saw(&self, revision: u64) {
        self.inner.newest.fetch_max(revision, Ordering::AcqRel);
    }
}

/// Clients begin at different members.
fn turned(members: &[Address]) -> Vec<Address> {
    let mut turned = members.to_vec();
    if !turned.is_empty() {
        turned.rotate_left(rand::random_range(0..members.len()));
    }
    turned
}
