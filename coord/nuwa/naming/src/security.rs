//! Keeping what a process knows of keys up to date: its own, and what was taken back.

use coord_cluster::ClusterConfig;
use zhongkui_access::Access;

/// Follows new keys in files, and Nuwa's list of what was taken back, for as long as it is polled.
pub async fn keep(_cluster: ClusterConfig, access: Access) {
    match access.keep_fresh().await {}
}
