//! What the leader does by itself, one job a file. Each runs while this master leads (or until its work is done once and for
//! all) and is dropped when it does not.

mod deletion;
mod failing;
pub(crate) mod groups;
mod parents;
mod placement;
mod probe;
mod session_expiry;

use std::sync::Arc;
use std::time::{Duration, Instant};

use coord_raft::Leadership;
use kuafu::Status;
use master_core::Command;
use master_core::command::Initialize;
use rand::Rng as _;

use crate::app::{App, COMMAND_TIMEOUT};

/// Between tries of what a new leader must do first.
const RETRY: Duration = Duration::from_millis(100);

/// Follows leadership until the member stops.
pub(crate) async fn run(app: Arc<App>) {
    let mut leadership = app.raft.watch_leadership();
    loop {
        let now = leadership.borrow_and_update().clone();
        match now {
            Leadership::Leader { term } => {
                tracing::info!(term, "leading");
                app.soft.set_leading(Some(Instant::now()));
                tokio::select! {
                    () = lead(&app) => {}
                    changed = leadership.changed() => if changed.is_err() { return },
                }
            }
            Leadership::Follower { leader } => {
                app.soft.set_leading(None);
                if let Some(leader) = leader {
                    tracing::info!(leader = leader.id, address = leader.address, "following");
                }
                if leadership.changed().await.is_err() {
                    return;
                }
            }
            Leadership::Stopped => return,
        }
    }
}

/// Never returns: the caller drops it when leadership ends.
async fn lead(app: &App) {
    while let Err(error) = initialize(app).await {
        tracing::warn!(%error, "make the cluster");
        tokio::time::sleep(RETRY).await;
    }
    *app.looked.lock().await = groups::Looked::default();
    tokio::join!(
        session_expiry::run(app),
        deletion::run(app),
        placement::run(app),
        groups::run(app),
        probe::run(app),
        failing::run(app),
        parents::run(app)
    );
}

/// The first leader of all writes down who the cluster is; later ones find it there.
async fn initialize(app: &App) -> Result<(), Status> {
    if master_core::table::cluster(&app.raft.view()).is_ok_and(|cluster| cluster.is_some()) {
        return Ok(());
    }
    let cluster_id = format!("{:032x}", rand::rng().random::<u128>());
    let command = Command::Initialize(Initialize {
        cluster_id: cluster_id.clone(),
        replicas: app.config.replicas,
        min_replicas: app.config.min_replicas,
        groups_per_disk: app.config.groups_per_disk,
        root_uid: owner().0,
        root_gid: owner().1,
        root_mode: 0o755,
    });
    app.command(&command, Instant::now() + COMMAND_TIMEOUT).await?;
    tracing::info!(cluster_id, replicas = app.config.replicas, "cluster made");
    Ok(())
}

/// The root directory belongs to whoever made the cluster.
fn owner() -> (u32, u32) {
    (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw())
}
