//! Writes a little to a disk that has nothing else to write, so that the heartbeat can say how fast it is: one that is out of use
//! because it was slow is used again only when it is seen to be fast. Alone in a cluster there is nothing to compare with, and
//! nothing is written.

use std::sync::Arc;
use std::time::Duration;

use master_api::model::MemberState;

use crate::disks::Disk;
use crate::node::Node;

/// What is written.
const SETTING: &str = "pace";
/// How often, at most.
const PERIOD: Duration = Duration::from_secs(1);
/// How often in a row where groups go on without the disk: one that is slow under load only does a single write as fast as any.
const AWAY_WRITES: u64 = 16;
/// After an error that is not the disk's end.
const RETRY: Duration = Duration::from_secs(60);

/// Runs until the node stops or the disk fails.
pub(crate) async fn run(node: Arc<Node>, disk: Arc<Disk>) {
    let stop = node.stop.clone();
    tokio::select! {
        () = probe(&node, &disk) => {}
        () = stop.cancelled() => {}
    }
}

async fn probe(node: &Arc<Node>, disk: &Arc<Disk>) {
    let mut count: u64 = 0;
    loop {
        tokio::time::sleep(PERIOD).await;
        let has_peers = node.table().servers().nth(1).is_some();
        let is_idle = disk.engine.write_idle().is_some_and(|idle| idle >= PERIOD);
        if !has_peers || !is_idle {
            continue;
        }
        let end = count + if is_away(node, disk) { AWAY_WRITES } else { 1 };
        while count < end {
            count += 1;
            let Err(error) = disk.engine.put_setting(SETTING, &count.to_le_bytes()).await else { continue };
            if disk.failed() {
                node.disk_failed(disk, &error);
                return;
            }
            tracing::warn!(path = %disk.path.display(), %error, "write to an idle disk");
            tokio::time::sleep(RETRY).await;
        }
    }
}

fn is_away(node: &Node, disk: &Disk) -> bool {
    let away = |disk| node.table().groups().any(|group| group.state_of(disk) == Some(MemberState::Offline));
    disk.id().is_some_and(away)
}
