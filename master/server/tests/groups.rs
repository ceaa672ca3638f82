//! Who is gone is taken out of its groups, at once or after its lease; who returns is filled, joins, and serves again.

#![allow(clippy::unwrap_used, reason = "helpers of tests panic like tests")]

mod fixture;

use std::time::Duration;

use coord_types::DiskId;
use fixture::{Cluster, FakeChunkserver, PATIENCE, disk, soon, until};
use kuafu::CallOptions;
use master_api::MasterClient;
use master_api::model::{MemberState, Table};
use master_api::proto::{self, ClusterClient};

/// Three servers that can be connected to, and a client that has the table with their groups.
async fn three(cluster: &Cluster) -> (Vec<FakeChunkserver>, MasterClient, ClusterClient) {
    let mut servers = Vec::new();
    for number in 1..=3 {
        let server = FakeChunkserver::start().await;
        cluster.register(number, &server.address.to_string()).await;
        servers.push(server);
    }
    let client = cluster.client();
    until("the groups to be made", async || client.table().groups().count() == 64).await;
    (servers, client, cluster.chunkservers_master().await)
}

fn all_are(table: &Table, disk: u32, state: MemberState) -> bool {
    table.groups().all(|group| group.state_of(DiskId(disk)) == Some(state))
}

async fn await_state(client: &MasterClient, disk: u32, state: MemberState) {
    // The client asks for nothing: the news come by the call that waits at the leader.
    let mut tables = client.table_watch();
    let seen = tokio::time::timeout(PATIENCE, tables.wait_for(|table| all_are(table, disk, state))).await;
    assert!(seen.is_ok(), "disk {disk} is not {state:?} everywhere: {:?}", client.table());
}

async fn beat(
    master: &ClusterClient,
    server: u8,
    incarnation: u64,
    news: Vec<proto::GroupNews>,
) -> proto::HeartbeatReply {
    send(master, beat_of(server, incarnation, news)).await
}

fn beat_of(server: u8, incarnation: u64, news: Vec<proto::GroupNews>) -> proto::HeartbeatRequest {
    proto::HeartbeatRequest {
        server: server.into(),
        incarnation,
        disks: vec![disk(server, 0)],
        table_version: 0,
        news,
        suspects: Vec::new(),
        leased: true,
        number: 0,
        known: None,
        loads: Vec::new(),
    }
}

async fn send(master: &ClusterClient, request: proto::HeartbeatRequest) -> proto::HeartbeatReply {
    master.heartbeat(&request, &CallOptions::within(PATIENCE)).await.unwrap().message
}

#[tokio::test]
async fn a_dead_process_is_out_when_somebody_reports_it() {
    let cluster = Cluster::start(3).await;
    let (mut servers, client, master) = three(&cluster).await;
    let report = |server| {
        let master = master.clone();
        async move { master.report(&proto::ReportRequest { server }, &CallOptions::within(PATIENCE)).await }
    };
    report(1).await.unwrap();
    servers.remove(1).end().await;
    report(2).await.unwrap();
    await_state(&client, 2, MemberState::Offline).await;
    let table = client.table();
    assert!(all_are(&table, 1, MemberState::Serving), "it was reported too, but it lives");
    assert!(table.groups().all(|group| group.primary() != Some(DiskId(2)) && group.epoch.0 == 2));
    // The second that dies must stay: two of three is the least.
    servers.remove(1).end().await;
    report(3).await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let known = client.table().version;
    let table = client.refresh_table(known, Some(soon())).await.unwrap();
    assert!(all_are(&table, 3, MemberState::Serving));
    cluster.shutdown().await;
}

