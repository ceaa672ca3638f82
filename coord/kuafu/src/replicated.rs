//! Calls to a replicated service: finds the member that leads, and asks until there is an answer.
//!
//! Used by the clients of everything on the raft kit. What it keeps:
//! - a call ends with an answer, with a refusal that trying again cannot change, or at the caller's deadline, never because a
//!   member is away. So it may be executed more than once: it is for what is idempotent, or carries a stamp;
//! - calls run on the caller's task: nothing is handed to another one on the way to the socket.

mod attempts;
mod endpoints;
mod sequences;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::{CancellationToken, DropGuard};

use self::attempts::{Attempts, Step, Target};
use self::endpoints::Endpoints;
use crate::address::Address;
use crate::client::{Client, ClientConfig, until};
use crate::message::{CallOptions, Response};
use crate::status::{Code, Status};

pub use self::sequences::{Sequences, Ticket};

/// After this the other members are asked whether one of them leads: about what an election takes.
pub const DOUBT: Duration = Duration::from_secs(1);
/// Between two rounds of asking who leads, and how long one member may take to say so.
const LOOK_PERIOD: Duration = Duration::from_millis(100);
const LOOK_TIMEOUT: Duration = Duration::from_millis(500);

/// Asks a member for anything only a leader answers.
pub type Probe = fn(Client, CallOptions) -> Pin<Box<dyn Future<Output = Result<(), Status>> + Send>>;

/// Whom to ask, and how.
#[derive(Clone, Debug)]
pub struct ReplicatedConfig {
    /// At least one, unless some are [registered](Replicated::follow); more are learned from the members' hints.
    pub members: Vec<Address>,
    /// How long one member may take over one attempt before the next is asked. Default 4 s: longer than an election.
    pub attempt_timeout: Duration,
    /// The connections.
    pub transport: ClientConfig,
}

impl ReplicatedConfig {
    #[must_use]
    pub fn new(members: Vec<Address>) -> Self {
        Self { members, attempt_timeout: Duration::from_secs(4), transport: ClientConfig::default() }
    }
}

/// Why a call got no answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CallError {
    #[error("nobody answered in time; the last one said: {last}")]
    Deadline { last: String },
    /// Trying again would give the same.
    #[error("{address} refused: {status}")]
    Refused { address: Address, status: Status },
    #[error("no member is known")]
    NoMembers,
}

struct Shared {
    endpoints: Endpoints,
    attempt_timeout: Duration,
    /// Keeps time for callers outside of it.
    runtime: Handle,
    probe: Probe,
    /// Somebody looks whether another member leads than the one that is asked.
    looking: AtomicBool,
    /// Members are looked up by the service's name.
    is_named: AtomicBool,
    /// Over with the last clone.
    life: CancellationToken,
    _ends_life: DropGuard,
}

/// The members of one service. Cheap to clone.
#[derive(Clone)]
pub struct Replicated {
    shared: Arc<Shared>,
}

impl fmt::Debug for Replicated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replicated").field("endpoints", &self.shared.endpoints).finish_non_exhaustive()
    }
}

impl Replicated {
    /// Connects when it is first asked for something. The current runtime drives the connections; calls may be polled anywhere.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    #[must_use]
    pub fn new(config: ReplicatedConfig, probe: Probe) -> Self {
        let runtime = Handle::current();
        let life = CancellationToken::new();
        let shared = Shared {
            endpoints: Endpoints::new(&config.members, config.transport, runtime.clone()),
            attempt_timeout: config.attempt_timeout,
            runtime,
            probe,
            looking: AtomicBool::new(false),
            is_named: AtomicBool::new(false),
            _ends_life: life.clone().drop_guard(),
            life,
        };
        Self { shared: Arc::new(shared) }
    }

    /// How long one member may take over one attempt.
    #[must_use]
    pub fn attempt_timeout(&self) -> Duration {
        self.shared.attempt_timeout
    }

    /// Members known.
    #[must_use]
    pub fn members(&self) -> usize {
        self.shared.endpoints.len()
    }

    /// The member that is asked now; `None` if none is configured.
    #[must_use]
    pub fn current(&self) -> Option<Client> {
        self.shared.endpoints.current()
    }

    /// The others.
    #[must_use]
    pub fn others(&self) -> Vec<Client> {
        self.shared.endpoints.others()
    }

    /// Asks the next member from now on, unless somebody else has changed over already.
    pub fn leave(&self, client: &Client) {
        self.shared.endpoints.rotate_from(client);
    }

    /// Members are also those that are registered under the service's name, now and as they change.
    pub fn follow(&self, mut registered: watch::Receiver<crate::named::Endpoints>) {
        self.shared.is_named.store(true, Ordering::Relaxed);
        let (shared, life) = (Arc::downgrade(&self.shared), self.shared.life.clone());
        registered.mark_changed();
        self.shared.runtime.spawn(async move {
            while let Some(Ok(())) = life.run_until_cancelled(registered.changed()).await {
                let Some(shared) = shared.upgrade() else { return };
                let list = registered.borrow_and_update().clone();
                let addresses =
                    list.iter().flat_map(|list| list.iter()).map(|endpoint| endpoint.address.clone());
                shared.endpoints.offer(addresses.collect());
            }
        });
    }

    /// A leader said who all members are, as of a version that grows.
    pub fn learn(&self, members: &[String], version: u64) {
        self.shared.endpoints.learn(members, version);
    }

