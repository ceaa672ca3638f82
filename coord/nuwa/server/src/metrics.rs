//! The names of the metrics, with unit and meaning, and the page that shows them.

use std::fmt::Write as _;

use coord_raft::Role;

use crate::app::App;

/// Each with its help text; all are gauges.
const LEADER: (&str, &str) = ("nuwa_leader", "1 if this member leads");
const TERM: (&str, &str) = ("nuwa_raft_term", "Raft term");
const LAST_LOG: (&str, &str) = ("nuwa_raft_last_log_index", "Last index in the log");
const APPLIED: (&str, &str) = ("nuwa_raft_applied_index", "Last index applied to the state");
const REVISION: (&str, &str) = ("nuwa_revision", "Newest revision of the tree");
const HISTORY_FIRST: (&str, &str) = ("nuwa_history_first_revision", "Oldest revision whose events are kept");
const HISTORY_EVENTS: (&str, &str) = ("nuwa_history_events", "Events kept");
const HISTORY_BYTES: (&str, &str) = ("nuwa_history_bytes", "Bytes of the events kept");
const WATCHERS: (&str, &str) = ("nuwa_watchers", "Watches that wait here");
const SESSIONS: (&str, &str) = ("nuwa_sessions", "Open sessions; 0 where it is not known, at followers");

/// Prometheus text: the member's own numbers, then the calls served.
pub(crate) fn render(app: &App, server: &kuafu::Server) -> String {
    let mut page = String::with_capacity(4096);
    let mut gauge = |(name, help): (&str, &str), value: u64| {
        writeln!(page, "# HELP {name} {help}\n# TYPE {name} gauge\n{name} {value}").expect("a String grows");
    };
    let raft = app.raft.status();
    gauge(LEADER, u64::from(raft.role == Role::Leader));
    gauge(TERM, raft.term);
    gauge(LAST_LOG, raft.last_log_index);
    gauge(APPLIED, raft.applied_index);
    if let Ok(meta) = nuwa_core::query::meta(&app.view()) {
        gauge(REVISION, meta.revision);
        gauge(HISTORY_FIRST, meta.history_first);
        gauge(HISTORY_EVENTS, meta.history_events);
        gauge(HISTORY_BYTES, meta.history_bytes);
    }
    gauge(WATCHERS, app.hub.waiters());
    gauge(SESSIONS, app.leases.len() as u64);
    page + &server.metrics().prometheus()
}
