//! How much history is kept, and how much may be.

use std::time::Instant;

use kuafu::Response;

use crate::client::{ClientError, NuwaClient};
use crate::proto::read_reply::What as Answer;
use crate::proto::read_request::What as Question;
use crate::proto::{self, ExportRequest, NuwaAdminClient, NuwaClient as Wire, SnapshotHeader};

/// The events that are kept for watches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// All events from this revision on are kept.
    pub first: u64,
    pub events: u64,
    pub bytes: u64,
    /// At most so many; 0: the default.
    pub events_max: u64,
    /// At most so many; 0: the default.
    pub bytes_max: u64,
}

impl NuwaClient {
    /// What is kept, and what is the limit.
    ///
    /// Only the head of a snapshot has the limits, so an export is begun and ended: this is for people, not for loops. Both questions go
    /// to one member, the leader: a limit takes no revision, so another member could not be told to wait until it has it.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn history(&self, deadline: Option<Instant>) -> Result<History, ClientError> {
        let what = Some(Question::Summary(proto::GetSummary {}));
        let question = &proto::ReadRequest { what, ..proto::ReadRequest::default() };
        let call = self.inner.leader.call(deadline, |member, options| async move {
            let read = Wire::new(member.clone()).read(question, &options).await?;
            let admin = NuwaAdminClient::new(member);
            let begun = admin.export(&ExportRequest::default(), &options).await?;
            let end = ExportRequest { export: begun.message.export, end: true, ..ExportRequest::default() };
            // One that is not ended goes with its time.
            let _ = admin.export(&end, &options).await;
            Ok(Response::new((read.message, begun.message)))
        });
        let (read, exported) = call.await?;
        if let Some(refusal) = exported.refused {
            return Err(refusal.into());
        }
        let header = exported.header.ok_or(ClientError::Reply("an export without a header"))?;
        match read.what {
            Some(Answer::Summary(summary)) => Ok(History::of(&summary, &header)),
            Some(Answer::Refused(refusal)) => Err(refusal.into()),
            _ => Err(ClientError::Reply("no summary for a summary")),
        }
    }
}

impl History {
    fn of(summary: &proto::Summary, header: &SnapshotHeader) -> Self {
        Self {
            first: summary.history_first,
            events: summary.history_events,
            bytes: summary.history_bytes,
            events_max: header.history_events_max,
            bytes_max: header.history_bytes_max,
        }
    }
}
