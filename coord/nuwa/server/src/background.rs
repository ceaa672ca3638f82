//! What a member does by itself: as the leader keeps leases, and ends sessions whose time is over; drops old exports.

use std::sync::Arc;
use std::time::{Duration, Instant};

use coord_kv::KvError;
use coord_raft::Leadership;
use tokio::task::{JoinError, JoinSet};

use crate::app::{App, store_status};
use crate::service::export::drop_aside;

/// How often leases are looked at: a session is ended at most this late.
const PERIOD: Duration = Duration::from_millis(100);
/// How long ending one may take before it is tried again, and how long after it failed.
const END_TIMEOUT: Duration = Duration::from_secs(5);
const END_RETRY: Duration = Duration::from_secs(1);
/// Sessions that are ended at a time. One after another would be one entry of the log each; but all that wait go into one
/// entry, each may let go of a thousand files, and nothing else is applied meanwhile.
const ENDING_MAX: usize = 16;
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
async fn lead(app: &Arc<App>) {
    app.leases.begin();
    while let Err(error) = add_sessions(app) {
        store_status(&error);
        tokio::time::sleep(RETRY).await;
    }
    // Dropped with the leadership: the next one, whoever has it, gives everybody their full time.
    let mut ending = JoinSet::new();
    loop {
        for session in app.leases.take_due(Instant::now(), ENDING_MAX - ending.len()) {
            ending.spawn(end(Arc::clone(app), session));
        }
        if ending.len() < ENDING_MAX {
            tokio::time::sleep(PERIOD).await;
        } else if let Some(ended) = ending.join_next().await {
            joined(ended);
        }
        while let Some(ended) = ending.try_join_next() {
            joined(ended);
        }
    }
}

/// A panic is this job's own. Anything else is the runtime that stops.
fn joined(ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && let Ok(panic) = error.try_into_panic()
    {
        std::panic::resume_unwind(panic);
    }
}

/// Ends a session whose time is over, or what is left of one.
async fn end(app: Arc<App>, session: u64) {
    tracing::info!(session, "ending a session: its time is over, or it left something");
    match app.end_session(session, Instant::now() + END_TIMEOUT).await {
        // Known already where it was applied, but not if it was gone before this leader heard of it.
        Ok(()) => app.leases.ended(session),
        Err(error) => {
            tracing::warn!(session, %error, "end an expired session; trying again");
            app.leases.not_ended(session, Instant::now() + END_RETRY);
        }
    }
}

/// Every session that is open gets its full time; what is left of others is ended.
fn add_sessions(app: &App) -> Result<(), KvError> {
    let view = app.view();
    let mut after = 0;
    loop {
        let page = nuwa_core::query::sessions(&view, after, PAGE)?;
        for (session, record) in &page {
            if record.ending {
                app.leases.over(*session);
            } else {
                app.leases.opened(*session, record.ttl_ms);
            }
        }
        match page.last() {
            Some((last, _)) if page.len() == PAGE => after = *last,
            Some(_) | None => return Ok(()),
        }
    }
}
