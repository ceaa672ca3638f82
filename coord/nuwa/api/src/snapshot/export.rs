//! A snapshot out of a cluster.

use std::io::Write;
use std::time::{Duration, Instant};

use kuafu::{CallError, CallOptions, Client, Code, Status};
use nuwa_model::proto::{SnapshotHeader, SnapshotRecord};

use super::error::SnapshotError;
use super::{Contents, Writer};
use crate::client::{ClientError, Freshness, NuwaClient};
use crate::proto::read_request::What as Question;
use crate::proto::{self, ExportReply, ExportRequest, NuwaAdminClient};

/// Between two rounds of asking all members.
const PAUSE: Duration = Duration::from_millis(200);
/// A member that has no more to do with an export is told so within this.
const END_TIMEOUT: Duration = Duration::from_secs(1);

/// Why no snapshot was written. What was written is none.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// Beginning again may help, with another member.
    #[error("take the tree from the cluster: {0}")]
    Client(#[from] ClientError),
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
}

/// The tree as it was at one revision, page by page, at one member.
#[derive(Debug)]
pub struct Export {
    member: Client,
    number: u64,
    header: SnapshotHeader,
    /// The page that came with the header.
    first: Option<Vec<SnapshotRecord>>,
    /// Behind which path the next page begins; empty: there is none.
    after: String,
}

impl NuwaClient {
    /// Begins an export. It has every change that was answered to anybody before the call. Members that follow are asked first.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn export(&self, deadline: Instant) -> Result<Export, ClientError> {
        let summary = Question::Summary(proto::GetSummary {});
        let (at_least, _) = self.read(summary, Freshness::Linearizable, Some(deadline)).await?;
        let request = ExportRequest { at_least, ..ExportRequest::default() };
        let leader = &self.inner.leader;
        loop {
            let mut last = "no member is configured".to_owned();
            for member in leader.others().into_iter().chain(leader.current()) {
                let left = deadline.saturating_duration_since(Instant::now());
                // One that does not answer leaves time for another.
                let options = CallOptions::within(left / 2);
                match NuwaAdminClient::new(member.clone()).export(&request, &options).await {
                    Ok(reply) => return Export::begun(member, reply.message),
                    Err(status) if is_final(&status) => {
                        let address = member.address().clone();
                        return Err(CallError::Refused { address, status }.into());
                    }
                    Err(status) => last = format!("{}: {status}", member.address()),
                }
            }
            if Instant::now() + PAUSE >= deadline {
                return Err(CallError::Deadline { last }.into());
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// Whether every member would say the same.
fn is_final(status: &Status) -> bool {
    matches!(status.code, Code::InvalidArgument | Code::Unimplemented | Code::PermissionDenied)
}

impl Export {
    fn begun(member: Client, reply: ExportReply) -> Result<Self, ClientError> {
        if let Some(refusal) = reply.refused {
            return Err(refusal.into());
        }
        let header = reply.header.ok_or(ClientError::Reply("an export without a header"))?;
        let first = reply.page.unwrap_or_default().records;
        Ok(Self { member, number: reply.export, header, first: Some(first), after: reply.next_after })
    }

    /// What it is of.
    #[must_use]
    pub fn header(&self) -> &SnapshotHeader {
        &self.header
    }

    /// The next records, maybe none of them; `None` if that was all.
    ///
    /// # Errors
    /// See [`ClientError`]. The member may have stopped, or have waited too long: then the export is over.
    pub async fn next_page(&mut self, timeout: Duration) -> Result<Option<Vec<SnapshotRecord>>, ClientError> {
        if let Some(first) = self.first.take() {
            return Ok(Some(first));
        }
        if self.after.is_empty() {
            return Ok(None);
        }
        let request =
            ExportRequest { export: self.number, after: self.after.clone(), ..ExportRequest::default() };
        let options = CallOptions::within(timeout);
        let reply = NuwaAdminClient::new(self.member.clone()).export(&request, &options).await;
        let reply = reply.map_err(|status| {
            ClientError::Call(CallError::Refused { address: self.member.address().clone(), status })
        })?;
        self.after = reply.message.next_after;
        Ok(Some(reply.message.page.unwrap_or_default().records))
    }

    /// The member may forget it.
    pub async fn end(self) {
        let request = ExportRequest { export: self.number, end: true, ..ExportRequest::default() };
        let options = CallOptions::within(END_TIMEOUT);
        if let Err(status) = NuwaAdminClient::new(self.member).export(&request, &options).await {
            tracing::debug!(%status, "an export ends with its time");
        }
    }
}

/// Writes the tree of a cluster, as it is at one revision. `cluster`: its name, for people. `timeout`: of each of the cluster's answers.
/// `progress` is told of each page.
///
/// # Errors
/// See [`ExportError`].
pub async fn save<W: Write>(
    client: &NuwaClient,
    cluster: &str,
    out: W,
    timeout: Duration,
    mut progress: impl FnMut(&Contents),
) -> Result<(W, Contents), ExportError> {
    let mut export = client.export(Instant::now() + timeout).await?;
    let saved = async {
        let header = SnapshotHeader { cluster: cluster.to_owned(), ..export.header().clone() };
        let mut writer = Writer::new(out, header)?;
        while let Some(records) = export.next_page(timeout).await? {
            writer.add(records)?;
            progress(writer.contents());
        }
        Ok(writer.finish()?)
    }
    .await;
    export.end().await;
    saved
}
