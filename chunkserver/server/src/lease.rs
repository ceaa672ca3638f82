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
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    until: Option<Instant>,
    /// The server stops and has said so: never again.
    ended: bool,
}

impl Lease {
    /// The master granted it in answer to a heartbeat sent at `sent`; the table of that answer must be in use.
    pub(crate) fn extend(&self, sent: Instant, lease: Duration) {
        let mut state = self.state.lock();
        state.until = state.until.max(Some(sent + lease));
    }

    /// The master wants it back. Whether there was one.
    pub(crate) fn call_back(&self) -> bool {
        self.state.lock().until.take().is_some()
    }

    /// The server will not answer reads any more.
    pub(crate) fn end(&self) {
        *self.state.lock() = State { until: None, ended: true };
    }

    fn ended(&self) -> bool {
        self.state.lock().ended
    }

    pub(crate) fn holds(&self, now: Instant) -> bool {
        let state = self.state.lock();
        !state.ended && state.until.is_some_and(|until| now < until)
    }
}

/// Called after the engine was read, and before the epoch is looked at again: whether what was read may count.
pub(crate) async fn check(node: &Arc<Node>, group: &Group, epoch: Epoch) -> Result<(), Status> {
    if node.lease.holds(Instant::now()) {
        return Ok(());
    }
    if node.lease.ended() {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_from_sending_and_never_shrinks() {
        let lease = Lease::default();
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        assert!(!lease.holds(start));
        lease.extend(at(100), Duration::from_millis(300));
        assert!(lease.holds(at(399)) && !lease.holds(at(400)));
        lease.extend(at(50), Duration::from_millis(300));
        assert!(lease.holds(at(399)), "an older answer came late");
        assert!(lease.call_back() && !lease.holds(at(200)) && !lease.call_back());
        lease.extend(at(300), Duration::from_millis(300));
        assert!(lease.holds(at(400)), "granted anew");
        lease.end();
        lease.extend(at(500), Duration::from_millis(300));
        assert!(!lease.holds(at(501)), "a server that stops does not begin again");
    }
}
