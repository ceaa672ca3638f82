//! One attempt at one chunkserver, and the table that says which: the edge where [`super::ReplicatedChunks`] meets
//! the network. A trait, so that tests put servers in memory behind the same retries, and simulations time, too.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use chunkserver_api::{ChunkClient, ChunkError, Map, Punch, RaiseFence, Read, ReadData, Write, Written};
use coord_types::{ServerId, SessionId};
use futures::future::BoxFuture;
use kuafu::{Address, CallOptions};
use master_api::MasterClient;
use master_api::model::Table;
use parking_lot::Mutex;
use rand::Rng as _;
use tokio::runtime::Handle;

use super::tokens::{Files, MasterTokens};

/// Chunkservers, each called by its address.
pub trait Members: Send + Sync + 'static {
    /// The newest table this client has.
    fn table(&self) -> Arc<Table>;

    /// Returns when there is a table newer than `known_version`: maybe never.
    fn newer_table(&self, known_version: u64) -> BoxFuture<'_, Arc<Table>>;

    /// The server at this address did not answer: whoever decides on that should look. Returns at once.
    fn report(&self, address: &str);

    /// Asks for a table newer than `known_version`; returns when it came or soon after, in any case.
    fn refresh(&self, known_version: u64) -> BoxFuture<'_, ()>;

    /// The session writes are stamped with; waits until there is one.
    fn session(&self) -> BoxFuture<'_, Option<SessionId>>;

    fn write<'a>(
        &'a self,
        address: &'a str,
        write: &'a Write,
        data: Bytes,
        timeout: Duration,
    ) -> BoxFuture<'a, Result<Written, ChunkError>>;

    fn punch<'a>(
        &'a self,
        address: &'a str,
        punch: &'a Punch,
        timeout: Duration,
    ) -> BoxFuture<'a, Result<Written, ChunkError>>;

    fn raise_fence<'a>(
        &'a self,
        address: &'a str,
        raise: &'a RaiseFence,
        timeout: Duration,
    ) -> BoxFuture<'a, Result<(), ChunkError>>;

    fn read<'a>(
        &'a self,
        address: &'a str,
        read: &'a Read,
        timeout: Duration,
    ) -> BoxFuture<'a, Result<ReadData, ChunkError>>;

    fn map<'a>(
        &'a self,
        address: &'a str,
        map: &'a Map,
        timeout: Duration,
    ) -> BoxFuture<'a, Result<Vec<(u32, u32)>, ChunkError>>;

    /// Monotonic time, for pauses and for what is usual. A simulation has its own, as with the two below.
    fn now(&self) -> Instant {
        Instant::now()
    }

    fn sleep(&self, time: Duration) -> BoxFuture<'_, ()> {
        Box::pin(tokio::time::sleep(time))
    }

    /// From 0 to 1: clients that failed together shall not come back together.
    fn jitter(&self) -> f64 {
        rand::rng().random()
    }
}

/// How long one question for the table may take; whoever asked tries again by itself.
const REFRESH_PATIENCE: Duration = Duration::from_secs(1);

/// A server is reported once in so long, however many calls it fails.
const REPORT_PERIOD: Duration = Duration::from_millis(500);

/// The chunkservers of a cluster, over Kuafu.
#[derive(Debug)]
pub struct ClusterMembers {
    master: MasterClient,
    runtime: Handle,
    transport: kuafu::ClientConfig,
    tokens: Arc<MasterTokens>,
    /// By the address as the table spells it. One entry a server that ever was in a table.
    clients: Mutex<HashMap<String, ChunkClient>>,
    /// When a server was last reported to the master.
    reported: Mutex<HashMap<ServerId, Instant>>,
}

impl ClusterMembers {
    /// Connections are driven by `runtime` and made when first used.
    #[must_use]
    pub(crate) fn new(
        master: MasterClient,
        runtime: Handle,
        transport: kuafu::ClientConfig,
        files: Files,
    ) -> Self {
        let tokens = Arc::new(MasterTokens::new(master.clone(), files));
        Self { master, runtime, transport, tokens, clients: Mutex::default(), reported: Mutex::default() }
    }

