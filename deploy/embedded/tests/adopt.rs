//! A store with Nuwa becomes the first node of a cluster: what Nuwa had is there, where the cluster is told to look for it.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::net::TcpListener;
use std::path::Path;
use std::time::{Duration, Instant};

use coord_cluster::{ClusterConfig, by_id};
use deploy_embedded::{Adoption, Embedded, EmbeddedConfig, adopt};
use kuafu::Address;
use nuwa_api::client::Freshness;
use nuwa_api::{ClientConfig, NuwaClient};
use nuwa_naming::NuwaResolver;
use nuwa_server::NuwaServer;
use zhongkui_access::{Access, Audit, KeyDirectory, directory};

const PATIENCE: Duration = Duration::from_secs(60);

fn soon() -> Option<Instant> {
    Some(Instant::now() + PATIENCE)
}

fn start(dir: &Path, nuwa: bool) -> Embedded {
    let config = EmbeddedConfig { nuwa, capacity_bytes: Some(256 << 20), ..EmbeddedConfig::new(dir) };
    Embedded::start(&config).unwrap()
}

fn described(dir: &Path) -> ClusterConfig {
    ClusterConfig::load(&dir.join("cluster.toml")).unwrap()
}

/// Two ports that were free a moment ago.
fn addresses() -> (Address, Address) {
    let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    let [first, second] = listeners.map(|listener| Address::Tcp(listener.local_addr().unwrap().to_string()));
    (first, second)
}

fn adoption(dir: &Path, master: Address, nuwa: Option<Address>) -> Adoption {
    let (data_dir, name) = (dir.to_owned(), "grown".to_owned());
    Adoption { data_dir, name, master, nuwa, replicas: 1, min_replicas: 1 }
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(PATIENCE, work).await.expect("it ends in time") })
}

async fn put(client: &NuwaClient, path: &str, value: &str) {
    let session = client.open_session(PATIENCE, "test", soon()).await.unwrap();
    session.put(path, value.to_owned(), soon()).await.unwrap();
    session.end(soon()).await.unwrap();
}

fn access(dir: &Path, name: &str) -> Access {
    KeyDirectory::at(dir.join("keys")).access(name, Audit::none()).unwrap()
}

fn client_config(dir: &Path, members: Vec<Address>) -> ClientConfig {
    ClientConfig::with(members, access(dir, directory::ADMIN).transport())
}

async fn get(client: &NuwaClient, path: &str) -> Vec<u8> {
    let entry = client.get(path, Freshness::Linearizable, soon()).await.unwrap();
    entry.map(|entry| entry.value.to_vec()).unwrap_or_default()
}

/// `adopt` used to leave Nuwa behind without a word: the cluster's description named no member, and the tree stayed where nobody looked.
#[test]
fn what_nuwa_had_is_in_the_cluster() {
    let dir = tempfile::tempdir().unwrap();
    let platform = start(dir.path(), true);
    block_on(async {
        let client = NuwaClient::new(client_config(dir.path(), described(dir.path()).nuwa));
        put(&client, "/kept", "blue").await;
    });
    assert!(platform.stop(Duration::from_secs(20)));

    let (master, nuwa) = addresses();
    let adoption = adoption(dir.path(), master.clone(), Some(nuwa.clone()));
    let node = block_on(adopt(&adoption)).unwrap();
    assert_eq!((node.nuwa.as_deref(), node.already), (Some(dir.path().join("nuwa").as_path()), false));
    let cluster = described(dir.path());
    assert_eq!((&cluster.masters, &cluster.nuwa), (&vec![master], &vec![nuwa.clone()]));
    let again = block_on(adopt(&adoption)).unwrap();
    assert_eq!((again.nuwa, again.already), (node.nuwa.clone(), true));

    // As `nuwa-server --id 1` starts it, and as its other members are told of it.
    block_on(async {
        let mut config = nuwa_server::Config::new(1, by_id(&cluster.nuwa), node.nuwa.unwrap());
        config.listen_as_known = true;
        config.access = access(dir.path(), directory::NUWA);
        let server = NuwaServer::start(config).await.unwrap();
        assert_eq!(server.address(), &nuwa);
        let client = NuwaClient::new(client_config(dir.path(), cluster.nuwa));
        assert_eq!(get(&client, "/kept").await, b"blue");
        let statuses = client.statuses(PATIENCE).await;
        let status = statuses[0].1.as_ref().unwrap();
        let members: Vec<_> = status.members.iter().map(|member| (member.id, &*member.address)).collect();
        assert_eq!(members, [(1, nuwa.to_string().as_str())]);
        put(&client, "/kept", "green").await;
        server.shutdown().await;
    });
}

#[test]
fn a_store_without_nuwa_is_adopted_without_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    assert!(start(dir.path(), false).stop(Duration::from_secs(20)));
    let (master, nuwa) = addresses();
    let refused = block_on(adopt(&adoption(dir.path(), master.clone(), Some(nuwa)))).unwrap_err();
    assert!(refused.to_string().contains("has none: leave it out"), "{refused}");
    // Nothing had begun.
    assert!(start(dir.path(), false).stop(Duration::from_secs(20)));
    assert_eq!(block_on(adopt(&adoption(dir.path(), master, None))).unwrap().nuwa, None);
    assert!(described(dir.path()).nuwa.is_empty());
}

/// Servers of an embedded platform are found by name, as those of a cluster are.
#[test]
fn its_servers_are_registered_and_leave_when_they_stop() {
    let dir = tempfile::tempdir().unwrap();
    let platform = start(dir.path(), true);
    let cluster = described(dir.path());
    let listed = async |service| {
        let resolver = NuwaResolver::of(&cluster, &access(dir.path(), directory::ADMIN)).unwrap();
        let mut endpoints = resolver.follow(service);
        let is_there = |list: &kuafu::Endpoints| list.as_ref().is_some_and(|list| !list.is_empty());
        endpoints.wait_for(is_there).await.unwrap().clone().unwrap()
    };
    block_on(async {
        let masters = listed("pangu-master").await;
        assert_eq!((&masters[0].address, masters.len()), (platform.master(), 1));
        let chunkservers = listed("pangu-chunkserver").await;
        assert_eq!((&*chunkservers[0].rack, chunkservers.len()), ("/local/rack1", 1));
    });
    assert!(platform.stop(Duration::from_secs(20)));
    // Their files went before Nuwa did, and nobody has to wait for the end of a session.
    let (master, nuwa) = addresses();
    let node = block_on(adopt(&adoption(dir.path(), master, Some(nuwa)))).unwrap();
    block_on(async {
        let cluster = described(dir.path());
        let mut config = nuwa_server::Config::new(1, by_id(&cluster.nuwa), node.nuwa.unwrap());
        config.access = access(dir.path(), directory::NUWA);
        let server = NuwaServer::start(config).await.unwrap();
        let client = NuwaClient::new(client_config(dir.path(), cluster.nuwa));
        for service in ["pangu-master", "pangu-chunkserver"] {
            let page = nuwa_api::proto::List { path: nuwa_naming::directory(service), ..Default::default() };
            let left = client.list(page, Freshness::Linearizable, soon()).await.unwrap().entries;
            assert!(left.is_empty(), "{left:?}");
        }
        server.shutdown().await;
    });
}
