//! Deletes what disks still have of groups they are no member of any more: another disk took their place.
//!
//! **I7**: before each page the master confirms that the group is whole without it, at that moment. If the disk becomes a member again
//! meanwhile, what is deleted under the filling is found by the comparison with which the member joins.

use std::sync::Arc;
use std::time::Duration;

use chunkserver_core::Stage;
use chunkserver_engine::aside;
use coord_types::{DiskId, GroupId};
use futures::future::join_all;
use kuafu::{CallOptions, Status};
use master_api::proto;

use crate::disks::Disk;
use crate::masters::Masters;
use crate::node::Node;

/// How often disks are looked through: nobody waits for the space.
const PERIOD: Duration = Duration::from_secs(5);
/// Chunks deleted on one word of the master.
const PAGE: usize = 64;
const CALL_TIMEOUT: Duration = Duration::from_secs(2);
/// Numbers begin at 1.
const NO_DISK: u32 = 0;

/// Runs until the node stops.
pub(crate) async fn run(node: Arc<Node>, masters: master_api::Masters) {
    let stop = node.stop.clone();
    let mut masters = Masters::new(&masters, node.access.transport());
    let looking = async {
        loop {
            tokio::time::sleep(PERIOD).await;
            for disk in &node.disks {
                if let Some(aside) = aside::what_is_aside(&disk.path)
                    && let Err(error) = delete_aside(&node, &mut masters, disk).await
                {
                    tracing::debug!(aside = %aside.display(), %error, "delete what was set aside");
                }
            }
            for disk in node.disks.iter().filter(|disk| !disk.failed()) {
                if let Some(id) = disk.id()
                    && let Err(error) = look_through(&node, &mut masters, disk, id).await
                {
                    tracing::debug!(disk = %id, %error, "delete what is left of other groups");
                }
            }
        }
    };
    tokio::select! {
        () = looking => {}
        () = stop.cancelled() => {}
    }
}

async fn look_through(
    node: &Arc<Node>,
    masters: &mut Masters,
    disk: &Arc<Disk>,
    id: DiskId,
) -> Result<(), Status> {
    let table = node.table();
    for group in table.groups().filter(|group| group.state_of(id).is_none()) {
        let mut deleted = 0;
        loop {
            let page = disk.engine.list(group.id, None, PAGE).map_err(|error| failed(node, disk, &error))?;
            if page.is_empty() || !may_drop(node, masters, id, group.id).await? {
                break;
            }
            let removals = join_all(page.iter().map(|(key, _)| disk.engine.remove(*key))).await;
            for removal in removals {
                removal.map_err(|error| failed(node, disk, &error))?;
            }
            deleted += page.len();
        }
        if deleted > 0 {
            tracing::info!(group = %group.id, disk = %id, chunks = deleted, "deleted what was left of a group that moved on");
        }
    }
    Ok(())
}

/// **I7**, of a disk that is no more: once every group is whole without it.
async fn delete_aside(node: &Node, masters: &mut Masters, disk: &Disk) -> Result<(), Status> {
    let table = node.table();
    // A server that was not told of any group knows nothing.
    if table.groups().next().is_none() {
        return Ok(());
    }
    for group in table.groups() {
        if !ask(node, masters, proto::MayDropRequest { disk: NO_DISK, group: group.id.0 }).await? {
            return Ok(());
        }
    }
    let path = disk.path.clone();
    let deleted = tokio::task::spawn_blocking(move || aside::delete_aside(&path)).await;
    deleted
        .map_err(|error| Status::internal(error.to_string()))?
        .map_err(|error| Status::internal(error.to_string()))?;
    tracing::info!(path = %disk.path.display(), "all groups are whole: deleted what was set aside of the damaged disk");
    Ok(())
}

/// The master's word, and that nothing newer is known here.
async fn may_drop(node: &Node, masters: &mut Masters, disk: DiskId, group: GroupId) -> Result<bool, Status> {
    let may = ask(node, masters, proto::MayDropRequest { disk: disk.0, group: group.0 }).await?;
    let out = node.replica(disk, group).is_none_or(|replica| replica.stage() == Stage::Out);
    let member = node.table().group(group).is_some_and(|group| group.state_of(disk).is_some());
    Ok(may && out && !member)
}

async fn ask(node: &Node, masters: &mut Masters, request: proto::MayDropRequest) -> Result<bool, Status> {
    let options = CallOptions::within(CALL_TIMEOUT);
    let asked = node.followed.known();
    let call = masters.attempt(|client| async move {
        let reply = client.may_drop(&request, &options).await?;
        node.followed.follow(&node.disks, &asked, reply.message.lineage.as_ref()).await?;
        Ok(reply)
    });
    Ok(call.await?.may)
}

fn failed(node: &Arc<Node>, disk: &Arc<Disk>, error: &chunkserver_engine::EngineError) -> Status {
    if disk.failed() {
        node.disk_failed(disk, error);
    }
    Status::unavailable(error.to_string())
}
