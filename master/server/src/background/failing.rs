//! Marks disks with too many errors to be emptied, as an operator would. [`master_core::failing`] decides which.

use std::time::{Duration, Instant};

use kuafu::Status;
use master_core::Command;
use master_core::failing::Failing;

use crate::app::{App, COMMAND_TIMEOUT};
use crate::service::cluster::table_seen;

/// How often errors are looked at: none of this is urgent.
const PERIOD: Duration = Duration::from_secs(2);

pub(super) async fn run(app: &App) {
    let mut failing = Failing::default();
    loop {
        tokio::time::sleep(PERIOD).await;
        if let Err(error) = round(app, &mut failing).await {
            tracing::debug!(%error, "look for failing disks");
        }
    }
}

async fn round(app: &App, failing: &mut Failing) -> Result<(), Status> {
    let view = app.current(Instant::now() + COMMAND_TIMEOUT).await?;
    let table = table_seen(app, &view)?;
    let now = Instant::now();
    let seen = app.soft.seen(&table, &app.config.limits(), now);
    let Some(disk) = failing.next(&table, &seen, app.config.errors_max, now) else { return Ok(()) };
    let command = Command::DrainDisks { disks: vec![disk], draining: true };
    app.command(&command, Instant::now() + COMMAND_TIMEOUT).await?;
    let server = table.server_of(disk).map_or(0, |server| server.id.0);
    tracing::warn!(%disk, server, "the disk has too many damaged blocks and is emptied");
    app.soft.news.notify_one();
    Ok(())
}
