//! A watcher over real masters: leaders die while files are made, and nothing is missed.

#![allow(clippy::unwrap_used, reason = "helpers of tests panic like tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use coord_types::InodeId;
use fs_client::{Address, DirectoryEvents, Errno, Notice};
use kuafu::{CallOptions, Client};
use master_api::model::{Create, EventKind, Mkdir, Mutation, Name, Rmdir};
use master_api::proto::{self, ClusterClient};
use master_api::{ClientConfig, MasterClient};
use master_server::{Config, MasterServer};

/// Longer than anything here may take on a busy machine; reached only by a test that fails.
const PATIENCE: Duration = Duration::from_secs(60);
const ROOT: InodeId = InodeId::ROOT;

struct Masters {
    dir: tempfile::TempDir,
    running: BTreeMap<u64, MasterServer>,
}

fn address(dir: &Path, id: u64) -> Address {
    Address::Unix(dir.join(format!("{id}.sock")))
}

impl Masters {
    async fn start() -> Self {
        let mut masters = Self { dir: tempfile::tempdir().unwrap(), running: BTreeMap::new() };
        for id in 1..=3 {
            masters.start_one(id).await;
        }
        masters
    }

    async fn start_one(&mut self, id: u64) {
        let dir = self.dir.path();
        let members = (1..=3).map(|id| (id, address(dir, id))).collect();
        let mut config = Config::new(id, members, dir.join(format!("data-{id}")));
        config.cache_bytes = 8 << 20;
        config.group_settle = Duration::ZERO;
        config.group_settle_narrow = Duration::ZERO;
        config.chunkserver_lease = 10 * PATIENCE;
        self.running.insert(id, MasterServer::start(config).await.unwrap());
    }

    fn leader(&self) -> Option<u64> {
        self.running.iter().find(|(_, server)| server.is_leader()).map(|(id, _)| *id)
    }

    fn client(&self) -> MasterClient {
        let masters: Vec<_> = (1..=3).map(|id| address(self.dir.path(), id)).collect();
        MasterClient::new(ClientConfig::new(masters, "test")).unwrap()
    }

    /// A chunkserver that is nowhere, with three disks: enough for groups.
    async fn register(&self) {
        let disk = |number: u8| proto::Disk {
            uuid: Bytes::from(vec![number; 16]),
            capacity_bytes: 1 << 40,
            ..proto::Disk::default()
        };
        for number in 1..=3_u8 {
            let request = proto::RegisterServerRequest {
                uuid: Bytes::from(vec![number; 16]),
                address: format!("unix:///nonexistent/{number}"),
                location: format!("/r/rack{number}/h"),
                disks: vec![disk(number)],
                incarnation: 1,
                cluster_id: String::new(),
            };
            loop {
                if let Some(leader) = self.leader() {
                    let transport = zhongkui_access::Access::process().transport();
                    let master = ClusterClient::new(Client::new(address(self.dir.path(), leader), transport));
                    if master.register_server(&request, &CallOptions::within(PATIENCE)).await.is_ok() {
                        break;
                    }
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }
}

fn name(text: &str) -> Name {
    Name::try_from(text.as_bytes()).unwrap()
}

async fn mkdir(client: &MasterClient, text: &str) -> InodeId {
    let op = Mkdir { parent: ROOT, name: name(text), mode: 0o755, uid: 0, gid: 0 };
    client.mutate(Mutation::Mkdir(op)).await.unwrap().attr.unwrap().ino
}

async fn create(client: &MasterClient, parent: InodeId, text: &str) {
    let op = Create { parent, name: name(text), mode: 0o644, uid: 0, gid: 0, exclusive: true };
    client.mutate(Mutation::Create(op)).await.unwrap();
}

async fn next(events: &mut DirectoryEvents) -> Notice {
    tokio::time::timeout(PATIENCE, events.next()).await.expect("a notice comes").unwrap()
}

#[tokio::test]
async fn leaders_die_and_every_change_is_told() {
    let mut masters = Masters::start().await;
    masters.register().await;
    let client = masters.client();
    let mut events = DirectoryEvents::open(client.clone()).await.unwrap();
    let mut directories = Vec::new();
    for number in 0..8 {
        let directory = mkdir(&client, &format!("d{number}")).await;
        // What happens from now on is told, although no master heard of this yet.
        events.add(directory);
        create(&client, directory, "first").await;
        directories.push(directory);
    }
    let (mut waited_for, mut losses): (BTreeSet<_>, u32) = (directories.iter().copied().collect(), 0);
    for round in 0..3 {
        while !waited_for.is_empty() {
            match next(&mut events).await {
                Notice::Changed(changed) => {
                    assert!(changed.values().flatten().all(|event| event.kind == EventKind::Created));
                    waited_for.retain(|directory| !changed.contains_key(directory));
                }
                Notice::Lost => losses += 1,
                Notice::Refused(refused) => panic!("{refused:?}"),
            }
            assert_eq!(losses, 0, "the others have all events");
        }
        if round == 2 {
            break;
        }
        let leader = loop {
            match masters.leader() {
                Some(leader) => break leader,
                None => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        };
        masters.running.remove(&leader).unwrap().crash().await;
        for directory in &directories {
            create(&client, *directory, &format!("after-{round}")).await;
        }
        waited_for = directories.iter().copied().collect();
        masters.start_one(leader).await;
    }
    for (_, server) in masters.running {
        server.shutdown().await;
    }
}

#[tokio::test]
async fn what_is_gone_or_is_none_is_watched_no_longer() {
    let masters = Masters::start().await;
    let client = masters.client();
    let directory = mkdir(&client, "d").await;
    let mut events = DirectoryEvents::open(client.clone()).await.unwrap();
    assert_eq!(events.add_path(b"/d").await.unwrap(), directory);
    assert!(events.add_path(b"/e").await.is_err());
    events.add(InodeId(99_999));
    let Notice::Refused(refused) = next(&mut events).await else { panic!("there is no such directory") };
    assert_eq!(refused, [(InodeId(99_999), Errno::ENOENT)].into());
    client.mutate(Mutation::Rmdir(Rmdir { parent: ROOT, name: name("d") })).await.unwrap();
    let Notice::Changed(changed) = next(&mut events).await else { panic!("it was removed") };
    assert_eq!(changed[&directory].last().map(|event| event.kind), Some(EventKind::Gone));
    assert!(events.is_empty());
    for (_, server) in masters.running {
        server.shutdown().await;
    }
}
