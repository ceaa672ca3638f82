//! The right to answer reads (I4): the master's promise that no epoch is activated without this server meanwhile. Without it a
//! read is decided by the other members of the group. `chunkserver/docs/replication.md`, "Lease", has the argument.

use std::sync::Arc;
use std::time::{Duration, Instant};

use chunkserver_api::pb;
use coord_types::Epoch;
use kuafu::{CallOptions, Status};
use parking_lot::Mutex;

use crate::group::Group;
use crate::node::Node;

/// Other members answer from memory.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(1);

/// This server's lease, for all its disks.
#[derive(Debug, Default)]
pub(crate) struct Lease {
    state: Mutex<chunkserver_core::Lease>,
}

impl Lease {
    pub(crate) fn extend(&self, sent: Instant, lease: Duration) {
        self.state.lock().extend(sent, lease);
    }

    pub(crate) fn call_back(&self) -> bool {
        self.state.lock().call_back()
    }

    pub(crate) fn end(&self) {
        self.state.lock().end();
    }

    pub(crate) fn holds(&self, now: Instant) -> bool {
        self.state.lock().holds(now)
    }
}

/// Called after the engine was read, and before the epoch is looked at again: whether what was read may count.
pub(crate) async fn check(node: &Arc<Node>, group: &Group, epoch: Epoch) -> Result<(), Status> {
    if node.lease.holds(Instant::now()) {
        return Ok(());
    }
    if node.lease.state.lock().ended() {
        return Err(Status::unavailable("this server stops"));
    }
    node.metrics.reads_without_lease.add(1);
    let options = CallOptions::within(CONFIRM_TIMEOUT);
    let members =
        group.others().ok_or_else(|| Status::unavailable("no lease, and no table of this epoch"))?;
    let calls = members.iter().map(|disk| async {
        let peer = node.peers.of(*disk).ok_or_else(|| Status::unavailable("a member has no server"))?;
        let request = pb::ConfirmRequest { group: group.id.0, epoch: epoch.0, disk: disk.0 };
        peer.confirm(&request, &options).await
    });
    futures::future::try_join_all(calls).await.map_err(|status| {
        Status::unavailable(format!("no lease, and a member does not confirm the epoch: {status}"))
    })?;
    Ok(())
}
