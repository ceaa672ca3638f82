//! The names of the master's metrics, with unit and meaning, and the page that shows them.

use std::fmt::Write as _;

use coord_raft::Role;

use crate::app::App;

/// Each with its help text; all are gauges.
const RAFT_LEADER: (&str, &str) = ("pangu_master_leader", "1 if this master leads");
const RAFT_TERM: (&str, &str) = ("pangu_master_raft_term", "Raft term");
const RAFT_LAST_LOG: (&str, &str) = ("pangu_master_raft_last_log_index", "Last index in the log");
const RAFT_APPLIED: (&str, &str) = ("pangu_master_raft_applied_index", "Last index applied to the state");
const INODES: (&str, &str) = ("pangu_master_inodes", "Files and directories");
const SESSIONS: (&str, &str) = ("pangu_master_sessions", "Open sessions");
const DELETIONS: (&str, &str) =
    ("pangu_master_deletions_pending", "Deleted files whose chunks are not freed yet");
const ALLOCATED: (&str, &str) = ("pangu_master_allocated_bytes", "Bytes of files, before replication");

const WATCHERS: (&str, &str) = ("pangu_master_watchers", "Watchers of directories");
const WATCHED: (&str, &str) =
    ("pangu_master_watched_directories", "Directories that are watched, once for each watcher");

/// Prometheus text: the master's own numbers, then the calls served.
pub(crate) fn render(app: &App, server: &kuafu::Server) -> String {
    let mut page = String::with_capacity(4096);
    let mut gauge = |(name, help): (&str, &str), value: u64| {
        writeln!(page, "# HELP {name} {help}\n# TYPE {name} gauge\n{name} {value}").expect("a String grows");
    };
    let raft = app.raft.status();
    gauge(RAFT_LEADER, u64::from(raft.role == Role::Leader));
    gauge(RAFT_TERM, raft.term);
    gauge(RAFT_LAST_LOG, raft.last_log_index);
    gauge(RAFT_APPLIED, raft.applied_index);
    if let Ok(Some(counters)) = master_core::counters(&app.raft.view()) {
        gauge(INODES, counters.inodes);
        gauge(SESSIONS, counters.sessions);
        gauge(DELETIONS, counters.deletions_pending);
        gauge(ALLOCATED, counters.allocated_bytes);
    }
    let (watchers, watched) = app.hub.counts();
    gauge(WATCHERS, watchers as u64);
    gauge(WATCHED, watched as u64);
    page + &server.metrics().prometheus()
}
