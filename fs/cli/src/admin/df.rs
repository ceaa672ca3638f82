//! `pangu df`: space and files.

use anyhow::Context as _;
use serde_json::json;

use super::Session;
use fs_control::text::{Table, size};

pub(super) async fn run(session: &Session) -> anyhow::Result<String> {
    let usage = session.master.stat_fs(session.deadline()).await.context("ask the masters for the space")?;
    let free = usage.total_bytes.saturating_sub(usage.used_bytes);
    if session.json {
        let value = json!({
            "total_bytes": usage.total_bytes,
            "used_bytes": usage.used_bytes,
            "free_bytes": free,
            "inodes_used": usage.inodes_used,
        });
        return Ok(format!("{value:#}\n"));
    }
    let share = (usage.used_bytes * 100).checked_div(usage.total_bytes).unwrap_or(0);
    let mut table = Table::new(["cluster", "size", "used", "free", "use%", "files"]);
    table.row([
        session.found.cluster.name.clone(),
        size(usage.total_bytes),
        size(usage.used_bytes),
        size(free),
        format!("{share}%"),
        usage.inodes_used.to_string(),
    ]);
    Ok(table.render() + "Sizes are after replication: what files can fill.\n")
}
