//! Calls to a service by its name: any of its endpoints, chosen for each attempt. `docs/names.md` has the rules.

mod pool;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use prost::Message;
use tokio::runtime::Handle;
use tokio::sync::watch;

use self::pool::{Outcome, Pool, SlotId};
use crate::address::Address;
use crate::client::{Client, ClientConfig, TIMEOUT_MAX, until};
use crate::message::{CallOptions, Response};
use crate::method::Method;
use crate::name::Name;
use crate::retry::{Backoff, RetryBudget, RetryPolicy};
use crate::status::{Code, Status};

/// Retries of calls that may have been executed: so many in a hundred, and a reserve.
const RETRY_PERCENT: u32 = 20;
const RETRY_RESERVE: u32 = 100;
/// Pauses of a call that has tried everybody.
const PAUSES: RetryPolicy = RetryPolicy { first: Duration::from_millis(5), max: Duration::from_millis(200) };

/// One server of a service, as it registered itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    pub address: Address,
    /// Calls it gets beside the others, 100 unless it says otherwise. 0: none.
    pub weight: u32,
    /// Where it stands; empty if nobody said.
    pub rack: String,
    /// It takes no new calls.
    pub stopping: bool,
}

impl Endpoint {
    /// Of the usual weight, anywhere.
    #[must_use]
    pub fn new(address: Address) -> Self {
        Self { address, weight: 100, rack: String::new(), stopping: false }
    }
}

/// The endpoints of a service, `None` until they are known.
pub type Endpoints = Option<Arc<[Endpoint]>>;

/// No resolver knows where to look a name up.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name} cannot be looked up: {known} is known, {} is not", name.cluster())]
pub struct UnknownCluster {
    pub name: Name,
    /// Clusters that are, for people.
    pub known: String,
}

/// Finds out who lives.
pub trait Resolver: fmt::Debug + Send + Sync {
    /// The endpoints of a name, now and as they change. Returns at once; what is known comes when it is.
    ///
    /// # Errors
    /// [`UnknownCluster`].
    fn resolve(&self, name: &Name) -> Result<watch::Receiver<Endpoints>, UnknownCluster>;
}

/// How a named service is called.
#[derive(Clone, Debug, Default)]
pub struct NamedConfig {
    /// The connections.
    pub transport: ClientConfig,
    /// Where this process stands, written as its endpoints write it: those in the same rack are preferred. Empty: nowhere.
    pub rack: String,
}

/// The endpoints of one service. Connections are opened when first used. Cheap to clone.
#[derive(Clone)]
pub struct NamedClient {
    shared: Arc<Shared>,
}

struct Shared {
    name: Name,
    config: NamedConfig,
    runtime: Handle,
    budget: RetryBudget,
    inner: Mutex<Inner>,
}

struct Inner {
    pool: Pool<Client>,
    endpoints: watch::Receiver<Endpoints>,
}

impl fmt::Debug for NamedClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NamedClient").field("name", &self.shared.name).finish_non_exhaustive()
    }
}

impl NamedClient {
    /// Calls the endpoints that `endpoints` shows. The current runtime drives the connections; calls may be polled anywhere.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    #[must_use]
    pub fn new(name: Name, mut endpoints: watch::Receiver<Endpoints>, config: NamedConfig) -> Self {
        endpoints.mark_changed();
        let inner = Mutex::new(Inner { pool: Pool::new(config.rack.clone()), endpoints });
        let budget = RetryBudget::new(RETRY_PERCENT, RETRY_RESERVE);
        Self { shared: Arc::new(Shared { name, config, runtime: Handle::current(), budget, inner }) }
    }

    #[must_use]
    pub fn name(&self) -> &Name {
        &self.shared.name
    }

