//! A disk failed because something else filled the file system it is on. Its data is whole; when there is room again, the server
//! starts again and the disk is opened as after a crash.

use std::sync::Arc;
use std::time::Duration;

use crate::disks::{Disk, free_bytes};
use crate::node::Node;

/// What the disk needs beside its data for long: tables of the metadata store, before older ones are merged.
const ROOM_BYTES: u64 = 128 << 20;
/// Between looks.
const LOOK: Duration = Duration::from_secs(2);

/// Looks until there is room, or the process goes.
pub(crate) async fn wait(node: Arc<Node>, disk: Arc<Disk>) {
    let path = disk.path.display();
    tracing::error!(%path, needed_bytes = ROOM_BYTES, "the file system of the disk is full: waiting for room on it");
    loop {
        tokio::select! {
            () = node.stop.cancelled() => return,
            () = tokio::time::sleep(LOOK) => {}
        }
        if free_bytes(&disk.path).is_ok_and(|free| free >= ROOM_BYTES) {
            node.room_again.cancel();
            return;
        }
    }
}
