//! Frees the chunks of deleted data: tells every disk of every group that held them, then strikes the data off.
//!
//! Restart-safe without a record of progress: telling a disk twice is harmless, and data is struck off only when all
//! disks said yes. A disk that is away keeps its data in the queue; the rest of the queue goes on.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use chunkserver_api::pb::{DeleteItem, DeleteRequest, ReplicaClient};
use coord_types::{DataId, DiskId};
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use kuafu::{Address, CallOptions, Client, ClientConfig, Status};
use master_api::model::{MemberState, Table};
use master_core::Command;
use master_core::deletion::{Deletion, deletions};

use crate::app::{App, COMMAND_TIMEOUT, store_status};

/// How often the queue is looked at.
const PERIOD: Duration = Duration::from_millis(500);
/// Data of one round: one call per disk, one command for all.
const PAGE: usize = 512;
/// One disk's answer; deletes of many chunks take a while.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

pub(super) async fn run(app: &App) {
    let mut peers = Peers { transport: app.config.access.transport(), clients: HashMap::new() };
    // Where the next round begins, so that data stuck behind a dead disk does not hold up what follows it.
    let mut after: Option<DataId> = None;
    loop {
        let page = deletions(&app.raft.view(), after, PAGE).unwrap_or_else(|error| {
            store_status(&error);
            Vec::new()
        });
        after = page.last().map(|deletion| deletion.data);
        let due = due(page, app.config.deletion_delay);
        if !due.is_empty()
            && let Err(error) = round(app, &mut peers, &due).await
        {
            tracing::warn!(%error, "free deleted data");
            tokio::time::sleep(PERIOD).await;
        }
        if after.is_none() {
            tokio::time::sleep(PERIOD).await;
        }
    }
}

/// Those deleted at least `delay` ago, by the clock that was written down with them.
fn due(mut page: Vec<Deletion>, delay: Duration) -> Vec<Deletion> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let limit = u64::try_from(now.saturating_sub(delay).as_nanos()).unwrap_or(u64::MAX);
    page.retain(|deletion| deletion.time_nanos <= limit);
    page
}

async fn round(app: &App, peers: &mut Peers, page: &[Deletion]) -> Result<(), Status> {
    let table = master_core::table::table(&app.raft.view()).map_err(|error| store_status(&error))?;
    let orders = orders(page, &table);
    let mut calls: FuturesUnordered<_> = orders
        .into_iter()
        .map(|(disk, order)| {
            let client = table.server_of(disk).and_then(|server| peers.client(&server.address));
            async move {
                let request = DeleteRequest { disk: disk.0, items: order.items };
                let done = match client {
                    Some(client) => {
                        client.delete(request, &CallOptions::within(CALL_TIMEOUT)).await.map(drop)
                    }
                    None => Err(Status::unavailable(format!("disk {disk} is in no chunkserver"))),
                };
                (disk, order.data, done)
            }
        })
        .collect();
    let mut left: BTreeSet<DataId> = BTreeSet::new();
    let mut told: BTreeSet<(DiskId, DataId)> = BTreeSet::new();
    while let Some((disk, data, done)) = calls.next().await {
        match done {
            Ok(()) => told.extend(data.into_iter().map(|data| (disk, data))),
            Err(error) => {
                tracing::debug!(%disk, %error, "a disk did not free deleted data");
                left.extend(data);
            }
        }
    }
    // Who came back meanwhile may have been compared with a member that still had the data.
    let table = master_core::table::table(&app.raft.view()).map_err(|error| store_status(&error))?;
    for (disk, order) in self::orders(page, &table) {
        left.extend(order.data.into_iter().filter(|data| !told.contains(&(disk, *data))));
    }
    let data: Vec<DataId> =
        page.iter().map(|deletion| deletion.data).filter(|data| !left.contains(data)).collect();
    if data.is_empty() {
        return Err(Status::unavailable(format!("the disks of {} deletions are away", page.len())));
    }
    app.command(&Command::DeletionsDone { data }, Instant::now() + COMMAND_TIMEOUT).await?;
    Ok(())
}

/// What one disk is told.
#[derive(Default)]
struct Order {
    items: Vec<DeleteItem>,
    data: Vec<DataId>,
}

/// Every disk that may hold something of `page`, with what that is. A member that is offline is not asked: what it has
/// and others have not is removed by the comparison when it comes back.
fn orders(page: &[Deletion], table: &Table) -> BTreeMap<DiskId, Order> {
    let mut orders: BTreeMap<DiskId, Order> = BTreeMap::new();
    for deletion in page {
        let mut groups: BTreeMap<DiskId, Vec<u32>> = BTreeMap::new();
        for group in deletion.groups.iter().filter_map(|id| table.group(*id)) {
            for member in group.members.iter().filter(|member| member.state != MemberState::Offline) {
                groups.entry(member.disk).or_default().push(group.id.0);
            }
        }
        for (disk, groups) in groups {
            let order = orders.entry(disk).or_default();
            order.items.push(DeleteItem { data: deletion.data.0, groups });
            order.data.push(deletion.data);
        }
    }
    orders
}

/// Connections to chunkservers, by address. As many as there are chunkservers.
struct Peers {
    transport: ClientConfig,
    clients: HashMap<String, ReplicaClient>,
}

impl Peers {
    fn client(&mut self, address: &str) -> Option<ReplicaClient> {
        if let Some(client) = self.clients.get(address) {
            return Some(client.clone());
        }
        let parsed: Address = address
            .parse()
            .inspect_err(|error| tracing::warn!(address, %error, "the address of a chunkserver"))
            .ok()?;
        let client = ReplicaClient::new(Client::new(parsed, self.transport.clone()));
        self.clients.insert(address.to_owned(), client.clone());
        Some(client)
    }
}

#[cfg(test)]
mod tests {
    use coord_types::{Epoch, GroupId};
    use master_api::model::{Group, Member};

    use super::*;

    #[test]
    fn every_member_of_every_group_is_told_once() {
        let group = |id, disks: &[u32]| Group {
            id: GroupId(id),
            epoch: Epoch(1),
            members: disks
                .iter()
                .map(|disk| Member { disk: DiskId(*disk), state: MemberState::Serving })
                .collect(),
        };
        let table = Table::new(1, vec![], vec![group(1, &[1, 2]), group(2, &[2, 3])]);
        let deletion = |data, groups: &[u32]| Deletion {
            data: DataId(data),
            groups: groups.iter().map(|id| GroupId(*id)).collect(),
            time_nanos: 0,
        };
        let orders = orders(&[deletion(7, &[1, 2]), deletion(8, &[2])], &table);
        let told = |disk| {
            let order: &Order = &orders[&DiskId(disk)];
            order.items.iter().map(|item| (item.data, item.groups.clone())).collect::<Vec<_>>()
        };
        assert_eq!(told(1), [(7, vec![1])]);
        assert_eq!(told(2), [(7, vec![1, 2]), (8, vec![2])]);
        assert_eq!(told(3), [(7, vec![2]), (8, vec![2])]);
    }
}