    /// Calls a method at one endpoint, and at others if that could not be done there. Dropping the future cancels the call.
    ///
    /// # Errors
    /// As [`Client::call`]; UNAVAILABLE also if no endpoint is known.
    pub async fn call<Req, Rep>(
        &self,
        method: &'static Method,
        message: &Req,
        payload: Bytes,
        options: &CallOptions,
    ) -> Result<Response<Rep>, Status>
    where
        Req: Message,
        Rep: Message + Default,
    {
        let shared = &self.shared;
        let deadline = Instant::now() + options.timeout.min(TIMEOUT_MAX);
        let mut pauses = PAUSES.pauses();
        let mut tried = Vec::new();
        let mut last = None;
        shared.budget.earn();
        loop {
            let Some(attempt) = shared.pick(&tried, deadline).await? else {
                // All were tried: from the start, in a while.
                let status = last.unwrap_or_else(|| Status::not_reached("no endpoint could be asked"));
                last = Some(shared.pause(&mut pauses, status, deadline).await?);
                tried.clear();
                continue;
            };
            let left = deadline.saturating_duration_since(Instant::now());
            let options = CallOptions { timeout: left, ..*options };
            let result = attempt.client.call(method, message, payload.clone(), &options).await;
            tried.push(attempt.slot);
            let status = match attempt.finish(result) {
                Ok(response) => return Ok(response),
                Err(status) => status,
            };
            if !shared.may_try_elsewhere(method, &status) {
                return Err(status);
            }
            tracing::debug!(name = %shared.name, %status, "try another endpoint");
            last = Some(status);
        }
    }
}

impl Shared {
    fn may_try_elsewhere(&self, method: &Method, status: &Status) -> bool {
        status.was_not_executed()
            || (method.idempotent && status.code == Code::Unavailable && self.budget.spend())
    }

    /// An endpoint that is not among `tried`; `None` if there is no other.
    async fn pick(self: &Arc<Self>, tried: &[SlotId], deadline: Instant) -> Result<Option<Attempt>, Status> {
        let mut waiting = {
            let mut inner = self.inner.lock();
            self.update(&mut inner);
            if !inner.pool.is_empty() {
                return Ok(self.choose(&mut inner, tried));
            }
            inner.endpoints.clone()
        };
        let known = waiting.wait_for(|endpoints| endpoints.as_ref().is_some_and(|list| !list.is_empty()));
        let end = deadline.min(Instant::now() + self.config.transport.connect_timeout);
        let known = until(&self.runtime, end, known).await.is_some_and(|known| known.is_ok());
        if !known {
            return Err(Status::not_reached(format!("{}: no endpoint is known", self.name)));
        }
        let mut inner = self.inner.lock();
        self.update(&mut inner);
        Ok(self.choose(&mut inner, tried))
    }

    fn update(&self, inner: &mut Inner) {
        if !inner.endpoints.has_changed().unwrap_or(false) {
            return;
        }
        let Some(list) = inner.endpoints.borrow_and_update().clone() else { return };
        let connect = |endpoint: &Endpoint| {
            Client::with_runtime(
                endpoint.address.clone(),
                self.config.transport.clone(),
                self.runtime.clone(),
            )
        };
        inner.pool.update(&list, connect);
    }

    fn choose(self: &Arc<Self>, inner: &mut Inner, tried: &[SlotId]) -> Option<Attempt> {
        let (slot, client) = inner.pool.pick(tried, Instant::now(), rand::random)?;
        Some(Attempt { shared: Arc::clone(self), slot, client, outcome: Outcome::GivenUp })
    }

    /// Waits before everybody is tried again. Fails with `status` if the deadline comes first.
    async fn pause(&self, pauses: &mut Backoff, status: Status, deadline: Instant) -> Result<Status, Status> {
        let end = Instant::now() + pauses.next_pause(&status);
        if end >= deadline {
            return Err(status);
        }
        until(&self.runtime, end, std::future::pending::<()>()).await;
        Ok(status)
    }
}

/// A call at one endpoint. The pool hears of its end however it ends.
struct Attempt {
    shared: Arc<Shared>,
    slot: SlotId,
    client: Client,
    outcome: Outcome,
}

impl Attempt {
    fn finish<T>(mut self, result: Result<T, Status>) -> Result<T, Status> {
        self.outcome = Outcome::of(result.as_ref().err());
        result
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        let spread = rand::random();
        self.shared.inner.lock().pool.ended(self.slot, self.outcome, Instant::now(), spread);
    }
}
