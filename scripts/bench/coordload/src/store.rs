//! What a coordination service is asked for. One [`Store`] is one connection: a client with a session or channel of its own.
//!
//! Each implementation is the service's usual client with its defaults, and does nothing that the client does not do.

mod etcd;
mod nuwa;
mod zookeeper;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

pub(crate) use etcd::Etcd;
pub(crate) use nuwa::Nuwa;
pub(crate) use zookeeper::ZooKeeper;

/// Of sessions, where a service has them.
const SESSION_TTL: Duration = Duration::from_secs(10);

/// Called once for every change a watcher is told of: the watcher's number on its connection, and the new value where the
/// service sends it (ZooKeeper does not: there the n-th call is the n-th change).
pub(crate) type OnEvent = Arc<dyn Fn(usize, Option<&[u8]>) + Send + Sync>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Freshness {
    /// Shows every write that was acknowledged before it began.
    Linearizable,
    /// Whatever the connected member has.
    Stale,
}

/// See the module. With more than one endpoint the connection may move between them.
pub(crate) trait Store: Sized + Send + Sync + 'static {
    fn connect(endpoints: &[String]) -> impl Future<Output = anyhow::Result<Self>> + Send;

    /// A key that may or may not be there gets a value.
    fn create(&self, key: &str, value: &[u8]) -> impl Future<Output = anyhow::Result<()>> + Send;

    /// A key that is there gets another value.
    fn put(&self, key: &str, value: &[u8]) -> impl Future<Output = anyhow::Result<()>> + Send;

    fn get(
        &self,
        key: &str,
        freshness: Freshness,
    ) -> impl Future<Output = anyhow::Result<Option<Vec<u8>>>> + Send;

    /// Sets up watchers of a key that is there; returns when all are in force.
    fn watch(
        &self,
        key: &str,
        watchers: usize,
        on_event: OnEvent,
    ) -> impl Future<Output = anyhow::Result<()>> + Send;
}
