//! The client: one multiplexed connection to one server.

mod calls;
mod connect;
mod link;

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use prost::Message;
use tokio::runtime::Handle;
use tokio::sync::watch;

use self::connect::ConnectError;
use self::link::{Bounds, Link, StartError};
use crate::address::Address;
use crate::auth::Credentials;
use crate::conn::Answer;
use crate::message::{CallOptions, Response};
use crate::method::Method;
use crate::payload::{PayloadAllocator, PoolAllocator};
use crate::status::Status;
use crate::tls::Mismatch;

/// Longer timeouts are as good as none, and the clock must not overflow. (A server drops work after 71 minutes: the
/// longest a frame can say.)
pub(crate) const TIMEOUT_MAX: Duration = Duration::from_secs(24 * 3600);
/// Payload buffers kept for the next payloads, unless another allocator is given.
const KEPT_BYTES_MAX: usize = 8 << 20;
/// Pause after the first failed connect; doubled by each further one.
const PAUSE_FIRST: Duration = Duration::from_millis(5);
/// A connection that ends younger than this counts as a failed one.
const YOUNG: Duration = Duration::from_millis(500);

/// How a client connects and watches its connection.
#[derive(Clone)]
pub struct ClientConfig {
    /// A connection must be open, hello exchanged, within this. Default 2 s.
    pub connect_timeout: Duration,
    /// After a silence of this length the peer is pinged. Default 5 s.
    pub ping_idle: Duration,
    /// The same while calls wait for answers. Default 1 s.
    pub ping_waiting: Duration,
    /// A pinged peer that is silent for this is dead. Default 3 s.
    pub ping_timeout: Duration,
    /// Longest pause before a failed connect is tried again. Default 250 ms.
    pub backoff_max: Duration,
    /// Calls in flight on the connection; more wait. The server may allow fewer. Default 1024.
    pub in_flight_max: u32,
    /// Calls that wait for a place; more are answered BUSY. Default 16384.
    pub waiting_max: u32,
    /// Who this client is. Default: nobody, whom no server of the platform answers.
    pub credentials: Option<Arc<dyn Credentials>>,
    /// TLS over TCP: what servers have to do as well. Unix sockets never have it. Default: no.
    pub tls: bool,
    /// Where payloads of answers land. Default: a [`PoolAllocator`].
    pub payload_allocator: Arc<dyn PayloadAllocator>,
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(2),
            ping_idle: Duration::from_secs(5),
            ping_waiting: Duration::from_secs(1),
            ping_timeout: Duration::from_secs(3),
            backoff_max: Duration::from_millis(250),
            in_flight_max: 1024,
            waiting_max: 16384,
            credentials: None,
            tls: false,
            payload_allocator: Arc::new(PoolAllocator::new(KEPT_BYTES_MAX)),
        }
    }
}

impl std::fmt::Debug for ClientConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientConfig").finish_non_exhaustive()
    }
}

/// A connection to one server: multiplexed, opened by the first call, opened again after it broke. Cheap to clone;
/// the connection closes with the last clone.
#[derive(Clone, Debug)]
pub struct Client {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    address: Address,
    config: ClientConfig,
    runtime: Handle,
    state: Mutex<State>,
    mismatch: Mismatch,
}

/// What connecting came to, for all who wait.
type Attempt = watch::Receiver<Option<Result<Arc<Link>, Status>>>;

#[derive(Debug)]
enum State {
    /// No connection. After failures, none is tried before `not_before`.
    Idle {
        failures: u32,
        not_before: Option<Instant>,
        last: Option<Status>,
    },
    Connecting {
        failures: u32,
        attempt: Attempt,
    },
    Open {
        link: Arc<Link>,
        since: Instant,
        failures: u32,
    },
}

enum Next {
    Ready(Arc<Link>),
    Wait(Attempt),
    Failed(Status),
}

impl Client {
    /// The connection is driven by the current runtime.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    #[must_use]
    pub fn new(address: Address, config: ClientConfig) -> Self {
        Self::with_runtime(address, config, Handle::current())
    }

    /// The connection is driven by `runtime`; calls may be made from any thread.
    #[must_use]
    pub fn with_runtime(address: Address, config: ClientConfig, runtime: Handle) -> Self {
        let state = Mutex::new(State::Idle { failures: 0, not_before: None, last: None });
        Self { shared: Arc::new(Shared { address, config, runtime, state, mismatch: Mismatch::default() }) }
    }

