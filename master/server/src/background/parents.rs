//! Has the store of an older release learn where its files have their names. [`master_core::names`] says what that is for.

use std::time::{Duration, Instant};

use kuafu::Status;
use master_core::Command;
use master_core::names::FILL_ENTRIES_MAX;

use crate::app::{App, COMMAND_TIMEOUT, store_status};

/// Between two pages: about ten milliseconds of work each, so clients keep more than half of the time.
const PAUSE: Duration = Duration::from_millis(20);
/// After a failure, which a change of leader most likely explains.
const RETRY: Duration = Duration::from_millis(500);

pub(super) async fn run(app: &App) {
    let mut pages = 0_u64;
    loop {
        match page(app).await {
            Ok(true) => {
                if pages == 0 {
                    tracing::info!("filling in where files have their names");
                }
                pages += 1;
                tokio::time::sleep(PAUSE).await;
            }
            Ok(false) => break,
            Err(error) => {
                tracing::debug!(%error, "fill in where files have their names");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
    if pages > 0 {
        tracing::info!(pages, "it is known where files have their names");
    }
}

/// False if nothing is left to be done.
async fn page(app: &App) -> Result<bool, Status> {
    let view = app.current(Instant::now() + COMMAND_TIMEOUT).await?;
    if !master_core::fill_parents_pending(&view).map_err(|error| store_status(&error))? {
        return Ok(false);
    }
    let command = Command::FillParents { entries: FILL_ENTRIES_MAX };
    app.command(&command, Instant::now() + COMMAND_TIMEOUT).await?;
    Ok(true)
}
