//! Which master leads: the one that holds a lock of Nuwa.
//!
//! The lock's fence number goes into every grant's id, so that no two masters ever give the same id to different things.

use std::time::{Duration, Instant};

use nuwa_api::{ClientError, LockRequest, NuwaClient, Session, SessionState};

/// The file of the lock.
pub(crate) const LOCK: &str = "/fuxi/master";
/// A master that dies is followed by another one after this long, and what it takes to notice.
const TTL: Duration = Duration::from_millis(1_500);
/// Between two tries to reach Nuwa.
const PAUSE: Duration = Duration::from_millis(200);
/// One try.
const TRY: Duration = Duration::from_secs(5);

/// The right to lead, until it is [lost](Self::lost).
#[derive(Debug)]
pub(crate) struct Leadership {
    /// None: there is no Nuwa, and so nobody else who could lead.
    session: Option<Session>,
    pub(crate) fence: u64,
}

impl Leadership {
    /// Of the one master of a platform without Nuwa. Its starts are told apart by their time in milliseconds.
    pub(crate) fn alone(unix_ms: u64) -> Self {
        Self { session: None, fence: unix_ms }
    }

    /// Waits until this master is to lead, however long that takes.
    pub(crate) async fn win(client: &NuwaClient, description: &str) -> Self {
        let mut told = None;
        loop {
            match Self::try_win(client, description).await {
                Ok(won) => return won,
                Err(error) => {
                    let said = error.to_string();
                    if told.as_ref() != Some(&said) {
                        tracing::warn!(error = said, "Nuwa does not say who leads; asking on");
                        told = Some(said);
                    }
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn try_win(client: &NuwaClient, description: &str) -> Result<Self, ClientError> {
        let session = client.open_session(TTL, description, Some(Instant::now() + TRY)).await?;
        let request = LockRequest {
            path: LOCK.to_owned(),
            value: Some(description.to_owned().into()),
            with_file: true,
            ..LockRequest::default()
        };
        // Another one may lead for weeks. A session that is lost meanwhile ends the waiting.
        let mut state = session.watch_state();
        let locked = tokio::select! {
            locked = session.lock(&request, None) => locked?,
            _lost = state.wait_for(|state| *state == SessionState::Lost) => {
                return Err(ClientError::Reply("the session was lost while it waited for the lock"));
            }
        };
        Ok(Self { session: Some(session), fence: locked.fence })
    }

    /// Resolves when another master may lead.
    pub(crate) async fn lost(&self) {
        match &self.session {
            None => std::future::pending().await,
            Some(session) => {
                let mut state = session.watch_state();
                // An error means the session's task has gone: as good as lost.
                let _state = state.wait_for(|state| *state != SessionState::Open).await;
            }
        }
    }

    /// Lets another one lead now.
    pub(crate) async fn give_up(self) {
        if let Some(session) = self.session
            && let Err(error) = session.end(Some(Instant::now() + Duration::from_secs(1))).await
        {
            tracing::warn!(%error, "Nuwa was not told that this master stops; another one leads when its session ends");
        }
    }
}
