//! Keeps groups alive: takes out who is gone, brings back who returns, replaces who stays away. What is due is decided by
//! [`master_core::table::plan`], what of it may be proposed now by [`master_core::health`]; `master/docs/groups.md` has the rules and why no acknowledged write or fresh read is lost.

use std::sync::Arc;
use std::time::{Duration, Instant};

use kuafu::Status;
use master_api::model::Table;
use master_core::health::Moment;
use master_core::table::change::{CHANGES_PER_COMMAND, Change, Changed, GroupChange};
use master_core::table::plan::{Seen, plan};
use master_core::{Command, CommandReply};

use crate::app::{App, COMMAND_TIMEOUT, store_status};

/// Leases end without an event: looked at this often.
const TICK: Duration = Duration::from_millis(100);
/// After a failure, which a change of leader most likely explains.
const RETRY: Duration = Duration::from_millis(100);
/// A read barrier takes a round trip at the most, unless leadership is lost.
const BARRIER_TIMEOUT: Duration = Duration::from_secs(1);

/// What the last round looked at: if nothing is new, nothing is due.
#[derive(Debug, Default)]
pub(crate) struct Looked {
    table: Option<Arc<Table>>,
    seen: Option<Seen>,
    /// A proposal failed: whether it is applied is not known, and its servers stay condemned.
    open: bool,
}

pub(super) async fn run(app: &App) {
    loop {
        // Either is reason enough to look.
        let _timed_out = tokio::time::timeout(TICK, app.soft.news.notified()).await;
        loop {
            match round(app).await {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => {
                    tracing::debug!(%error, "change groups");
                    tokio::time::sleep(RETRY).await;
                    break;
                }
            }
        }
    }
}

/// Looks once and does what is due. Whether anything was done.
pub(crate) async fn round(app: &App) -> Result<bool, Status> {
    // One at a time: each begins with what the one before it has changed.
    let mut looked = app.looked.lock().await;
    let view = app.current(Instant::now() + BARRIER_TIMEOUT).await?;
    let version = master_core::counters(&view).map_err(|error| store_status(&error))?;
    let version = version.map_or(0, |counters| counters.table_version);
    let table = match &looked.table {
        Some(table) if table.version == version => Arc::clone(table),
        Some(_) | None => Arc::new(master_core::table::table(&view).map_err(|error| store_status(&error))?),
    };
    let limits = app.config.limits();
    let seen = app.soft.seen(&table, &limits, Instant::now());
    let known = looked.table.as_ref().is_some_and(|known| known.version == table.version);
    if known && !looked.open && looked.seen.as_ref() == Some(&seen) {
        return Ok(false);
    }
    let mut due = plan(&table, &seen, CHANGES_PER_COMMAND);
    let at = Moment { limits, now: Instant::now(), open: looked.open };
    due = app.soft.clear(due, &table, &seen, at);
    if due.is_empty() && !looked.open {
        *looked = Looked { table: Some(table), seen: Some(seen), open: false };
        return Ok(false);
    }
    // Without changes it is a barrier in the log: what was proposed before is applied then, or never will be.
    looked.open = true;
    let changed = propose(app, due, &table).await?;
    // The next round looks whatever it sees: who was held back for this one need not be any more.
    *looked = Looked::default();
    app.soft.pardon_all();
    Ok(changed.done > 0)
}

async fn propose(app: &App, changes: Vec<GroupChange>, table: &Table) -> Result<Changed, Status> {
    let summary = summary(&changes, table);
    let reply = app.command(&Command::ChangeGroups { changes }, Instant::now() + COMMAND_TIMEOUT).await?;
    let CommandReply::Changed(changed) = reply else {
        return Err(Status::internal(format!("groups were not changed: {reply:?}")));
    };
    if changed.done > 0 {
        tracing::info!(done = changed.done, skipped = changed.skipped, changes = summary, "groups changed");
    }
    Ok(changed)
}

/// "out of disk 3: 64, sync of disk 2: 1"
fn summary(changes: &[GroupChange], table: &Table) -> String {
    let mut counts = std::collections::BTreeMap::<String, u32>::new();
    for change in changes {
        let what = match change.change {
            Change::Out(disk) => match table.server_of(disk) {
                Some(server) => format!("out: disk {disk} of server {}", server.id),
                None => format!("out: disk {disk}"),
            },
            Change::Lost(disk) => format!("lost: disk {disk}"),
            Change::Sync(disk) => format!("sync: disk {disk}"),
            Change::Join(disk) => format!("join: disk {disk}"),
            Change::Settle(disk) => format!("settle: disk {disk}"),
            Change::Replace { absent, spare } => format!("replace: disk {absent} by {spare}"),
            Change::Lead(disk) => format!("lead: disk {disk}"),
            Change::Add(disk) => format!("add: disk {disk}"),
            Change::Drop(disk) => format!("drop: disk {disk}"),
        };
        *counts.entry(what).or_default() += 1;
    }
    let counts: Vec<_> = counts.into_iter().map(|(what, count)| format!("{what} ({count} groups)")).collect();
    counts.join(", ")
}
