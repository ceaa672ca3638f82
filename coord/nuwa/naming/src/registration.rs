//! A server's own file in the registry, kept there as long as it serves.

use std::time::{Duration, Instant};

use coord_cluster::ClusterConfig;
use kuafu::{CancellationToken, Endpoint};
use nuwa_api::proto::compare::With;
use nuwa_api::proto::{Delete, EventKind, Operation, Put, Relation};
use nuwa_api::{ClientConfig, ClientError, NuwaClient, Place, Session, SessionState, Watched, ops};
use tokio::task::JoinHandle;
use zhongkui_access::Access;

use crate::{directory, record};

/// A server that dies is listed for so long.
const TTL: Duration = Duration::from_secs(10);
/// Between two tries.
const PAUSE: Duration = Duration::from_secs(1);
/// How long a stopping server waits for Nuwa to take it from the list.
const WITHDRAW: Duration = Duration::from_secs(1);

/// See the module. Dropped, it leaves the file to its time to live.
#[derive(Debug)]
pub struct Registration {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Registration {
    /// Keeps `endpoint` among those of `service`, from whenever Nuwa can be asked. Must be called inside a tokio runtime.
    #[must_use]
    pub fn start(client: NuwaClient, service: &str, endpoint: &Endpoint) -> Self {
        let stop = CancellationToken::new();
        let path = format!("{}{}", directory(service), record::file_name(&endpoint.address));
        let entry = Entry {
            client,
            description: format!("{service} at {}", endpoint.address),
            path,
            value: record::encode(endpoint),
        };
        let task = tokio::spawn(entry.keep(stop.clone()));
        Self { stop, task }
    }

    /// As [`start`](Self::start), with the Nuwa of a cluster; `None` if its description names no members of it.
    #[must_use]
    pub fn of(cluster: &ClusterConfig, access: &Access, service: &str, endpoint: &Endpoint) -> Option<Self> {
        let members = cluster.nuwa.clone();
        (!members.is_empty()).then(|| {
            Self::start(NuwaClient::new(ClientConfig::with(members, access.transport())), service, endpoint)
        })
    }

    /// Takes the file away, if Nuwa answers soon. Callers that see it go elsewhere; the server may stop then.
    pub async fn withdraw(mut self) {
        self.stop.cancel();
        if tokio::time::timeout(WITHDRAW, &mut self.task).await.is_err() {
            tracing::warn!(
                "Nuwa was not told in time that this server stops; it is listed until its session ends"
            );
        }
    }
}

/// [`Registration::withdraw`], if there is one.
pub async fn withdraw(registration: Option<Registration>) {
    if let Some(registration) = registration {
        registration.withdraw().await;
    }
}

struct Entry {
    client: NuwaClient,
    /// Of the session, for people.
    description: String,
    path: String,
    value: String,
}

impl Entry {
    async fn keep(self, stop: CancellationToken) {
        loop {
            let opened = tokio::select! {
                opened = self.client.open_session(TTL, self.description.clone(), None) => opened,
                () = stop.cancelled() => return,
            };
            let outcome = match opened {
                Ok(session) => {
                    let outcome = tokio::select! {
                        outcome = self.keep_with(&session) => outcome,
                        () = stop.cancelled() => return self.end(session).await,
                    };
                    // What is left of it must not outlive what follows.
                    if session.state() != SessionState::Lost {
                        self.end(session).await;
                    }
                    outcome
                }
                Err(error) => Err(error),
            };
            if let Err(error) = outcome {
                tracing::warn!(path = self.path, %error, "register this server; trying again");
                tokio::select! {
                    () = tokio::time::sleep(PAUSE) => {}
                    () = stop.cancelled() => return,
                }
            }
        }
    }

    /// Returns when the session is over.
    async fn keep_with(&self, session: &Session) -> Result<(), ClientError> {
        let mut state = session.watch_state();
        let mut revision = self.put(session).await?;
        tracing::info!(path = self.path, "registered");
        loop {
            let mut watcher = self.client.watch(self.path.clone(), Place::after(revision));
            let watched = tokio::select! {
                watched = watcher.next() => watched?,
                _ = state.wait_for(|state| *state == SessionState::Lost) => return Ok(()),
            };
            if let Watched::Event(event) = &watched {
                revision = event.revision;
                if !matches!(event.kind(), EventKind::Put | EventKind::Deleted) {
                    continue;
                }
            }
            revision = self.put_again(session).await?;
        }
    }

    /// The same as [`put`](Self::put), unless another session owns the file by now: who took the address later has it, and may well give
    /// it back. The event alone does not tell: taking it over is a deletion first. Two servers that both put the file back whenever
    /// it was deleted took it from each other for ever.
    async fn put_again(&self, session: &Session) -> Result<u64, ClientError> {
        let mut revision = 0;
        for owner in [0, session.id()] {
            let is_theirs = ops::compare(self.path.clone(), Relation::Equal, With::Owner(owner));
            let done = session.txn(vec![is_theirs], self.replacement(), Vec::new(), None).await?;
            if done.succeeded {
                return Ok(done.revision);
            }
            revision = done.revision;
        }
        tracing::error!(path = self.path, "another process registered this server's address");
        Ok(revision)
    }

    /// Puts the file, in the place of one that may be there. Gives the revision of that.
    async fn put(&self, session: &Session) -> Result<u64, ClientError> {
        Ok(session.txn(Vec::new(), self.replacement(), Vec::new(), None).await?.revision)
    }

    fn replacement(&self) -> Vec<Operation> {
        let delete = Delete { may_be_absent: true, ..ops::delete(self.path.clone()) };
        let put =
            Put { owned: true, with_parents: true, ..ops::create(self.path.clone(), self.value.clone()) };
        vec![delete.into(), put.into()]
    }

    async fn end(&self, session: Session) {
        if let Err(error) = session.end(Some(Instant::now() + WITHDRAW)).await {
            tracing::warn!(path = self.path, %error, "take this server from the list; it goes with its session");
        }
    }
}
