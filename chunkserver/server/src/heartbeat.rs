//! The master: registration, heartbeats with the lease they bring, the table, and the last word of a server that stops.
//! Every call tries the masters in turn, for ever, with a back-off; while none answers, the server goes on with the table
//! it has.
//!
//! Two loops: heartbeats, and a call for the next table that waits at the leader. The second brings news at once, and
//! its connection tells the leader at once of this process's death.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use chunkserver_api::pb;
use coord_types::DiskId;
use kuafu::{Address, CallOptions, Code, Status};
use master_api::model::Table;
use master_api::proto;

use crate::disks;
use crate::load;
use crate::masters::{Masters, backoff};
use crate::node::Node;

/// One master's answer.
const CALL_TIMEOUT: Duration = Duration::from_secs(2);
/// Whatever the master wishes, a table is at most and at least this old.
const HEARTBEAT_MIN: Duration = Duration::from_millis(50);
const HEARTBEAT_MAX: Duration = Duration::from_secs(5);
const HEARTBEAT_DEFAULT: Duration = Duration::from_millis(250);
/// Between heartbeats that news ask for.
const NEWS_PAUSE: Duration = Duration::from_millis(5);
/// Attempts of one heartbeat within a lease: a master that hangs must not cost the lease.
const ATTEMPTS_PER_LEASE: u32 = 4;
/// How long a call for the next table is held by the leader.
const TABLE_WAIT: Duration = Duration::from_secs(5);
/// Until the server has a number.
const REGISTER_PAUSE: Duration = Duration::from_millis(50);
/// Its answer is on its way by then.
const TABLE_GRACE: Duration = Duration::from_secs(2);
/// A lease that is shorter would be of no use.
const LEASE_MIN: Duration = Duration::from_millis(150);
/// A stop waits so long for the word to be heard; then the master finds out by itself.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(1);

/// What the server tells of itself.
#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) uuid: [u8; 16],
    pub(crate) address: Address,
    pub(crate) location: String,
}

/// Runs until the node stops.
pub(crate) async fn run(node: Arc<Node>, masters: master_api::Masters, identity: Identity) {
    let stop = node.stop.clone();
    tokio::select! {
        () = keep(&node, Masters::new(&masters, node.access.transport()), &identity) => {}
        () = follow(&node, Masters::new(&masters, node.access.transport())) => {}
        () = stop.cancelled() => {}
    }
}

/// Holds a call for the next table at the leader.
async fn follow(node: &Arc<Node>, mut masters: Masters) {
    let mut failures: u32 = 0;
    let mut masters_version = 0;
    loop {
        let Some(server) = node.server_id() else {
            tokio::time::sleep(REGISTER_PAUSE).await;
            continue;
        };
        let known_version = node.table().version;
        let asked = node.followed.known();
        let request = proto::GetTableRequest {
            known_version,
            wait_ms: millis(TABLE_WAIT),
            server: server.0,
            incarnation: node.incarnation,
            masters_version,
            known: Some(asked.clone().into()),
        };
        let options = CallOptions::within(TABLE_WAIT + TABLE_GRACE);
        let call = masters.attempt(|client| async move {
            let reply = client.get_table(&request, &options).await?;
            node.followed.follow(&node.disks, &asked, reply.message.lineage.as_ref()).await?;
            Ok(reply)
        });
        match call.await {
            Ok(reply) => {
                failures = 0;
                let told: Vec<Address> = reply.masters.iter().filter_map(|text| text.parse().ok()).collect();
                masters.learn(&told);
                node.learn_masters(told);
                masters_version = reply.masters_version;
                if let Some(table) = reply.table {
                    adopt(node, table);
                    if node.table().version == known_version {
                        // It is of no use here: the leader would send it again at once.
                        tokio::time::sleep(HEARTBEAT_DEFAULT).await;
                    }
                }
            }
            Err(status) => {
                failures = failures.saturating_add(1);
                tracing::debug!(%status, failures, "wait for the next table");
                tokio::time::sleep(backoff(failures, masters.len())).await;
            }
        }
    }
}

/// The server stops: tells the leader, and returns when the groups go on without it, or soon.
pub(crate) async fn goodbye(node: &Arc<Node>, masters: &master_api::Masters) {
    let Some(server) = node.server_id().filter(|_| node.is_missed()) else { return };
    let mut masters = Masters::new(masters, node.access.transport());
    masters.learn(&node.masters());
    let request = proto::GoodbyeRequest { server: server.0, incarnation: node.incarnation };
    let say = async {
        for failures in 1.. {
            let options = CallOptions::within(GOODBYE_TIMEOUT);
            match masters.attempt(|client| async move { client.goodbye(&request, &options).await }).await {
                Ok(_) => return,
                Err(status) => tracing::debug!(%status, "say goodbye"),
            }
            tokio::time::sleep(backoff(failures, masters.len())).await;
        }
    };
    if tokio::time::timeout(GOODBYE_TIMEOUT, say).await.is_err() {
        tracing::info!("no master heard the goodbye; it will find out");
    }
}

