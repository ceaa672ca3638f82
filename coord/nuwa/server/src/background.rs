//! What a member does by itself: as the leader keeps leases, and ends sessions whose time is over; drops old exports.

use std::sync::Arc;
use std::time::{Duration, Instant};

use coord_kv::KvError;
use coord_raft::Leadership;

use crate::app::{App, store_status};
use crate::service::export::drop_aside;

/// How often leases are looked at: a session is ended at most this late.
const PERIOD: Duration = Duration::from_millis(100);
/// How long ending one may take before it is tried again.
const END_TIMEOUT: Duration = Duration::from_secs(5);
/// Between tries to read the sessions.
const RETRY: Duration = Duration::from_millis(100);
/// How often exports are looked at.
const EXPORTS_PERIOD: Duration = Duration::from_secs(1);
/// Sessions that are read at a time.
const PAGE: usize = 1024;

/// Follows leadership until the member stops.
pub(crate) async fn run(app: Arc<App>) {
    let mut leadership = app.raft.watch_leadership();
    loop {
        let now = leadership.borrow_and_update().clone();
        match now {
            Leadership::Leader { term } => {
                tracing::info!(term, "leading");
                tokio::select! {
                    () = lead(&app) => {}
                    changed = leadership.changed() => if changed.is_err() { return },
                }
                app.leases.end();
            }
            Leadership::Follower { leader } => {
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

/// Drops exports whose time is over.
pub(crate) async fn expire_exports(app: Arc<App>) {
    loop {
        tokio::time::sleep(EXPORTS_PERIOD).await;
        let due = app.exports.take_due(Instant::now());
        if !due.is_empty() {
            tracing::info!(exports = due.len(), "dropping exports that nobody reads");
            drop_aside(due);
        }
    }
}

/// Never returns: the caller drops it when leadership ends.
async fn lead(app: &App) {
    app.leases.begin();
    while let Err(error) = add_sessions(app) {
        store_status(&error);
        tokio::time::sleep(RETRY).await;
    }
    loop {
        tokio::time::sleep(PERIOD).await;
        for session in app.leases.due(Instant::now()) {
            tracing::info!(session, "session expired");
            if let Err(error) = app.end_session(session, Instant::now() + END_TIMEOUT).await {
                tracing::warn!(session, %error, "end an expired session; trying again");
                break;
            }
        }
    }
}

/// Every session that is open gets its full time.
fn add_sessions(app: &App) -> Result<(), KvError> {
    let view = app.view();
    let mut after = 0;
    loop {
        let page = nuwa_core::query::sessions(&view, after, PAGE)?;
        for (session, record) in &page {
            app.leases.opened(*session, record.ttl_ms);
        }
        match page.last() {
            Some((last, _)) if page.len() == PAGE => after = *last,
            Some(_) | None => return Ok(()),
        }
    }
}
