//! Makes the groups that are missing once chunkservers have registered.

use std::time::{Duration, Instant};

use master_core::{Command, CommandReply};

use crate::app::{App, COMMAND_TIMEOUT};

/// Chunkservers of a new cluster come one after another: groups are made when none came for this long, so that
/// they spread over all of them.
const SETTLE: Duration = Duration::from_millis(300);
/// Looked at without a registration too: the leader may have changed between the two.
const PERIOD: Duration = Duration::from_secs(10);

pub(super) async fn run(app: &App) {
    loop {
        form(app).await;
        // Either is reason enough to look.
        let _timed_out = tokio::time::timeout(PERIOD, app.registered.notified()).await;
        while tokio::time::timeout(SETTLE, app.registered.notified()).await.is_ok() {}
    }
}

async fn form(app: &App) {
    match master_core::table::groups::formation(&app.raft.view()) {
        Ok(formation) if formation.wanted <= formation.existing => return,
        Ok(_) => {}
        Err(error) => {
            crate::app::store_status(&error);
            return;
        }
    }
    match app.command(&Command::FormGroups, Instant::now() + COMMAND_TIMEOUT).await {
        Ok(CommandReply::Formed(formed)) => {
            tracing::info!(groups = formed.made, "groups made");
            if formed.more {
                app.registered.notify_one();
            }
        }
        Ok(other) => tracing::warn!(?other, "make groups"),
        Err(error) => tracing::warn!(%error, "make groups"),
    }
}