async fn keep(node: &Arc<Node>, mut masters: Masters, identity: &Identity) {
    let mut joined = false;
    let mut registered = register(node, &mut masters, identity).await;
    let mut failures: u32 = 0;
    let mut number = 0;
    let mut told = Instant::now();
    loop {
        number += 1;
        if !joined && node.table().version > 0 {
            joined = true;
            tokio::spawn(join(node.clone()));
        }
        masters.learn(&node.masters());
        let sent = Instant::now();
        let asked = node.followed.known();
        let loads = load::told(node, sent.duration_since(std::mem::replace(&mut told, sent)));
        let request = proto::HeartbeatRequest {
            known: Some(asked.clone().into()),
            server: registered.server,
            incarnation: node.incarnation,
            disks: disk_states(node),
            table_version: node.table().version,
            news: node.group_news(),
            suspects: node.take_suspects(),
            leased: node.lease.holds(sent),
            number,
            loads,
        };
        let options = CallOptions::within(CALL_TIMEOUT.min(registered.lease / ATTEMPTS_PER_LEASE));
        let call = masters.attempt(|client| async move {
            let reply = client.heartbeat(&request, &options).await?;
            node.followed.follow(&node.disks, &asked, reply.message.lineage.as_ref()).await?;
            Ok(reply)
        });
        match call.await {
            Ok(reply) => {
                failures = 0;
                node.metrics.heartbeats.add(1);
                node.shown.heard_time(reply.time_s);
                if reply.register_again {
                    tracing::info!("the master asks to register again");
                    registered = register(node, &mut masters, identity).await;
                }
                if let Some(table) = reply.table {
                    adopt(node, table);
                }
                // The lease speaks of the epochs in that table.
                if reply.lease_ms == 0 {
                    if node.lease.call_back() {
                        // Said at once: the master waits for it.
                        node.refresh.notify_one();
                    }
                } else if node.adopted() >= reply.table_version {
                    node.lease.extend(sent, Duration::from_millis(reply.lease_ms));
                }
            }
            Err(status) => {
                failures = failures.saturating_add(1);
                node.metrics.heartbeats_failed.add(1);
                note_failure(failures, masters.len(), "send a heartbeat", &status);
            }
        }
        let pause = if failures == 0 { registered.heartbeat } else { backoff(failures, masters.len()) };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = node.refresh.notified(), if failures == 0 => tokio::time::sleep(NEWS_PAUSE).await,
        }
    }
}

/// WARN once when no master at all answers, not for each attempt.
fn note_failure(failures: u32, masters: usize, doing: &str, status: &Status) {
    if failures as usize == 2 * masters {
        tracing::warn!(%status, "no master answers: could not {doing}; serving goes on, trying again for ever");
    } else {
        tracing::debug!(%status, failures, "could not {doing}");
    }
}

struct Registered {
    server: u32,
    heartbeat: Duration,
    lease: Duration,
}

async fn register(node: &Arc<Node>, masters: &mut Masters, identity: &Identity) -> Registered {
    let mut failures: u32 = 0;
    loop {
        // Registering is a change: it is only asked of masters that are followed.
        if let Err(status) = look(node, masters).await {
            note_failure(failures + 1, masters.len(), "register", &status);
            failures = failures.saturating_add(1);
            tokio::time::sleep(backoff(failures, masters.len())).await;
            continue;
        }
        let request = proto::RegisterServerRequest {
            uuid: identity.uuid.to_vec().into(),
            address: identity.address.to_string(),
            location: identity.location.clone(),
            disks: disk_states(node),
            incarnation: node.incarnation,
            cluster_id: disks::cluster_id(&node.disks),
        };
        let options = CallOptions::within(CALL_TIMEOUT);
        let asked = node.followed.known();
        let reply = masters.attempt(|client| async move {
            let reply = client.register_server(&request, &options).await?;
            node.followed.follow(&node.disks, &asked, reply.message.lineage.as_ref()).await?;
            Ok(reply)
        });
        match reply.await {
            Ok(reply) if reply.disks.len() == node.disks.len() => {
                return registered(node, reply).await;
            }
            Ok(reply) => tracing::error!(
                sent = node.disks.len(),
                answered = reply.disks.len(),
                "the master's answer to the registration does not number each disk"
            ),
            Err(status) if matches!(status.code, Code::PermissionDenied | Code::InvalidArgument) => {
                // A person must look: wrong cluster, bad location. It may be put right at the master's side.
                if failures.is_multiple_of(64) {
                    tracing::error!(%status, "the master refuses this server");
                }
            }
            Err(status) => note_failure(failures + 1, masters.len(), "register", &status),
        }
        failures = failures.saturating_add(1);
        tokio::time::sleep(backoff(failures, masters.len())).await;
    }
}

