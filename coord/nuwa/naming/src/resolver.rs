//! `nuwa://` addresses, looked up in the registry and followed as it changes.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Weak};
use std::time::Duration;

use coord_cluster::ClusterConfig;
use kuafu::{Endpoint, Endpoints, Name, Resolver, UnknownCluster};
use nuwa_api::client::Freshness;
use nuwa_api::proto::{Entry, EventKind, List, RefusalCode};
use nuwa_api::{ClientConfig, ClientError, NuwaClient, Path, Place, Watched};
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::watch;
use zhongkui_access::Access;

use crate::{directory, record};

/// After a refusal that a human must look at.
const PAUSE: Duration = Duration::from_secs(1);

/// Resolves the names of one cluster. Cheap to clone.
#[derive(Clone, Debug)]
pub struct NuwaResolver {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    cluster: String,
    client: NuwaClient,
    /// Follows the registry for callers outside of it.
    runtime: Handle,
    followed: Mutex<HashMap<String, Arc<watch::Sender<Endpoints>>>>,
}

impl NuwaResolver {
    /// Names `nuwa://CLUSTER/...` are looked up with `client`. Must be called inside a tokio runtime.
    #[must_use]
    pub fn new(cluster: impl Into<String>, client: NuwaClient) -> Self {
        let shared = Shared {
            cluster: cluster.into(),
            client,
            runtime: Handle::current(),
            followed: Mutex::default(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// For the names of a cluster; `None` if its description names no members of Nuwa.
    #[must_use]
    pub fn of(cluster: &ClusterConfig, access: &Access) -> Option<Self> {
        let members = &cluster.nuwa;
        (!members.is_empty()).then(|| {
            Self::new(&cluster.name, NuwaClient::new(ClientConfig::with(members.clone(), access.transport())))
        })
    }

    /// What it asks.
    #[must_use]
    pub fn client(&self) -> &NuwaClient {
        &self.shared.client
    }

    /// The endpoints of one of this cluster's services, now and as they change.
    #[must_use]
    pub fn follow(&self, service: &str) -> watch::Receiver<Endpoints> {
        let mut followed = self.shared.followed.lock();
        if let Some(sender) = followed.get(service) {
            return sender.subscribe();
        }
        let (sender, receiver) = watch::channel(None);
        let sender = Arc::new(sender);
        followed.insert(service.to_owned(), Arc::clone(&sender));
        let task =
            follow(Arc::downgrade(&self.shared), self.shared.client.clone(), service.to_owned(), sender);
        self.shared.runtime.spawn(task);
        receiver
    }
}

impl Resolver for NuwaResolver {
    fn resolve(&self, name: &Name) -> Result<watch::Receiver<Endpoints>, UnknownCluster> {
        if name.cluster() == self.shared.cluster {
            return Ok(self.follow(name.service()));
        }
        Err(UnknownCluster { name: name.clone(), known: self.shared.cluster.clone() })
    }
}

/// Runs until nobody listens any more.
async fn follow(
    shared: Weak<Shared>,
    client: NuwaClient,
    service: String,
    sender: Arc<watch::Sender<Endpoints>>,
) {
    let following = async {
        loop {
            if let Err(error) = follow_once(&client, &service, &sender).await {
                tracing::warn!(service, %error, "look up a service; trying again");
                tokio::time::sleep(PAUSE).await;
            }
        }
    };
    let unheard = async {
        loop {
            sender.closed().await;
            let Some(shared) = shared.upgrade() else { return };
            let mut followed = shared.followed.lock();
            // Somebody may have come before the lock did.
            if sender.receiver_count() == 0 {
                followed.remove(&service);
                return;
            }
        }
    };
    tokio::select! {
        () = following => {}
        () = unheard => {}
    }
}

/// Returns when history was lost.
async fn follow_once(
    client: &NuwaClient,
    service: &str,
    sender: &watch::Sender<Endpoints>,
) -> Result<(), ClientError> {
    let (mut endpoints, revision) = list(client, service).await?;
    let mut watcher = client.watch(directory(service), Place::after(revision));
    loop {
        if watcher.buffered() == 0 {
            publish(sender, &endpoints);
        }
        let event = match watcher.next().await? {
            Watched::Event(event) => event,
            Watched::HistoryLost { .. } => return Ok(()),
        };
        let kind = event.kind();
        let Some(entry) = event.entry else { continue };
        match kind {
            EventKind::Put => take(&mut endpoints, entry),
            EventKind::Deleted => {
                endpoints.remove(&entry.path);
            }
            _ => {}
        }
    }
}

/// The endpoints by their paths, and the revision to watch from.
async fn list(client: &NuwaClient, service: &str) -> Result<(BTreeMap<String, Endpoint>, u64), ClientError> {
    // What the answer has at least.
    let seen = client.newest();
    let mut endpoints = BTreeMap::new();
    let mut after = String::new();
    let mut first_revision = None;
    loop {
        let page = List { path: directory(service), after, with_values: true, ..List::default() };
        let listed = match client.list(page, Freshness::Stale, None).await {
            Ok(listed) => listed,
            // Nobody has ever served it.
            Err(error) if error.refusal() == Some(RefusalCode::NotFound) => {
                return Ok((BTreeMap::new(), seen));
            }
            Err(error) => return Err(error),
        };
        // Later pages may show what happens after the first: events say it again.
        let revision = *first_revision.get_or_insert(listed.revision);
        let last = listed.entries.last().and_then(|entry| Path::new(entry.path.clone()).ok());
        let last = last.as_ref().and_then(|path| path.split()).map(|(_, name)| name.to_owned());
        listed.entries.into_iter().for_each(|entry| take(&mut endpoints, entry));
        match last {
            Some(name) if listed.more => after = name,
            Some(_) | None => return Ok((endpoints, revision)),
        }
    }
}

fn take(endpoints: &mut BTreeMap<String, Endpoint>, entry: Entry) {
    if entry.path.ends_with('/') {
        return;
    }
    match record::decode(&entry.value) {
        Ok(endpoint) => {
            endpoints.insert(entry.path, endpoint);
        }
        Err(error) => {
            tracing::warn!(path = entry.path, %error, "a file in the registry is no endpoint");
            endpoints.remove(&entry.path);
        }
    }
}

fn publish(sender: &watch::Sender<Endpoints>, endpoints: &BTreeMap<String, Endpoint>) {
    let list: Arc<[Endpoint]> = endpoints.values().cloned().collect();
    sender.send_if_modified(|known| {
        let is_news = known.as_ref() != Some(&list);
        if is_news {
            *known = Some(list);
        }
        is_news
    });
}