    fn client(&self, address: &str) -> Result<ChunkClient, ChunkError> {
        let mut clients = self.clients.lock();
        if let Some(client) = clients.get(address) {
            return Ok(client.clone());
        }
        let parsed: Address = address
            .parse()
            .map_err(|error| ChunkError::Unavailable { message: format!("address in the table: {error}") })?;
        let client = kuafu::Client::with_runtime(parsed, self.transport.clone(), self.runtime.clone());
        // Where nobody is asked for tokens (a build for measurements), nobody shows them either.
        let client = if zhongkui_access::CHECKS {
            ChunkClient::with_tokens(client, self.tokens.clone())
        } else {
            ChunkClient::new(client)
        };
        clients.insert(address.to_owned(), client.clone());
        Ok(client)
    }
}

impl Members for ClusterMembers {
    fn table(&self) -> Arc<Table> {
        self.master.table()
    }

    fn refresh(&self, known_version: u64) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let deadline = Instant::now() + REFRESH_PATIENCE;
            if let Err(error) = self.master.refresh_table(known_version, Some(deadline)).await {
                tracing::debug!(%error, "fetch the table of groups; trying again");
            }
        })
    }

    fn newer_table(&self, known_version: u64) -> BoxFuture<'_, Arc<Table>> {
        let mut tables = self.master.table_watch();
        Box::pin(async move {
            let newer = tables.wait_for(|table| table.version > known_version).await;
            let newer = newer.ok().map(|table| Arc::clone(&table));
            match newer {
                Some(table) => table,
                // The client is closed: nothing is new any more.
                None => std::future::pending().await,
            }
        })
    }

    fn report(&self, address: &str) {
        let table = self.master.table();
        let Some(server) = table.servers().find(|server| server.address == address).map(|server| server.id)
        else {
            return;
        };
        let now = Instant::now();
        {
            let mut reported = self.reported.lock();
            if reported.get(&server).is_some_and(|at| now.duration_since(*at) < REPORT_PERIOD) {
                return;
            }
            reported.insert(server, now);
        }
        let master = self.master.clone();
        self.runtime.spawn(async move {
            if let Err(error) = master.report_server(server, now + REPORT_PERIOD).await {
                tracing::debug!(%server, %error, "report a chunkserver that does not answer");
            }
        });
    }

    fn session(&self) -> BoxFuture<'_, Option<SessionId>> {
        Box::pin(async move {
            match self.master.session() {
                Some(session) => Some(session),
                None => self.master.ready().await.ok(),
            }
        })
    }

    fn write<'a>(
        &'a self,
        address: &'a str,
        write: &'a Write,
        data: Bytes,
        timeout: Duration,
    ) -> BoxFuture<'a, Result<Written, ChunkError>> {
        Box::pin(async move { self.client(address)?.write(write, data, &CallOptions::within(timeout)).await })
    }

    fn punch<'a>(
        &'a self,
        address: &'a str,
        punch: &'a Punch,
        timeout: Duration,
    ) -> BoxFuture<'a, Result<Written, ChunkError>> {
        Box::pin(async move { self.client(address)?.punch(punch, &CallOptions::within(timeout)).await })
    }

    fn raise_fence<'a>(
        &'a self,
        address: &'a str,
        raise: &'a RaiseFence,
        timeout: Duration,
    ) -> BoxFuture<'a, Result<(), ChunkError>> {
        Box::pin(async move { self.client(address)?.raise_fence(raise, &CallOptions::within(timeout)).await })
    }

    fn read<'a>(
        &'a self,
        address: &'a str,
        read: &'a Read,
        timeout: Duration,
    ) -> BoxFuture<'a, Result<ReadData, ChunkError>> {
        Box::pin(async move { self.client(address)?.read(read, &CallOptions::within(timeout)).await })
    }

    fn map<'a>(
        &'a self,
        address: &'a str,
        map: &'a Map,
        timeout: Duration,
    ) -> BoxFuture<'a, Result<Vec<(u32, u32)>, ChunkError>> {
        Box::pin(async move { self.client(address)?.map(map, &CallOptions::within(timeout)).await })
    }
}
