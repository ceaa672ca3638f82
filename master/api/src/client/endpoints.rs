//! The masters a client knows, and which of them it takes for the leader.

use std::sync::Arc;

use kuafu::Address;
use parking_lot::Mutex;

use crate::proto::{AdminClient, ClusterClient, NamespaceClient};

/// One master.
#[derive(Debug)]
pub(super) struct Endpoint {
    pub(super) address: Address,
    pub(super) namespace: NamespaceClient,
    pub(super) cluster: ClusterClient,
    pub(super) admin: AdminClient,
}

/// All of them. Connections are made when first used.
#[derive(Debug)]
pub(super) struct Endpoints {
    config: kuafu::ClientConfig,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    list: Vec<Arc<Endpoint>>,
    current: usize,
}

/// Masters remembered beyond the configured ones: hints name at most the members of one cluster.
const ENDPOINTS_MAX: usize = 16;

impl Endpoints {
    pub(super) fn new(masters: &[Address], config: kuafu::ClientConfig) -> Self {
        let list = masters.iter().map(|address| Arc::new(Endpoint::new(address.clone(), &config))).collect();
        Self { config, inner: Mutex::new(Inner { list, current: 0 }) }
    }

    pub(super) fn len(&self) -> usize {
        self.inner.lock().list.len()
    }

    /// `None` if no master is configured.
    pub(super) fn current(&self) -> Option<Arc<Endpoint>> {
        let inner = self.inner.lock();
        inner.list.get(inner.current).cloned()
    }

    /// `failed` did not answer: take the next, unless somebody else has changed over already.
    pub(super) fn rotate_from(&self, failed: &Arc<Endpoint>) {
        let mut inner = self.inner.lock();
        if inner.list.get(inner.current).is_some_and(|current| Arc::ptr_eq(current, failed)) {
            inner.current = (inner.current + 1) % inner.list.len();
        }
    }

    /// A master named the leader. False if the address means nothing.
    pub(super) fn switch_to(&self, leader: &str) -> bool {
        let Ok(address) = leader.parse::<Address>() else { return false };
        let mut inner = self.inner.lock();
        if let Some(at) = inner.list.iter().position(|endpoint| endpoint.address == address) {
            inner.current = at;
        } else if inner.list.len() < ENDPOINTS_MAX {
            inner.current = inner.list.len();
            inner.list.push(Arc::new(Endpoint::new(address, &self.config)));
        } else {
            return false;
        }
        true
    }
}

impl Endpoint {
    fn new(address: Address, config: &kuafu::ClientConfig) -> Self {
        let client = kuafu::Client::new(address.clone(), config.clone());
        Self {
            address,
            namespace: NamespaceClient::new(client.clone()),
            cluster: ClusterClient::new(client.clone()),
            admin: AdminClient::new(client),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn rotates_once_for_many_failures_and_learns_leaders() {
        let addresses = ["unix:///tmp/a", "unix:///tmp/b"].map(|text| text.parse::<Address>().unwrap());
        let endpoints = Endpoints::new(&addresses, kuafu::ClientConfig::default());
        let first = endpoints.current().unwrap();
        endpoints.rotate_from(&first);
        endpoints.rotate_from(&first);
        assert_eq!(endpoints.current().unwrap().address, addresses[1]);
        assert!(endpoints.switch_to("unix:///tmp/a"));
        assert_eq!(endpoints.current().unwrap().address, addresses[0]);
        assert!(endpoints.switch_to("unix:///tmp/new"));
        assert_eq!(
            (endpoints.len(), endpoints.current().unwrap().address.to_string()),
            (3, "unix:///tmp/new".to_owned())
        );
        assert!(!endpoints.switch_to("nonsense"));
    }
}
