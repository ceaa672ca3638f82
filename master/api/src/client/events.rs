//! Events of directories, one call at a time. Who watches, what of, and from where on is the caller's to remember: `fs/client` does.

use std::time::Instant;

use super::background::HOLD;
use super::{ClientError, MasterClient};
use crate::convert;
use crate::model::{Watch, Watched};
use crate::proto::NamespaceClient;

impl MasterClient {
    /// One request of a watcher of directories (`master/docs/events.md`). It waits for events at most as long as a master may be
    /// silent before others are asked, and then says that there are none. Goes on over failovers; the answer may be
    /// [`Watched::Unknown`] after one, and after a change of session.
    ///
    /// # Errors
    /// See [`ClientError`]; refused if there are more directories in it than [`crate::model::event::WATCH_CHANGES_MAX`], or the
    /// session has too many watchers.
    pub async fn watch(&self, watch: &Watch, deadline: Option<Instant>) -> Result<Watched, ClientError> {
        let wait = watch.wait.min(HOLD).min(self.shared.config.attempt_timeout / 2);
        loop {
            let session = self.shared.session(deadline).await?;
            let request = Watch { wait, ..watch.clone() }.request(session);
            let message = &request;
            let reply = self
                .shared
                .call(deadline, |master, options| async move {
                    NamespaceClient::new(master).watch(message, &options).await
                })
                .await?;
            match reply {
                Some(reply) => return Ok(convert::watched(reply)?),
                None => self.shared.session_lost(session),
            }
        }
    }
}