    /// Of what was last [learned](Self::learn).
    #[must_use]
    pub fn version(&self) -> u64 {
        self.shared.endpoints.version()
    }

    /// Asks members until one answers; without a deadline, for as long as it takes.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn call<T, F, A>(&self, deadline: Option<Instant>, attempt: F) -> Result<T, CallError>
    where
        F: Fn(Client, CallOptions) -> A,
        A: Future<Output = Result<Response<T>, Status>>,
    {
        let shared = &self.shared;
        let mut attempts = Attempts::new(shared.endpoints.len());
        loop {
            let client = match shared.endpoints.current() {
                Some(client) => client,
                None => shared.first_member(deadline).await?,
            };
            let timeout = deadline.map_or(shared.attempt_timeout, |deadline| {
                shared.attempt_timeout.min(deadline.saturating_duration_since(Instant::now()))
            });
            let attempt = attempt(client.clone(), CallOptions::within(timeout));
            let status = match shared.unless_left(&client, attempt).await {
                Ok(response) => return Ok(response.message),
                Err(status) => status,
            };
            match attempts.failed(&status, rand::random()) {
                Step::GiveUp => return Err(CallError::Refused { address: client.address().clone(), status }),
                Step::Retry { target, wait } => {
                    match target {
                        Target::Same => {}
                        Target::Next => shared.endpoints.rotate_from(&client),
                        Target::Leader(leader) => {
                            if !shared.endpoints.switch_to(&leader) {
                                shared.endpoints.rotate_from(&client);
                            }
                        }
                    }
                    tracing::debug!(member = %client.address(), %status, ?wait, "ask again");
                    self.sleep(wait, deadline, &status).await?;
                }
            }
        }
    }

    /// Waits `wait`, or says that the deadline lies before its end.
    ///
    /// # Errors
    /// [`CallError::Deadline`].
    pub async fn sleep(
        &self,
        wait: Duration,
        deadline: Option<Instant>,
        why: &(impl ToString + ?Sized),
    ) -> Result<(), CallError> {
        if deadline.is_some_and(|deadline| Instant::now() + wait >= deadline) {
            return Err(CallError::Deadline { last: why.to_string() });
        }
        if !wait.is_zero() {
            let sleep = {
                let _runtime = self.shared.runtime.enter();
                tokio::time::sleep(wait)
            };
            sleep.await;
        }
        Ok(())
    }
}

impl Shared {
    /// Waits for the name to be looked up, if there is one.
    async fn first_member(&self, deadline: Option<Instant>) -> Result<Client, CallError> {
        if !self.is_named.load(Ordering::Relaxed) {
            return Err(CallError::NoMembers);
        }
        let known = self.endpoints.known();
        match deadline {
            None => known.await,
            Some(deadline) => until(&self.runtime, deadline, known)
                .await
                .ok_or_else(|| CallError::Deadline { last: "nobody is registered".to_owned() })?,
        }
        self.endpoints.current().ok_or(CallError::NoMembers)
    }

    /// An attempt, given up when another member is found to lead: one that hangs or lost its network answers nobody.
    async fn unless_left<T>(
        self: &Arc<Self>,
        client: &Client,
        attempt: impl Future<Output = Result<T, Status>>,
    ) -> Result<T, Status> {
        let mut attempt = std::pin::pin!(attempt);
        let in_time = {
            let _runtime = self.runtime.enter();
            tokio::time::timeout(DOUBT, attempt.as_mut())
        };
        if let Ok(done) = in_time.await {
            return done;
        }
        loop {
            if !self.looking.swap(true, Ordering::AcqRel) {
                self.runtime.spawn(Arc::clone(self).look(client.clone()));
            }
            let doubt_again = {
                let _runtime = self.runtime.enter();
                tokio::time::sleep(LOOK_TIMEOUT)
            };
            tokio::select! {
                biased;
                done = &mut attempt => return done,
                () = self.endpoints.left(client) => return Err(Status::unavailable("another member leads")),
                // Whoever looked may just have ended, having looked for somebody else.
                () = doubt_again => {}
            }
        }
    }

    /// The member that is asked has not answered for a while: asks the others, as long as an attempt lasts, whether one
    /// of them leads now.
    async fn look(self: Arc<Self>, asked: Client) {
        tokio::select! {
            () = self.look_for_another(&asked) => {}
            () = self.endpoints.left(&asked) => {}
            () = tokio::time::sleep(self.attempt_timeout) => {}
        }
        self.looking.store(false, Ordering::Release);
    }

    async fn look_for_another(&self, asked: &Client) {
        loop {
            let others = self.endpoints.others().into_iter();
            let mut looks: JoinSet<_> = others.map(|other| leader_by(other, self.probe)).collect();
            while let Some(leader) = looks.join_next().await {
                let leader = leader.ok().flatten().filter(|leader| *leader != asked.address().to_string());
                if leader.is_some_and(|leader| self.endpoints.switch_to(&leader)) {
                    return;
                }
            }
            tokio::time::sleep(LOOK_PERIOD).await;
        }
    }
}

/// Who leads, if this member knows.
async fn leader_by(member: Client, probe: Probe) -> Option<String> {
    let address = member.address().to_string();
    match probe(member, CallOptions::within(LOOK_TIMEOUT)).await {
        Ok(()) => Some(address),
        Err(status) if status.code == Code::NotLeader => status.leader().map(str::to_owned),
        Err(_) => None,
    }
}
