//! Ends sessions that were silent for a whole lease towards this leader.

use std::time::{Duration, Instant};

use crate::app::{App, COMMAND_TIMEOUT, store_status};
use crate::service::namespace::end_session;

/// How often silence is looked for: a lease is over at most this late.
const PERIOD: Duration = Duration::from_secs(1);

pub(super) async fn run(app: &App) {
    loop {
        tokio::time::sleep(PERIOD.min(app.config.session_lease / 2)).await;
        let sessions = match master_core::session::sessions(&app.raft.view()) {
            Ok(sessions) => sessions,
            Err(error) => {
                store_status(&error);
                continue;
            }
        };
        for session in sessions {
            let silence = app.soft.session_silence(session.id, Instant::now());
            if silence.is_none_or(|silence| silence <= app.config.session_lease) {
                continue;
            }
            tracing::info!(session = %session.id, description = session.description, "session expired");
            if let Err(error) = end_session(app, session.id, Instant::now() + COMMAND_TIMEOUT).await {
                tracing::warn!(session = %session.id, %error, "end an expired session");
            }
        }
    }
}