#[tokio::test]
async fn a_broken_stream_is_looked_at_without_a_report() {
    let cluster = Cluster::start(1).await;
    let (mut servers, client, master) = three(&cluster).await;
    let asked = proto::GetTableRequest::default();
    let masters =
        master.get_table(&asked, &CallOptions::within(PATIENCE)).await.unwrap().message.masters_version;
    let stream = tokio::spawn({
        let request = proto::GetTableRequest {
            known_version: client.table().version,
            wait_ms: 20_000,
            server: 3,
            incarnation: 1,
            masters_version: masters,
            known: None,
        };
        async move { master.get_table(&request, &CallOptions::within(PATIENCE)).await }
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    servers.remove(2).end().await;
    assert!(!stream.is_finished(), "nothing is new yet");
    stream.abort();
    await_state(&client, 3, MemberState::Offline).await;
    cluster.shutdown().await;
}

#[tokio::test]
async fn silence_is_waited_out() {
    let tweak = |config: &mut master_server::Config| config.chunkserver_lease = Duration::from_millis(1500);
    let cluster = Cluster::start_with(1, tweak).await;
    let (_servers, client, master) = three(&cluster).await;
    let speaking = async {
        loop {
            for server in 1..=2 {
                beat(&master, server, 1, Vec::new()).await;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::select! {
        () = speaking => unreachable!("it speaks for ever"),
        () = await_state(&client, 3, MemberState::Offline) => {}
    }
    assert!(all_are(&client.table(), 1, MemberState::Serving));
    cluster.shutdown().await;
}

#[tokio::test]
async fn who_says_goodbye_is_out_at_once_and_returns_as_another_process() {
    let cluster = Cluster::start(1).await;
    let (servers, client, master) = three(&cluster).await;
    let options = CallOptions::within(PATIENCE);
    master.goodbye(&proto::GoodbyeRequest { server: 1, incarnation: 1 }, &options).await.unwrap();
    let known = client.table().version;
    let table = client.refresh_table(known, Some(soon())).await.unwrap();
    assert!(all_are(&table, 1, MemberState::Offline), "before the goodbye is answered");
    assert_eq!(beat(&master, 1, 1, Vec::new()).await.lease_ms, 0, "it stops");
    // The same server, started again.
    let mut again = fixture::registration(1, &servers[0].address.to_string());
    again.incarnation = 2;
    master.register_server(&again, &options).await.unwrap();
    await_state(&client, 1, MemberState::Syncing).await;
    assert!(beat(&master, 1, 2, Vec::new()).await.lease_ms > 0);
    let news = |disk: u32| {
        client
            .table()
            .groups()
            .map(|group| proto::GroupNews {
                group: group.id.0,
                epoch: group.epoch.0,
                level_disk: disk,
                damaged: false,
            })
            .collect::<Vec<_>>()
    };
    beat(&master, 2, 1, news(1)).await;
    await_state(&client, 1, MemberState::Joining).await;
    assert!(client.table().groups().all(|group| group.primary() != Some(DiskId(1))));
    beat(&master, 2, 1, news(0)).await;
    // All serve; then the primaries are spread again.
    let mut tables = client.table_watch();
    let spread = tables.wait_for(|table| {
        let leads = table.groups().filter(|group| group.primary() == Some(DiskId(1))).count();
        all_are(table, 1, MemberState::Serving) && leads >= 20
    });
    tokio::time::timeout(PATIENCE, spread).await.expect("it leads again").unwrap();
    cluster.shutdown().await;
}

#[tokio::test]
async fn a_drained_disk_is_dropped_once_its_server_holds_no_lease() {
    let cluster = Cluster::start(1).await;
    let (mut servers, client, master) = three(&cluster).await;
    let fourth = FakeChunkserver::start().await;
    cluster.register(4, &fourth.address.to_string()).await;
    servers.push(fourth);
    client.drain(vec![1], true, Some(soon())).await.unwrap();
    let refused = client.drain(vec![2, 9], true, Some(soon())).await.unwrap_err().to_string();
    assert!(refused.contains("no disk 9"), "{refused}");
    // What chunkservers do: everybody is heard, who is filled gets level, every epoch gets active. Gives server 1's answer.
    let work = async |leased: bool| {
        let table = client.table();
        let mut news = Vec::new();
        for group in table.groups() {
            let mut say = |level_disk| {
                news.push(proto::GroupNews {
                    group: group.id.0,
                    epoch: group.epoch.0,
                    level_disk,
                    damaged: false,
                });
            };
            group.in_state(MemberState::Syncing).for_each(|disk| say(disk.0));
            say(0);
        }
        for server in 2..=4 {
            beat(&master, server, 1, news.clone()).await;
        }
        send(&master, proto::HeartbeatRequest { leased, ..beat_of(1, 1, Vec::new()) }).await
    };
    let moved = |table: &Table| {
        let four = |group: &&master_api::model::Group| {
            group.members.len() == 4 && group.in_state(MemberState::Serving).count() == 4
        };
        table.groups().filter(four).count()
    };
    until("some groups to have a fourth member", async || {
        let answer = work(true).await;
        moved(&client.table()) >= 16 && answer.lease_ms == 0
    })
    .await;
    for _ in 0..20 {
        assert_eq!(work(true).await.lease_ms, 0, "its lease is called back");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let held = client.table().groups().filter(|group| group.state_of(DiskId(1)).is_some()).count();
    assert!(held >= 64, "it holds a lease and may be read: {held}");
    until("the disk to be in no group", async || {
        work(false).await;
        client.table().groups().all(|group| group.state_of(DiskId(1)).is_none())
    })
    .await;
    until("all to be whole", async || {
        work(true).await;
        client.table().groups().all(|group| group.in_state(MemberState::Serving).count() == 3)
    })
    .await;
    until("it to get leases again", async || work(true).await.lease_ms > 0).await;
    cluster.shutdown().await;
}
