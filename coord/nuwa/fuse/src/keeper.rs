//! The mount's session: kept, and opened anew when it is over.

use std::sync::Arc;
use std::time::Duration;

use nuwa_api::{ClientError, NuwaClient, Session, SessionState};
use tokio::sync::Mutex;

/// See the module.
#[derive(Debug)]
pub(crate) struct Keeper {
    client: NuwaClient,
    ttl: Duration,
    description: String,
    current: Mutex<Option<Arc<Session>>>,
}

impl Keeper {
    pub(crate) fn new(client: NuwaClient, ttl: Duration, description: String) -> Self {
        Self { client, ttl, description, current: Mutex::default() }
    }

    pub(crate) fn client(&self) -> &NuwaClient {
        &self.client
    }

    /// One that is not known to be over. Waits for Nuwa.
    pub(crate) async fn session(&self) -> Result<Arc<Session>, ClientError> {
        let mut current = self.current.lock().await;
        if let Some(session) = current.as_ref().filter(|session| session.state() != SessionState::Lost) {
            return Ok(Arc::clone(session));
        }
        let session = Arc::new(self.client.open_session(self.ttl, self.description.clone(), None).await?);
        tracing::info!(session = session.id(), "session open");
        *current = Some(Arc::clone(&session));
        Ok(session)
    }

    /// The mount ends: so does its session, at once if Nuwa answers within `patience`.
    pub(crate) async fn end(&self, patience: Duration) {
        let Some(session) = self.current.lock().await.take() else { return };
        let deadline = Some(std::time::Instant::now() + patience);
        // Whoever still has it is about to be refused.
        if let Err(error) = session.end_shared(deadline).await {
            tracing::warn!(%error, "the session ends by itself");
        }
    }
}
