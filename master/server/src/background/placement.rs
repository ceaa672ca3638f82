//! Makes the groups that are missing once chunkservers have registered.

use std::time::{Duration, Instant};

use master_core::table::placement::Domain;
use master_core::{Command, CommandReply};

use crate::app::{App, COMMAND_TIMEOUT};

/// Looked at without a registration too: the leader may have changed between the two.
const PERIOD: Duration = Duration::from_secs(10);
/// After a failure, which a change of leader most likely explains.
const RETRY: Duration = Duration::from_millis(500);

pub(super) async fn run(app: &App) {
    loop {
        if let Some(settle) = missing(app) {
            // Each that joins meanwhile begins the wait anew.
            if tokio::time::timeout(settle, app.registered.notified()).await.is_err() {
                form(app).await;
            }
        } else {
            // Either is reason enough to look.
            let _timed_out = tokio::time::timeout(PERIOD, app.registered.notified()).await;
        }
    }
}

/// If groups are missing: how long nobody must have joined before they are made.
fn missing(app: &App) -> Option<Duration> {
    match master_core::table::groups::formation(&app.raft.view()) {
        Ok(formation) if formation.wanted <= formation.existing => None,
        Ok(formation) if formation.domain == Some(Domain::Rack) => Some(app.config.group_settle),
        Ok(_) => Some(app.config.group_settle_narrow),
        Err(error) => {
            crate::app::store_status(&error);
            None
        }
    }
}

async fn form(app: &App) {
    match app.command(&Command::FormGroups, Instant::now() + COMMAND_TIMEOUT).await {
        Ok(CommandReply::Formed(formed)) => {
            tracing::info!(groups = formed.made, more = formed.more, "groups made");
            if formed.made == 0 {
                tokio::time::sleep(RETRY).await;
            }
        }
        Ok(other) => tracing::warn!(?other, "make groups"),
        Err(error) => {
            tracing::warn!(%error, "make groups");
            tokio::time::sleep(RETRY).await;
        }
    }
}