/// Whether the masters are followed, if anything is known of them.
async fn look(node: &Node, masters: &mut Masters) -> Result<(), Status> {
    let asked = node.followed.known();
    if asked.cluster_id.is_empty() {
        return Ok(());
    }
    let request = proto::GetTableRequest {
        known_version: node.table().version,
        known: Some(asked.clone().into()),
        ..proto::GetTableRequest::default()
    };
    let options = CallOptions::within(CALL_TIMEOUT);
    let call = masters.attempt(|client| async move {
        let reply = client.get_table(&request, &options).await?;
        node.followed.follow(&node.disks, &asked, reply.message.lineage.as_ref()).await?;
        Ok(reply)
    });
    call.await.map(drop)
}

async fn registered(node: &Arc<Node>, reply: proto::RegisterServerReply) -> Registered {
    node.server.store(reply.server, Ordering::Relaxed);
    let mut news = false;
    for (disk, id) in node.disks.iter().zip(&reply.disks) {
        let id = DiskId(*id);
        news |= disk.set_id(id);
        if disk.id() != Some(id) {
            tracing::error!(path = %disk.path.display(), ?id, "the master numbers this disk anew; restart the server");
        }
    }
    if news {
        disks::keep_cluster_id(&node.disks, &reply.cluster_id).await;
        tracing::info!(server = reply.server, disks = ?reply.disks, cluster = reply.cluster_id, "registered");
    }
    let heartbeat = match reply.heartbeat_ms {
        0 => HEARTBEAT_DEFAULT,
        ms => Duration::from_millis(ms).clamp(HEARTBEAT_MIN, HEARTBEAT_MAX),
    };
    node.throttle.set(reply.resync_bytes_per_s);
    node.scrub.set(reply.scrub_period_ms);
    let lease = Duration::from_millis(reply.lease_ms).max(LEASE_MIN);
    Registered { server: reply.server, heartbeat, lease }
}

fn disk_states(node: &Node) -> Vec<proto::Disk> {
    node.disks
        .iter()
        .map(|disk| {
            let (usage, pass) = (disk.engine.usage(), disk.scrub.get());
            proto::Disk {
                uuid: disk.engine.disk_uuid().to_vec().into(),
                capacity_bytes: usage.capacity_bytes,
                used_bytes: usage.used_bytes,
                failed: disk.failed(),
                scrub_began_ms: pass.began_ms,
                scrub_ended_ms: pass.last_ended_ms,
                damaged_chunks: disk.id().map_or(0, |id| node.repairs.damaged(id) as u64),
                write_latency_us: disk.engine.write_latency().map_or(0, micros),
                errors: disk.errors.recent(),
                ..proto::Disk::default()
            }
        })
        .collect()
}

fn adopt(node: &Arc<Node>, table: proto::Table) {
    match Table::try_from(table) {
        Ok(table) => {
            tracing::debug!(version = table.version, "a new table");
            node.adopt(table);
        }
        Err(error) => tracing::error!(%error, "the master's table is not valid"),
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Tells the primaries of our groups that this process is new. They would find out: from the table, or from a write
/// that is refused. This is quicker, and needs no master.
async fn join(node: Arc<Node>) {
    let table = node.table();
    let mine: Vec<_> = node.disks.iter().filter_map(|disk| disk.id()).collect();
    let mut primaries: Vec<_> = table
        .groups()
        .filter(|group| group.members.iter().any(|member| mine.contains(&member.disk)))
        .filter_map(master_api::model::Group::primary)
        .filter(|disk| !mine.contains(disk))
        .filter_map(|disk| table.server_of(disk).map(|server| (server.id, disk)))
        .collect();
    primaries.sort_unstable();
    primaries.dedup_by_key(|(server, _)| *server);
    let request =
        pb::JoinRequest { incarnation: node.incarnation, disks: mine.iter().map(|disk| disk.0).collect() };
    let calls = primaries.into_iter().filter_map(|(_, disk)| node.peers.of(disk)).map(|peer| {
        let request = &request;
        async move {
            if let Err(status) = peer.join(request, &CallOptions::within(CALL_TIMEOUT)).await {
                tracing::debug!(%status, "join a primary; it will hear of us by the table");
            }
        }
    });
    futures::future::join_all(calls).await;
}
