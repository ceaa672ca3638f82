//! The members a client knows, and which of them it takes for the leader.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::address::Address;
use crate::client::{Client, ClientConfig};

/// All of them. Connections are made when first used.
#[derive(Debug)]
pub(super) struct Endpoints {
    config: ClientConfig,
    runtime: Handle,
    configured: Vec<Address>,
    /// Of what the leader last said of the members.
    version: AtomicU64,
    inner: Mutex<Inner>,
    /// Shows each change of the one that is asked.
    moved: watch::Sender<()>,
}

#[derive(Debug)]
struct Inner {
    list: Vec<Client>,
    current: usize,
    /// Who the leader last said the members are.
    learned: Vec<Address>,
    /// Who is registered under the service's name.
    named: Vec<Address>,
}

/// Members remembered beyond the configured ones: hints name at most the members of one cluster.
const ENDPOINTS_MAX: usize = 16;

impl Endpoints {
    /// The connections are driven by `runtime`.
    pub(super) fn new(members: &[Address], config: ClientConfig, runtime: Handle) -> Self {
        let list = members
            .iter()
            .map(|address| Client::with_runtime(address.clone(), config.clone(), runtime.clone()))
            .collect();
        Self {
            config,
            runtime,
            configured: members.to_vec(),
            version: AtomicU64::new(0),
            inner: Mutex::new(Inner { list, current: 0, learned: Vec::new(), named: Vec::new() }),
            moved: watch::Sender::new(()),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.inner.lock().list.len()
    }

    fn client(&self, address: Address) -> Client {
        Client::with_runtime(address, self.config.clone(), self.runtime.clone())
    }

    pub(super) fn version(&self) -> u64 {
        self.version.load(Ordering::Relaxed)
    }

    /// Returns once a member is known.
    pub(super) async fn known(&self) {
        let mut moved = self.moved.subscribe();
        while self.len() == 0 {
            // The sender lives as long as this.
            let _ = moved.changed().await;
        }
    }

    /// `None` if no member is known.
    pub(super) fn current(&self) -> Option<Client> {
        let inner = self.inner.lock();
        inner.list.get(inner.current).cloned()
    }

    /// All but the one that is asked.
    pub(super) fn others(&self) -> Vec<Client> {
        let inner = self.inner.lock();
        let others = inner.list.iter().enumerate().filter(|(at, _)| *at != inner.current);
        others.map(|(_, client)| client.clone()).collect()
    }

    fn is_current(&self, client: &Client) -> bool {
        self.current().is_some_and(|current| current.is(client))
    }

    /// Returns once another one is asked.
    pub(super) async fn left(&self, client: &Client) {
        let mut moved = self.moved.subscribe();
        while self.is_current(client) {
            // The sender lives as long as this.
            let _ = moved.changed().await;
        }
    }

    /// `failed` did not answer: take the next, unless somebody else has changed over already.
    pub(super) fn rotate_from(&self, failed: &Client) {
        let mut inner = self.inner.lock();
        if inner.list.get(inner.current).is_some_and(|current| current.is(failed)) {
            inner.current = (inner.current + 1) % inner.list.len();
            self.moved.send_replace(());
        }
    }

    /// The leader said who all members are. Those stay that are configured or registered too: whoever was away for long
    /// may find only them; and the one that is asked now.
    pub(super) fn learn(&self, members: &[String], version: u64) {
        self.version.store(version, Ordering::Relaxed);
        let members: Vec<Address> = members.iter().filter_map(|text| text.parse().ok()).collect();
        let mut inner = self.inner.lock();
        // Whoever was asked when it left the members has been kept since.
        if !members.is_empty() && (members != inner.learned || self.has_left(&inner)) {
            inner.learned = members;
            self.rebuild(&mut inner);
        }
    }

    /// Whether one is here that nobody names, and that is not asked now.
    fn has_left(&self, inner: &Inner) -> bool {
        let named = [&inner.learned, &inner.named, &self.configured];
        let is_named = |client: &Client| named.iter().any(|list| list.contains(client.address()));
        inner.list.iter().enumerate().any(|(at, client)| at != inner.current && !is_named(client))
    }

    /// Who is registered now. Nobody: that is not believed.
    pub(super) fn offer(&self, named: Vec<Address>) {
        let mut inner = self.inner.lock();
        if !named.is_empty() && named != inner.named {
            inner.named = named;
            self.rebuild(&mut inner);
            self.moved.send_replace(());
        }
    }

    fn rebuild(&self, inner: &mut Inner) {
        let current = inner.list.get(inner.current).map(|client| client.address().clone());
        let mut wanted: Vec<Address> = Vec::new();
        for address in [&inner.learned, &inner.named, &self.configured].into_iter().flatten().chain(&current)
        {
            if !wanted.contains(address) {
                wanted.push(address.clone());
            }
        }
        if let Some(current) = current.as_ref().filter(|_| wanted.len() > ENDPOINTS_MAX) {
            wanted.retain(|address| address != current);
            wanted.truncate(ENDPOINTS_MAX - 1);
            wanted.push(current.clone());
        }
        let kept = |address: &Address| inner.list.iter().find(|client| client.address() == address).cloned();
        let list: Vec<Client> = wanted
            .iter()
            .map(|address| kept(address).unwrap_or_else(|| self.client(address.clone())))
            .collect();
        inner.current =
            list.iter().position(|client| Some(client.address()) == current.as_ref()).unwrap_or(0);
        inner.list = list;
    }

    /// A member named the leader. False if the address means nothing.
    pub(super) fn switch_to(&self, leader: &str) -> bool {
        let Ok(address) = leader.parse::<Address>() else { return false };
        let mut inner = self.inner.lock();
        if let Some(at) = inner.list.iter().position(|client| *client.address() == address) {
            inner.current = at;
        } else if inner.list.len() < ENDPOINTS_MAX {
            inner.current = inner.list.len();
            inner.list.push(self.client(address));
        } else {
            return false;
        }
        self.moved.send_replace(());
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn rotates_once_for_many_failures_and_learns_leaders() {
        let addresses = ["unix:///tmp/a", "unix:///tmp/b"].map(|text| text.parse::<Address>().unwrap());
        let endpoints = Endpoints::new(&addresses, ClientConfig::default(), Handle::current());
        let first = endpoints.current().unwrap();
        endpoints.rotate_from(&first);
        endpoints.rotate_from(&first);
        assert_eq!(*endpoints.current().unwrap().address(), addresses[1]);
        assert!(endpoints.switch_to("unix:///tmp/a"));
        assert_eq!(*endpoints.current().unwrap().address(), addresses[0]);
        assert!(endpoints.switch_to("unix:///tmp/new"));
        assert_eq!(
            (endpoints.len(), endpoints.current().unwrap().address().to_string()),
            (3, "unix:///tmp/new".to_owned())
        );
        assert!(!endpoints.switch_to("nonsense"));
    }

    #[tokio::test]
    async fn begins_with_those_that_are_registered() {
        let endpoints = Endpoints::new(&[], ClientConfig::default(), Handle::current());
        assert!(endpoints.current().is_none());
        let registered: Address = "unix:///tmp/a".parse().unwrap();
        let ((), ()) = tokio::join!(endpoints.known(), async {
            tokio::task::yield_now().await;
            endpoints.offer(vec![registered.clone()]);
        });
        assert_eq!(*endpoints.current().unwrap().address(), registered);
    }

    #[tokio::test]
    async fn follows_the_members_as_they_are_replaced() {
        let address = |n: u32| format!("unix:///tmp/{n}");
        let configured: Vec<Address> = (1..=3).map(|n| address(n).parse().unwrap()).collect();
        let endpoints = Endpoints::new(&configured, ClientConfig::default(), Handle::current());
        let told = |ids: &[u32]| endpoints.learn(&ids.iter().map(|n| address(*n)).collect::<Vec<_>>(), 1);
        let all = || {
            let first = endpoints.current().unwrap();
            let mut all = vec![first.address().to_string()];
            for _ in 1..endpoints.len() {
                endpoints.rotate_from(&endpoints.current().unwrap());
                all.push(endpoints.current().unwrap().address().to_string());
            }
            endpoints.switch_to(&first.address().to_string());
            all.iter().map(|text| text.rsplit('/').next().unwrap().parse().unwrap()).collect::<Vec<u32>>()
        };
        let connected = endpoints.current().unwrap();
        told(&[1, 2, 3]);
        assert!(connected.is(&endpoints.current().unwrap()));
        told(&[2, 3, 4]);
        assert_eq!(all(), [1, 2, 3, 4], "the one that is asked now stays the first to be asked");
        told(&[4, 5, 6]);
        endpoints.switch_to(&address(4));
        assert_eq!(all(), [4, 5, 6, 1, 2, 3]);
        told(&[5, 6, 7]);
        assert_eq!(all(), [4, 5, 6, 7, 1, 2, 3], "asked now, and a member no more");
        endpoints.switch_to(&address(6));
        told(&[5, 6, 7]);
        assert_eq!(all(), [6, 7, 1, 2, 3, 5], "nobody needs 4 any more");
        told(&[]);
        assert_eq!(endpoints.len(), 6, "an answer without them says nothing");
        let offer = |ids: &[u32]| endpoints.offer(ids.iter().map(|n| address(*n).parse().unwrap()).collect());
        offer(&[7, 8]);
        assert_eq!(all(), [6, 7, 8, 1, 2, 3, 5], "who is registered, too");
        offer(&[]);
        offer(&[9]);
        assert_eq!(all(), [6, 7, 9, 1, 2, 3, 5]);
    }
}