    /// Whether it is a clone of that one.
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }

    /// The server's address.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.shared.address
    }

    /// Calls a method. Dropping the future cancels the call at the server.
    ///
    /// # Errors
    /// The server's status; UNAVAILABLE if the connection broke (the call may have been executed) or cannot be opened
    /// (`retry_after` then says when it will be tried again); DEADLINE_EXCEEDED; BUSY if too many calls wait.
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
        let deadline = Instant::now() + options.timeout.min(TIMEOUT_MAX);
        let call = loop {
            let link = self.link(deadline).await?;
            match link.start(&self.shared.runtime, method, message, payload.clone(), deadline, options).await
            {
                Ok(call) => break call,
                Err(StartError::Failed(status)) => return Err(status),
                // Nothing was sent. This ends: a connection that breaks young counts as a failed one.
                Err(StartError::Gone) => {}
            }
        };
        let Answer { message, payload, payload_check } = call.await?;
        let message = Rep::decode(message)
            .map_err(|error| Status::internal(format!("decode the answer of {}: {error}", method.name)))?;
        Ok(Response { message, payload, payload_check })
    }

    /// The open connection, or a new one.
    async fn link(&self, deadline: Instant) -> Result<Arc<Link>, Status> {
        let mut attempt = match self.shared.next() {
            Next::Ready(link) => return Ok(link),
            Next::Failed(status) => return Err(status),
            Next::Wait(attempt) => attempt,
        };
        let waited = until(&self.shared.runtime, deadline, attempt.wait_for(Option::is_some)).await;
        match waited {
            None => Err(Status::deadline_exceeded(format!("{} is still being connected to", self.address()))),
            Some(Err(_gone)) => Err(Status::not_reached("the runtime of the connection stopped")),
            Some(Ok(result)) => result.clone().expect("waited for it to be there"),
        }
    }
}

impl Shared {
    /// What a caller does next; starts connecting if that is due.
    fn next(self: &Arc<Self>) -> Next {
        let mut state = self.state.lock();
        let (failures, not_before, last) = match &*state {
            State::Open { link, .. } if link.is_usable() => return Next::Ready(Arc::clone(link)),
            State::Connecting { attempt, .. } => return Next::Wait(attempt.clone()),
            State::Open { since, failures, .. } if since.elapsed() < YOUNG => {
                let pause = self.pause(failures + 1);
                (failures + 1, Some(*since + pause), None)
            }
            State::Open { .. } => (0, None, None),
            State::Idle { failures, not_before, last } => (*failures, *not_before, last.clone()),
        };
        let now = Instant::now();
        if let Some(at) = not_before.filter(|at| now < *at) {
            let status = last.clone().unwrap_or_else(|| {
                Status::not_reached(format!("{} closed the connection at once", self.address))
            });
            *state = State::Idle { failures, not_before, last };
            return Next::Failed(Status { retry_after: Some(at - now), ..status });
        }
        let (sender, attempt) = watch::channel(None);
        *state = State::Connecting { failures, attempt: attempt.clone() };
        let weak = Arc::downgrade(self);
        let config = self.config.clone();
        let address = self.address.clone();
        self.runtime.spawn(async move {
            let result = open(&address, &config).await;
            match weak.upgrade() {
                Some(shared) => {
                    sender.send_replace(Some(shared.connected(result)));
                }
                None => {
                    if let Ok(link) = result {
                        link.abandon();
                    }
                }
            }
        });
        Next::Wait(attempt)
    }

    fn connected(&self, result: Result<Arc<Link>, ConnectError>) -> Result<Arc<Link>, Status> {
        let mut state = self.state.lock();
        let State::Connecting { failures, .. } = &*state else {
            unreachable!("only the one attempt leaves this state");
        };
        let failures = *failures;
        match result {
            Ok(link) => {
                *state = State::Open { link: Arc::clone(&link), since: Instant::now(), failures };
                Ok(link)
            }
            Err(error) => {
                if error.is_mismatch() {
                    self.mismatch.warn(&self.address, &error.to_string());
                }
                let status = error.into_status();
                let pause = self.pause(failures);
                *state = State::Idle {
                    failures: failures.saturating_add(1),
                    not_before: Some(Instant::now() + pause),
                    last: Some(status.clone()),
                };
                Err(Status { retry_after: Some(pause), ..status })
            }
        }
    }

    fn pause(&self, failures: u32) -> Duration {
        let full = (PAUSE_FIRST * 2u32.saturating_pow(failures.min(16))).min(self.config.backoff_max);
        // Half of it is random, so that a thousand clients do not come back in step.
        full.mul_f64(rand::random_range(0.5..=1.0))
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if let State::Open { link, .. } = self.state.get_mut() {
            link.abandon();
        }
    }
}

/// Connects and starts the connection's task.
async fn open(address: &Address, config: &ClientConfig) -> Result<Arc<Link>, ConnectError> {
    let opened = connect::connect(address, config).await?;
    let bounds = Bounds { in_flight_max: config.in_flight_max, waiting_max: config.waiting_max };
    let (link, task) = Link::new(opened, &bounds, Arc::clone(&config.payload_allocator));
    let address = address.clone();
    tokio::spawn(async move {
        if let Some(reason) = task.run().await {
            tracing::debug!(%address, %reason, "a connection ended");
        }
    });
    Ok(link)
}

/// `None` if the deadline came first. May be polled outside the runtime that drives the connection.
pub(crate) async fn until<F: Future>(runtime: &Handle, deadline: Instant, future: F) -> Option<F::Output> {
    let sleep = {
        let _entered = runtime.enter();
        tokio::time::sleep_until(deadline.into())
    };
    tokio::select! {
        biased;
        output = future => Some(output),
        () = sleep => None,
    }
}
