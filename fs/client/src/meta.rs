//! The namespace as the client needs it: a trait, and the masters behind it.
//!
//! What an implementation keeps:
//! - a mutation is applied exactly once while its session lives, and both calls wait for as long as no master answers;
//! - what fails is a Linux errno, the file system's own answer;
//! - a future may be polled on any thread (the runtime's handle is entered), and be dropped at any time: the mutation
//!   then happened or did not.

use coord_types::SessionId;
use futures::future::BoxFuture;
use kuafu::Code;
use master_api::model::{Answer, Mutated, Mutation, Query};
use master_api::{ClientError, MasterClient};

use crate::Errno;

/// Called with the session before (if any) and the new one.
pub type SessionCallback = Box<dyn Fn(Option<SessionId>, SessionId) + Send + Sync>;

/// The namespace.
pub trait Meta: Send + Sync + 'static {
    /// Changes it.
    fn mutate(&self, mutation: Mutation) -> BoxFuture<'_, Result<Mutated, Errno>>;

    /// Reads it, linearizably.
    fn query(&self, query: Query) -> BoxFuture<'_, Result<Answer, Errno>>;

    /// `callback` runs whenever a session was opened. What the one before held (orphans) is gone then.
    fn on_session(&self, callback: SessionCallback);

    /// Ends the session.
    fn close(&self) -> BoxFuture<'_, ()>;
}

/// How long closing a session may take; it ends with its lease anyway.
const CLOSE_PATIENCE: std::time::Duration = std::time::Duration::from_secs(2);

impl Meta for MasterClient {
    fn mutate(&self, mutation: Mutation) -> BoxFuture<'_, Result<Mutated, Errno>> {
        Box::pin(async move { Self::mutate(self, mutation).await.map_err(|error| errno(&error)) })
    }

    fn query(&self, query: Query) -> BoxFuture<'_, Result<Answer, Errno>> {
        Box::pin(async move { Self::query(self, query).await.map_err(|error| errno(&error)) })
    }

    fn on_session(&self, callback: SessionCallback) {
        Self::on_session(self, callback);
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(Self::close(self, std::time::Instant::now() + CLOSE_PATIENCE))
    }
}

/// What is not the file system's own answer is logged here, the only place that still knows it.
fn errno(error: &ClientError) -> Errno {
    match error {
        ClientError::Errno(_) => {}
        // For the caller to know, and in the master's audit log.
        ClientError::Refused { status, .. } if status.code == Code::PermissionDenied => {
            tracing::info!(%error, "not allowed");
        }
        error => tracing::error!(%error, "a master's refusal becomes an error of a file"),
    }
    error.errno().into()
}

impl From<master_api::Errno> for Errno {
    fn from(errno: master_api::Errno) -> Self {
        // Both are never 0.
        Self::new(errno.number()).unwrap_or(Self::EIO)
    }
}

#[cfg(test)]
mod tests {
    use kuafu::Status;

    use super::*;

    #[test]
    fn what_is_not_allowed_is_eacces() {
        let refused = |status| ClientError::Refused { address: "tcp://m:1".to_owned(), status };
        assert_eq!(errno(&refused(Status::permission_denied("alice may not"))), Errno::EACCES);
        assert_eq!(errno(&refused(Status::internal("broken"))), Errno::EIO);
        assert_eq!(errno(&ClientError::Errno(master_api::Errno::EACCES)), Errno::EACCES);
    }
}
